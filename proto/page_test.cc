// SPDX-License-Identifier: Apache-2.0
#include "proto/page.h"

#include <gtest/gtest.h>

#include <limits>

#include "proto/page_testing.h"

namespace faultline {
namespace {

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
  const PageRange range = Pages(10, 5);
  EXPECT_FALSE(range.Contains(PageIndex(9)));
  EXPECT_TRUE(range.Contains(PageIndex(10)));
  EXPECT_TRUE(range.Contains(PageIndex(14)));
  EXPECT_FALSE(range.Contains(PageIndex(15)));
  EXPECT_TRUE(range.Contains(Pages(10, 5)));
  EXPECT_TRUE(range.Contains(Pages(12, 0)));
  EXPECT_FALSE(range.Contains(Pages(12, 4)));
}

TEST(PageRange, NeighboursDoNotOverlap) {
  EXPECT_FALSE(Pages(10, 5).Overlaps(Pages(15, 5)));
  EXPECT_FALSE(Pages(15, 5).Overlaps(Pages(10, 5)));
  EXPECT_TRUE(Pages(10, 5).Overlaps(Pages(14, 1)));
  EXPECT_TRUE(Pages(10, 5).Overlaps(Pages(0, 100)));
}

// Every pair of small ranges, against counting pages one by one.
TEST(PageRange, IntersectionHoldsExactlyThePagesOfBoth) {
  for (uint64_t a = 0; a < 6; ++a) {
    for (uint64_t n = 0; n < 6; ++n) {
      for (uint64_t b = 0; b < 6; ++b) {
        for (uint64_t m = 0; m < 6; ++m) {
          const PageRange both = Pages(a, n).Intersect(Pages(b, m));
          for (uint64_t page = 0; page < 12; ++page) {
            const bool expected =
                Pages(a, n).Contains(PageIndex(page)) && Pages(b, m).Contains(PageIndex(page));
            EXPECT_EQ(both.Contains(PageIndex(page)), expected)
                << a << "+" << n << " and " << b << "+" << m << ", page " << page;
          }
          EXPECT_EQ(Pages(a, n).Overlaps(Pages(b, m)) && n > 0 && m > 0, !both.empty());
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
  EXPECT_FALSE(IsWithin(kMax, 1, size));
  EXPECT_FALSE(IsWithin(1, kMax, size));
  EXPECT_FALSE(IsWithin(kMax, kMax, size));
}

}  // namespace
}  // namespace faultline
