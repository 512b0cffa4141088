// SPDX-License-Identifier: Apache-2.0
#include "client/fault/drain_window.h"

#include <gtest/gtest.h>

#include <deque>

namespace faultline {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// A way of some length, over which one page travels at a time.
class Link {
 public:
  Link(SteadyClock::duration round_trip, SteadyClock::duration of_a_page)
      : round_trip_(round_trip), of_a_page_(of_a_page) {}

  // Keeps it as full as the window says until `pages` have come; the time that took.
  SteadyClock::duration Drain(DrainWindow* window, uint64_t pages) {
    const SteadyClock::time_point begin = now_;
    for (PageCount come; come.raw() < pages;) {
      while (under_way_.size() < window->size()) {
        const SteadyClock::time_point at = std::max(now_ + round_trip_ / 2, free_at_);
        free_at_ = at + of_a_page_ * window->run().raw();
        under_way_.push_back({window->run(), now_, free_at_ + round_trip_ / 2});
      }
      const Run run = under_way_.front();
      under_way_.pop_front();
      now_ = std::max(now_, run.end);
      come += run.pages;
      window->OnRunEnded(now_, run.pages, now_ - run.begin);
    }
    return now_ - begin;
  }

 private:
  struct Run {
    PageCount pages;
    SteadyClock::time_point begin, end;
  };
  const SteadyClock::duration round_trip_, of_a_page_;
  SteadyClock::time_point now_{std::chrono::hours(1)}, free_at_;
  std::deque<Run> under_way_;
};

// What a page takes over each.
constexpr auto kLoopback = std::chrono::nanoseconds(3500);
constexpr auto kGigabit = microseconds(34);
constexpr auto kHalfGigabit = microseconds(68);

TEST(DrainWindow, AShortWayIsKeptBusyWithFewRuns) {
  DrainWindow window;
  Link link(microseconds(100), kLoopback);
  link.Drain(&window, 200'000);
  EXPECT_GE(window.size(), 2u);
  EXPECT_LE(window.size(), 10u);
  EXPECT_EQ(window.run(), DrainWindow::kLongestRun);
}

TEST(DrainWindow, ALongWayIsAsFastAsAShortOne) {
  DrainWindow near_window, far_window;
  const auto near_time = Link(microseconds(50), kLoopback).Drain(&near_window, 500'000);
  const auto far_time = Link(milliseconds(10), kLoopback).Drain(&far_window, 500'000);
  EXPECT_LT(far_time, near_time * 1.05);
}

TEST(DrainWindow, ALongWayIsFullAfterThreeRoundTrips) {
  DrainWindow window;
  Link link(milliseconds(10), kLoopback);
  const auto time = link.Drain(&window, 131'072);
  EXPECT_LT(time, 131'072 * kLoopback + milliseconds(35));
}

TEST(DrainWindow, RunsOfANarrowWayTakeAMillisecondOfIt) {
  DrainWindow gigabit, half_gigabit;
  Link(microseconds(200), kGigabit).Drain(&gigabit, 20'000);
  Link(microseconds(200), kHalfGigabit).Drain(&half_gigabit, 20'000);
  EXPECT_EQ(gigabit.run(), PageCount(16));
  EXPECT_EQ(half_gigabit.run(), DrainWindow::kShortestRun);
  Link(microseconds(200), kGigabit / 10).Drain(&gigabit, 100'000);
  EXPECT_EQ(gigabit.run(), DrainWindow::kLongestRun) << "the way has become wide";
}

TEST(DrainWindow, ANarrowLongWayIsFull) {
  DrainWindow window;
  const auto time = Link(milliseconds(10), kHalfGigabit).Drain(&window, 50'000);
  EXPECT_LT(time, 50'000 * kHalfGigabit * 1.05);
}

TEST(DrainWindow, ShrinksWhereTheWayBecomesSlow) {
  DrainWindow window;
  Link(milliseconds(10), kLoopback).Drain(&window, 500'000);
  const uint64_t before = window.size() * window.run().raw();
  Link(milliseconds(10), kLoopback * 20).Drain(&window, 250'000);
  EXPECT_LT(window.size() * window.run().raw(), before / 2);
}

// Whatever takes the time: a way, or processors.
TEST(DrainWindow, RunsBesideFaultsTakeAMillisecond) {
  DrainWindow window;
  EXPECT_EQ(window.run_beside_faults(), DrainWindow::kShortestRun);
  const auto run = [&](SteadyClock::duration of_a_page) {
    for (int i = 0; i < 20; ++i) {
      const PageCount pages = window.run_beside_faults();
      window.OnRunBesideFaults(pages, microseconds(100) + of_a_page * pages.raw());
    }
    return window.run_beside_faults();
  };
  EXPECT_EQ(run(kLoopback), PageCount(128));
  EXPECT_LT(run(kHalfGigabit), DrainWindow::kShortestRun);               // a narrow way
  EXPECT_EQ(run(2 * kHalfGigabit), DrainWindow::kShortestBesideFaults);  // by one that is ahead
  // What was left of a run tells nothing.
  for (int i = 0; i < 20; ++i) window.OnRunBesideFaults(PageCount(1), microseconds(10));
  EXPECT_EQ(window.run_beside_faults(), DrainWindow::kShortestBesideFaults);
  EXPECT_EQ(run(kLoopback), PageCount(128));
}

// Also where only pieces of a run are left to be fetched.
TEST(DrainWindow, APieceOfARunTellsWhatAWholeOneTakes) {
  DrainWindow window;
  for (int i = 0; i < 20; ++i) {
    const uint64_t pages = window.run_beside_faults().raw() / 2;
    window.OnRunBesideFaults(PageCount(pages), microseconds(100) + kLoopback * pages);
  }
  EXPECT_EQ(window.run_beside_faults(), PageCount(128));
}

TEST(DrainWindow, TheMoreTimeHasPassedSinceAFaultTheMoreMayBeUnderWay) {
  const DrainWindow window;
  const uint64_t run = window.run_beside_faults().raw();
  EXPECT_EQ(window.Allowed(microseconds(999)), PageCount(0));
  EXPECT_EQ(window.Allowed(milliseconds(10)), PageCount(5 * run));
  EXPECT_EQ(window.Allowed(milliseconds(1000)), PageCount(500 * run));
  EXPECT_GE(window.Allowed(std::chrono::hours(24 * 365)).raw(),
            DrainWindow::kLargest * DrainWindow::kLongestRun.raw());
}

TEST(DrainWindow, StaysWithinItsBounds) {
  DrainWindow window;
  SteadyClock::time_point now(std::chrono::hours(1));
  for (int i = 0; i < 1000; ++i) window.OnRunEnded(now, PageCount(256), microseconds(1));
  EXPECT_EQ(window.size(), DrainWindow::kLargest);
  for (int i = 0; i < 1000; ++i) {
    now += milliseconds(100);
    window.OnRunEnded(now, PageCount(256), milliseconds(1));
  }
  EXPECT_EQ(window.run(), DrainWindow::kShortestRun);
  // The first of them is the fastest of that length.
  window.OnRunEnded(now, PageCount(16), microseconds(1));
  for (int i = 0; i < 1000; ++i) window.OnRunEnded(now, PageCount(16), milliseconds(1));
  EXPECT_EQ(window.size(), DrainWindow::kFirst);
}

}  // namespace
}  // namespace faultline
