// SPDX-License-Identifier: Apache-2.0
//
// What every PageSource does, whatever is behind it: one suite, instantiated for each of them.
#ifndef FAULTLINE_CLIENT_SOURCE_PAGE_SOURCE_CONFORMANCE_H_
#define FAULTLINE_CLIENT_SOURCE_PAGE_SOURCE_CONFORMANCE_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/source/page_io_testing.h"
#include "client/source/page_source.h"

namespace faultline {

// Makes a source of a volume with this content, a multiple of 4096 bytes.
struct SourceMaker {
  std::string name;
  std::function<std::shared_ptr<PageSource>(const std::string& content)> make;
};

class PageSourceConformance : public testing::TestWithParam<SourceMaker> {
 protected:
  static constexpr uint64_t kPages = 300;

  // Data, with single zero pages and a long zero run in it.
  static std::string Content() {
    std::string content(kPages * kPageSize, '\0');
    for (uint64_t page = 0; page < kPages; ++page) {
      if (page % 7 == 3 || (page >= 100 && page < 180)) continue;
      for (uint64_t i = 0; i < kPageSize; ++i) {
        content[page * kPageSize + i] = static_cast<char>(page * 31 + i * 7 + i / 256);
      }
    }
    return content;
  }

  const std::string content_ = Content();
  const std::shared_ptr<PageSource> source_ = GetParam().make(content_);
};

TEST_P(PageSourceConformance, EverySinglePageIsRight) {
  ASSERT_EQ(source_->size(), PageCount(kPages));
  for (uint64_t page = 0; page < kPages; ++page) {
    const auto bytes = FetchAndWait(*source_, PageRange::Single(PageIndex(page)));
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    ASSERT_EQ(*bytes, content_.substr(page * kPageSize, kPageSize)) << page;
  }
}

TEST_P(PageSourceConformance, RunsOfEveryLengthAreRightOnBothLanes) {
  for (uint64_t count : {2u, 5u, 64u, 256u}) {
    for (uint64_t first = 0; first + count <= kPages; first += count / 2 + 1) {
      for (FetchLane lane : {FetchLane::kDemand, FetchLane::kPrefetch, FetchLane::kBulk}) {
        const auto bytes = FetchAndWait(*source_, {PageIndex(first), PageCount(count)}, lane);
        ASSERT_TRUE(bytes.ok()) << bytes.status();
        ASSERT_EQ(*bytes, content_.substr(first * kPageSize, count * kPageSize)) << first;
      }
    }
  }
}

TEST_P(PageSourceConformance, PagesBeyondTheVolumeAreOutOfRange) {
  const auto bytes = FetchAndWait(*source_, {PageIndex(kPages - 1), PageCount(2)});
  EXPECT_EQ(bytes.status().code(), absl::StatusCode::kOutOfRange) << bytes.status();
}

TEST_P(PageSourceConformance, ManyThreadsMayFetchAtATime) {
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (uint64_t i = 0; i < 100; ++i) {
        const uint64_t page = (i * 37 + t * 61) % kPages;
        const auto bytes = FetchAndWait(*source_, PageRange::Single(PageIndex(page)));
        ASSERT_TRUE(bytes.ok()) << bytes.status();
        ASSERT_EQ(*bytes, content_.substr(page * kPageSize, kPageSize));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SOURCE_PAGE_SOURCE_CONFORMANCE_H_
