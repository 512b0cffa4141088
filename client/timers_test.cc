// SPDX-License-Identifier: Apache-2.0
#include "client/timers.h"

#include <gtest/gtest.h>

#include <future>

namespace faultline {
namespace {

TEST(ThreadTimers, TasksRunInTheOrderInWhichTheyFallDue) {
  std::vector<int> order;  // only the timers' thread touches it before the promise is kept
  std::promise<void> done;
  ThreadTimers timers;
  timers.After(std::chrono::milliseconds(20), [&] {
    order.push_back(2);
    done.set_value();
  });
  timers.After(std::chrono::milliseconds(1), [&] { order.push_back(1); });
  done.get_future().wait();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(ThreadTimers, TasksThatAreNotDueAreDroppedAtTheEnd) {
  bool ran = false;
  {
    ThreadTimers().After(std::chrono::hours(1), [&] { ran = true; });
  }
  EXPECT_FALSE(ran);
}

TEST(FakeTimers, TasksRunOnlyWhenTheClockIsMoved) {
  FakeTimers timers;
  int ran = 0;
  timers.After(std::chrono::seconds(1), [&] {
    ++ran;
    timers.After(std::chrono::seconds(1), [&] { ++ran; });
  });
  timers.Advance(std::chrono::milliseconds(999));
  EXPECT_EQ(ran, 0);
  timers.Advance(std::chrono::milliseconds(1));
  EXPECT_EQ(ran, 1);
  timers.Advance(std::chrono::seconds(5));
  EXPECT_EQ(ran, 2);
  EXPECT_EQ(timers.pending(), 0u);
}

}  // namespace
}  // namespace faultline
