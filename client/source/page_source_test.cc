// SPDX-License-Identifier: Apache-2.0
#include "client/source/faulty_page_source.h"
#include "client/source/memory_page_source.h"
#include "client/source/page_source_conformance.h"

namespace faultline {

INSTANTIATE_TEST_SUITE_P(
    Sources, PageSourceConformance,
    testing::Values(SourceMaker{"memory",
                                [](const std::string& content) {
                                  return std::make_shared<MemoryPageSource>(content);
                                }},
                    SourceMaker{"faulty_without_faults",
                                [](const std::string& content) {
                                  return std::make_shared<FaultyPageSource>(
                                      std::make_shared<MemoryPageSource>(content), /*seed=*/1);
                                }}),
    [](const auto& param) { return param.param.name; });

namespace {

TEST(FaultyPageSource, ADamagedPageFailsEveryFetchThatTouchesItUntilItIsHealed) {
  FaultyPageSource source(std::make_shared<MemoryPageSource>(std::string(10 * kPageSize, 'x')), 1);
  source.FailPage(PageIndex(4), absl::DataLossError("damaged"));
  EXPECT_FALSE(FetchAndWait(source, {PageIndex(3), PageCount(3)}).ok());
  EXPECT_TRUE(FetchAndWait(source, {PageIndex(5), PageCount(3)}).ok());
  source.HealPage(PageIndex(4));
  EXPECT_TRUE(FetchAndWait(source, {PageIndex(3), PageCount(3)}).ok());
}

TEST(FaultyPageSource, TheSameSeedFailsTheSameFetches) {
  const auto failures = [](uint32_t seed) {
    FaultyPageSource source(std::make_shared<MemoryPageSource>(std::string(kPageSize, 'x')), seed);
    source.FailShare(0.5);
    std::string pattern;
    for (int i = 0; i < 64; ++i) {
      pattern += FetchAndWait(source, PageRange::Single(PageIndex(0))).ok() ? '+' : '-';
    }
    return pattern;
  };
  EXPECT_EQ(failures(1), failures(1));
  EXPECT_NE(failures(1), failures(2));
}

}  // namespace
}  // namespace faultline
