// SPDX-License-Identifier: Apache-2.0
//
// What all workloads stand on: the base class, and what a run of one shares between its threads.
#ifndef FAULTLINE_CLIENT_WORKLOAD_WORK_CONTEXT_H_
#define FAULTLINE_CLIENT_WORKLOAD_WORK_CONTEXT_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "client/churn/random.h"
#include "client/workload/page_pattern.h"
#include "client/workload/workload.h"
#include "proto/latency_histogram.h"

namespace faultline::workload {

// Shared by the threads of a run. Thread-safe but for RunThreads().
class WorkContext {
 public:
  // Both are borrowed. `memory` is whole pages; empty for a workload that allocates by itself.
  WorkContext(const WorkloadOptions* options, const WorkloadHooks* hooks,
              std::span<std::byte> memory)
      : options_(*options), hooks_(*hooks), memory_(memory) {}

  const WorkloadOptions& options() const { return options_; }
  const WorkloadHooks& hooks() const { return hooks_; }
  std::span<std::byte> memory() const { return memory_; }
  uint64_t* words() const { return reinterpret_cast<uint64_t*>(memory_.data()); }
  uint64_t pages() const { return memory_.size() / kPageSize; }
  uint64_t* page(uint64_t index) const { return words() + index * kWordsPerPage; }
  // Of one operation.
  void RecordLatency(std::chrono::nanoseconds latency) {
    latency_.Record(latency);
    samples_.fetch_add(1, std::memory_order_relaxed);
  }
  const LatencyHistogram& latency() const { return latency_; }
  uint64_t latency_samples() const { return samples_.load(std::memory_order_relaxed); }

  // Calls it with each number of a thread, on threads of their own where there is more than one,
  // and returns when all have.
  void RunThreads(const std::function<void(unsigned thread)>& work) const;
  // Of `total` things in a row, those of a thread are [ShareBegin(thread), ShareBegin(thread + 1)).
  uint64_t ShareBegin(uint64_t total, unsigned thread) const {
    const uint64_t threads = options_.threads;
    return total / threads * thread + total % threads * thread / threads;
  }

  // The first report is kept: whoever finds wrong() after it stops.
  void ReportWrong(std::string what);
  void ReportFailure(Failure failure);
  bool wrong() const { return wrong_.load(std::memory_order_relaxed); }
  // REQUIRES: no thread is at work.
  Failure finding() const { return wrong() ? finding_ : Success(); }

  void NoteAccess(unsigned thread, uint64_t page, AccessKind kind) const {
    if (hooks_.accesses != nullptr) hooks_.accesses->OnAccess(thread, page, kind);
  }
  // `address` is in the memory.
  void NoteAccess(unsigned thread, const void* address, AccessKind kind) const {
    if (hooks_.accesses == nullptr) return;
    const auto offset = static_cast<const std::byte*>(address) - memory_.data();
    hooks_.accesses->OnAccess(thread, static_cast<uint64_t>(offset) / kPageSize, kind);
  }

 private:
  const WorkloadOptions& options_;
  const WorkloadHooks& hooks_;
  const std::span<std::byte> memory_;
  LatencyHistogram latency_;
  std::atomic<uint64_t> samples_ = 0;
  std::atomic<bool> wrong_ = false;
  std::once_flag once_;
  Failure finding_;
};

// Times about one of 32 operations of a thread: reading the clock twice would cost as much as an
// operation. At random distances, which no regularity of the workload can meet.
class OperationTimer {
 public:
  OperationTimer(WorkContext* context, unsigned thread)
      : context_(*context), random_({context->options().seed, thread}) {}

  template <typename Operation>
  auto Time(Operation&& operation) {
    if (--until_next_ > 0) return operation();
    until_next_ = random_.Between(1, 2 * kMeanDistance - 1);
    const Stopwatch watch{context_};
    return operation();
  }

 private:
  struct Stopwatch {
    ~Stopwatch() { context.RecordLatency(std::chrono::steady_clock::now() - begin); }
    WorkContext& context;
    std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
  };
  static constexpr uint64_t kMeanDistance = 32;

  WorkContext& context_;
  churn::Random random_;
  uint64_t until_next_ = 1;
};

// One of them, for one run. What it finds wrong it reports to its context, and may end early then.
class Workload {
 public:
  virtual ~Workload() = default;

  // A round is a Prepare(), a Work() and a Verify(); the last round's checksum is the run's.
  virtual uint64_t Rounds() const { return 1; }
  virtual void Prepare(uint64_t round) = 0;
  // The operations that were done.
  virtual uint64_t Work() = 0;
  virtual uint64_t Verify() = 0;
  // The part of its memory that Verify() decides on.
  virtual std::span<std::byte> Content() const = 0;
};

// The options are complete, and fit; `context` is borrowed.
std::unique_ptr<Workload> MakeLapWorkload(
    WorkContext* context);  // sequential, stride, pointer-chase
std::unique_ptr<Workload> MakeUpdateWorkload(WorkContext* context);  // zipf, gups
std::unique_ptr<Workload> MakeHashTableWorkload(WorkContext* context);
std::unique_ptr<Workload> MakeSortWorkload(WorkContext* context);
std::unique_ptr<Workload> MakeBfsWorkload(WorkContext* context);
std::unique_ptr<Workload> MakeAllocatorChurn(WorkContext* context);

}  // namespace faultline::workload

#endif  // FAULTLINE_CLIENT_WORKLOAD_WORK_CONTEXT_H_
