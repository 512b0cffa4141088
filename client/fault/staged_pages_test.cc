// SPDX-License-Identifier: Apache-2.0
#include "client/fault/staged_pages.h"

#include <gtest/gtest.h>

#include <string>

namespace faultline {
namespace {

std::string Content(char fill) { return std::string(kPageSize, fill); }

const std::byte* Bytes(const std::string& content) {
  return reinterpret_cast<const std::byte*>(content.data());
}

TEST(StagedPages, GivesBackEachPageOnce) {
  StagedPages staged(4);
  EXPECT_EQ(staged.Put(PageIndex(7), Bytes(Content('a'))), std::nullopt);
  ASSERT_TRUE(staged.Has(PageIndex(7)));
  const auto taken = staged.Take(PageIndex(7));
  ASSERT_TRUE(taken);
  EXPECT_EQ(memcmp(taken->bytes, Content('a').data(), kPageSize), 0);
  EXPECT_FALSE(staged.Has(PageIndex(7)));
  EXPECT_FALSE(staged.Take(PageIndex(7)));
}

TEST(StagedPages, AZeroPageHasNoBytes) {
  StagedPages staged(4);
  staged.Put(PageIndex(3), nullptr);
  const auto taken = staged.Take(PageIndex(3));
  ASSERT_TRUE(taken);
  EXPECT_EQ(taken->bytes, nullptr);
}

TEST(StagedPages, TheOldestMakesRoom) {
  StagedPages staged(2);
  staged.Put(PageIndex(1), Bytes(Content('1')));
  staged.Put(PageIndex(2), Bytes(Content('2')));
  EXPECT_EQ(staged.Put(PageIndex(3), Bytes(Content('3'))), PageIndex(1));
  EXPECT_FALSE(staged.Has(PageIndex(1)));
  EXPECT_EQ(memcmp(staged.Take(PageIndex(2))->bytes, Content('2').data(), kPageSize), 0);
  EXPECT_EQ(memcmp(staged.Take(PageIndex(3))->bytes, Content('3').data(), kPageSize), 0);
}

TEST(StagedPages, APageThatWasTakenMakesRoomForNothing) {
  StagedPages staged(2);
  staged.Put(PageIndex(1), nullptr);
  staged.Put(PageIndex(2), nullptr);
  staged.Take(PageIndex(1));
  EXPECT_EQ(staged.Put(PageIndex(3), nullptr), std::nullopt);
  EXPECT_EQ(staged.size(), 2u);
}

TEST(StagedPages, APageThatIsHereStaysAsItIs) {
  StagedPages staged(2);
  staged.Put(PageIndex(1), Bytes(Content('x')));
  EXPECT_EQ(staged.Put(PageIndex(1), Bytes(Content('y'))), std::nullopt);
  EXPECT_EQ(memcmp(staged.Take(PageIndex(1))->bytes, Content('x').data(), kPageSize), 0);
}

}  // namespace
}  // namespace faultline
