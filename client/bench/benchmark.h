// SPDX-License-Identifier: Apache-2.0
//
// What a benchmark is. Each file *_benchmark.cc or *_benchmarks.cc has some, which stand in the
// table of benchmarks.cc; the command makes the flags of `faultline bench` from that table.
#ifndef FAULTLINE_CLIENT_BENCH_BENCHMARK_H_
#define FAULTLINE_CLIENT_BENCH_BENCHMARK_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "client/bench/local_stack.h"
#include "client/bench/report.h"

namespace faultline::bench {

struct BenchOptions {
  Transport transport = Transport::kTcp;
  int repetitions = 5;
  uint64_t pages = 0;  // of the volume
  unsigned threads = 1;
  std::string prefetch = "none";    // the agent's policy
  bool stages = false;              // also where the time of a fault goes
  std::string codec = "raw";        // of the pages in the volume
  std::string durability = "sync";  // of what is written
  uint64_t batch_pages = 64;
  LocalStackFlags stack;
  std::string directory;  // parent of all that is written; empty: /var/tmp
};

// The flags that a benchmark understands beyond those of all. To be combined.
enum BenchFlag : unsigned {
  kThreadsFlag = 1,
  kPrefetchFlag = 2,
  kCodecFlag = 4,
  kLinkFlag = 8,
  kWriteFlags = 16,  // durability, pages of a batch
};

struct Benchmark {
  const char* name;
  const char* description;
  uint64_t default_pages;
  unsigned flags;
  // Everything it starts has ended, and everything that it has written is gone, on return.
  // DATA_LOSS where a byte was wrong. REQUIRES: `options.pages` and `repetitions` are not 0.
  absl::StatusOr<Report> (*run)(const BenchOptions& options);
};

std::span<const Benchmark> Benchmarks();

// Each benchmark with its defaults, and once more for every claim of its own: with a prefetch
// policy, or over a link.
struct StandardRun {
  const Benchmark* benchmark;
  // Told apart in the reports: "drain, 1gbit".
  std::string name;
  BenchOptions options;
};
// `options` without pages: each run has the default of its benchmark.
std::vector<StandardRun> StandardSet(const BenchOptions& options);

absl::StatusOr<Report> FaultRandom(const BenchOptions& options);
absl::StatusOr<Report> FaultSequential(const BenchOptions& options);
absl::StatusOr<Report> FaultStride(const BenchOptions& options);
absl::StatusOr<Report> FaultZipf(const BenchOptions& options);
absl::StatusOr<Report> Threads(const BenchOptions& options);
absl::StatusOr<Report> Drain(const BenchOptions& options);
absl::StatusOr<Report> DemandUnderDrain(const BenchOptions& options);
absl::StatusOr<Report> DemandUnderFlood(const BenchOptions& options);
absl::StatusOr<Report> Replay(const BenchOptions& options);
absl::StatusOr<Report> Writeback(const BenchOptions& options);
absl::StatusOr<Report> ImportAndExport(const BenchOptions& options);

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_BENCHMARK_H_
