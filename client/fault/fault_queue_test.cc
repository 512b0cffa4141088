// SPDX-License-Identifier: Apache-2.0
#include "client/fault/fault_queue.h"

#include <gtest/gtest.h>

namespace faultline {
namespace {

constexpr SteadyClock::time_point At(int seconds) {
  return SteadyClock::time_point(std::chrono::seconds(seconds));
}

TEST(FaultQueue, SecondFaultOnSamePageJoinsTheFirst) {
  FaultQueue queue;
  EXPECT_TRUE(queue.Join(PageIndex(7), At(1)));
  EXPECT_FALSE(queue.Join(PageIndex(7), At(2)));
  EXPECT_TRUE(queue.Join(PageIndex(8), At(3)));
  EXPECT_EQ(queue.size(), 2u);
}

TEST(FaultQueue, TakeReturnsSinceWhenTheOldestWaitsAndForgetsThem) {
  FaultQueue queue;
  queue.Join(PageIndex(7), At(5));
  queue.Join(PageIndex(8), At(3));
  queue.Join(PageIndex(20), At(1));
  EXPECT_EQ(queue.Take({PageIndex(0), PageCount(10)}), At(3));
  EXPECT_EQ(queue.size(), 1u);
  EXPECT_EQ(queue.Take({PageIndex(0), PageCount(10)}), std::nullopt);
}

TEST(FaultQueue, AFaultAfterTheEntryWasTakenHasToBeFetchedAgain) {
  FaultQueue queue;
  queue.Join(PageIndex(7), At(1));
  queue.Take(PageRange::Single(PageIndex(7)));
  EXPECT_TRUE(queue.Join(PageIndex(7), At(2)));
}

TEST(FaultQueue, WhatIsPutBackKeepsItsTime) {
  FaultQueue queue;
  queue.PutBack(PageIndex(7), At(1));
  EXPECT_FALSE(queue.Join(PageIndex(7), At(9)));
  EXPECT_EQ(queue.Take(PageRange::Single(PageIndex(7))), At(1));
}

}  // namespace
}  // namespace faultline
