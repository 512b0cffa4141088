// SPDX-License-Identifier: Apache-2.0
#include "client/fault/drain_window.h"

#include <gtest/gtest.h>

#include <deque>

namespace faultline {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// A way of some length to a source that answers one run at a time.
class Link {
 public:
  Link(SteadyClock::duration round_trip, SteadyClock::duration service)
      : round_trip_(round_trip), service_(service) {}

  // Keeps it as full as the window says until `runs` have ended; the time that took.
  SteadyClock::duration Drain(DrainWindow* window, int runs) {
    const SteadyClock::time_point begin = now_;
    for (int ended = 0; ended < runs; ++ended) {
      while (under_way_.size() < window->size()) {
        const SteadyClock::time_point at = std::max(now_ + round_trip_ / 2, free_at_);
        free_at_ = at + service_;
        under_way_.push_back({now_, free_at_ + round_trip_ / 2});
      }
      const Run run = under_way_.front();
      under_way_.pop_front();
      now_ = std::max(now_, run.end);
      window->OnRunEnded(now_, now_ - run.begin);
    }
    return now_ - begin;
  }

 private:
  struct Run {
    SteadyClock::time_point begin, end;
  };
  const SteadyClock::duration round_trip_, service_;
  SteadyClock::time_point now_{std::chrono::hours(1)}, free_at_;
  std::deque<Run> under_way_;
};

TEST(DrainWindow, AShortWayIsKeptBusyWithFewRuns) {
  DrainWindow window;
  Link link(microseconds(100), microseconds(200));
  link.Drain(&window, 1000);
  EXPECT_GE(window.size(), 2u);
  EXPECT_LE(window.size(), 10u);
}

TEST(DrainWindow, ALongWayIsAsFastAsAShortOne) {
  DrainWindow near_window, far_window;
  const auto near_time = Link(microseconds(50), microseconds(200)).Drain(&near_window, 4000);
  const auto far_time = Link(milliseconds(10), microseconds(200)).Drain(&far_window, 4000);
  EXPECT_GT(far_window.size(), 50u);
  EXPECT_LT(far_time, near_time * 1.1);
}

TEST(DrainWindow, ShrinksWhereTheWayBecomesSlow) {
  DrainWindow window;
  Link(milliseconds(10), microseconds(100)).Drain(&window, 4000);
  const size_t before = window.size();
  Link(milliseconds(10), milliseconds(2)).Drain(&window, 2000);
  EXPECT_LT(window.size(), before / 2);
}

TEST(DrainWindow, StaysWithinItsBounds) {
  DrainWindow window;
  SteadyClock::time_point now(std::chrono::hours(1));
  for (int i = 0; i < 1000; ++i) window.OnRunEnded(now, microseconds(1));
  EXPECT_EQ(window.size(), DrainWindow::kLargest);
  for (int i = 0; i < 1000; ++i) window.OnRunEnded(now, milliseconds(1));
  EXPECT_EQ(window.size(), DrainWindow::kFirst);
}

}  // namespace
}  // namespace faultline
