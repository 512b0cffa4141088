// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_FAULT_DRAIN_WINDOW_H_
#define FAULTLINE_CLIENT_FAULT_DRAIN_WINDOW_H_

#include <algorithm>
#include <cstddef>
#include <utility>

#include "client/timers.h"

namespace faultline {

// How many runs of a drain are under way at a time: as many as the way to the source holds, however
// long it is, and few more, since what queues up behind them delays faults and gains nothing.
//
// A run that takes hardly longer than the fastest has not waited anywhere: there is room for more.
// One that takes several times as long has waited in a queue (the idea of TCP Vegas). Pure. Not
// thread-safe.
class DrainWindow {
 public:
  static constexpr size_t kFirst = 2;
  static constexpr size_t kLargest = 128;

  size_t size() const { return size_; }

  // A run has ended `took` after it was begun.
  void OnRunEnded(SteadyClock::time_point now, SteadyClock::duration took) {
    // Ways change; and a machine that was busy from the start has shown no fast run yet.
    if (now - epoch_ > kEpoch) {
      epoch_ = now;
      fastest_ = std::exchange(fastest_of_epoch_, kNone);
    }
    fastest_of_epoch_ = std::min(fastest_of_epoch_, took);
    fastest_ = std::min(fastest_, took);
    if (took < kRoom * fastest_) {
      size_ = std::min(size_ + 1, kLargest);
    } else if (took > kQueued * fastest_) {
      size_ = std::max(size_ - 1, kFirst);
    }
  }

 private:
  static constexpr int kRoom = 3;
  static constexpr int kQueued = 5;
  static constexpr auto kEpoch = std::chrono::seconds(10);
  static constexpr SteadyClock::duration kNone = std::chrono::hours(1);

  size_t size_ = kFirst;
  SteadyClock::time_point epoch_;
  SteadyClock::duration fastest_ = kNone;
  SteadyClock::duration fastest_of_epoch_ = kNone;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_DRAIN_WINDOW_H_
