// SPDX-License-Identifier: Apache-2.0
#include "client/bench/vm/move.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>

#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "client/bench/local_stack.h"
#include "client/vm/qmp_client.h"

namespace faultline::bench {
namespace {

using nlohmann::json;

constexpr absl::Duration kStepPatience = absl::Minutes(2);
// Of QEMU's own migration; more than any link has.
constexpr uint64_t kNoLimit = uint64_t{10} << 30;
constexpr char kPrivateRam[] = "memory-backend-ram";

bool IsEvent(const std::string& line, const char* name) {
  const json event = json::parse(line, nullptr, /*allow_exceptions=*/false);
  return event.is_object() && event.value("event", json()) == name;
}

// The event that a command of `faultline vm` tells on its standard error.
absl::StatusOr<std::pair<absl::Time, json>> AwaitSaid(const WatchedProgram& command,
                                                      const char* name) {
  const auto line = command.err->WaitFor(
      absl::StrCat("\"", name, "\""), [&](const std::string& text) { return IsEvent(text, name); },
      kStepPatience);
  if (!line.ok()) return line.status();
  return std::make_pair(line->at, json::parse(line->text));
}

absl::StatusOr<absl::Time> TimeOf(QmpClient& qmp, const char* event) {
  const absl::StatusOr<QmpEvent> seen = qmp.WaitForEvent({event}, kStepPatience);
  if (!seen.ok()) return seen.status();
  return seen->time;
}

// One machine on its way.
class Mover {
 public:
  // `directory`: for its own files, and empty.
  Mover(MoveMode mode, const MoveOptions& options, std::string directory)
      : mode_(mode), options_(options), directory_(std::move(directory)) {}

  absl::StatusOr<std::optional<Move>> Run();

 private:
  absl::Status Boot();
  absl::Status MoveByFaultline();
  // False where it has not converged.
  absl::StatusOr<bool> MoveByQemu();
  absl::Status StartQemuDestination();
  absl::Status SetUp(QmpClient& qmp) const;
  // Until the migration that was started is active, or has ended.
  absl::StatusOr<std::string> AwaitStatus(QmpClient& qmp, const char* wanted, absl::Time deadline);
  absl::Status NoteSwitch();
  absl::Status AwaitChecked() const;
  absl::Status Finish();
  std::string Path(const char* name) const { return absl::StrCat(directory_, "/", name); }

  const MoveMode mode_;
  const MoveOptions& options_;
  const std::string directory_;
  WatchedProgram source_;
  WatchedProgram offer_;
  WatchedProgram destination_;
  std::unique_ptr<QmpClient> source_qmp_, destination_qmp_;
  Move move_;
};

absl::Status Mover::Boot() {
  const bool ours = mode_ == MoveMode::kFaultline;
  const std::string backend =
      ours ? absl::StrCat("memory-backend-file,share=on,mem-path=", Path("ram")) : kPrivateRam;
  absl::StatusOr<WatchedProgram> source = WatchedProgram::Start(
      "the source",
      GuestCommand(options_.guest, backend, {Path("source.qmp"), Path("offered.qmp")}));
  if (!source.ok()) return source.status();
  source_ = *std::move(source);
  auto qmp = ConnectToNew(Path("source.qmp"), source_);
  if (!qmp.ok()) return qmp.status();
  source_qmp_ = *std::move(qmp);
  return source_.AwaitPass(1, kPassPatience);
}

absl::Status Mover::MoveByFaultline() {
  const std::string faultline = SiblingProgram("faultline");
  absl::StatusOr<WatchedProgram> offer = WatchedProgram::Start(
      "vm offer", {faultline, "--output=json", "vm", "offer",
                   absl::StrCat("--qmp=", Path("offered.qmp")), "--listen=127.0.0.1:0"});
  if (!offer.ok()) return offer.status();
  offer_ = *std::move(offer);
  const auto listening = AwaitSaid(offer_, "listening");
  if (!listening.ok()) return listening.status();
  std::vector<std::string> argv = {
      faultline, "--output=json", "vm", "accept",
      absl::StrCat("--from=", listening->second["address"].get<std::string>())};
  argv.insert(argv.end(), options_.accept_flags.begin(), options_.accept_flags.end());
  argv.push_back("--");
  const std::vector<std::string> qemu =
      GuestCommand(options_.guest, kPrivateRam, {Path("destination.qmp")});
  argv.insert(argv.end(), qemu.begin(), qemu.end());
  absl::StatusOr<WatchedProgram> accept = WatchedProgram::Start("vm accept", argv);
  if (!accept.ok()) return accept.status();
  destination_ = *std::move(accept);
  auto qmp = ConnectToNew(Path("destination.qmp"), destination_);
  if (!qmp.ok()) return qmp.status();
  destination_qmp_ = *std::move(qmp);
  if (absl::Status status = NoteSwitch(); !status.ok()) return status;
  const auto running = AwaitSaid(destination_, "running");
  if (!running.ok()) return running.status();
  for (const char* step : {"stop", "attach", "state", "load"}) {
    const json seconds = running->second.value(absl::StrCat(step, "_seconds"), json());
    if (seconds.is_number()) move_.steps_ms.emplace_back(step, seconds.get<double>() * 1000);
  }
  const auto complete = AwaitSaid(destination_, "complete");
  if (!complete.ok()) return complete.status();
  move_.complete = complete->first;
  move_.faults = complete->second["faults_total"].get<double>();
  return absl::OkStatus();
}

absl::Status Mover::SetUp(QmpClient& qmp) const {
  json capabilities = {{{"capability", "events"}, {"state", true}}};
  if (mode_ != MoveMode::kPrecopy) {
    capabilities.push_back({{"capability", "postcopy-ram"}, {"state", true}});
  }
  if (mode_ == MoveMode::kPostcopyPreempt) {
    capabilities.push_back({{"capability", "postcopy-preempt"}, {"state", true}});
  }
  absl::Status status =
      qmp.Execute("migrate-set-capabilities", {{"capabilities", capabilities}}).status();
  if (!status.ok()) return status;
  return qmp
      .Execute("migrate-set-parameters",
               {{"max-bandwidth", kNoLimit}, {"max-postcopy-bandwidth", 0}})
      .status();
}

absl::Status Mover::StartQemuDestination() {
  std::vector<std::string> argv =
      GuestCommand(options_.guest, kPrivateRam, {Path("destination.qmp")});
  argv.insert(argv.end(), {"-incoming", "defer"});
  absl::StatusOr<WatchedProgram> started = WatchedProgram::Start("the destination", argv);
  if (!started.ok()) return started.status();
  destination_ = *std::move(started);
  auto qmp = ConnectToNew(Path("destination.qmp"), destination_);
  if (!qmp.ok()) return qmp.status();
  destination_qmp_ = *std::move(qmp);
  if (absl::Status status = SetUp(*source_qmp_); !status.ok()) return status;
  if (absl::Status status = SetUp(*destination_qmp_); !status.ok()) return status;
  return destination_qmp_->Execute("migrate-incoming", {{"uri", "tcp:127.0.0.1:0"}}).status();
}

absl::StatusOr<std::string> Mover::AwaitStatus(QmpClient& qmp, const char* wanted,
                                               absl::Time deadline) {
  while (true) {
    absl::StatusOr<QmpEvent> event = qmp.WaitForEvent({"MIGRATION"}, deadline - absl::Now());
    if (!event.ok()) return event.status();
    const std::string status = event->data.value("status", "");
    if (status == "completed") move_.complete = event->time;
    if (status == wanted || status == "completed") return status;
    if (status == "failed" || status == "cancelled") {
      return absl::InternalError(absl::StrCat("QEMU's own migration has ", status, "; it said:\n",
                                              destination_.err->Tail(), source_.err->Tail()));
    }
  }
}

absl::StatusOr<bool> Mover::MoveByQemu() {
  if (absl::Status status = StartQemuDestination(); !status.ok()) return status;
  const absl::StatusOr<json> listening = destination_qmp_->Execute("query-migrate");
  if (!listening.ok()) return listening.status();
  const std::string port = (*listening)["socket-address"][0]["port"].get<std::string>();
  absl::Status status =
      source_qmp_->Execute("migrate", {{"uri", absl::StrCat("tcp:127.0.0.1:", port)}}).status();
  if (!status.ok()) return status;
  if (mode_ == MoveMode::kPrecopy) {
    const auto end =
        AwaitStatus(*destination_qmp_, "completed", absl::Now() + options_.precopy_limit);
    if (absl::IsDeadlineExceeded(end.status())) return false;
    if (!end.ok()) return end.status();
    if (status = NoteSwitch(); !status.ok()) return status;
    return true;
  }
  const absl::Time deadline = absl::Now() + kStepPatience;
  const auto active = AwaitStatus(*source_qmp_, "active", deadline);
  if (!active.ok()) return active.status();
  status = source_qmp_->Execute("migrate-start-postcopy").status();
  if (!status.ok()) return status;
  if (status = NoteSwitch(); !status.ok()) return status;
  const auto complete = AwaitStatus(*destination_qmp_, "completed", deadline);
  if (!complete.ok()) return complete.status();
  const absl::StatusOr<json> counted = source_qmp_->Execute("query-migrate");
  if (!counted.ok()) return counted.status();
  move_.faults = (*counted)["ram"].value("postcopy-requests", 0.0);
  return true;
}

absl::Status Mover::NoteSwitch() {
  const absl::StatusOr<absl::Time> stopped = TimeOf(*source_qmp_, "STOP");
  if (!stopped.ok()) return stopped.status();
  const absl::StatusOr<absl::Time> resumed = TimeOf(*destination_qmp_, "RESUME");
  if (!resumed.ok()) return resumed.status();
  move_.stopped = *stopped;
  move_.resumed = *resumed;
  return absl::OkStatus();
}

// That the guest goes on, as far as it can be told from outside.
absl::Status Mover::AwaitChecked() const {
  const auto is_tick = [](const std::string& line) { return line.rfind("tick ", 0) == 0; };
  const auto first = destination_.out->WaitFor("a tick", is_tick, kTickPatience);
  if (!first.ok()) return first.status();
  // The pass that is under way now has checked some words before they were all there.
  const uint64_t passes = destination_.LastTick().value_or(GuestTick()).pass;
  return destination_.AwaitPass(passes + 2, kPassPatience);
}

absl::Status Mover::Finish() {
  if (absl::Status status = AwaitChecked(); !status.ok()) {
    return absl::DataLossError(absl::StrCat("the guest does not go on: ", status.message()));
  }
  for (const WatchedProgram* one : {&source_, &destination_}) {
    if (absl::Status status = one->CheckWords(); !status.ok()) return status;
  }
  move_.before = TicksOf(source_.out->Lines());
  move_.after = TicksOf(destination_.out->Lines());
  const uint64_t last = move_.before.empty() ? 0 : move_.before.back().number;
  // A line that was being written when it stopped may be lost.
  const uint64_t next = move_.after.front().number;
  if (next <= last || next > last + 2) {
    return absl::DataLossError(
        absl::StrCat("the guest goes on with tick ", next, " after tick ", last));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Move>> Mover::Run() {
  if (absl::Status status = Boot(); !status.ok()) return status;
  if (mode_ == MoveMode::kFaultline) {
    if (absl::Status status = MoveByFaultline(); !status.ok()) return status;
  } else {
    const absl::StatusOr<bool> moved = MoveByQemu();
    if (!moved.ok()) return moved.status();
    if (!*moved) return std::nullopt;
  }
  if (absl::Status status = Finish(); !status.ok()) return status;
  return std::move(move_);
}

}  // namespace

const char* MoveModeName(MoveMode mode) {
  switch (mode) {
    case MoveMode::kFaultline:
      return "faultline";
    case MoveMode::kPostcopy:
      return "post-copy";
    case MoveMode::kPostcopyPreempt:
      return "post-copy, preempt";
    case MoveMode::kPrecopy:
      return "pre-copy";
  }
  return "";
}

absl::StatusOr<std::optional<Move>> MoveOnce(MoveMode mode, const MoveOptions& options) {
  const absl::StatusOr<TemporaryDirectory> directory =
      TemporaryDirectory::Create(options.directory);
  if (!directory.ok()) return directory.status();
  Mover mover(mode, options, directory->path());
  auto move = mover.Run();
  if (move.ok()) return move;
  return absl::Status(move.status().code(),
                      absl::StrCat(MoveModeName(mode), ": ", move.status().message()));
}

}  // namespace faultline::bench
