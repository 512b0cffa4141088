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

TEST(FaultQueue, TakeReturnsWhoWaitsAndSinceWhenAndForgetsThem) {
  FaultQueue queue;
  queue.Join(PageIndex(7), At(5));
  queue.Join(PageIndex(8), At(3));
  queue.Join(PageIndex(20), At(1));
  const FaultQueue::Taken taken = queue.Take({PageIndex(0), PageCount(10)});
  ASSERT_EQ(taken.size(), 2u);
  EXPECT_EQ(taken[0].page, PageIndex(7));
  EXPECT_EQ(taken[0].since, At(5));
  EXPECT_EQ(taken[1].page, PageIndex(8));
  EXPECT_EQ(queue.size(), 1u);
  EXPECT_TRUE(queue.Take({PageIndex(0), PageCount(10)}).empty());
}

TEST(FaultQueue, AFaultAfterTheEntryWasTakenHasToBeFetchedAgain) {
  FaultQueue queue;
  queue.Join(PageIndex(7), At(1));
  queue.Take(PageRange::Single(PageIndex(7)));
  EXPECT_TRUE(queue.Join(PageIndex(7), At(2)));
}

TEST(FaultQueue, TellsWhichThreadWaitsTheLongest) {
  FaultQueue queue;
  const SteadyClock::time_point start;
  EXPECT_EQ(queue.Oldest(), std::nullopt);
  queue.Join(PageIndex(5), start + std::chrono::seconds(2));
  queue.Join(PageIndex(9), start + std::chrono::seconds(1));
  queue.Join(PageIndex(9), start + std::chrono::seconds(3));
  EXPECT_EQ(queue.Oldest(), start + std::chrono::seconds(1));
  queue.Take(PageRange::Single(PageIndex(9)));
  EXPECT_EQ(queue.Oldest(), start + std::chrono::seconds(2));
}

TEST(FaultQueue, WhatIsPutBackKeepsItsTimeAndWhatWasServedStaysOut) {
  FaultQueue queue;
  for (int page : {6, 7, 8}) queue.Join(PageIndex(static_cast<uint64_t>(page)), At(page));
  queue.PutBack(queue.Take({PageIndex(6), PageCount(3)}), PageIndex(7));
  EXPECT_EQ(queue.size(), 2u);
  EXPECT_FALSE(queue.Join(PageIndex(7), At(19)));
  EXPECT_FALSE(queue.Join(PageIndex(8), At(19)));
  EXPECT_EQ(queue.Take(PageRange::Single(PageIndex(7)))[0].since, At(7));
}

TEST(FaultQueue, WhoWaitsForRoomIsKnownUntilItIsServed) {
  FaultQueue queue;
  queue.Join(PageIndex(7), At(1));
  queue.Join(PageIndex(8), At(1));
  queue.Defer(PageIndex(8));
  queue.Defer(PageIndex(9));  // nobody waits
  queue.PutBack(queue.Take({PageIndex(0), PageCount(10)}), PageIndex(0));
  const FaultQueue::Taken taken = queue.Take({PageIndex(0), PageCount(10)});
  ASSERT_EQ(taken.size(), 2u);
  EXPECT_FALSE(taken[0].deferred);
  EXPECT_TRUE(taken[1].deferred);
}

}  // namespace
}  // namespace faultline
