// SPDX-License-Identifier: Apache-2.0
//
// One cell of the table of `lab locks`: what fills cost, and what the address space's own calls
// cost beside them.
#ifndef FAULTLINE_CLIENT_LAB_LOCK_CELL_H_
#define FAULTLINE_CLIENT_LAB_LOCK_CELL_H_

#include <absl/status/statusor.h>

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "client/lab/churner.h"
#include "client/lab/lab_uffd.h"
#include "client/lab/samples.h"

namespace faultline {

// Whether the userfaultfd asks for REMAP, REMOVE and UNMAP, which a thread then reads at once.
enum class Events { kNotRequested, kRequested };

struct LockCell {
  FillOp op = FillOp::kCopy;
  uint64_t chunk_bytes = 4096;
  size_t threads = 1;
  Churn churn = Churn::kOff;
  Events events = Events::kNotRequested;
  uint64_t churn_pause_nanos = 20'000;  // between two rounds of the churn
};

struct LockFigures {
  double pages_per_second = 0;    // of all threads
  Quantiles fill;                 // one ioctl that did something
  double refused_per_second = 0;  // ioctls that answered EAGAIN and did nothing
  double churn_calls_per_second = 0;
  Quantiles map, mremap, madvise;  // see Churner
  double events_per_second = 0;
};

// Fills `memory_bytes` for `duration` of filling; what making it ready again takes comes on top.
// All threads fill all the time that counts: it ends when the first of them has nothing left.
// An error of the kernel ends it, and says so.
absl::StatusOr<LockFigures> MeasureLocks(const LockCell& cell, std::chrono::milliseconds duration,
                                         uint64_t memory_bytes);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LAB_LOCK_CELL_H_
