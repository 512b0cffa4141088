// SPDX-License-Identifier: Apache-2.0
//
// faultline volume
// create|list|stat|import|export|snapshot|clone|trim|working-set|grant|revoke|delete
#include <absl/strings/str_cat.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/cli/batch_pipe.h"
#include "client/cli/command.h"
#include "client/cli/flags.h"
#include "client/cli/format.h"
#include "client/cli/image_reader.h"
#include "client/cli/image_writer.h"
#include "client/cli/print.h"
#include "client/cli/progress_line.h"
#include "client/remote/admin_client.h"
#include "proto/units.h"
#include "proto/volume_name.h"

namespace faultline {
namespace {

// The flags of all volume commands; each uses some.
struct VolumeFlags {
  std::string name;
  std::string other_name;  // of a snapshot or clone
  std::string file;
  uint64_t size_bytes = 0;
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
  rpc::Durability durability = rpc::DURABILITY_SYNC;
  Codec codec = Codec::kRaw;
  bool replace = false;
  Overwrite overwrite = Overwrite::kNo;
  bool list = false;   // of a working set: its runs too
  bool clear = false;  // a working set
  std::string identity;
  rpc::VolumeRole role = rpc::VOLUME_ROLE_NONE;
};

absl::Status PrintVolume(const Session& session, const absl::StatusOr<rpc::Volume>& volume,
                         absl::string_view done) {
  if (!volume.ok()) return volume.status();
  if (session.output == OutputFormat::kJson) {
    PrintJson(VolumeToJson(*volume));
  } else {
    PrintText(absl::StrCat(done, "\n"));
  }
  return absl::OkStatus();
}

absl::Status Create(const Session& session, const VolumeFlags& flags, AdminClient* client) {
  rpc::CreateVolumeRequest request;
  request.set_name(flags.name);
  request.set_size_bytes(flags.size_bytes);
  request.set_durability(flags.durability);
  return PrintVolume(
      session, client->CreateVolume(request),
      absl::StrCat("created volume ", flags.name, " of ", FormatBytes(flags.size_bytes)));
}

absl::Status List(const Session& session, const VolumeFlags&, AdminClient* client) {
  const absl::StatusOr<std::vector<rpc::Volume>> volumes = client->ListVolumes();
  if (!volumes.ok()) return volumes.status();
  if (session.output == OutputFormat::kJson) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const rpc::Volume& volume : *volumes) list.push_back(VolumeToJson(volume));
    PrintJson(list);
  } else {
    PrintText(FormatVolumes(*volumes));
  }
  return absl::OkStatus();
}

absl::Status Stat(const Session& session, const VolumeFlags& flags, AdminClient* client) {
  const absl::StatusOr<rpc::Volume> volume = client->StatVolume(flags.name);
  if (!volume.ok()) return volume.status();
  if (session.output == OutputFormat::kJson) {
    PrintJson(VolumeToJson(*volume));
  } else {
    PrintText(FormatVolume(*volume));
  }
  return absl::OkStatus();
}

std::string Speed(uint64_t bytes, absl::Duration time) {
  const double seconds = std::max(absl::ToDoubleSeconds(time), 1e-3);
  return absl::StrCat(
      FormatBytes(bytes), " in ", absl::FormatDuration(absl::Trunc(time, absl::Milliseconds(1))),
      ", ", static_cast<uint64_t>(static_cast<double>(bytes) / seconds / (1 << 20)), " MiB/s");
}

absl::Status Import(const Session& session, const VolumeFlags& flags, AdminClient* client) {
  const auto reader = ImageReader::Open(flags.file, flags.codec);
  if (!reader.ok()) return reader.status();
  rpc::ImportVolumeRequest::Begin begin;
  begin.set_name(flags.name);
  begin.set_size_bytes((*reader)->size_bytes());
  begin.set_durability(flags.durability);
  begin.set_replace(flags.replace);
  ProgressLine progress(absl::StrCat("import ", flags.name));
  BatchPipe pipe(reader->get());
  const absl::StatusOr<rpc::Volume> volume =
      client->ImportVolume(begin, [&](rpc::PageBatch* batch) {
        progress.Update((*reader)->position_bytes(), (*reader)->size_bytes());
        return pipe.Next(batch);
      });
  return PrintVolume(session, volume,
                     absl::StrCat("imported ", flags.file, " into volume ", flags.name, " (",
                                  Speed((*reader)->size_bytes(), progress.elapsed()), ")"));
}

absl::Status Export(const Session& session, const VolumeFlags& flags, AdminClient* client) {
  const auto writer = ImageWriter::Open(flags.file, flags.overwrite);
  if (!writer.ok()) return writer.status();
  ProgressLine progress(absl::StrCat("export ", flags.name));
  uint64_t size = 0;
  absl::Status status =
      client->ExportVolume(flags.name, [&](uint64_t size_bytes, const rpc::PageBatch& batch) {
        size = size_bytes;
        progress.Update((*writer)->position_bytes(), size_bytes);
        return (*writer)->Append(size_bytes, batch);
      });
  if (status.ok()) status = (*writer)->Commit();
  if (!status.ok()) return status;
  if (flags.file == "-") return absl::OkStatus();
  if (session.output == OutputFormat::kJson) {
    PrintJson(nlohmann::ordered_json{{"name", flags.name},
                                     {"file", flags.file},
                                     {"size_bytes", size},
                                     {"data_bytes", (*writer)->data_bytes()},
                                     {"seconds", absl::ToDoubleSeconds(progress.elapsed())}});
  } else {
    PrintText(absl::StrCat("exported volume ", flags.name, " to ", flags.file, " (",
                           Speed(size, progress.elapsed()), ")\n"));
  }
  return absl::OkStatus();
}

absl::Status Snapshot(const Session& session, const VolumeFlags& flags, AdminClient* client) {
  return PrintVolume(
      session, client->SnapshotVolume(flags.name, flags.other_name),
      absl::StrCat("froze the content of volume ", flags.name, " as snapshot ", flags.other_name));
}

absl::Status Clone(const Session& session, const VolumeFlags& flags, AdminClient* client) {
  return PrintVolume(
      session, client->CloneVolume(flags.name, flags.other_name),
      absl::StrCat("created volume ", flags.other_name, " as a clone of snapshot ", flags.name));
}

absl::Status Trim(const Session& session, const VolumeFlags& flags, AdminClient* client) {
  rpc::TrimVolumeRequest request;
  request.set_name(flags.name);
  request.set_offset_bytes(flags.offset_bytes);
  request.set_length_bytes(flags.length_bytes);
  return PrintVolume(session, client->TrimVolume(request),
                     absl::StrCat("trimmed ", FormatBytes(flags.length_bytes), " of volume ",
                                  flags.name, " from byte ", flags.offset_bytes));
}

absl::Status ClearWorkingSet(const Session& session, const VolumeFlags& flags,
                             AdminClient* client) {
  if (absl::Status status = client->ClearWorkingSet(flags.name); !status.ok()) return status;
  if (session.output == OutputFormat::kJson) {
    PrintJson(nlohmann::ordered_json{{"cleared", flags.name}});
  } else {
    PrintText(absl::StrCat("cleared the working set of ", flags.name, "\n"));
  }
  return absl::OkStatus();
}

absl::Status ShowWorkingSet(const Session& session, const VolumeFlags& flags, AdminClient* client) {
  if (flags.clear) return ClearWorkingSet(session, flags, client);
  const absl::StatusOr<WorkingSet> kept = client->GetWorkingSet(flags.name);
  if (!kept.ok()) return kept.status();
  const PageSet* const set = &kept->pages();
  nlohmann::ordered_json written = {{"name", flags.name},
                                    {"pages", set->count().raw()},
                                    {"runs", set->CountRuns()},
                                    {"bytes", set->count().in_bytes()}};
  std::vector<std::vector<std::string>> rows;
  if (flags.list) {
    nlohmann::ordered_json& list = written["list"] = nlohmann::ordered_json::array();
    for (PageRange run = set->NextRun(PageIndex(0)); !run.empty(); run = set->NextRun(run.end())) {
      list.push_back({{"first", run.first.raw()}, {"count", run.count.raw()}});
      rows.push_back({absl::StrCat(run.first.raw()), absl::StrCat(run.count.raw())});
    }
  }
  if (session.output == OutputFormat::kJson) {
    PrintJson(written);
  } else if (flags.list) {
    PrintText(FormatTable({"FIRST", "COUNT"}, rows));
  } else {
    PrintText(FormatFields({{"name", flags.name},
                            {"pages", absl::StrCat(set->count().raw())},
                            {"runs", absl::StrCat(set->CountRuns())},
                            {"bytes", FormatBytes(set->count().in_bytes())}}));
  }
  return absl::OkStatus();
}

absl::Status Grant(const Session& session, const VolumeFlags& flags, AdminClient* client) {
  return PrintVolume(session, client->SetVolumeRole(flags.name, flags.identity, flags.role),
                     absl::StrCat(flags.identity, " is ", RoleName(flags.role), " of volume ",
                                  flags.name, " now"));
}

absl::Status Revoke(const Session& session, const VolumeFlags& flags, AdminClient* client) {
  return PrintVolume(
      session, client->SetVolumeRole(flags.name, flags.identity, rpc::VOLUME_ROLE_NONE),
      absl::StrCat(flags.identity, " has no role with volume ", flags.name, " any more"));
}

absl::Status Delete(const Session& session, const VolumeFlags& flags, AdminClient* client) {
  if (absl::Status status = client->DeleteVolume(flags.name); !status.ok()) return status;
  if (session.output == OutputFormat::kJson) {
    PrintJson(nlohmann::ordered_json{{"deleted", flags.name}});
  } else {
    PrintText(absl::StrCat("deleted ", flags.name, "\n"));
  }
  return absl::OkStatus();
}

using Command = absl::Status (*)(const Session&, const VolumeFlags&, AdminClient*);

// Adds one command to `group`; its flags are added by the caller.
CLI::App* AddCommand(CLI::App* group, Session* session, const std::shared_ptr<VolumeFlags>& flags,
                     const std::string& name, const std::string& description, Command command) {
  CLI::App* app = group->add_subcommand(name, description);
  app->callback([session, flags, command] {
    session->run = [session, flags, command]() -> absl::Status {
      for (const std::string* given : {&flags->name, &flags->other_name}) {
        if (given->empty()) continue;  // not given; where it must be, the server says so
        if (absl::Status status = CheckVolumeName(*given); !status.ok()) return status;
      }
      const auto client = AdminClient::Create({.address = session->server, .tls = session->tls});
      if (!client.ok()) return client.status();
      return command(*session, *flags, client->get());
    };
  });
  return app;
}

void AddName(CLI::App* app, VolumeFlags* flags, const std::string& what = "Name of the volume") {
  app->add_option("NAME", flags->name, what)->required();
}

void AddDurability(CLI::App* app, VolumeFlags* flags) {
  AddParsed(app, "--durability", "sync|interval|none [sync]",
            "When a write is acknowledged: once it would survive a power failure (sync), the "
            "death of the server, with the disk following within its --sync-interval (interval), "
            "or whenever the system writes it (none)",
            ParseDurability, &flags->durability);
}

void AddTransferCommands(CLI::App* group, Session* session,
                         const std::shared_ptr<VolumeFlags>& flags) {
  CLI::App* app = AddCommand(group, session, flags, "import",
                             "Makes FILE, a raw image, the content of a volume, which is created "
                             "where there is none.\nThe volume changes at the end, all at once, or "
                             "not at all.",
                             Import);
  AddName(app, flags.get());
  app->add_option("FILE", flags->file, "Raw image; holes and zeros cost nothing")->required();
  AddParsed(app, "--codec", "raw|lz4|zstd [raw]",
            "How pages are compressed; lz4 and zstd save space and bandwidth, raw has the least "
            "latency",
            ParseCodec, &flags->codec);
  app->add_flag("--replace", flags->replace, "Replace the content of a volume that holds pages");
  AddDurability(app, flags.get());
  app->footer("Example:  faultline volume import disk disk.raw --codec=zstd");

  app = AddCommand(group, session, flags, "export",
                   "Writes the content of a volume or snapshot to FILE, a raw, sparse image.",
                   Export);
  AddName(app, flags.get(), "Name of the volume or snapshot");
  app->add_option("FILE", flags->file, "Raw image to write; \"-\": the standard output")
      ->required();
  app->add_flag_callback(
      "--force", [flags] { flags->overwrite = Overwrite::kYes; }, "Overwrite FILE");
  app->footer("Example:  faultline volume export disk - | sha256sum");
}

void AddLayerCommands(CLI::App* group, Session* session,
                      const std::shared_ptr<VolumeFlags>& flags) {
  CLI::App* app = AddCommand(group, session, flags, "snapshot",
                             "Freezes the content of a volume under a new, read-only name. Takes "
                             "no time and no space.",
                             Snapshot);
  AddName(app, flags.get());
  app->add_option("SNAPSHOT", flags->other_name, "Name of the new snapshot")->required();
  app->footer("Example:  faultline volume snapshot disk disk-monday");

  app = AddCommand(group, session, flags, "clone",
                   "Creates a writable volume that starts with the content of a snapshot.", Clone);
  app->add_option("SNAPSHOT", flags->name, "Name of the snapshot")->required();
  app->add_option("NAME", flags->other_name, "Name of the new volume")->required();
  app->footer("Example:  faultline volume clone disk-monday disk2");

  app = AddCommand(group, session, flags, "trim", "Makes a range of a volume read as zero.", Trim);
  AddName(app, flags.get());
  AddParsed(app, "--offset", "SIZE", "Where the range begins, in bytes; a multiple of 4KiB",
            ParseWholePages, &flags->offset_bytes)
      ->required();
  AddParsed(app, "--length", "SIZE", "Length of the range, in bytes; a multiple of 4KiB",
            ParseWholePages, &flags->length_bytes)
      ->required();
  app->footer("Example:  faultline volume trim disk --offset=1GiB --length=64KiB");
}

void AddWorkingSetCommand(CLI::App* group, Session* session,
                          const std::shared_ptr<VolumeFlags>& flags) {
  CLI::App* app = AddCommand(group, session, flags, "working-set",
                             "Tells which pages earlier runs have asked for, as agents have "
                             "recorded it, so that the next run can prefetch them.",
                             ShowWorkingSet);
  AddName(app, flags.get(), "Name of the volume or snapshot");
  CLI::Option* list =
      app->add_flag("--list", flags->list, "List the runs of pages: the first one, and how many");
  app->add_flag("--clear", flags->clear, "Forget them, so that the next run is recorded anew")
      ->excludes(list);
  app->footer("Example:  faultline volume working-set disk --list");
}

void AddRoleCommands(CLI::App* group, Session* session, const std::shared_ptr<VolumeFlags>& flags) {
  const std::string identity =
      "Common name of the client's certificate; @local: whoever connects through the server's Unix "
      "socket";
  CLI::App* app = AddCommand(group, session, flags, "grant",
                             "Says what a client may do with a volume or snapshot of a server with "
                             "TLS; for its owner.",
                             Grant);
  AddName(app, flags.get(), "Name of the volume or snapshot");
  app->add_option("IDENTITY", flags->identity, identity)->required();
  AddParsed(app, "ROLE", "reader|writer|owner",
            "reader (fetch, export, clone a snapshot), writer (that, and change the content, make "
            "snapshots) or owner (that, and delete it, grant and revoke)",
            ParseRole, &flags->role)
      ->required();
  app->footer("Example:  faultline volume grant disk agent1 reader");

  app = AddCommand(group, session, flags, "revoke",
                   "Takes back what a client may do with a volume or snapshot.", Revoke);
  AddName(app, flags.get(), "Name of the volume or snapshot");
  app->add_option("IDENTITY", flags->identity, identity)->required();
  app->footer("Example:  faultline volume revoke disk agent1");
}

}  // namespace

void RegisterVolumeCommands(CLI::App* app, Session* session) {
  CLI::App* group =
      app->add_subcommand("volume", "Creates, lists, fills, copies and deletes volumes");
  group->require_subcommand(1);
  const auto flags = std::make_shared<VolumeFlags>();

  CLI::App* create =
      AddCommand(group, session, flags, "create", "Creates a volume that reads as zero.", Create);
  AddName(create, flags.get());
  AddParsed(create, "--size", "SIZE", "Size in bytes, or with a unit: 512MiB, 1GiB", ParseBytes,
            &flags->size_bytes)
      ->required();
  AddDurability(create, flags.get());
  create->footer("Example:  faultline volume create disk --size=1GiB");

  AddCommand(group, session, flags, "list", "Lists all volumes and snapshots, by name.", List)
      ->footer("Example:  faultline --output=json volume list");
  CLI::App* stat =
      AddCommand(group, session, flags, "stat", "Tells about one volume or snapshot.", Stat);
  AddName(stat, flags.get(), "Name of the volume or snapshot");
  stat->footer("Example:  faultline volume stat disk");

  AddTransferCommands(group, session, flags);
  AddLayerCommands(group, session, flags);
  AddWorkingSetCommand(group, session, flags);
  AddRoleCommands(group, session, flags);

  CLI::App* remove = AddCommand(group, session, flags, "delete",
                                "Deletes a volume or snapshot and frees its space.", Delete);
  AddName(remove, flags.get(), "Name of the volume or snapshot");
  remove->footer("Example:  faultline volume delete disk");
}

}  // namespace faultline
