// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_BENCH_STAGE_H_
#define FAULTLINE_CLIENT_BENCH_STAGE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "client/bench/benchmark.h"
#include "client/bench/page_content.h"

namespace faultline::bench {

// The one volume of a benchmark.
inline constexpr char kBenchVolume[] = "bench";

// A run of faultline-touch.
struct TouchPlan {
  std::string mode;
  uint64_t touches = 0;  // at most; 0: all that the mode has
  unsigned threads = 1;
  uint64_t seed = 1;
  PageContent content;  // what the touched pages must hold
};

struct TouchResult {
  double seconds = 0;          // of all touches; of a drain, from the handover on
  std::vector<double> micros;  // of each touch
  // When they began and ended, in nanoseconds of the monotonic clock, added up (modulo 2^64).
  uint64_t begin_ns_sum = 0, end_ns_sum = 0;
  uint64_t pages = 0;  // that the agent has filled
  double agent_cpu_micros = 0, server_cpu_micros = 0;
  nlohmann::json attachment;  // what the agent says of it at the end

  double pages_per_second() const { return static_cast<double>(pages) / seconds; }
  double mib_per_second() const;
};

// What a benchmark runs on: a directory of its own, a server and an agent. Not thread-safe; ends
// them and removes everything at its end.
class Stage {
 public:
  // `agent_flags` are those that this benchmark gives to its agent, in front of the user's own.
  static absl::StatusOr<Stage> Set(const BenchOptions& options,
                                   std::vector<std::string> agent_flags = {});

  const LocalStack& stack() const { return stack_; }
  // That half of a page is easy to compress where a codec was chosen: else there is nothing to
  // gain.
  PageContent content(uint64_t seed = 1) const;
  std::string path(const std::string& name) const { return stack_.directory() + "/" + name; }

  // Writes a file of that content.
  absl::Status WriteFile(const std::string& path, const PageContent& content) const;
  // Fills the volume with content().
  absl::Status FillVolume() const;

  // A touch of every page in random order, by the threads of the options, in another order for each
  // repetition (-1: the warm-up).
  TouchPlan RandomTouches(int repetition) const;

  // Runs faultline-touch on an agent of this stage. DATA_LOSS where a touched page holds anything
  // else than `plan.content`.
  absl::StatusOr<TouchResult> Touch(const AgentProcess& agent, const TouchPlan& plan) const;

  // "20000 pages, TCP loopback, ..., 5 repetitions": what all benchmarks have in common.
  std::string Describe() const;

 private:
  Stage(BenchOptions options, TemporaryDirectory directory, LocalStack stack)
      : options_(std::move(options)), directory_(std::move(directory)), stack_(std::move(stack)) {}

  BenchOptions options_;
  TemporaryDirectory directory_;
  LocalStack stack_;  // after the directory, in which it writes
};

// Adds what every benchmark of pages tells: speed, and CPU time of agent and server for each page.
void AddPageDetails(const TouchResult& result, Report* report);

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_STAGE_H_
