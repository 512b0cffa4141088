// SPDX-License-Identifier: Apache-2.0
#include "client/spin_policy.h"

#include <gtest/gtest.h>

namespace faultline {
namespace {

using std::chrono::microseconds;

constexpr auto kLimit = microseconds(100);

class SpinPolicyTest : public testing::Test {
 protected:
  void Faults(int n, SteadyClock::duration apart) {
    for (int i = 0; i < n; ++i) policy_.OnFault(now_ += apart);
  }

  SpinPolicy policy_{kLimit};
  SteadyClock::time_point now_{std::chrono::hours(1)};
};

TEST_F(SpinPolicyTest, FaultsThatFollowEachOtherCloselyAreWorthSpinningFor) {
  Faults(8, microseconds(80));
  EXPECT_TRUE(policy_.ShouldSpin(now_ + microseconds(99)));
}

TEST_F(SpinPolicyTest, ALoneFaultIsNot) {
  Faults(2, microseconds(80));
  EXPECT_FALSE(policy_.ShouldSpin(now_));
}

TEST_F(SpinPolicyTest, RareFaultsAreNot) {
  Faults(50, microseconds(400));
  EXPECT_FALSE(policy_.ShouldSpin(now_));
}

TEST_F(SpinPolicyTest, APauseMakesThemColdAgain) {
  Faults(8, microseconds(80));
  Faults(1, std::chrono::seconds(1));
  EXPECT_FALSE(policy_.ShouldSpin(now_));
}

TEST_F(SpinPolicyTest, SpinningIsBoundedWhereNothingHappens) {
  Faults(8, microseconds(80));
  EXPECT_FALSE(policy_.ShouldSpin(now_ + kLimit));
}

TEST_F(SpinPolicyTest, ProgressProlongsIt) {
  Faults(8, microseconds(80));
  policy_.OnProgress(now_ + microseconds(90));
  EXPECT_TRUE(policy_.ShouldSpin(now_ + microseconds(150)));
}

TEST_F(SpinPolicyTest, SecondOfTwoEventsIsWaitedForEvenWhereFaultsAreCold) {
  policy_.OnFirstOfTwo(now_);
  EXPECT_TRUE(policy_.ShouldSpin(now_ + microseconds(50)));
  EXPECT_FALSE(policy_.ShouldSpin(now_ + kLimit));
}

TEST_F(SpinPolicyTest, WhereOthersWantTheProcessorItIsLeftToThemForAWhile) {
  Faults(8, microseconds(80));
  policy_.OnYield(now_, std::chrono::milliseconds(3));
  policy_.OnFirstOfTwo(now_);
  EXPECT_FALSE(policy_.ShouldSpin(now_ + microseconds(1)));
  Faults(300, microseconds(80));
  EXPECT_TRUE(policy_.ShouldSpin(now_));
}

TEST_F(SpinPolicyTest, WhereTheProcessorIsWantedAgainAndAgainItIsLeftForLonger) {
  SteadyClock::duration before = SteadyClock::duration::zero();
  for (int i = 0; i < 6; ++i) {
    policy_.OnYield(now_, std::chrono::milliseconds(3));
    const SteadyClock::time_point quiet_from = now_;
    while (!policy_.ShouldSpin(now_)) Faults(1, microseconds(80));
    EXPECT_GT(now_ - quiet_from, before * 3 / 2);
    before = now_ - quiet_from;
  }
}

TEST_F(SpinPolicyTest, AShortYieldMattersNothing) {
  Faults(8, microseconds(80));
  policy_.OnYield(now_, microseconds(60));
  EXPECT_TRUE(policy_.ShouldSpin(now_));
}

TEST(SpinPolicy, WithNoLimitNeverSpins) {
  SpinPolicy policy(SteadyClock::duration::zero());
  const SteadyClock::time_point now(std::chrono::hours(1));
  for (int i = 0; i < 100; ++i) policy.OnFault(now);
  policy.OnFirstOfTwo(now);
  EXPECT_FALSE(policy.ShouldSpin(now));
}

}  // namespace
}  // namespace faultline
