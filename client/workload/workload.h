// SPDX-License-Identifier: Apache-2.0
//
// Workloads: programs whose memory may be anywhere, and which know what every byte of it must be.
// Each allocates its memory as an ordinary program does, fills it as its seed says, does its work,
// and compares what it finds with what it can compute without that memory: a page that was lost, is
// an older copy of itself or belongs elsewhere fails the run, and is named.
//
// They know nothing of agents or servers, and bring neither abseil nor gRPC into the process.
#ifndef FAULTLINE_CLIENT_WORKLOAD_WORKLOAD_H_
#define FAULTLINE_CLIENT_WORKLOAD_WORKLOAD_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "client/lib/failure.h"

namespace faultline::workload {

inline constexpr unsigned kMaxThreads = 64;

// What the flags of `faultline workload` say; flags.h has them.
struct WorkloadOptions {
  std::string name;  // one of WorkloadNames()
  uint64_t size_bytes = uint64_t{256} << 20;
  // How much is done, in one of the two units; neither: DefaultAmount().
  std::optional<uint64_t> operations, passes;
  uint64_t seed = 1;
  unsigned threads = 1;
  std::optional<double> write_share;     // of the operations, 0 to 1; without one: kWriteShare
  std::optional<uint64_t> stride_pages;  // of stride; without one: kStridePages
  std::optional<std::string> graph;      // of bfs: "kronecker" (the default) or "uniform"
  bool pin_cpu = false;                  // thread N runs on the Nth processor that it may have
};
inline constexpr double kWriteShare = 0.5;
inline constexpr uint64_t kStridePages = 7;

// In the order in which they are told of.
const std::vector<std::string>& WorkloadNames();
// What the workload does and what an operation of it is, for people.
std::string WorkloadDescription(const std::string& name);

// EINVAL, saying what to do about it, where the options contradict each other or mean nothing to
// their workload. Otherwise sets what is left open: afterwards either operations or passes is
// there.
Failure CompleteOptions(WorkloadOptions* options);

enum class AccessKind : uint8_t { kRead, kWrite };

// Is told which pages a workload touches, in the order in which each thread does; of several
// touches of one page in a row perhaps only the first. Called from all threads of the workload.
class AccessSink {
 public:
  virtual ~AccessSink() = default;
  // `page` counts from the start of the workload's memory.
  virtual void OnAccess(unsigned thread, uint64_t page, AccessKind kind) = 0;
};

// Where others may look in, or interfere. allocator-churn has no sink, and hands over one block.
struct WorkloadHooks {
  AccessSink* accesses = nullptr;  // borrowed
  // Given the memory whose content is decided: what is changed there must be found out.
  std::function<void(std::span<std::byte>)> after_initialisation, after_work;
  // In each child that allocator-churn forks, before it looks at its memory.
  std::function<void(std::span<std::byte>)> in_child;
};

// Microseconds of the operations that were timed: about one of 32, or every one where they are
// long.
struct OperationLatency {
  uint64_t samples = 0;
  double p50 = 0, p99 = 0, p999 = 0, max = 0;
  std::vector<double> percentiles;  // 0 to 100, for a plot of the distribution
};

struct WorkloadResult {
  WorkloadOptions options;  // as they were completed
  // Of all rounds together.
  double initialisation_seconds = 0, seconds = 0, verification_seconds = 0;
  uint64_t operations = 0;
  OperationLatency latency;  // no samples: operations of this workload cannot be told apart
  // Of the process, during the measured time.
  uint64_t major_faults = 0, minor_faults = 0;
  double cpu_seconds = 0;
  uint64_t max_rss_bytes = 0;
  // Of the content that was found at the end: the same for the same options, on any number of
  // threads.
  uint64_t checksum = 0;
};

// Runs it from the mapping of its memory to the verification. EINVAL: as CompleteOptions().
// EBADMSG: a byte was wrong; the message says where, what is there and what should be. Other errors
// are the kernel's.
Failure RunWorkload(WorkloadOptions options, const WorkloadHooks& hooks, WorkloadResult* result);

}  // namespace faultline::workload

#endif  // FAULTLINE_CLIENT_WORKLOAD_WORKLOAD_H_
