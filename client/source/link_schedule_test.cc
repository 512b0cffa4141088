// SPDX-License-Identifier: Apache-2.0
#include "client/source/link_schedule.h"

#include <gtest/gtest.h>

namespace faultline {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Nanos = LinkSchedule::Nanos;

constexpr uint64_t kGigabit = 125'000'000;  // bytes per second
constexpr Nanos kNoBurst{0};
constexpr Nanos kStart = seconds(100);

TEST(LinkSchedule, BytesComeOneAfterTheOtherAndThenTheDelay) {
  LinkSchedule link(kGigabit, milliseconds(5), kNoBurst);
  // 125 bytes take a microsecond.
  EXPECT_EQ(link.Arrival(kStart, 125), kStart + microseconds(1) + milliseconds(5));
  EXPECT_EQ(link.Arrival(kStart, 250), kStart + microseconds(3) + milliseconds(5));
}

TEST(LinkSchedule, TheSpeedIsExactOverTimeWhateverThePieces) {
  // A byte takes 8 / 3 us and a third of a nanosecond is left over.
  LinkSchedule link(375'000, Nanos(0), kNoBurst);
  Nanos last(0);
  for (int i = 0; i < 375'000; ++i) last = link.Arrival(kStart, 1);
  EXPECT_EQ(last, kStart + seconds(1));
}

TEST(LinkSchedule, AnIdleLinkStartsAnew) {
  LinkSchedule link(kGigabit, Nanos(0), kNoBurst);
  link.Arrival(kStart, 125);
  EXPECT_EQ(link.Arrival(kStart + seconds(1), 125), kStart + seconds(1) + microseconds(1));
}

TEST(LinkSchedule, ALateCallerMakesUpForTheBurstAndNoMore) {
  LinkSchedule link(kGigabit, Nanos(0), microseconds(10));
  link.Arrival(kStart, 125);
  const Nanos later = kStart + seconds(1);
  // What fits into 10 us is there at once, what follows is not.
  EXPECT_EQ(link.Arrival(later, 1250), later);
  EXPECT_EQ(link.Arrival(later, 125), later + microseconds(1));
}

TEST(LinkSchedule, BacklogIsWhatIsStillToBeSent) {
  LinkSchedule link(kGigabit, milliseconds(5), kNoBurst);
  EXPECT_EQ(link.Backlog(kStart), Nanos(0));
  link.Arrival(kStart, 1250);
  EXPECT_EQ(link.Backlog(kStart), microseconds(10));
  EXPECT_EQ(link.Backlog(kStart + microseconds(4)), microseconds(6));
  EXPECT_EQ(link.Backlog(kStart + seconds(1)), Nanos(0));
}

TEST(LinkSchedule, WithoutALimitThereIsOnlyTheDelay) {
  LinkSchedule link(0, milliseconds(5), kNoBurst);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(link.Arrival(kStart, 1 << 30), kStart + milliseconds(5));
    EXPECT_EQ(link.Backlog(kStart), Nanos(0));
  }
}

}  // namespace
}  // namespace faultline
