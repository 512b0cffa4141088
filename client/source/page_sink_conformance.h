// SPDX-License-Identifier: Apache-2.0
//
// What every PageSink does, whatever is behind it: one suite, instantiated for each of them. What
// was written is fetched back by way of the source that belongs to it.
#ifndef FAULTLINE_CLIENT_SOURCE_PAGE_SINK_CONFORMANCE_H_
#define FAULTLINE_CLIENT_SOURCE_PAGE_SINK_CONFORMANCE_H_

#include <absl/time/clock.h>
#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/source/page_io_testing.h"
#include "client/source/page_sink.h"

namespace faultline {

// Makes a volume of so many pages, all zero, and returns what opens it, whatever the name.
struct SinkMaker {
  std::string name;
  std::function<OpenVolumeIo(PageCount size)> make;
};

class PageSinkConformance : public testing::TestWithParam<SinkMaker> {
 protected:
  static constexpr uint64_t kPages = 300;

  VolumeIo Open() {
    absl::StatusOr<VolumeIo> io = open_("disk", absl::Now() + absl::Seconds(60));
    EXPECT_TRUE(io.ok()) << io.status();
    return *std::move(io);
  }

  static std::map<uint64_t, uint64_t> Versions(uint64_t first, uint64_t count, uint64_t version) {
    std::map<uint64_t, uint64_t> versions;
    for (uint64_t page = first; page < first + count; ++page) versions[page] = version;
    return versions;
  }

  const OpenVolumeIo open_ = GetParam().make(PageCount(kPages));
  VolumeIo io_ = Open();
};

TEST_P(PageSinkConformance, WhatIsWrittenIsFetched) {
  ASSERT_EQ(io_.sink->size(), PageCount(kPages));
  ASSERT_EQ(io_.source->size(), PageCount(kPages));
  std::mt19937 random(1);
  std::map<uint64_t, uint64_t> all = Versions(0, kPages, 0);
  for (uint64_t version = 1; version <= 40; ++version) {
    std::map<uint64_t, uint64_t> some;
    for (uint64_t page = 0; page < kPages; ++page) {
      // Every fifth write is of long runs; a quarter of the pages become zero.
      if (random() % (version % 5 == 0 ? 1 : 4) == 0) some[page] = random() % 4 == 0 ? 0 : version;
    }
    ASSERT_TRUE(WriteAndWait(*io_.sink, some).ok());
    for (const auto& [page, now] : some) all[page] = now;
  }
  ExpectVersions(*io_.source, all);
}

TEST_P(PageSinkConformance, AZeroPageIsZeroWithBytesAndWithout) {
  ASSERT_TRUE(WriteAndWait(*io_.sink, Versions(10, 20, 1)).ok());
  ASSERT_TRUE(WriteAndWait(*io_.sink, Versions(15, 4, 0)).ok());
  auto expected = Versions(10, 20, 1);
  for (uint64_t page = 15; page < 19; ++page) expected[page] = 0;
  ExpectVersions(*io_.source, expected);
}

TEST_P(PageSinkConformance, WhatIsAcknowledgedIsSeenByTheNextFetchOnEveryLane) {
  const absl::StatusOr<VolumeIo> other = open_("disk", absl::Now() + absl::Minutes(1));
  ASSERT_TRUE(other.ok()) << other.status();  // fences io_, whose source goes on
  for (uint64_t version = 1; version <= 60; ++version) {
    const auto pages = Versions(version % 7 * 40, 40, version);
    ASSERT_TRUE(WriteAndWait(*other->sink, pages).ok());
    const std::map<uint64_t, uint64_t> one = {*pages.begin()};
    for (PageSource* source : {io_.source.get(), other->source.get()}) {
      for (FetchLane lane : {FetchLane::kDemand, FetchLane::kPrefetch, FetchLane::kBulk}) {
        ExpectVersions(*source, one, lane);
      }
    }
    const auto all = FetchUntilAnswered(*io_.source, {PageIndex(one.begin()->first), PageCount(40)},
                                        FetchLane::kBulk);
    ASSERT_TRUE(all.ok()) << all.status();
    for (uint64_t i = 0; i < 40; ++i) {
      ASSERT_TRUE(all->substr(i * kPageSize, kPageSize) ==
                  PageOfVersion(one.begin()->first + i, version));
    }
  }
}

TEST_P(PageSinkConformance, AWriteThatIsRefusedChangesNothing) {
  ASSERT_TRUE(WriteAndWait(*io_.sink, Versions(0, kPages, 1)).ok());
  auto beyond = Versions(5, 3, 2);
  beyond[kPages] = 2;
  EXPECT_EQ(WriteAndWait(*io_.sink, beyond).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(WriteAndWait(*io_.sink, {{7, 0}, {kMaxVolumePages, 0}}).code(),
            absl::StatusCode::kOutOfRange);
  ExpectVersions(*io_.source, Versions(0, kPages, 1));
}

TEST_P(PageSinkConformance, ASecondWriterFencesTheFirst) {
  ASSERT_TRUE(WriteAndWait(*io_.sink, Versions(0, 10, 1)).ok());
  VolumeIo second = Open();
  EXPECT_EQ(WriteAndWait(*io_.sink, Versions(0, 10, 2)).code(),
            absl::StatusCode::kFailedPrecondition);
  ExpectVersions(*second.source, Versions(0, 10, 1));
  ASSERT_TRUE(WriteAndWait(*second.sink, Versions(5, 10, 3)).ok());
  EXPECT_EQ(WriteAndWait(*io_.sink, Versions(5, 10, 0)).code(),
            absl::StatusCode::kFailedPrecondition);
  ExpectVersions(*second.source, Versions(5, 10, 3));
}

TEST_P(PageSinkConformance, NothingOfAFencedWriterIsSeenAfterTheSecondHasOpened) {
  std::vector<std::future<absl::Status>> first;
  for (uint64_t i = 0; i < 30; ++i) {
    first.push_back(StartWrite(*io_.sink, Versions(i * 10, 10, 7)));
  }
  VolumeIo second = Open();
  const auto before = FetchUntilAnswered(*second.source, {PageIndex(0), PageCount(kPages)});
  for (std::future<absl::Status>& done : first) done.get().IgnoreError();
  const auto after = FetchUntilAnswered(*second.source, {PageIndex(0), PageCount(kPages)});
  ASSERT_TRUE(before.ok() && after.ok()) << before.status() << after.status();
  EXPECT_TRUE(*before == *after);
}

TEST_P(PageSinkConformance, AWriteThatIsDoneAgainDoesNoHarm) {
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(WriteAndWait(*io_.sink, Versions(100, 64, 4)).ok());
    ASSERT_TRUE(WriteAndWait(*io_.sink, Versions(120, 10, 0)).ok());
  }
  auto expected = Versions(100, 64, 4);
  for (uint64_t page = 120; page < 130; ++page) expected[page] = 0;
  ExpectVersions(*io_.source, expected);
}

TEST_P(PageSinkConformance, ManyWritesOfManyThreadsMayBeUnderWay) {
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (uint64_t version = 1; version <= 40; ++version) {
        std::vector<std::map<uint64_t, uint64_t>> writes;
        std::vector<std::future<absl::Status>> done;
        for (uint64_t i = 0; i < 5; ++i) {
          writes.push_back(Versions(t * 75 + i * 15, 15, version * 8 + t));
          done.push_back(StartWrite(*io_.sink, writes.back()));
        }
        for (size_t i = 0; i < done.size(); ++i) {
          const absl::Status status = done[i].get();
          ASSERT_TRUE(status.ok() || IsRetryable(status)) << status;
          if (status.ok()) continue;
          ASSERT_TRUE(WriteAndWait(*io_.sink, writes[i]).ok());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (uint64_t t = 0; t < 4; ++t) ExpectVersions(*io_.source, Versions(t * 75, 75, 320 + t));
}

TEST_P(PageSinkConformance, AWriteOutlivesTheSink) {
  std::future<absl::Status> done = StartWrite(*io_.sink, Versions(0, 64, 1));
  io_.sink.reset();
  const absl::Status status = done.get();
  EXPECT_TRUE(status.ok() || IsRetryable(status)) << status;
  if (status.ok()) ExpectVersions(*io_.source, Versions(0, 64, 1));
}

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SOURCE_PAGE_SINK_CONFORMANCE_H_
