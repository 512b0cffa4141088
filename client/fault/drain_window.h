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
// From one that takes longer it follows how many of those under way wait in a queue (the idea of
// TCP Vegas); a few are enough, and each more costs memory that is in no cache. While they wait the
// way is full, and what comes out of it in a millisecond is the length of a run: a fault does not
// stand behind a longer one, and a fast way does not waste its time on messages.
//
// At first nothing is known of the fastest run, least of all where the processors are busy: room is
// made until more of it does not make the drain faster.
//
// Where the target faults, one run at a time is under way, of a length that takes about a
// millisecond, however that comes about; or on a way so narrow that the shortest takes longer,
// three of half of that: the way is not idle between them.
//
// When the target does not fault any more, more and more may be under way: the next fault, whenever
// it comes, stands behind at most as much as half of the time takes that has passed since the last.
//
// Pure. Not thread-safe.
class DrainWindow {
 public:
  static constexpr size_t kFirst = 2;
  static constexpr size_t kLargest = 128;
  // 64 KiB take a millisecond of half a gigabit a second. Over loopback, runs of 128 pages cost 7 %
  // more than those of 256, of 64 a quarter more; longer ones bring nothing.
  static constexpr PageCount kShortestRun{16};
  static constexpr PageCount kShortestBesideFaults{8};
  static constexpr PageCount kFirstRun{128};
  static constexpr PageCount kLongestRun{256};

  size_t size() const { return size_; }
  PageCount run() const { return run_; }

  // A run of `pages` has ended `took` after it was begun.
  void OnRunEnded(SteadyClock::time_point now, PageCount pages, SteadyClock::duration took);

  PageCount run_beside_faults() const { return run_beside_faults_; }
  // How many pages may be under way so long after the last fault; 0 while faults follow each other.
  PageCount Allowed(SteadyClock::duration since_fault) const;
  // The same of a run beside faults; `pages` were under way, with itself, when it was begun.
  void OnRunBesideFaults(PageCount pages, SteadyClock::duration took);

 private:
  static constexpr int kRoom = 3;
  static constexpr int kQueued = 5;
  static constexpr auto kEpoch = std::chrono::seconds(10);
  static constexpr SteadyClock::duration kNone = std::chrono::hours(1);

  // While room is made: one more run has ended.
  void MeasureRound(SteadyClock::time_point now, PageCount pages, SteadyClock::duration took);
  void SetRunBesideFaults(uint64_t pages);
  // A run has come out of a full way, this long after the one before it.
  void MeasureWay(PageCount pages, SteadyClock::duration gap);

  size_t size_ = kFirst;
  PageCount run_ = kFirstRun;
  PageCount run_beside_faults_ = kShortestRun;
  // Room is made in rounds, in each of which as many runs end as were under way at its begin.
  bool opening_ = true;
  size_t round_ = 0;  // runs of this one, 0 before the first
  size_t round_left_ = 0;
  PageCount round_pages_;
  SteadyClock::time_point round_began_;
  double fastest_round_ = 0;  // pages per second
  SteadyClock::time_point epoch_;
  SteadyClock::duration fastest_ = kNone;
  SteadyClock::duration fastest_of_epoch_ = kNone;
  SteadyClock::time_point last_end_;
  PageCount full_pages_;
  SteadyClock::duration full_time_{0};
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_DRAIN_WINDOW_H_
