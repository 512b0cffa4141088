// SPDX-License-Identifier: Apache-2.0
#include "client/lab/churner.h"

#include <errno.h>
#include <sched.h>
#include <sys/mman.h>

namespace faultline {
namespace {

// The hole that a round leaves for a moment may be taken by an mmap elsewhere in this process, of
// which there is none but in a sanitizer's runtime.
constexpr int kGrowthAttempts = 1000;

absl::Status Failed(const char* call) { return absl::ErrnoToStatus(errno, call); }

}  // namespace

const char* ChurnName(Churn churn) {
  switch (churn) {
    case Churn::kOff:
      return "off";
    case Churn::kUnrelated:
      return "unrelated";
    case Churn::kSameVma:
      return "same VMA";
  }
  return "?";
}

absl::Status Churner::Run(const std::atomic<bool>& stop) {
  const uint64_t start = NowNanos();
  uint64_t now = start;
  do {
    const absl::Status status = churn_ == Churn::kUnrelated ? Unrelated() : SameVma();
    if (!status.ok()) return status;
    calls_ += 4;
    const uint64_t go = NowNanos() + pause_nanos_;
    while ((now = NowNanos()) < go) {
    }
  } while (!stop.load(std::memory_order_relaxed));
  nanos_ += now - start;
  return absl::OkStatus();
}

absl::Status Churner::Unrelated() {
  const uint64_t start = NowNanos();
  void* at = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const uint64_t mapped = NowNanos();
  if (at == MAP_FAILED) return Failed("mmap of the churn");
  if (::madvise(at, kBytes, MADV_DONTNEED) != 0) return Failed("madvise of the churn");
  const uint64_t discarded = NowNanos();
  at = ::mremap(at, kBytes, 2 * kBytes, MREMAP_MAYMOVE);
  const uint64_t moved = NowNanos();
  if (at == MAP_FAILED) return Failed("mremap of the churn");
  if (munmap(at, 2 * kBytes) != 0) return Failed("munmap of the churn");
  const uint64_t end = NowNanos();
  map_.Record(mapped - start + (end - moved));
  madvise_.Record(discarded - mapped);
  mremap_.Record(moved - discarded);
  return absl::OkStatus();
}

absl::Status Churner::SameVma() {
  void* const front = reinterpret_cast<void*>(vma_.start);
  const uint64_t front_bytes = vma_.length - kBytes;
  void* const tail = reinterpret_cast<void*>(vma_.start + front_bytes);
  const uint64_t start = NowNanos();
  if (::madvise(tail, kBytes, MADV_DONTNEED) != 0) return Failed("madvise of the churn");
  const uint64_t discarded = NowNanos();
  void* const at = ::mremap(tail, kBytes, 2 * kBytes, MREMAP_MAYMOVE);
  const uint64_t moved = NowNanos();
  if (at == MAP_FAILED) return Failed("mremap of the churn");
  if (munmap(at, 2 * kBytes) != 0) return Failed("munmap of the churn");
  uint64_t grow = NowNanos();
  const uint64_t unmapped = grow;
  for (int i = 0; ::mremap(front, front_bytes, vma_.length, 0) == MAP_FAILED; ++i) {
    if (errno != ENOMEM || i == kGrowthAttempts) return Failed("growth by mremap of the churn");
    sched_yield();
    grow = NowNanos();
  }
  const uint64_t end = NowNanos();
  madvise_.Record(discarded - start);
  mremap_.Record(moved - discarded);
  map_.Record(unmapped - moved + (end - grow));
  return absl::OkStatus();
}

}  // namespace faultline
