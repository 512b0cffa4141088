// SPDX-License-Identifier: Apache-2.0
#include "client/workload/workload.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <memory>

#include "client/workload/memory_block.h"
#include "client/workload/work_context.h"

namespace faultline::workload {
namespace {

constexpr uint64_t kLeastBytes = uint64_t{1} << 20;
constexpr uint64_t kMostOperations = uint64_t{1} << 40;

// In which units one can say how much is to be done.
enum class Units { kBoth, kOperations, kPasses };

struct Kind {
  const char* name;
  const char* description;
  std::unique_ptr<Workload> (*make)(WorkContext*);
  Units units;
  bool has_write_share;
  // What is done where nothing is said: so many for each page, or in all.
  uint64_t operations_per_page, amount;
};

constexpr Kind kKinds[] = {
    {"sequential", "reads every page from end to end, and writes some; an operation is a page",
     MakeLapWorkload, Units::kBoth, true, 0, 4},
    {"stride", "a cache line of every 7th page, then of those behind them; an operation is a page",
     MakeLapWorkload, Units::kBoth, true, 0, 4},
    {"pointer-chase",
     "follows links from page to page, in a random order that meets all of them; an operation is a "
     "link",
     MakeLapWorkload, Units::kBoth, true, 0, 4},
    {"zipf",
     "a word of random pages, of which few are wanted most of the time; an operation is one",
     MakeUpdateWorkload, Units::kOperations, true, 8, 0},
    {"gups", "updates random words of all the memory; an operation is one", MakeUpdateWorkload,
     Units::kOperations, false, 4, 0},
    {"hash-table", "looks up random keys, and updates some values; an operation is a lookup",
     MakeHashTableWorkload, Units::kOperations, true, 4, 0},
    {"sort", "sorts random keys with std::sort; an operation is a key", MakeSortWorkload,
     Units::kPasses, false, 0, 1},
    {"bfs",
     "breadth-first search through a generated graph, from another root in each pass; an operation "
     "is an edge",
     MakeBfsWorkload, Units::kPasses, false, 0, 3},
    {"allocator-churn",
     "malloc, realloc, free, mmap, mremap, madvise and fork, all blocks checked; an operation is "
     "one "
     "of these, or a block that is written",
     MakeAllocatorChurn, Units::kOperations, false, 0, 2000},
};

const Kind* FindKind(const std::string& name) {
  const auto* found = std::find_if(std::begin(kKinds), std::end(kKinds),
                                   [&](const Kind& kind) { return kind.name == name; });
  return found == std::end(kKinds) ? nullptr : found;
}

Failure Refusal(std::string why) { return {EINVAL, std::move(why)}; }

std::string JoinedNames() {
  std::string all;
  for (const Kind& kind : kKinds) all += (all.empty() ? "" : ", ") + std::string(kind.name);
  return all;
}

// What has no meaning for this workload.
Failure CheckMeaning(const Kind& kind, const WorkloadOptions& options) {
  const std::string name = kind.name;
  if (options.operations && options.passes) {
    return Refusal("--operations and --passes say the same in two ways: leave one of them out");
  }
  if (options.operations && kind.units == Units::kPasses) {
    return Refusal(name + " is done as a whole: give --passes in place of --operations");
  }
  if (options.passes && kind.units == Units::kOperations) {
    return Refusal(name + " has no passes: give --operations in place of --passes");
  }
  if (options.write_share && !kind.has_write_share) {
    return Refusal(name + " writes what it has to: leave --write-share out");
  }
  if (options.stride_pages && name != "stride") {
    return Refusal("--stride is for the workload stride: leave it out for " + name);
  }
  if (options.graph && name != "bfs") {
    return Refusal("--graph is for the workload bfs: leave it out for " + name);
  }
  if (options.graph && *options.graph != "kronecker" && *options.graph != "uniform") {
    return Refusal("--graph=" + *options.graph + ": known are kronecker and uniform");
  }
  return Success();
}

Failure CheckAmounts(const WorkloadOptions& options) {
  const uint64_t pages = options.size_bytes / kPageSize;
  if (options.size_bytes % kPageSize != 0 || options.size_bytes < kLeastBytes ||
      pages > PagePattern::kMaxPages) {
    return Refusal("--size=" + std::to_string(options.size_bytes) +
                   ": give a multiple of 4KiB, from 1MiB to 8TiB");
  }
  if (options.operations == 0 || options.passes == 0) {
    return Refusal("with 0 operations or passes nothing would be done: give at least 1");
  }
  if (options.operations.value_or(1) > kMostOperations ||
      options.operations.value_or(1) / pages >= PagePattern::kMaxVersions ||
      options.passes.value_or(1) >= PagePattern::kMaxVersions) {
    return Refusal(
        "at most 2^40 operations, and 2^24 for each page: give fewer, or a larger --size");
  }
  if (!(options.write_share.value_or(0) >= 0 && options.write_share.value_or(0) <= 1)) {
    return Refusal("--write-share is a share: give a number from 0 to 1");
  }
  if (options.stride_pages && (*options.stride_pages == 0 || *options.stride_pages > pages)) {
    return Refusal("--stride=" + std::to_string(*options.stride_pages) + ": give 1 to " +
                   std::to_string(pages) + " pages, as many as --size has");
  }
  if (options.threads == 0 || options.threads > kMaxThreads) {
    return Refusal("--threads=" + std::to_string(options.threads) + ": give 1 to " +
                   std::to_string(kMaxThreads));
  }
  return Success();
}

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

rusage UsageOf(int who) {
  rusage usage{};
  getrusage(who, &usage);
  return usage;
}

// Adds what this process and its children use, from its beginning to its end, to a result.
class UsageMeter {
 public:
  explicit UsageMeter(WorkloadResult* result) : result_(*result) { Add(-1); }
  ~UsageMeter() { Add(1); }
  UsageMeter(const UsageMeter&) = delete;
  UsageMeter& operator=(const UsageMeter&) = delete;

 private:
  void Add(int sign) {
    for (const int who : {RUSAGE_SELF, RUSAGE_CHILDREN}) {
      const rusage usage = UsageOf(who);
      result_.major_faults += static_cast<uint64_t>(sign * usage.ru_majflt);
      result_.minor_faults += static_cast<uint64_t>(sign * usage.ru_minflt);
      for (const timeval& time : {usage.ru_utime, usage.ru_stime}) {
        result_.cpu_seconds +=
            sign * (static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6);
      }
    }
  }

  WorkloadResult& result_;
};

OperationLatency LatencyOf(const WorkContext& context) {
  const LatencyHistogram& histogram = context.latency();
  OperationLatency latency;
  latency.samples = context.latency_samples();
  if (latency.samples == 0) return latency;
  latency.p50 = histogram.QuantileMicros(0.5);
  latency.p99 = histogram.QuantileMicros(0.99);
  latency.p999 = histogram.QuantileMicros(0.999);
  latency.max = histogram.MaxMicros();
  for (int percent = 0; percent <= 100; ++percent) {
    latency.percentiles.push_back(histogram.QuantileMicros(percent / 100.0));
  }
  return latency;
}

// False where a byte was wrong.
bool RunRound(uint64_t round, Workload* workload, WorkContext* context, WorkloadResult* result) {
  const WorkloadHooks& hooks = context->hooks();
  auto begin = std::chrono::steady_clock::now();
  workload->Prepare(round);
  result->initialisation_seconds += SecondsSince(begin);
  if (context->wrong()) return false;
  if (hooks.after_initialisation) hooks.after_initialisation(workload->Content());
  {
    const UsageMeter meter(result);
    begin = std::chrono::steady_clock::now();
    result->operations += workload->Work();
    result->seconds += SecondsSince(begin);
  }
  if (context->wrong()) return false;
  if (hooks.after_work) hooks.after_work(workload->Content());
  begin = std::chrono::steady_clock::now();
  result->checksum = workload->Verify();
  result->verification_seconds += SecondsSince(begin);
  return !context->wrong();
}

}  // namespace

const std::vector<std::string>& WorkloadNames() {
  static const auto* const names = [] {
    auto* all = new std::vector<std::string>;
    for (const Kind& kind : kKinds) all->emplace_back(kind.name);
    return all;
  }();
  return *names;
}

std::string WorkloadDescription(const std::string& name) {
  const Kind* kind = FindKind(name);
  return kind == nullptr ? "" : kind->description;
}

Failure CompleteOptions(WorkloadOptions* options) {
  const Kind* kind = FindKind(options->name);
  if (kind == nullptr) {
    return Refusal("there is no workload \"" + options->name + "\"; known are " + JoinedNames());
  }
  Failure failure = CheckMeaning(*kind, *options);
  if (failure.ok()) failure = CheckAmounts(*options);
  if (!failure.ok()) return failure;
  if (kind->has_write_share && !options->write_share) options->write_share = kWriteShare;
  if (options->name == "stride" && !options->stride_pages) options->stride_pages = kStridePages;
  if (options->name == "bfs" && !options->graph) options->graph = "kronecker";
  if (options->operations || options->passes) return Success();
  if (kind->operations_per_page > 0) {
    options->operations = kind->operations_per_page * (options->size_bytes / kPageSize);
  } else if (kind->units == Units::kOperations) {
    options->operations = kind->amount;
  } else {
    options->passes = kind->amount;
  }
  return Success();
}

Failure RunWorkload(WorkloadOptions options, const WorkloadHooks& hooks, WorkloadResult* result) {
  Failure failure = CompleteOptions(&options);
  if (!failure.ok()) return failure;
  *result = {};
  result->options = options;
  MemoryBlock memory;
  if (options.name != "allocator-churn") {
    failure = MemoryBlock::Map(options.size_bytes, &memory);
    if (!failure.ok()) return failure;
  }
  WorkContext context(&options, &hooks, memory.bytes());
  const std::unique_ptr<Workload> workload = FindKind(options.name)->make(&context);
  for (uint64_t round = 0; round < workload->Rounds(); ++round) {
    if (!RunRound(round, workload.get(), &context, result)) return context.finding();
  }
  result->latency = LatencyOf(context);
  result->max_rss_bytes = static_cast<uint64_t>(UsageOf(RUSAGE_SELF).ru_maxrss) << 10;
  return Success();
}

}  // namespace faultline::workload
