// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CHURN_VACATED_ADDRESSES_H_
#define FAULTLINE_CLIENT_CHURN_VACATED_ADDRESSES_H_

#include <sys/mman.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "client/churn/random.h"
#include "proto/mutex.h"

namespace faultline::churn {

// Addresses that some thread is about to vacate, for others to move to.
//
// They are published *before* the system call that vacates them, so that another thread gets there
// when the kernel has let go of them, but the event that tells of it may not have been read yet.
// That makes the events of the two threads arrive in the wrong order, which is what this is for.
// Nobody is hurt: whoever wants such an address claims it with MAP_FIXED_NOREPLACE, which fails for
// as long as anything is there. Thread-safe; allocates nothing.
class VacatedAddresses {
 public:
  void Publish(uint64_t address) {
    MutexLock lock(mu_);
    ring_[next_++ % ring_.size()] = address;
  }

  // Claims `bytes` at one of them, with a reservation (PROT_NONE) to be mapped over. None where
  // none was published yet, or the one that was chosen stays taken for too long.
  std::optional<uint64_t> Claim(uint64_t bytes, Random* random) {
    const uint64_t address = Choose(random);
    for (int tries = 0; address != 0 && tries < kTries; ++tries) {
      void* at = mmap(reinterpret_cast<void*>(address), bytes, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
      if (at == reinterpret_cast<void*>(address)) return address;
      if (at != MAP_FAILED) munmap(at, bytes);  // a kernel that does not know the flag
    }
    return std::nullopt;
  }

 private:
  // A failing mmap takes about a microsecond.
  static constexpr int kTries = 64;

  uint64_t Choose(Random* random) {
    const bool newest = random->OneIn(2);
    const uint64_t any = random->Next();
    MutexLock lock(mu_);
    if (next_ == 0) return 0;
    const uint64_t count = next_ < ring_.size() ? next_ : ring_.size();
    return ring_[(next_ - 1 - (newest ? 0 : any % count)) % ring_.size()];
  }

  Mutex mu_;
  std::array<uint64_t, 64> ring_ ABSL_GUARDED_BY(mu_) = {};
  uint64_t next_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_VACATED_ADDRESSES_H_
