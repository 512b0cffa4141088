// SPDX-License-Identifier: Apache-2.0
#include "client/prefetch/stride_walk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace faultline {
namespace {

using testing::ElementsAre;

class StrideWalkTest : public testing::Test {
 protected:
  // What was guessed since the last call, such as "4+1s 5+7m".
  std::vector<std::string> Guessed() {
    std::vector<std::string> text;
    for (const Guess& guess : ahead_) {
      text.push_back(std::to_string(guess.pages.first.raw()) + "+" +
                     std::to_string(guess.pages.count.raw()) +
                     (guess.placement == Placement::kStaged ? "s" : "m"));
    }
    ahead_.clear();
    return text;
  }
  std::vector<std::string> Touch(StrideWalk* walk, uint64_t page) {
    EXPECT_TRUE(walk->Covers(PageIndex(page)));
    walk->OnTouch(PageIndex(page), &ahead_);
    return Guessed();
  }

  std::vector<Guess> ahead_;
};

TEST_F(StrideWalkTest, FirstWindowIsStagedAndHasToBeUsedUp) {
  StrideWalk walk(PageIndex(10), 1, 64, &ahead_);
  EXPECT_THAT(Guessed(), ElementsAre("11+4s"));
  EXPECT_TRUE(Touch(&walk, 11).empty());
  EXPECT_TRUE(Touch(&walk, 13).empty());
  EXPECT_THAT(Touch(&walk, 14), ElementsAre("15+1s", "16+7m"));
}

TEST_F(StrideWalkTest, MarkerHasTheNextWindowsGuessedWhileItsOwnIsUsed) {
  StrideWalk walk(PageIndex(0), 1, 32, &ahead_);
  Guessed();
  EXPECT_THAT(Touch(&walk, 4), ElementsAre("5+1s", "6+7m"));
  EXPECT_THAT(Touch(&walk, 5), ElementsAre("13+1s", "14+15m", "29+1s", "30+15m"));
  EXPECT_THAT(Touch(&walk, 13), ElementsAre("45+1s", "46+31m"));
  EXPECT_TRUE(Touch(&walk, 20).empty());
}

TEST_F(StrideWalkTest, WindowsStopGrowingAtTheirBound) {
  StrideWalk walk(PageIndex(0), 1, 8, &ahead_);
  Guessed();
  Touch(&walk, 4);
  EXPECT_THAT(Touch(&walk, 5), ElementsAre("13+1s", "14+7m"));
  EXPECT_THAT(Touch(&walk, 13), ElementsAre("21+1s", "22+7m"));
}

TEST_F(StrideWalkTest, DescendingWindowsHaveTheirMarkerAtTheTop) {
  StrideWalk walk(PageIndex(100), -1, 64, &ahead_);
  EXPECT_THAT(Guessed(), ElementsAre("96+4s"));
  EXPECT_THAT(Touch(&walk, 96), ElementsAre("95+1s", "88+7m"));
}

TEST_F(StrideWalkTest, OtherStridesAreGuessedPageByPage) {
  StrideWalk walk(PageIndex(0), 7, 64, &ahead_);
  EXPECT_THAT(Guessed(), ElementsAre("7+1s", "14+1s", "21+1s", "28+1s"));
  EXPECT_FALSE(walk.Covers(PageIndex(8)));
}

TEST_F(StrideWalkTest, AfterWasteTheNextWindowIsSmallAndStaged) {
  StrideWalk walk(PageIndex(0), 1, 64, &ahead_);
  Guessed();
  Touch(&walk, 4);  // a window of 8
  EXPECT_TRUE(walk.OnWaste());
  EXPECT_THAT(Touch(&walk, 5), ElementsAre("13+4s"));
}

TEST_F(StrideWalkTest, WasteAgainAndAgainEndsTheWalk) {
  StrideWalk walk(PageIndex(0), 1, 64, &ahead_);
  EXPECT_FALSE(walk.OnWaste());
}

TEST_F(StrideWalkTest, AMissGoesOnWithItOnlyAtItsEnd) {
  StrideWalk walk(PageIndex(0), 1, 64, &ahead_);
  EXPECT_TRUE(walk.Continues(PageIndex(2), TouchKind::kHit));
  EXPECT_FALSE(walk.Continues(PageIndex(2), TouchKind::kMiss));
  EXPECT_TRUE(walk.Continues(PageIndex(5), TouchKind::kMiss));
  EXPECT_FALSE(walk.Continues(PageIndex(6), TouchKind::kMiss));
}

TEST_F(StrideWalkTest, EndsWhereVolumesEnd) {
  StrideWalk down(PageIndex(2), -1, 64, &ahead_);
  EXPECT_THAT(Guessed(), ElementsAre("0+2s"));
  StrideWalk up(PageIndex(kMaxVolumePages - 2), 1, 64, &ahead_);
  EXPECT_THAT(Guessed(), ElementsAre(std::to_string(kMaxVolumePages - 1) + "+1s"));
}

}  // namespace
}  // namespace faultline
