// SPDX-License-Identifier: Apache-2.0
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "client/bench/benchmark.h"

namespace faultline::bench {
namespace {

constexpr unsigned kFaultFlags = kThreadsFlag | kPrefetchFlag | kCodecFlag | kLinkFlag;
constexpr uint64_t kPagesOfMiB = 256;
constexpr uint64_t kLongDrainPages = 512 * kPagesOfMiB;

constexpr Benchmark kBenchmarks[] = {
    {"fault-random",
     "Latency of single demand faults, as the faulting thread sees it, in random "
     "order",
     20000, kFaultFlags, FaultRandom},
    {"fault-seq", "Touches in ascending order: latency and throughput", 20000, kFaultFlags,
     FaultSequential},
    {"fault-stride", "Touches of every 7th page", 70000, kFaultFlags, FaultStride},
    {"fault-zipf", "As many touches as there are pages, by Zipf's law with the exponent 0.99",
     20000, kFaultFlags, FaultZipf},
    {"threads", "Faults of 1, 8 and 64 threads at a time, also with fetches held up by 1 ms", 20000,
     kPrefetchFlag | kCodecFlag, Threads},
    {"drain", "Fetching a whole volume in the background, from the handover to its last page",
     256 * kPagesOfMiB, kCodecFlag | kLinkFlag, Drain},
    {"demand-under-drain", "Latency of the faults that wait while everything else is fetched",
     256 * kPagesOfMiB, kThreadsFlag | kCodecFlag | kLinkFlag, DemandUnderDrain},
    {"demand-under-flood",
     "Latency of faults while another client floods the page server; with --transport=tls only",
     20000, kThreadsFlag | kCodecFlag, DemandUnderFlood},
    {"replay", "Second start of a program whose working set was recorded at the first", 20000,
     kThreadsFlag | kCodecFlag | kLinkFlag, Replay},
    {"writeback", "Batches of pages written to a volume, until they are acknowledged",
     128 * kPagesOfMiB, kCodecFlag | kLinkFlag | kWriteFlags, Writeback},
    {"import", "Speed of volume import and export", 1024 * kPagesOfMiB, kCodecFlag,
     ImportAndExport},
};

const Benchmark& Find(absl::string_view name) {
  return *std::find_if(std::begin(kBenchmarks), std::end(kBenchmarks),
                       [&](const Benchmark& one) { return one.name == name; });
}

}  // namespace

std::span<const Benchmark> Benchmarks() { return kBenchmarks; }

std::vector<StandardRun> StandardSet(const BenchOptions& options) {
  std::vector<StandardRun> runs;
  const auto add = [&](const Benchmark& benchmark, absl::string_view suffix) -> BenchOptions& {
    runs.push_back({&benchmark, absl::StrCat(benchmark.name, suffix), options});
    runs.back().options.pages = benchmark.default_pages;
    return runs.back().options;
  };
  for (const Benchmark& benchmark : Benchmarks()) {
    if (benchmark.run == DemandUnderFlood && options.transport != Transport::kTls) continue;
    add(benchmark, "");
  }
  // What each policy is good for, and what it costs where there is nothing to guess.
  for (const char* policy : {"sequential", "majority", "streams"}) {
    for (const char* name : {"fault-seq", "fault-stride", "fault-zipf", "fault-random"}) {
      add(Find(name), absl::StrCat(", prefetch ", policy)).prefetch = policy;
    }
  }
  // A round trip without a link, which takes processor time of its own. It takes some round trips
  // until the way is full.
  BenchOptions& late = add(Find("drain"), ", fetches 10 ms late");
  late.stack.agent.push_back("--inject=latency=10ms");
  late.pages = kLongDrainPages;
  if (options.transport == Transport::kUnix) return runs;  // a link is one of TCP
  constexpr uint64_t kGigabit = 125'000'000;
  add(Find("drain"), ", 1gbit").stack.link.bytes_per_second = kGigabit;
  BenchOptions& compressed = add(Find("drain"), ", 1gbit, lz4");
  compressed.stack.link.bytes_per_second = kGigabit;
  compressed.codec = "lz4";
  // The same link, wide and short, shows what it costs by itself.
  BenchOptions& wide = add(Find("drain"), ", 100gbit");
  wide.stack.link.bytes_per_second = 100 * kGigabit;
  wide.pages = kLongDrainPages;
  BenchOptions& distant = add(Find("drain"), ", 10ms round trip");
  distant.stack.link.delay = absl::Milliseconds(5);
  distant.pages = kLongDrainPages;
  return runs;
}

}  // namespace faultline::bench
