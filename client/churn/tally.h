// SPDX-License-Identifier: Apache-2.0
//
// Tally: what a churn has done and found so far, counted by all of its threads and forked children.
#ifndef FAULTLINE_CLIENT_CHURN_TALLY_H_
#define FAULTLINE_CLIENT_CHURN_TALLY_H_

#include <sys/types.h>
#include <time.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "client/churn/operation.h"
#include "proto/latency_histogram.h"

namespace faultline::churn {

inline constexpr unsigned kMaxThreads = 64;
// Of each thread at a time.
inline constexpr unsigned kMaxChildren = 2;

inline uint64_t NowNanos() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// What a thread, or a child of one, waits for the kernel to do. Written by one thread, read by the
// watchdog.
struct Progress {
  std::atomic<uint64_t> started_nanos = 0;  // 0: it waits for nothing
  std::atomic<uint64_t> number = 0;         // of the operation
  std::atomic<Operation> operation = Operation::kRead;
  std::atomic<uint64_t> address = 0;
  std::atomic<pid_t> child = 0;  // 0: a thread of this process

  void Begin(Operation what, uint64_t which, uint64_t where) {
    number.store(which, std::memory_order_relaxed);
    operation.store(what, std::memory_order_relaxed);
    address.store(where, std::memory_order_relaxed);
    started_nanos.store(NowNanos(), std::memory_order_release);
  }
  void End() { started_nanos.store(0, std::memory_order_release); }
};

// Lives in memory that forked children share. Lock-free.
struct Tally {
  // For as long as the process lives. Null, with errno set, where there is no memory.
  static Tally* Create();

  struct OfOperation {
    std::atomic<uint64_t> done = 0;
    std::atomic<uint64_t> refused = 0;  // by the kernel, or no place was found
    LatencyHistogram latency;           // of the system call or the first touch, in the parent
  };
  std::array<OfOperation, kOperations> operations;
  OfOperation& of(Operation operation) { return operations[static_cast<size_t>(operation)]; }

  std::atomic<uint64_t> checked_pages = 0;
  std::atomic<uint64_t> wrong_pages = 0;
  std::atomic<uint64_t> wrong_bytes = 0;
  std::atomic<uint64_t> hangs = 0;
  std::atomic<uint64_t> child_operations = 0;     // in children, and not counted above
  std::atomic<uint64_t> child_checked_pages = 0;  // of checked_pages
  std::atomic<uint64_t> children = 0;
  std::atomic<uint64_t> children_killed = 0;
  std::atomic<uint64_t> children_executed = 0;
  std::atomic<uint64_t> children_raced = 0;   // forked while another thread was moving memory
  std::atomic<uint64_t> children_failed = 0;  // that ended by a signal not ours

  // No operation begins any more.
  std::atomic<bool> stop = false;

  // Of each thread, and after these of each child.
  std::array<Progress, kMaxThreads*(1 + kMaxChildren)> progress;
  Progress& of_thread(unsigned thread) { return progress[thread]; }
  Progress& of_child(unsigned thread, unsigned child) {
    return progress[kMaxThreads + thread * kMaxChildren + child];
  }
};

// Writes a line of text to the standard error output, as printf would. Async-signal-safe.
void Complain(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_TALLY_H_
