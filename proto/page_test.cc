// SPDX-License-Identifier: Apache-2.0
#include "proto/page.h"

#include <gtest/gtest.h>

#include <limits>

namespace faultline {
namespace {

constexpr PageRange Range(uint64_t first, uint64_t count) {
  return {PageIndex(first), PageCount(count)};
}

TEST(PageCount, CoversBytesThatFillThePageOnlyInPart) {
  EXPECT_EQ(PageCount::CoveringBytes(0).raw(), 0u);
  EXPECT_EQ(PageCount::CoveringBytes(1).raw(), 1u);
  EXPECT_EQ(PageCount::CoveringBytes(kPageSize).raw(), 1u);
  EXPECT_EQ(PageCount::CoveringBytes(kPageSize + 1).raw(), 2u);
  // The sum that rounding up the simple way would make does not fit.
  EXPECT_EQ(PageCount::CoveringBytes(std::numeric_limits<uint64_t>::max()).raw(),
            uint64_t{1} << 52);
}

TEST(PageIndex, OfAByteIsThatOfThePageThatHoldsIt) {
  EXPECT_EQ(PageIndex::Containing(0).raw(), 0u);
  EXPECT_EQ(PageIndex::Containing(4095).raw(), 0u);
  EXPECT_EQ(PageIndex::Containing(4096).raw(), 1u);
  EXPECT_EQ(PageIndex(3).byte_offset(), 3 * kPageSize);
  EXPECT_EQ((PageIndex(3) + PageCount(4)).raw(), 7u);
  EXPECT_EQ((PageIndex(7) - PageIndex(3)).raw(), 4u);
}

TEST(PageRange, ContainsItsFirstPageAndNotItsEnd) {
  const PageRange range = Range(10, 5);
  EXPECT_FALSE(range.Contains(PageIndex(9)));
  EXPECT_TRUE(range.Contains(PageIndex(10)));
  EXPECT_TRUE(range.Contains(PageIndex(14)));
  EXPECT_FALSE(range.Contains(PageIndex(15)));
  EXPECT_TRUE(range.Contains(Range(10, 5)));
  EXPECT_TRUE(range.Contains(Range(12, 0)));
  EXPECT_FALSE(range.Contains(Range(12, 4)));
}

TEST(PageRange, NeighboursDoNotOverlap) {
  EXPECT_FALSE(Range(10, 5).Overlaps(Range(15, 5)));
  EXPECT_FALSE(Range(15, 5).Overlaps(Range(10, 5)));
  EXPECT_TRUE(Range(10, 5).Overlaps(Range(14, 1)));
  EXPECT_TRUE(Range(10, 5).Overlaps(Range(0, 100)));
}

// Every pair of small ranges, against counting pages one by one.
TEST(PageRange, IntersectionHoldsExactlyThePagesOfBoth) {
  for (uint64_t a = 0; a < 6; ++a) {
    for (uint64_t n = 0; n < 6; ++n) {
      for (uint64_t b = 0; b < 6; ++b) {
        for (uint64_t m = 0; m < 6; ++m) {
          const PageRange both = Range(a, n).Intersect(Range(b, m));
          for (uint64_t page = 0; page < 12; ++page) {
            const bool expected =
                Range(a, n).Contains(PageIndex(page)) && Range(b, m).Contains(PageIndex(page));
            EXPECT_EQ(both.Contains(PageIndex(page)), expected)
                << a << "+" << n << " and " << b << "+" << m << ", page " << page;
          }
          EXPECT_EQ(Range(a, n).Overlaps(Range(b, m)) && n > 0 && m > 0, !both.empty());
        }
      }
    }
  }
}

TEST(IsWithin, NumbersWhoseSumOverflowsAreOutside) {
  const PageCount size(100);
  EXPECT_TRUE(IsWithin(0, 100, size));
  EXPECT_TRUE(IsWithin(99, 1, size));
  EXPECT_TRUE(IsWithin(100, 0, size));
  EXPECT_FALSE(IsWithin(99, 2, size));
  EXPECT_FALSE(IsWithin(101, 0, size));
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  EXPECT_FALSE(IsWithin(kMax, 1, size));
  EXPECT_FALSE(IsWithin(1, kMax, size));
  EXPECT_FALSE(IsWithin(kMax, kMax, size));
}

}  // namespace
}  // namespace faultline
