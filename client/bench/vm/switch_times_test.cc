// SPDX-License-Identifier: Apache-2.0
#include "client/bench/vm/switch_times.h"

#include <gtest/gtest.h>

namespace faultline::bench {
namespace {

const absl::Time kStop = absl::FromUnixSeconds(1000);

absl::Time At(int ms) { return kStop + absl::Milliseconds(ms); }

Move MoveWithTicks(std::vector<int> before_ms, std::vector<int> after_ms) {
  Move move{.stopped = kStop,
            .resumed = At(5),
            .complete = At(3000),
            .steps_ms = {},
            .before = {},
            .after = {}};
  for (const int ms : before_ms) move.before.push_back({.at = At(ms)});
  for (const int ms : after_ms) move.after.push_back({.at = At(ms)});
  return move;
}

// From the first output on; what comes before it is told by the time until it.
TEST(SwitchTimes, AreThoseOfTheTicksAtTheDestination) {
  const SwitchTimes times = TimesOf(MoveWithTicks({-20, -10}, {400, 410, 490, 1399, 1400, 1500}));
  EXPECT_EQ(times.resumed_ms, 5);
  EXPECT_EQ(times.first_output_ms, 400);
  EXPECT_EQ(times.complete_ms, 3000);
  EXPECT_EQ(times.longest_gap_ms, 909);
  EXPECT_EQ(times.ticks_of_first_second, 4);
  EXPECT_EQ(times.ticks_of_second_after_stop, 3);
}

// A gap that begins before everything is there counts as a whole, a later one does not.
TEST(SwitchTimes, GapsCountUntilEverythingIsThere) {
  EXPECT_EQ(TimesOf(MoveWithTicks({}, {100, 2900, 3100, 9000})).longest_gap_ms, 2800);
  EXPECT_EQ(TimesOf(MoveWithTicks({}, {100, 2900, 8000, 9000})).longest_gap_ms, 5100);
}

TEST(SwitchTimes, TicksFallIntoBinsAroundTheStop) {
  EXPECT_EQ(TicksPerBin(MoveWithTicks({-250, -150, -1}, {0, 99, 100, 250, 350}), 2, 3),
            (std::vector<double>{1, 1, 2, 1, 1}));
}

}  // namespace
}  // namespace faultline::bench
