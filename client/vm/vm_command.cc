// SPDX-License-Identifier: Apache-2.0
//
// faultline vm save|restore|offer|accept
#include <absl/strings/str_cat.h>

#include <memory>
#include <string>

#include <CLI/CLI.hpp>

#include "client/cli/command.h"
#include "client/cli/flags.h"
#include "client/vm/vm_accept.h"
#include "client/vm/vm_offer.h"
#include "client/vm/vm_output.h"
#include "client/vm/vm_restore.h"
#include "client/vm/vm_save.h"
#include "proto/units.h"
#include "proto/volume_name.h"

namespace faultline {
namespace {

struct VmFlags {
  VmSaveOptions save;
  VmRestoreOptions restore;
  VmOfferOptions offer;
  VmAcceptOptions accept;
};

void AddQmp(CLI::App* app, std::string* qmp) {
  app->add_option("--qmp", *qmp,
                  "Path of QEMU's QMP socket, of -qmp unix:PATH,server=on,wait=off, that no other "
                  "client is connected to")
      ->required();
}

// The command that starts QEMU, and how its RAM comes.
void AddIncoming(CLI::App* app, GuestMemory* memory, std::vector<std::string>* command) {
  CLI::Option* drain = app->add_flag_callback(
      "--drain", [memory] { memory->drain = true; },
      "Fetch all of the RAM behind the faults, and tell how far it is");
  app->add_flag_callback(
         "--lazy", [memory] { memory->drain = false; },
         "Fetch nothing but what is touched (and guessed, with --prefetch)")
      ->excludes(drain);
  app->add_option(
         "--prefetch", memory->prefetch,
         "Pages to fetch before they are touched: none, sequential, majority, streams or cluster")
      ->option_text("POLICY [as the agent's]");
  AddParsed(app, "--fault-policy", "stop|wait|poison|kill [stop]",
            "What becomes of the machine when its pages do not come: stop (it is stopped after the "
            "deadline, and goes on when they come), wait, poison (the access gets SIGBUS, of which "
            "QEMU ends) or kill",
            &ParseVmFaultPolicy, &memory->fault_policy);
  AddParsed(
      app, "--fault-deadline", "DURATION [1m]",
      "How long a fault waits for a page server that does not answer, before the fault policy "
      "decides",
      &ParseDuration, &memory->fault_deadline);
  app->add_option("COMMAND", *command,
                  "Command line that starts QEMU with the machine as it was saved, after --; its "
                  "-incoming is added. For RAM use -object memory-backend-ram, which gives memory "
                  "back exactly")
      ->required();
}

void AddSave(CLI::App* group, Session* session, const std::shared_ptr<VmFlags>& flags) {
  CLI::App* app = group->add_subcommand(
      "save",
      "Saves the machine of a running QEMU: its RAM as volume NAME, its device state as volume "
      "NAME-state.\nThe RAM must be a memory backend with share=on. The machine is stopped "
      "meanwhile, and stays so unless told otherwise. Disks are not saved.");
  AddQmp(app, &flags->save.qmp);
  app->add_option("--volume", flags->save.store.volume, "Name of the volume")->required();
  CLI::Option* go_on = app->add_flag_callback(
      "--continue", [flags] { flags->save.after = AfterSave::kContinue; },
      "Let the machine go on afterwards");
  app->add_flag_callback(
         "--quit", [flags] { flags->save.after = AfterSave::kQuit; }, "End its QEMU afterwards")
      ->excludes(go_on);
  app->add_flag("--replace", flags->save.store.replace,
                "Replace a machine that is saved under this name");
  AddParsed(app, "--codec", "raw|lz4|zstd [raw]", "How pages are compressed", ParseCodec,
            &flags->save.store.codec);
  app->footer("Example:  faultline vm save --qmp=/run/vm1.qmp --volume=vm1 --quit");
  app->callback([session, flags] {
    session->run = [session, flags] {
      VmSaveOptions options = flags->save;
      options.server = session->server;
      options.tls = session->tls;
      if (absl::Status status = CheckVolumeName(options.store.volume); !status.ok()) return status;
      return SaveVm(options, VmOutput("vm save", session->output));
    };
  });
}

void AddRestore(CLI::App* group, Session* session, const std::shared_ptr<VmFlags>& flags) {
  CLI::App* app = group->add_subcommand(
      "restore",
      "Starts a QEMU with a saved machine, which runs at once: pages of its RAM come as they are "
      "touched.\nQEMU ends with this command, and this command with QEMU. It tells what happens on "
      "the standard error. Any number may run from what was saved once.");
  app->add_option("--volume", flags->restore.memory.volume, "Name that the machine is saved under")
      ->required();
  app->add_option("--socket", flags->restore.memory.agent_socket,
                  "Path of the agent's handover socket")
      ->envname("FAULTLINE_SOCKET")
      ->default_val("/run/faultline/agent.sock");
  app->add_option("--working-set", flags->restore.memory.working_set,
                  "What becomes of the pages that faults ask for: none, record (for later restores "
                  "of this volume), replay (fetch those of earlier ones first) or both")
      ->option_text("USE [as the agent's]");
  AddIncoming(app, &flags->restore.memory, &flags->restore.command);
  app->footer(
      "Example:  faultline vm restore --volume=vm1 --drain -- qemu-system-x86_64 -m 512 \\\n"
      "            -machine pc,memory-backend=mem0 -object memory-backend-ram,id=mem0,size=512M");
  app->callback([session, flags] {
    session->run = [session, flags] {
      VmRestoreOptions options = flags->restore;
      options.server = session->server;
      options.tls = session->tls;
      if (absl::Status status = CheckVolumeName(options.memory.volume); !status.ok()) return status;
      return RestoreVm(options, VmOutput("vm restore", session->output));
    };
  });
}

// The state of a machine that moves goes in the clear, so that TLS for its pages would only seem to
// protect it.
absl::Status CheckNoTls(const Session& session, absl::string_view command) {
  if (!session.tls.files.any()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(command,
                   " speaks no TLS, so it takes neither --tls-ca, --tls-cert and --tls-key nor "
                   "FAULTLINE_TLS_... of the environment (env -u FAULTLINE_TLS_CA ...); use a "
                   "network that may be trusted, or a tunnel"));
}

void AddOffer(CLI::App* group, Session* session, const std::shared_ptr<VmFlags>& flags) {
  CLI::App* app = group->add_subcommand(
      "offer",
      "Offers the machine of a running QEMU to one \"faultline vm accept\", which runs it at once: "
      "its RAM is served from here, in place, until the other end has all of it; then this QEMU "
      "quits.\nUntil the other end runs the machine, a signal or a failure there lets it go on "
      "here; afterwards it never does by itself.");
  AddQmp(app, &flags->offer.qmp);
  app->add_option("--listen", flags->offer.listen,
                  "Where the other end connects: host:port or unix:path. There is no "
                  "authentication: loopback, a private network or a Unix socket only")
      ->required();
  CLI::Option* pages = app->add_option(
      "--pages", flags->offer.pages,
      "Where the RAM is served [any port of that host, or the path and \".pages\"]");
  app->add_flag("--resume", flags->offer.resume,
                "Serve again the RAM of a machine that the other end runs already, after its offer "
                "was killed; with the same --qmp and --listen, and --pages as that offer has said")
      ->needs(pages);
  app->footer("Example:  faultline vm offer --qmp=/run/vm1.qmp --listen=10.0.0.1:7500");
  app->callback([session, flags] {
    session->run = [session, flags] {
      if (absl::Status status = CheckNoTls(*session, "vm offer"); !status.ok()) return status;
      return OfferVm(flags->offer, VmOutput("vm offer", session->output));
    };
  });
}

void AddAccept(CLI::App* group, Session* session, const std::shared_ptr<VmFlags>& flags) {
  CLI::App* app = group->add_subcommand("accept",
                                        "Takes over the machine that \"faultline vm offer\" "
                                        "offers: it runs at once, in a QEMU that is "
                                        "started here, and its RAM comes from there, all of it "
                                        "unless told otherwise.\nQEMU ends with "
                                        "this command, and this command with QEMU.");
  app->add_option("--from", flags->accept.from, "Where it is offered: host:port or unix:path")
      ->required();
  AddIncoming(app, &flags->accept.memory, &flags->accept.command);
  app->footer(
      "Example:  faultline vm accept --from=10.0.0.1:7500 -- qemu-system-x86_64 -m 512 \\\n"
      "            -machine pc,memory-backend=mem0 -object memory-backend-ram,id=mem0,size=512M");
  app->callback([session, flags] {
    session->run = [session, flags] {
      if (absl::Status status = CheckNoTls(*session, "vm accept"); !status.ok()) return status;
      VmAcceptOptions options = flags->accept;
      if (!options.memory.drain.has_value()) options.memory.drain = true;
      return AcceptVm(options, VmOutput("vm accept", session->output));
    };
  });
}

}  // namespace

void RegisterVmCommands(CLI::App* app, Session* session) {
  CLI::App* group = app->add_subcommand("vm", "Saves, restores and moves virtual machines of QEMU");
  group->require_subcommand(1);
  const auto flags = std::make_shared<VmFlags>();
  AddSave(group, session, flags);
  AddRestore(group, session, flags);
  AddOffer(group, session, flags);
  AddAccept(group, session, flags);
}

}  // namespace faultline
