// SPDX-License-Identifier: Apache-2.0
#include "client/page_table.h"

#include <gtest/gtest.h>

namespace faultline {
namespace {

std::unique_ptr<PageTable> NewTable(uint64_t first, uint64_t count) {
  return *PageTable::Create({PageIndex(first), PageCount(count)});
}

TEST(PageTable, FreshPagesAreAbsent) {
  auto table = NewTable(100, 50);
  for (uint64_t i = 100; i < 150; ++i) EXPECT_EQ(table->Get(PageIndex(i)), PageState::kAbsent);
}

TEST(PageTable, LegalChangesAreMadeAndCounted) {
  auto table = NewTable(0, 10);
  EXPECT_TRUE(table->Set(PageIndex(1), PageState::kPresent));
  EXPECT_TRUE(table->Set(PageIndex(2), PageState::kPresent));
  EXPECT_TRUE(table->Set(PageIndex(2), PageState::kZero));
  EXPECT_TRUE(table->Set(PageIndex(3), PageState::kPoisoned));
  EXPECT_EQ(table->CountOf(PageState::kPresent), PageCount(1));
  EXPECT_EQ(table->CountOf(PageState::kZero), PageCount(1));
  EXPECT_EQ(table->CountOf(PageState::kPoisoned), PageCount(1));
}

TEST(PageTable, IllegalChangesLeaveThePageAsItIs) {
  auto table = NewTable(0, 10);
  ASSERT_TRUE(table->Set(PageIndex(1), PageState::kPresent));
  EXPECT_FALSE(table->Set(PageIndex(1), PageState::kPoisoned));
  EXPECT_FALSE(table->Set(PageIndex(1), PageState::kAbsent));
  EXPECT_EQ(table->Get(PageIndex(1)), PageState::kPresent);
}

TEST(PageTable, RunsEndWhereTheStateChanges) {
  auto table = NewTable(5, 10);
  ASSERT_TRUE(table->Set(PageIndex(8), PageState::kZero));
  EXPECT_EQ(table->RunOfSameState({PageIndex(5), PageCount(10)}), PageCount(3));
  EXPECT_EQ(table->RunOfSameState({PageIndex(8), PageCount(7)}), PageCount(1));
  EXPECT_EQ(table->RunOfSameState({PageIndex(9), PageCount(2)}), PageCount(2));
}

TEST(PageTable, ATableForAHugeVolumeCostsOnlyWhatIsTouched) {
  auto table = NewTable(0, uint64_t{1} << 36);  // 256 TiB of volume
  ASSERT_TRUE(table->Set(PageIndex((uint64_t{1} << 36) - 1), PageState::kPresent));
  EXPECT_EQ(table->CountOf(PageState::kPresent), PageCount(1));
}

}  // namespace
}  // namespace faultline
