// SPDX-License-Identifier: Apache-2.0
#include "client/experiment/executor.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/strip.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <optional>

#include <nlohmann/json.hpp>

#include "client/bench/child_process.h"
#include "client/bench/text_output.h"
#include "client/experiment/swap_limit.h"

namespace faultline::experiment {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kStopSignals[] = {SIGINT, SIGTERM, SIGHUP};
// Between two looks at whether an end was asked for.
constexpr int kLookMillis = 100;
// Of the end of what a program has written.
constexpr off_t kReadAtEnd = 1 << 20;
constexpr size_t kMostErrorBytes = 300;

volatile sig_atomic_t stop_requested = 0;
void OnStopSignal(int) { stop_requested = 1; }

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

rusage UsageOfChildren() {
  rusage usage{};
  getrusage(RUSAGE_CHILDREN, &usage);
  return usage;
}

// Waits for the end of `child`, and makes one where it does not come in time.
absl::Status WaitFor(ChildProcess* child, absl::Duration timeout, Result* result) {
  const UniqueFd ended(static_cast<int>(syscall(SYS_pidfd_open, child->pid(), 0)));
  if (ended.get() < 0) return absl::ErrnoToStatus(errno, "pidfd_open of a program");
  const auto deadline = Clock::now() + absl::ToChronoNanoseconds(timeout);
  for (;;) {
    pollfd readable{ended.get(), POLLIN, 0};
    if (poll(&readable, 1, kLookMillis) > 0) {
      result->exit_status = child->Wait();
      return absl::OkStatus();
    }
    const bool late = Clock::now() > deadline;
    if (!late && !StopRequest::Requested()) continue;
    result->exit_status = child->Terminate();
    if (!late) return absl::CancelledError("stopped by a signal");
    result->error = absl::StrCat("took longer than ", absl::FormatDuration(timeout),
                                 ", the timeout of the spec, and was ended");
    return absl::OkStatus();
  }
}

std::string EndOfFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) return "";
  const std::streamoff size = file.tellg();
  file.seekg(std::max<std::streamoff>(0, size - kReadAtEnd));
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string LastLine(const std::string& text) {
  const size_t end = text.find_last_not_of(" \n\r");
  if (end == std::string::npos) return "";
  const size_t before = text.rfind('\n', end);
  return text.substr(before == std::string::npos ? 0 : before + 1,
                     end - (before == std::string::npos ? 0 : before + 1) + 1);
}

std::string HashOfFile(const std::string& path) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(),
                                                                       XXH3_freeState);
  XXH3_64bits_reset(state.get());
  std::ifstream file(path, std::ios::binary);
  std::array<char, 65536> bytes;
  do {
    file.read(bytes.data(), bytes.size());
    XXH3_64bits_update(state.get(), bytes.data(), static_cast<size_t>(file.gcount()));
  } while (file);
  return absl::StrFormat("%016x", XXH3_64bits_digest(state.get()));
}

nlohmann::json ParseObject(const std::string& text) {
  nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  return json.is_object() || json.is_array() ? json : nlohmann::json();
}

// Of a program that has said nothing on its standard error output.
std::string DescribeSilentEnd(const Result& result) {
  constexpr int kKilled = 128 + SIGKILL;
  if (result.exit_status == kKilled && result.run.cell.system == System::kSwap) {
    return "was killed, most likely by the kernel, which found no more memory for its group: raise "
           "baselines.swap-extra";
  }
  return absl::StrCat("ended with status ", result.exit_status, " and said nothing");
}

// What the program itself does not tell: of everything that the command has run.
void AddUsage(const rusage& before, const rusage& after, Result* result) {
  result->figures["cpu_seconds"] = Seconds(after.ru_utime) + Seconds(after.ru_stime) -
                                   Seconds(before.ru_utime) - Seconds(before.ru_stime);
  result->figures["major_faults"] = static_cast<double>(after.ru_majflt - before.ru_majflt);
  result->figures["minor_faults"] = static_cast<double>(after.ru_minflt - before.ru_minflt);
}

}  // namespace

StopRequest::StopRequest() {
  stop_requested = 0;
  struct sigaction action = {};
  action.sa_handler = OnStopSignal;
  for (const int signal : kStopSignals) sigaction(signal, &action, nullptr);
}

StopRequest::~StopRequest() {
  for (const int signal : kStopSignals) ::signal(signal, SIG_DFL);
}

bool StopRequest::Requested() { return stop_requested != 0; }

std::string Executor::RunFile(const Run& run, const std::string& ending) const {
  return absl::StrFormat("%s/runs/%04u.%s", directory_, run.number, ending);
}

const Program& Executor::ProgramOf(const Cell& cell) const {
  return *std::find_if(spec_.programs.begin(), spec_.programs.end(),
                       [&](const Program& program) { return program.name == cell.program; });
}

std::string Executor::SwapDirectory() const {
  return spec_.baselines.swap_directory.empty() ? directory_ : spec_.baselines.swap_directory;
}

absl::Status Executor::Prepare() const {
  const std::string runs = directory_ + "/runs";
  if (mkdir(runs.c_str(), 0755) != 0 && errno != EEXIST) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot make the folder ", runs));
  }
  if (!spec_.baselines.swap) return absl::OkStatus();
  constexpr uint64_t kSmall = uint64_t{16} << 20;
  return SwapLimit::Create(SwapDirectory(), kSmall, kSmall).status();
}

std::vector<std::string> Executor::CommandOf(const Run& run) const {
  Surroundings surroundings = surroundings_;
  surroundings.stats = RunFile(run, "stats");
  return experiment::CommandOf(spec_, run.cell, ProgramOf(run.cell), surroundings);
}

absl::StatusOr<Result> Executor::Execute(const Run& run) const {
  Result result;
  result.run = run;
  const std::vector<std::string> argv = CommandOf(run);
  absl::Status status;
  if (run.cell.system == System::kSwap) {
    const Program& program = ProgramOf(run.cell);
    // Never half full: from there on the kernel gives the place of a page up when it has read it,
    // and has to write it once more, changed or not.
    const uint64_t swap_bytes = 3 * program.size_bytes + (uint64_t{64} << 20);
    const absl::StatusOr<SwapLimit> limit =
        SwapLimit::Create(SwapDirectory(), swap_bytes,
                          LocalBytes(run.cell, program) + spec_.baselines.swap_extra_bytes);
    if (!limit.ok()) return limit.status();
    const SwapTraffic before = ReadSwapTraffic();
    status = RunToEnd(limit->Wrap(argv), &result);
    const SwapTraffic after = ReadSwapTraffic();
    result.figures["fetched_pages"] = static_cast<double>(after.read_pages - before.read_pages);
    result.figures["written_pages"] =
        static_cast<double>(after.written_pages - before.written_pages);
  } else {
    status = RunToEnd(argv, &result);
  }
  if (!status.ok()) return status;
  TakeFigures(argv, &result);
  return result;
}

absl::Status Executor::RunToEnd(const std::vector<std::string>& argv, Result* result) const {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC;
  unlink(RunFile(result->run, "stats").c_str());
  const std::string out_path = RunFile(result->run, "out"), log_path = RunFile(result->run, "log");
  const UniqueFd out(open(out_path.c_str(), kFlags, 0644));
  const UniqueFd log(open(log_path.c_str(), kFlags, 0644));
  if (out.get() < 0 || log.get() < 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", out_path, " and ", log_path));
  }
  const rusage before = UsageOfChildren();
  const auto begin = Clock::now();
  absl::StatusOr<ChildProcess> child =
      ChildProcess::Start(argv, {.in = -1, .out = out.get(), .err = log.get()});
  if (!child.ok()) return child.status();
  absl::Status status = WaitFor(&*child, spec_.timeout, result);
  result->figures["wall_seconds"] = std::chrono::duration<double>(Clock::now() - begin).count();
  AddUsage(before, UsageOfChildren(), result);
  if (result->exit_status != 0 && result->error.empty()) {
    result->error = LastLine(EndOfFile(log_path)).substr(0, kMostErrorBytes);
    if (result->error.empty()) result->error = DescribeSilentEnd(*result);
  }
  return status;
}

void Executor::TakeFigures(const std::vector<std::string>& argv, Result* result) const {
  const std::string out_path = RunFile(result->run, "out");
  const nlohmann::json told = ParseObject(LastLine(EndOfFile(out_path)));
  const Program& program = ProgramOf(result->run.cell);
  nlohmann::ordered_json record = {{"command", ShellQuoted(argv)}};
  if (told.is_object() && told.contains("workload")) {
    record["program"] = told;
    AddProgramFigures(told, result);
  } else if (program.tells_result) {
    if (result->good()) {
      result->error =
          "the workload's line of JSON is not the last one of the standard output: does the "
          "command "
          "run it, and pass on what it writes?";
    }
  } else {
    result->figures["seconds"] = result->figures["wall_seconds"];
    if (program.compare_output) result->checksum = HashOfFile(out_path);
  }
  const nlohmann::json stats = ParseObject(EndOfFile(RunFile(result->run, "stats")));
  if (!stats.is_null()) {
    record["stats"] = stats;
    AddStatsFigures(stats, spec_.stats, result);
  }
  unlink(RunFile(result->run, "stats").c_str());
  unlink(out_path.c_str());
  if (result->good()) unlink(RunFile(result->run, "log").c_str());
  // The figures stand in the results, too: without this file only the plots of latencies lack a
  // run.
  if (!bench::WriteTextFile(RunFile(result->run, "json"), record.dump(1) + "\n").ok()) {
    fprintf(stderr, "faultline: cannot write %s\n", RunFile(result->run, "json").c_str());
  }
}

}  // namespace faultline::experiment
