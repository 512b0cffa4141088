// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_SPIN_POLICY_H_
#define FAULTLINE_CLIENT_SPIN_POLICY_H_

#include <algorithm>
#include <chrono>

#include "client/timers.h"

namespace faultline {

// When a thread that reads faults spins instead of sleeping: while faults follow each other so
// closely that the next one, or the page for this one, will be there before a wake-up would be
// over; and not while another thread wants the processor that it spins on.
//
// Pure. Not thread-safe.
class SpinPolicy {
 public:
  // `limit`: how long to spin without anything happening; 0: never.
  explicit SpinPolicy(SteadyClock::duration limit) : limit_(limit) {}

  bool enabled() const { return limit_ > SteadyClock::duration::zero(); }

  // A fault was read.
  void OnFault(SteadyClock::time_point now) {
    faults_in_a_row_ = now - last_fault_ <= kHotFactor * limit_ ? faults_in_a_row_ + 1 : 0;
    last_fault_ = now;
    OnProgress(now);
  }
  // Something came that was waited for.
  void OnProgress(SteadyClock::time_point now) {
    last_progress_ = now;
    if (now >= quiet_until_ && ++progress_ >= kUndisturbed) quiet_ = kFirstQuiet;
  }
  // An event was read that the target follows up with another at once.
  void OnFirstOfTwo(SteadyClock::time_point now) { second_until_ = now + limit_; }
  // The spinning thread has let others run, which took so long.
  void OnYield(SteadyClock::time_point now, SteadyClock::duration took) {
    if (took <= kWanted) return;
    quiet_until_ = now + quiet_;
    quiet_ = std::min(quiet_ * 2, kLastQuiet);
    progress_ = 0;
  }

  bool ShouldSpin(SteadyClock::time_point now) const {
    if (!enabled() || now < quiet_until_) return false;
    return now < second_until_ || (faults_in_a_row_ >= kHotFaults && now - last_progress_ < limit_);
  }

 private:
  // So many faults, each within so many limits of the one before, are hot.
  static constexpr int kHotFaults = 4;
  static constexpr int kHotFactor = 3;
  // A time slice that somebody else has used up. A server on the same machine that answers a fetch
  // meanwhile, or the target that goes on to its next fault, needs less.
  static constexpr auto kWanted = std::chrono::microseconds(500);
  // For how long it is left to others then: longer each time, until it was not wanted for long.
  static constexpr SteadyClock::duration kFirstQuiet = std::chrono::milliseconds(20);
  static constexpr SteadyClock::duration kLastQuiet = std::chrono::seconds(2);
  static constexpr int kUndisturbed = 2000;

  const SteadyClock::duration limit_;
  int faults_in_a_row_ = 0;
  int progress_ = 0;  // since the processor was last wanted
  SteadyClock::duration quiet_ = kFirstQuiet;
  SteadyClock::time_point last_fault_, last_progress_, second_until_, quiet_until_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SPIN_POLICY_H_
