// SPDX-License-Identifier: Apache-2.0
#include "client/fault/replay.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace faultline {
namespace {

using Strings = std::vector<std::string>;

constexpr uint64_t kPart = Replay::kPart.raw();

WorkingSet NewSet(uint64_t volume_pages = 100000) {
  absl::StatusOr<WorkingSet> set = WorkingSet::Create(PageCount(volume_pages));
  EXPECT_TRUE(set.ok());
  return *std::move(set);
}

WorkingSet Unordered(const std::vector<PageRange>& ranges) {
  absl::StatusOr<PageSet> set = PageSet::Create(PageCount(100000));
  EXPECT_TRUE(set.ok());
  for (const PageRange range : ranges) set->Insert(range);
  return WorkingSet(*std::move(set));
}

Strings Text(const std::vector<PageRange>& runs) {
  Strings text;
  for (const PageRange run : runs) {
    text.push_back(std::to_string(run.first.raw()) + "+" + std::to_string(run.count.raw()));
  }
  return text;
}

TEST(Replay, OfNothingIsNothing) {
  const Replay replay(NewSet());
  EXPECT_TRUE(replay.runs.empty());
  EXPECT_EQ(replay.first_part, 0u);
}

TEST(Replay, WithoutAnOrderItIsThatOfTheVolumeWithItsSmallGaps) {
  const Replay replay(Unordered({{PageIndex(50), PageCount(3)},
                                 {PageIndex(61), PageCount(1)},
                                 {PageIndex(71), PageCount(2)}}));
  EXPECT_EQ(Text(replay.runs), (Strings{"50+12", "71+2"}));
  EXPECT_EQ(replay.first_part, 0u);
}

TEST(Replay, TheFirstPartComesFirstWhereverItLies) {
  WorkingSet set = NewSet();
  for (uint64_t i = 0; i < kPart; ++i) set.Insert(PageIndex(50000 - 20 * i));
  set.Insert(PageIndex(99999));
  set.Insert(PageIndex(7));
  set.Merge(Unordered({{PageIndex(3), PageCount(6)}, {PageIndex(400), PageCount(1)}}));
  const Replay replay(set);
  ASSERT_EQ(replay.first_part, kPart);
  EXPECT_EQ(replay.runs.front(), PageRange::Single(PageIndex(50000 - 20 * (kPart - 1))));
  EXPECT_EQ(replay.runs[kPart - 1], PageRange::Single(PageIndex(50000)));
  EXPECT_EQ(Text({replay.runs.begin() + kPart, replay.runs.end()}),
            (Strings{"7+1", "99999+1", "3+6", "400+1"}));
}

TEST(Replay, HasEveryPageOfTheSet) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 20; ++round) {
    WorkingSet set = NewSet();
    const uint64_t spread = 1 + random() % 100000;
    for (int i = 0; i < 5000; ++i) set.Insert(PageIndex(random() % spread));
    set.Merge(Unordered({{PageIndex(random() % 90000), PageCount(random() % 10000)}}));
    absl::StatusOr<PageSet> had = PageSet::Create(PageCount(100000));
    ASSERT_TRUE(had.ok());
    for (const PageRange run : Replay(set).runs) {
      ASSERT_FALSE(run.empty());
      ASSERT_LE(run.end(), PageIndex(100000));
      had->Insert(run);
    }
    for (uint64_t page = 0; page < 100000; ++page) {
      if (set.pages().Contains(PageIndex(page))) {
        ASSERT_TRUE(had->Contains(PageIndex(page))) << page;
      }
    }
  }
}

}  // namespace
}  // namespace faultline
