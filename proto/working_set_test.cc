// SPDX-License-Identifier: Apache-2.0
#include "proto/working_set.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "proto/page_testing.h"

namespace faultline {
namespace {

using Numbers = std::vector<uint64_t>;

WorkingSet SetOf(const Numbers& pages, uint64_t volume_pages = 1000) {
  absl::StatusOr<WorkingSet> set = WorkingSet::Create(PageCount(volume_pages));
  EXPECT_TRUE(set.ok()) << set.status();
  for (const uint64_t page : pages) set->Insert(PageIndex(page));
  return *std::move(set);
}

Numbers First(const WorkingSet& set) {
  Numbers first;
  for (const PageIndex page : set.first()) first.push_back(page.raw());
  return first;
}

TEST(WorkingSet, KeepsTheOrderOfWhatIsNew) {
  const WorkingSet set = SetOf({7, 3, 7, 999, 0, 3});
  EXPECT_EQ(First(set), (Numbers{7, 3, 999, 0}));
  EXPECT_EQ(set.pages().count(), PageCount(4));
  EXPECT_TRUE(set.pages().Contains(PageIndex(999)));
}

TEST(WorkingSet, KeepsTheOrderOfSoManyPagesOnly) {
  absl::StatusOr<WorkingSet> set = WorkingSet::Create(PageCount(WorkingSet::kMaxFirst + 10));
  ASSERT_TRUE(set.ok());
  for (uint64_t i = WorkingSet::kMaxFirst + 10; i-- > 0;) set->Insert(PageIndex(i));
  EXPECT_EQ(set->pages().count(), PageCount(WorkingSet::kMaxFirst + 10));
  ASSERT_EQ(set->first().size(), WorkingSet::kMaxFirst);
  EXPECT_EQ(set->first().back(), PageIndex(10));
}

TEST(WorkingSet, WhatIsMergedComesBehindInItsOrder) {
  WorkingSet set = SetOf({5, 4});
  absl::StatusOr<PageSet> unordered = PageSet::Create(PageCount(1000));
  ASSERT_TRUE(unordered.ok());
  unordered->Insert(PageIndex(1));
  set.Merge(SetOf({9, 4, 8}));
  set.Merge(WorkingSet(*std::move(unordered)));
  set.Merge(SetOf({1, 2}));
  EXPECT_EQ(First(set), (Numbers{5, 4, 9, 8, 2}));
  EXPECT_EQ(set.pages().count(), PageCount(6));
}

TEST(WorkingSet, TheOrderGoesThroughItsNumbers) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 50; ++round) {
    absl::StatusOr<WorkingSet> set = WorkingSet::Create(kMaxPageSetVolume);
    ASSERT_TRUE(set.ok());
    for (int i = 0; i < 100; ++i) set->Insert(PageIndex(random() % kMaxPageSetVolume.raw()));
    const Numbers before = First(*set);
    const std::vector<int64_t> steps = set->EncodeFirst();
    ASSERT_EQ(set->DecodeFirst({}), absl::OkStatus());
    EXPECT_TRUE(set->first().empty());
    ASSERT_EQ(set->DecodeFirst(steps), absl::OkStatus());
    EXPECT_EQ(First(*set), before);
  }
}

TEST(WorkingSet, AnOrderOfOtherPagesIsRefused) {
  WorkingSet set = SetOf({10, 20, 30});
  constexpr int64_t kFar = int64_t{1} << 62;
  for (const std::vector<int64_t>& steps : std::vector<std::vector<int64_t>>{
           {11}, {10, 0}, {10, 10, -10}, {-1}, {999999}, {kFar}, {10, kFar, kFar, kFar, kFar}}) {
    EXPECT_EQ(set.DecodeFirst(steps).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(set.first().empty());
  }
  EXPECT_EQ(set.DecodeFirst(std::vector<int64_t>(WorkingSet::kMaxFirst + 1, 1)).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(set.DecodeFirst({{30, -20}}), absl::OkStatus());
  EXPECT_EQ(First(set), (Numbers{30, 10}));
}

}  // namespace
}  // namespace faultline
