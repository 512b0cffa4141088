// SPDX-License-Identifier: Apache-2.0
//
// What the tests of sources and sinks share: fetches and writes that are waited for, and pages
// whose bytes tell which page and which version they are.
#ifndef FAULTLINE_CLIENT_SOURCE_PAGE_IO_TESTING_H_
#define FAULTLINE_CLIENT_SOURCE_PAGE_IO_TESTING_H_

#include <absl/time/clock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/source/page_sink.h"
#include "client/source/page_source.h"

namespace faultline {

// Fetches and waits; the bytes of all runs, zeros written out.
inline absl::StatusOr<std::string> FetchAndWait(PageSource& source, PageRange range,
                                                FetchLane lane = FetchLane::kDemand) {
  std::promise<absl::StatusOr<std::string>> result;
  source.Fetch(range, lane, absl::Now() + absl::Seconds(30),
               [&](absl::StatusOr<std::span<const FetchedRun>> runs) {
                 if (!runs.ok()) {
                   result.set_value(runs.status());
                   return;
                 }
                 std::string bytes;
                 PageIndex next = range.first;
                 for (const FetchedRun& run : *runs) {
                   EXPECT_EQ(run.range.first, next);
                   if (run.range.first == range.end()) {  // a hole that was not asked for
                     EXPECT_EQ(run.bytes, nullptr);
                     EXPECT_LE(run.range.end(), PageIndex(source.size().raw()));
                     EXPECT_EQ(&run, &runs->back());
                     break;
                   }
                   next = run.range.end();
                   if (run.bytes == nullptr) {
                     bytes.append(run.range.size_bytes(), '\0');
                   } else {
                     bytes.append(reinterpret_cast<const char*>(run.bytes), run.range.size_bytes());
                   }
                 }
                 EXPECT_EQ(next, range.end());
                 result.set_value(std::move(bytes));
               });
  return result.get_future().get();
}

// As FetchAndWait, and again as long as that may help.
inline absl::StatusOr<std::string> FetchUntilAnswered(PageSource& source, PageRange range,
                                                      FetchLane lane = FetchLane::kDemand) {
  const absl::Time end = absl::Now() + absl::Seconds(60);
  auto bytes = FetchAndWait(source, range, lane);
  while (IsRetryable(bytes.status()) && absl::Now() < end) {
    absl::SleepFor(absl::Milliseconds(1));
    bytes = FetchAndWait(source, range, lane);
  }
  return bytes;
}

// Every word names page, version and its own place. Version 0 is zero.
inline std::string PageOfVersion(uint64_t page, uint64_t version) {
  std::string bytes(kPageSize, '\0');
  if (version == 0) return bytes;
  for (uint64_t at = 0; at < kPageSize; at += sizeof at) {
    const uint64_t word = version << 44 ^ page << 12 ^ at ^ 1;
    memcpy(&bytes[at], &word, sizeof word);
  }
  return bytes;
}

// Pages and the version that each is to have; zero pages with bytes or without, in turn.
class PagesToWrite {
 public:
  explicit PagesToWrite(const std::map<uint64_t, uint64_t>& versions) {
    for (const auto& [page, version] : versions) {
      const bool without_bytes = version == 0 && page % 2 == 0;
      bytes_.push_back(PageOfVersion(page, version));
      pages_.push_back(
          {PageIndex(page),
           without_bytes ? nullptr : reinterpret_cast<const std::byte*>(bytes_.back().data())});
    }
  }
  std::span<const PageToWrite> pages() const { return pages_; }
  // Makes every page something else.
  void Scribble() {
    for (std::string& bytes : bytes_) bytes.assign(bytes.size(), '!');
  }

 private:
  std::deque<std::string> bytes_;
  std::vector<PageToWrite> pages_;
};

inline std::future<absl::Status> StartWrite(PageSink& sink,
                                            const std::map<uint64_t, uint64_t>& versions,
                                            absl::Duration timeout = absl::Seconds(60)) {
  auto done = std::make_shared<std::promise<absl::Status>>();
  PagesToWrite pages(versions);
  sink.Write(pages.pages(), absl::Now() + timeout,
             [done](absl::Status status) { done->set_value(std::move(status)); });
  pages.Scribble();
  return done->get_future();
}

// Writes and waits, and does so again as long as that may help.
inline absl::Status WriteAndWait(PageSink& sink, const std::map<uint64_t, uint64_t>& versions) {
  const absl::Time end = absl::Now() + absl::Seconds(60);
  absl::Status status = StartWrite(sink, versions).get();
  while (IsRetryable(status) && !absl::IsResourceExhausted(status) && absl::Now() < end) {
    absl::SleepFor(absl::Milliseconds(1));
    status = StartWrite(sink, versions).get();
  }
  return status;
}

// Expects each page to have its version.
inline void ExpectVersions(PageSource& source, const std::map<uint64_t, uint64_t>& versions,
                           FetchLane lane = FetchLane::kDemand) {
  for (const auto& [page, version] : versions) {
    const auto bytes = FetchUntilAnswered(source, PageRange::Single(PageIndex(page)), lane);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    uint64_t word;
    memcpy(&word, bytes->data(), sizeof word);
    ASSERT_TRUE(*bytes == PageOfVersion(page, version))
        << "page " << page << " begins with the word " << std::hex << word
        << ", expected was version " << version;
  }
}

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SOURCE_PAGE_IO_TESTING_H_
