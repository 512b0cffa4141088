// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_LAB_CHURNER_H_
#define FAULTLINE_CLIENT_LAB_CHURNER_H_

#include <absl/status/status.h>

#include <atomic>
#include <cstdint>

#include "client/lab/samples.h"
#include "client/uffd/uffd.h"

namespace faultline {

// What the target does to its address space while fills go on.
enum class Churn {
  kOff,
  // mmap of 256 KiB, madvise(DONTNEED), mremap to 512 KiB, munmap. Nothing of it is registered, and
  // so nothing of it raises an event.
  kUnrelated,
  // On the last 256 KiB of the VMA that is filled, of which they are never filled: madvise
  // (DONTNEED; event REMOVE), mremap to 512 KiB, which has to move and so splits the VMA (REMAP,
  // UNMAP), munmap of where it went (UNMAP), and an mremap of the rest of the VMA that grows it in
  // place to what it was (no event).
  kSameVma,
};
const char* ChurnName(Churn churn);

// Changes the address space in a loop and takes the time of each call. Belongs to one thread at a
// time.
class Churner {
 public:
  static constexpr uint64_t kBytes = 256 << 10;

  // `vma` is all of the VMA that is filled, kBytes of them the tail to work on; used with kSameVma.
  // Between two rounds it computes for `pause_nanos`, as a program does: where events are asked
  // for, one that did not would leave fills no time at all.
  Churner(Churn churn, AddressRange vma, uint64_t pause_nanos)
      : churn_(churn), vma_(vma), pause_nanos_(pause_nanos) {}

  // Goes on until `stop`; at least one round. Afterwards everything is as before.
  // RESOURCE_EXHAUSTED or what the kernel says where a call fails.
  absl::Status Run(const std::atomic<bool>& stop);

  // Each call of mmap (or of the mremap that grows) together with the munmap of the same round.
  const LatencySamples& map() const { return map_; }
  const LatencySamples& mremap() const { return mremap_; }
  const LatencySamples& madvise() const { return madvise_; }
  double calls_per_second() const {
    return nanos_ == 0 ? 0 : static_cast<double>(calls_) * 1e9 / static_cast<double>(nanos_);
  }

 private:
  absl::Status Unrelated();
  absl::Status SameVma();

  const Churn churn_;
  const AddressRange vma_;
  const uint64_t pause_nanos_;
  LatencySamples map_, mremap_, madvise_;
  uint64_t calls_ = 0;
  uint64_t nanos_ = 0;  // of all runs together
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LAB_CHURNER_H_
