// SPDX-License-Identifier: Apache-2.0
#include "client/bench/touch_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <set>

#include "client/bench/page_content.h"

namespace faultline::bench {
namespace {

TEST(TouchOrder, EveryNameIsReadAsTheOrderThatHasIt) {
  for (const TouchOrder order :
       {TouchOrder::kRandom, TouchOrder::kSequential, TouchOrder::kStride, TouchOrder::kZipf}) {
    EXPECT_EQ(ParseTouchOrder(TouchOrderName(order)), order);
  }
  EXPECT_EQ(ParseTouchOrder("hash"), std::nullopt);
}

TEST(TouchOrder, RandomAndSequentialTouchEveryPageOnce) {
  const std::vector<uint64_t> random = MakeTouches(TouchOrder::kRandom, 1000, 0, 1);
  EXPECT_EQ(random.size(), 1000u);
  EXPECT_EQ(DistinctPages(random), 1000u);
  EXPECT_FALSE(std::is_sorted(random.begin(), random.end()));
  EXPECT_EQ(random, MakeTouches(TouchOrder::kRandom, 1000, 0, 1));
  EXPECT_NE(random, MakeTouches(TouchOrder::kRandom, 1000, 0, 2));
  EXPECT_EQ(MakeTouches(TouchOrder::kSequential, 4, 0, 1), (std::vector<uint64_t>{0, 1, 2, 3}));
}

TEST(TouchOrder, AStrideTouchesEverySeventhPage) {
  EXPECT_EQ(MakeTouches(TouchOrder::kStride, 22, 0, 1), (std::vector<uint64_t>{0, 7, 14, 21}));
}

TEST(TouchOrder, ALimitTakesTheFirstTouches) {
  EXPECT_EQ(MakeTouches(TouchOrder::kSequential, 100, 2, 1), (std::vector<uint64_t>{0, 1}));
  for (const TouchOrder order : {TouchOrder::kRandom, TouchOrder::kStride, TouchOrder::kZipf}) {
    EXPECT_EQ(MakeTouches(order, 100, 5, 1).size(), 5u);
  }
}

// Six standard deviations: a wrong exponent is far outside, and the seed is fixed.
TEST(Zipf, TheFirstNumbersAreAsFrequentAsTheLawSays) {
  constexpr uint64_t kNumbers = 1000, kCount = 200000;
  double sum = 0;
  for (uint64_t k = 1; k <= kNumbers; ++k) sum += std::pow(static_cast<double>(k), -kZipfExponent);
  std::vector<double> found(kNumbers);
  for (const uint64_t number : ZipfNumbers(kNumbers, kZipfExponent, kCount, 1)) {
    ASSERT_LT(number, kNumbers);
    ++found[number];
  }
  for (const uint64_t k : {0, 1, 2, 9, 99}) {
    const double share = std::pow(static_cast<double>(k + 1), -kZipfExponent) / sum;
    EXPECT_NEAR(found[k], share * kCount, 6 * std::sqrt(share * kCount)) << k;
  }
}

TEST(Zipf, OneNumberIsAlwaysTheSame) {
  EXPECT_EQ(ZipfNumbers(1, 0.99, 3, 1), (std::vector<uint64_t>{0, 0, 0}));
}

TEST(Zipf, HotPagesAreSpreadOverTheVolume) {
  const std::vector<uint64_t> touches = MakeTouches(TouchOrder::kZipf, 10000, 0, 1);
  EXPECT_EQ(touches.size(), 10000u);
  // Far fewer pages than touches, and as many of them in each half of the volume.
  std::set<uint64_t> pages(touches.begin(), touches.end());
  EXPECT_LT(pages.size(), 5000u);
  EXPECT_GT(pages.size(), 1000u);
  const auto in_first_half =
      std::count_if(pages.begin(), pages.end(), [](uint64_t page) { return page < 5000; });
  EXPECT_NEAR(static_cast<double>(in_first_half), static_cast<double>(pages.size()) / 2,
              static_cast<double>(pages.size()) / 10);
}

TEST(PageContent, EveryPageSeedAndPlaceHasBytesOfItsOwn) {
  const PageContent content, other{PageContent::kRandom, 2};
  std::set<uint64_t> words;
  for (uint64_t page = 0; page < 4; ++page) {
    for (size_t i = 0; i < PageContent::kWords; ++i) {
      words.insert(content.Word(PageIndex(page), i));
      words.insert(other.Word(PageIndex(page), i));
    }
  }
  EXPECT_EQ(words.size(), 2 * 4 * PageContent::kWords);
}

TEST(PageContent, HalfOfAPageIsOneWordWhereItIsToBeCompressed) {
  const PageContent content{PageContent::kHalf, 1};
  std::vector<std::byte> page(kPageSize);
  content.Fill(PageIndex(3), page.data());
  EXPECT_TRUE(
      std::equal(page.begin() + kPageSize / 2, page.end() - 8, page.begin() + kPageSize / 2 + 8));
  EXPECT_FALSE(std::equal(page.begin(), page.begin() + 8, page.begin() + 8));
  EXPECT_NE(content.Word(PageIndex(3), 511), content.Word(PageIndex(4), 511));
}

}  // namespace
}  // namespace faultline::bench
