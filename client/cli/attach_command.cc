// SPDX-License-Identifier: Apache-2.0
//
// faultline attach
#include <absl/strings/str_cat.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/attach/process_attach.h"
#include "client/attach/target_memory.h"
#include "client/attachment.h"
#include "client/cli/command.h"
#include "client/cli/flags.h"
#include "client/cli/print.h"
#include "client/lib/agent_connection.h"
#include "client/prefetch/prefetcher.h"
#include "client/source/working_sets.h"
#include "proto/page.h"
#include "proto/units.h"

namespace faultline {
namespace {

using nlohmann::json;

// Longer than an agent tries to open a volume.
constexpr std::chrono::seconds kAnswerTimeout{30};

struct AttachFlags {
  pid_t pid = 0;
  std::string match;
  uint64_t anonymous_bytes = 0;
  AddressRange range;
  std::string volume;
  uint64_t offset_bytes = 0;
  bool is_part = false;  // of the volume: an offset was given, even if it is 0
  std::string socket;
  std::optional<bool> drain;
  std::string prefetch, working_set, shared_discard;  // empty: as the agent has been told
  ProcessAttachOptions attach;

  MemoryChoice Choice() const {
    if (!match.empty()) return MemoryOfFile{match};
    if (anonymous_bytes != 0) return AnonymousMemory{anonymous_bytes};
    return range;
  }
};

absl::Status ToStatus(const Failure& failure) {
  return failure.ok() ? absl::OkStatus() : absl::UnavailableError(failure.message);
}

// So that it is not the target that pays for a size or a name that is wrong.
absl::Status CheckVolume(const AttachFlags& flags, const TargetMemory& memory,
                         AgentConnection* agent) {
  json answer;
  const Failure failure = agent->Ask({{"query", "volume"}, {"volume", flags.volume}}, {}, &answer);
  if (!failure.ok()) return ToStatus(failure);
  const auto size = answer.find("size");
  if (size == answer.end() || !size->is_number_unsigned()) {
    return absl::InternalError(
        absl::StrCat("the agent did not tell the volume's size: ", answer.dump()));
  }
  const auto volume_bytes = size->get<uint64_t>();
  const uint64_t offset = flags.offset_bytes;
  const bool fits = flags.is_part
                        ? offset <= volume_bytes && memory.range.length <= volume_bytes - offset
                        : memory.range.length == volume_bytes;
  if (fits) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the memory has ", FormatBytes(memory.range.length), ", but volume ", flags.volume, " has ",
      FormatBytes(volume_bytes),
      flags.is_part ? absl::StrCat(", too few from offset ", FormatBytes(offset), " on")
                    : "; choose another volume, or say with --offset=0 that a part of it is "
                      "meant"));
}

json HandoverOf(const AttachFlags& flags, const TargetMemory& memory) {
  json mapping = {{"base_host_virt_addr", memory.range.start},
                  {"size", memory.range.length},
                  {"offset", flags.offset_bytes},
                  {"page_size", kPageSize}};
  if (memory.shared) mapping["memfd"] = 1;
  json request = {{"volume", flags.volume},
                  {"mappings", json::array({mapping})},
                  {"mode", "lazy"},
                  {"pidfd", 0}};
  if (flags.drain) request["drain"] = *flags.drain;
  if (!flags.prefetch.empty()) request["prefetch"] = flags.prefetch;
  if (!flags.working_set.empty()) request["working_set"] = flags.working_set;
  if (!flags.shared_discard.empty()) request["shared_discard"] = flags.shared_discard;
  return request;
}

// Holds back what ends a command, from when the target may wait for an agent until it has one.
class HeldSignals {
 public:
  HeldSignals() {
    sigset_t held;
    sigemptyset(&held);
    for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGTERM}) sigaddset(&held, signal);
    pthread_sigmask(SIG_BLOCK, &held, &before_);
  }
  ~HeldSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;

 private:
  sigset_t before_;
};

// Returns the attachment's id.
absl::StatusOr<uint64_t> HandOver(const AttachFlags& flags, const TargetMemory& memory, int pidfd,
                                  TakenMemory taken, AgentConnection* agent) {
  std::vector<int> descriptors = {taken.uffd.get(), pidfd};
  if (memory.shared) descriptors.push_back(memory.file.get());
  json answer;
  const Failure failure = agent->Ask(HandoverOf(flags, memory), descriptors, &answer);
  if (failure.ok()) return answer.value("attachment", uint64_t{0});
  if (failure.code == EREMOTEIO) {
    // It was refused, so it is not attached.
    const absl::Status back = GiveBack(std::move(taken));
    return absl::UnavailableError(
        absl::StrCat(failure.message, back.ok() ? "" : absl::StrCat(" (", back.message(), ")")));
  }
  // The agent may have it, and the other answer would be silent zeros.
  return absl::UnavailableError(absl::StrCat(
      failure.message, "; process ", flags.pid,
      " may be attached or not (faultline attachments tells): if not, it waits at the first page "
      "that it touches, and has to be killed"));
}

absl::Status Attach(const Session& session, const AttachFlags& flags) {
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, flags.pid, 0)));
  if (!pidfd && errno == ESRCH) {
    return absl::NotFoundError(absl::StrCat("there is no process ", flags.pid));
  }
  if (!pidfd) {
    return absl::FailedPreconditionError(
        absl::StrCat("pidfd_open of process ", flags.pid, ": ", strerror(errno)));
  }
  const absl::StatusOr<TargetMemory> memory = FindTargetMemory(flags.pid, flags.Choice());
  if (!memory.ok()) return memory.status();
  AgentConnection agent(kAnswerTimeout);
  if (Failure failure = agent.Connect(flags.socket); !failure.ok()) return ToStatus(failure);
  if (absl::Status status = CheckVolume(flags, *memory, &agent); !status.ok()) return status;
  const HeldSignals held;
  absl::StatusOr<TakenMemory> taken = TakeMemory(flags.pid, pidfd.get(), *memory, flags.attach);
  if (!taken.ok()) return taken.status();
  const InjectionTimes times = taken->times;
  const int descriptor = taken->target_descriptor;
  const absl::StatusOr<uint64_t> id =
      HandOver(flags, *memory, pidfd.get(), *std::move(taken), &agent);
  if (!id.ok()) return id.status();
  if (session.output == OutputFormat::kJson) {
    PrintJson({{"attachment", *id},
               {"pid", flags.pid},
               {"volume", flags.volume},
               {"address", memory->range.start},
               {"size_bytes", memory->range.length},
               {"descriptor", descriptor},
               {"stopped_us", absl::ToDoubleMicroseconds(times.stopped)},
               {"altered_us", absl::ToDoubleMicroseconds(times.altered)}});
  } else {
    PrintText(absl::StrCat(
        "attached ", FormatBytes(memory->range.length), " of process ", flags.pid, " to volume ",
        flags.volume, " as attachment ", *id, "; the process was stopped for ",
        absl::FormatDuration(absl::Trunc(times.stopped, absl::Microseconds(1))), "\n"));
  }
  return absl::OkStatus();
}

void AddMemoryFlags(CLI::App* command, AttachFlags* flags) {
  CLI::Option_group* memory =
      command->add_option_group("memory", "Which of its memory; one of these");
  memory->require_option(1);
  memory
      ->add_option("--match", flags->match,
                   "The mapping of this file on tmpfs, or of the memfd \"/memfd:NAME\"")
      ->option_text("PATH");
  AddParsed(memory, "--anonymous", "SIZE", "The private anonymous mapping of exactly this size",
            &ParseWholePages, &flags->anonymous_bytes);
  AddParsed(memory, "--range", "START-END", "These addresses, as /proc/PID/maps has them",
            &ParseAddressRange, &flags->range);
}

void AddPolicyFlags(CLI::App* command, AttachFlags* flags) {
  command->add_flag("--drain,!--no-drain", flags->drain,
                    "Fetch everything that is left, behind the faults [as the agent's flag]");
  const auto add_checked = [command](const char* name, const char* form, const char* text,
                                     auto parse, std::string* value) {
    command->add_option(name, *value, text)
        ->option_text(form)
        ->check([parse](const std::string& given) {
          const auto parsed = parse(given);
          return parsed.ok() ? std::string() : std::string(parsed.status().message());
        });
  };
  add_checked("--prefetch", "POLICY",
              "none, sequential, majority, streams or cluster [as the agent's flag]",
              &ParsePrefetchPolicy, &flags->prefetch);
  add_checked("--working-set", "USE", "none, record, replay or both [as the agent's flag]",
              &ParseWorkingSetUse, &flags->working_set);
  add_checked(
      "--shared-discard", "WHAT",
      "What shared memory reads as that is discarded before it was filled: keep (the "
      "volume) or zero (a QEMU with a balloon or free page reporting) [as the agent's flag]",
      &ParseSharedDiscard, &flags->shared_discard);
}

}  // namespace

void RegisterAttachCommand(CLI::App* app, Session* session) {
  CLI::App* command = app->add_subcommand(
      "attach",
      "Attaches memory of a process that runs already, with no library in it, to a volume. The "
      "process is stopped for a moment, and opens a userfaultfd without knowing of it, which stays "
      "open there. Its memory must not have been touched yet, and may not be used by another "
      "process, nor through read and write of its file.");
  const auto flags = std::make_shared<AttachFlags>();
  command->add_option("--pid", flags->pid, "The process")->required()->option_text("PID");
  AddMemoryFlags(command, flags.get());
  command->add_option("--volume", flags->volume, "Where its pages come from")
      ->required()
      ->option_text("NAME");
  const CLI::Option* offset =
      AddParsed(command, "--offset", "SIZE",
                "Where in the volume the memory begins; without it, both have the same size",
                &ParseWholePages, &flags->offset_bytes);
  command->add_option("--socket", flags->socket, "Path of the agent's handover socket")
      ->envname("FAULTLINE_SOCKET")
      ->default_val("/run/faultline/agent.sock");
  AddPolicyFlags(command, flags.get());
  command
      ->add_option("--device", flags->attach.device,
                   "Node of userfaultfd that a process without the privilege opens, as it sees it")
      ->option_text("PATH [/dev/userfaultfd]");
  command->footer(
      "Example:  qemu-system-x86_64 ... -incoming defer &\n"
      "          faultline attach --pid=$! --match=/dev/shm/vm.mem --volume=vm --drain");
  command->callback([session, flags, offset] {
    flags->is_part = offset->count() > 0;
    session->run = [=] { return Attach(*session, *flags); };
  });
}

}  // namespace faultline
