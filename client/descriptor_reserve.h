// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_DESCRIPTOR_RESERVE_H_
#define FAULTLINE_CLIENT_DESCRIPTOR_RESERVE_H_

#include <fcntl.h>

#include "client/unique_fd.h"
#include "proto/mutex.h"

namespace faultline {

// A descriptor kept for the moment at which there is none left: the uffd of a forked child needs
// one, and until it is read, fork() of the target does not return and no page can be filled.
// Thread-safe.
class DescriptorReserve {
 public:
  DescriptorReserve() { Refill(); }

  // Gives it up. False where it was given up before and could not be refilled since.
  bool Spend() {
    MutexLock lock(mu_);
    const bool had = static_cast<bool>(kept_);
    kept_.reset();
    return had;
  }
  // Takes one again, if there is one. Returns whether it is there.
  bool Refill() {
    MutexLock lock(mu_);
    if (!kept_) kept_ = UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC));
    return static_cast<bool>(kept_);
  }

 private:
  Mutex mu_;
  UniqueFd kept_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_DESCRIPTOR_RESERVE_H_
