// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_FAULT_DRAIN_WINDOW_H_
#define FAULTLINE_CLIENT_FAULT_DRAIN_WINDOW_H_

#include <cstddef>

#include "client/timers.h"
#include "proto/page.h"

namespace faultline {

// How many runs of a drain are under way at a time, and of how many pages: as many as the way to
// the source holds, however long it is, and few more, since what queues up behind them delays
// faults and gains nothing.
//
// A run that takes hardly longer than the fastest has not waited anywhere: there is room for more.
// One that takes several times as long has waited in a queue (the idea of TCP Vegas). While they
// wait the way is full, and what comes out of it in a millisecond is the length of a run: a fault
// does not stand behind a longer one, and a fast way does not waste its time on messages.
//
// Pure. Not thread-safe.
class DrainWindow {
 public:
  static constexpr size_t kFirst = 2;
  static constexpr size_t kLargest = 128;
  // 64 KiB take a millisecond of half a gigabit a second. Over loopback, runs of 128 pages cost 7 %
  // more than those of 256, of 64 a quarter more; longer ones bring nothing.
  static constexpr PageCount kShortestRun{16};
  static constexpr PageCount kFirstRun{128};
  static constexpr PageCount kLongestRun{256};

  size_t size() const { return size_; }
  PageCount run() const { return run_; }

  // A run of `pages` has ended `took` after it was begun.
  void OnRunEnded(SteadyClock::time_point now, PageCount pages, SteadyClock::duration took);

 private:
  static constexpr int kRoom = 3;
  static constexpr int kQueued = 5;
  static constexpr auto kEpoch = std::chrono::seconds(10);
  static constexpr SteadyClock::duration kNone = std::chrono::hours(1);

  // A run has come out of a full way, this long after the one before it.
  void MeasureWay(PageCount pages, SteadyClock::duration gap);

  size_t size_ = kFirst;
  PageCount run_ = kFirstRun;
  bool opening_ = true;  // no run has waited yet
  SteadyClock::time_point epoch_;
  SteadyClock::duration fastest_ = kNone;
  SteadyClock::duration fastest_of_epoch_ = kNone;
  SteadyClock::time_point last_end_;
  PageCount full_pages_;
  SteadyClock::duration full_time_{0};
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_DRAIN_WINDOW_H_
