// SPDX-License-Identifier: Apache-2.0
//
// vm-restore: restores of a saved machine, by Faultline and by QEMU alone.
#include "client/bench/vm/restore_benchmark.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/bench/local_stack.h"
#include "client/remote/admin_client.h"
#include "client/vm/qemu.h"
#include "client/vm/vm_volumes.h"

namespace faultline::bench {
namespace {

using nlohmann::json;

constexpr absl::Duration kMergePatience = absl::Seconds(20);
constexpr int kClones = 4;
constexpr char kVolume[] = "vm";
constexpr char kFileRam[] = "memory-backend-file,share=";

// One machine that was restored.
struct Restored {
  WatchedProgram program;
  absl::Time begin;
  double first_output_ms = 0;
};

absl::Status AwaitFirstTick(Restored* restored) {
  const auto is_tick = [](const std::string& line) { return line.rfind("tick ", 0) == 0; };
  const auto tick = restored->program.out->WaitFor("a tick", is_tick, kTickPatience);
  if (!tick.ok()) {
    return absl::Status(tick.status().code(),
                        absl::StrCat(tick.status().message(), restored->program.err->Tail()));
  }
  restored->first_output_ms = absl::ToDoubleMilliseconds(tick->at - restored->begin);
  return absl::OkStatus();
}

// Until each word was checked once since the machine was restored.
absl::Status AwaitChecked(const Restored& restored) {
  const uint64_t passes = restored.program.LastTick().value_or(GuestTick()).pass;
  absl::Status status = restored.program.AwaitPass(passes + 2, kPassPatience);
  return status.ok() ? restored.program.CheckWords() : status;
}

// What process `pid` has read from files, in bytes.
double BytesRead(pid_t pid) {
  std::ifstream io(absl::StrCat("/proc/", pid, "/io"));
  std::string name;
  double bytes = 0;
  io >> name >> bytes;  // rchar
  return bytes;
}

class RestoreBench {
 public:
  RestoreBench(const RestoreBenchOptions& options, std::string directory, LocalStack stack)
      : options_(options), directory_(std::move(directory)), stack_(std::move(stack)) {}

  // The saved machine: in the page server, and as a file.
  absl::Status Save();
  absl::Status AddRepetition(Report* report);

 private:
  absl::StatusOr<double> RestoreFromFile();
  absl::StatusOr<Restored> StartRestore();
  struct Outcome {
    double first_output_ms = 0, faults = 0;
    double start_ms = 0, load_ms = 0;  // of QEMU with the handover, and of the device state
  };
  // Of one restore, until all of its words were checked.
  absl::StatusOr<Outcome> RestoreByFaultline();
  // `count` at once, of a server that has just been started.
  absl::Status RestoreClones(int count, double* first_output_ms, double* bytes_read);
  absl::StatusOr<double> Faults() const;
  absl::Status AwaitWorkingSet() const;
  std::string Path(const char* name) const { return absl::StrCat(directory_, "/", name); }

  const RestoreBenchOptions& options_;
  const std::string directory_;
  LocalStack stack_;
  std::string state_;
};

absl::Status RestoreBench::Save() {
  absl::StatusOr<WatchedProgram> source = WatchedProgram::Start(
      "the source",
      GuestCommand(options_.guest, absl::StrCat(kFileRam, "on,mem-path=", Path("ram")),
                   {Path("source.qmp")}));
  if (!source.ok()) return source.status();
  if (absl::Status status = source->AwaitPass(1, kPassPatience); !status.ok()) return status;
  const auto saved = stack_.Faultline({"vm", "save", absl::StrCat("--qmp=", Path("source.qmp")),
                                       absl::StrCat("--volume=", kVolume), "--quit"});
  if (!saved.ok()) return saved.status();
  auto client = AdminClient::Create({.address = stack_.server_address()});
  if (!client.ok()) return client.status();
  absl::StatusOr<DeviceState> state = FetchSavedVm(client->get(), kVolume);
  if (!state.ok()) return state.status();
  state_ = std::move(state->bytes);
  return source->CheckWords();
}

absl::StatusOr<double> RestoreBench::RestoreFromFile() {
  std::vector<std::string> argv = GuestCommand(
      options_.guest, absl::StrCat(kFileRam, "off,mem-path=", Path("ram")), {Path("local.qmp")});
  argv.insert(argv.end(), {"-incoming", "defer"});
  Restored restored;
  restored.begin = absl::Now();
  absl::StatusOr<WatchedProgram> started = WatchedProgram::Start("QEMU", argv);
  if (!started.ok()) return started.status();
  restored.program = *std::move(started);
  auto qmp = ConnectToNew(Path("local.qmp"), restored.program);
  if (!qmp.ok()) return qmp.status();
  Qemu qemu(*std::move(qmp));
  if (absl::Status status = qemu.LoadDeviceState(state_); !status.ok()) return status;
  if (absl::Status status = qemu.Continue(); !status.ok()) return status;
  if (absl::Status status = AwaitFirstTick(&restored); !status.ok()) return status;
  return restored.first_output_ms;
}

absl::StatusOr<Restored> RestoreBench::StartRestore() {
  std::vector<std::string> argv = {SiblingProgram("faultline"),
                                   absl::StrCat("--server=", stack_.server_address()),
                                   "--output=json",
                                   "vm",
                                   "restore",
                                   absl::StrCat("--volume=", kVolume),
                                   absl::StrCat("--socket=", stack_.agent_socket()),
                                   "--lazy",
                                   "--working-set=both",
                                   "--"};
  const std::vector<std::string> qemu = GuestCommand(options_.guest, "memory-backend-ram", {});
  argv.insert(argv.end(), qemu.begin(), qemu.end());
  Restored restored;
  restored.begin = absl::Now();
  absl::StatusOr<WatchedProgram> started = WatchedProgram::Start("vm restore", argv);
  if (!started.ok()) return started.status();
  restored.program = *std::move(started);
  return restored;
}

absl::StatusOr<double> RestoreBench::Faults() const {
  const absl::StatusOr<std::string> listed = stack_.Faultline(
      {"--output=json", "attachments", absl::StrCat("--socket=", stack_.agent_socket())});
  if (!listed.ok()) return listed.status();
  double faults = 0;
  for (const json& one : json::parse(*listed)) faults += one["faults_total"].get<double>();
  return faults;
}

// The agent hands over what it has recorded when the attachment has ended.
absl::Status RestoreBench::AwaitWorkingSet() const {
  for (const absl::Time end = absl::Now() + kMergePatience; absl::Now() < end;) {
    const auto listed = stack_.Faultline({"--output=json", "volume", "working-set", kVolume});
    if (!listed.ok()) return listed.status();
    if (json::parse(*listed).value("pages", 0) > 0) return absl::OkStatus();
    absl::SleepFor(absl::Milliseconds(20));
  }
  return absl::DeadlineExceededError("the working set was not kept");
}

absl::StatusOr<RestoreBench::Outcome> RestoreBench::RestoreByFaultline() {
  absl::StatusOr<Restored> restored = StartRestore();
  if (!restored.ok()) return restored.status();
  if (absl::Status status = AwaitFirstTick(&*restored); !status.ok()) return status;
  if (absl::Status status = AwaitChecked(*restored); !status.ok()) return status;
  const absl::StatusOr<double> faults = Faults();
  if (!faults.ok()) return faults.status();
  Outcome outcome{.first_output_ms = restored->first_output_ms, .faults = *faults};
  for (const StampedLine& line : restored->program.err->Lines()) {
    const json event = json::parse(line.text, nullptr, /*allow_exceptions=*/false);
    if (!event.is_object() || event.value("event", "") != "resumed") continue;
    outcome.start_ms = event.value("start_seconds", 0.0) * 1000;
    outcome.load_ms = event.value("load_seconds", 0.0) * 1000;
  }
  return outcome;
}

absl::Status RestoreBench::RestoreClones(int count, double* first_output_ms, double* bytes_read) {
  // What an earlier restore has left in the server's memory is not to count.
  if (absl::Status status = stack_.KillAndRestartServer(); !status.ok()) return status;
  const double before = BytesRead(stack_.server_pid());
  std::vector<Restored> clones;
  for (int i = 0; i < count; ++i) {
    absl::StatusOr<Restored> restored = StartRestore();
    if (!restored.ok()) return restored.status();
    clones.push_back(*std::move(restored));
  }
  for (Restored& clone : clones) {
    if (absl::Status status = AwaitFirstTick(&clone); !status.ok()) return status;
    *first_output_ms = std::max(*first_output_ms, clone.first_output_ms);
  }
  for (const Restored& clone : clones) {
    if (absl::Status status = AwaitChecked(clone); !status.ok()) return status;
  }
  *bytes_read = BytesRead(stack_.server_pid()) - before;
  return absl::OkStatus();
}

absl::Status RestoreBench::AddRepetition(Report* report) {
  const auto cleared = stack_.Faultline({"volume", "working-set", kVolume, "--clear"});
  if (!cleared.ok()) return cleared.status();
  const absl::StatusOr<double> local = RestoreFromFile();
  if (!local.ok()) return local.status();
  const absl::StatusOr<Outcome> first = RestoreByFaultline();
  if (!first.ok()) return first.status();
  if (absl::Status status = AwaitWorkingSet(); !status.ok()) return status;
  const absl::StatusOr<Outcome> second = RestoreByFaultline();
  if (!second.ok()) return second.status();
  double one_ms = 0, one_bytes = 0, clones_ms = 0, clones_bytes = 0;
  absl::Status status = RestoreClones(1, &one_ms, &one_bytes);
  if (status.ok()) status = RestoreClones(kClones, &clones_ms, &clones_bytes);
  if (!status.ok()) return status;
  constexpr char kLocal[] = "from a file";
  report->AddFigure("first output, first restore", "ms", first->first_output_ms, kLocal, *local);
  report->AddFigure("first output, second restore", "ms", second->first_output_ms, kLocal, *local);
  report->AddFigure("faults, second restore", "pages", second->faults, "first restore",
                    first->faults);
  report->AddFigure(absl::StrCat("first output, the last of ", kClones, " at once"), "ms",
                    clones_ms, "one", one_ms);
  report->AddFigure(absl::StrCat("read from the store, ", kClones, " at once"), "bytes",
                    clones_bytes, "one", one_bytes);
  for (const auto& [name, outcome] : {std::pair("first", *first), std::pair("second", *second)}) {
    report->AddDetail(absl::StrCat("start and handover, ", name, " restore"), "ms",
                      outcome.start_ms);
    report->AddDetail(absl::StrCat("device state, ", name, " restore"), "ms", outcome.load_ms);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Report> RestoreVms(const RestoreBenchOptions& options) {
  if (absl::Status status = CheckGuest(options.guest); !status.ok()) return status;
  const absl::StatusOr<TemporaryDirectory> directory =
      TemporaryDirectory::Create(options.directory);
  if (!directory.ok()) return directory.status();
  const absl::StatusOr<TemporaryDirectory> store = TemporaryDirectory::Create(options.store);
  if (!store.ok()) return store.status();
  absl::StatusOr<LocalStack> stack = LocalStack::Start(store->path(), Transport::kTcp);
  if (!stack.ok()) return stack.status();
  RestoreBench bench(options, directory->path(), *std::move(stack));
  if (absl::Status status = bench.Save(); !status.ok()) return status;
  Report report;
  report.benchmark = "vm-restore";
  report.compared_with = "beside";
  report.configuration = absl::StrCat(
      "guest of ", options.guest.ram_mib, " MiB, ", options.guest.busy_mib,
      " MiB rewritten all the time, ", options.guest.accelerator,
      ", 1 CPU; rocksdb on this machine, TCP loopback; --lazy --working-set=both; from a file: "
      "QEMU alone, its RAM a private mapping of a file in memory; ",
      options.repetitions, " repetitions; no word was wrong");
  for (int i = 0; i < options.repetitions; ++i) {
    if (absl::Status status = bench.AddRepetition(&report); !status.ok()) return status;
  }
  return report;
}

}  // namespace faultline::bench
