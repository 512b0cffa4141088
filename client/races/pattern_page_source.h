// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_RACES_PATTERN_PAGE_SOURCE_H_
#define FAULTLINE_CLIENT_RACES_PATTERN_PAGE_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "client/source/page_source.h"
#include "proto/page.h"

namespace faultline {

// What a volume of the race tests holds: every page differs from every other one, and one in 16 is
// zero, so that both kinds of fill take part. Free of state, calls nothing: also for the child of a
// fork.
inline constexpr uint64_t kWordsPerPage = kPageSize / sizeof(uint64_t);
inline bool IsHole(uint64_t page) { return page % 16 == 11; }
inline uint64_t PatternWord(uint64_t page, uint64_t word) {
  if (IsHole(page)) return 0;
  return ((page * kWordsPerPage + word + 1) * 0x9e3779b97f4a7c15u) | 1;
}

// A volume of any size whose bytes are computed when they are fetched. Answers before Fetch
// returns. Thread-safe.
class PatternPageSource final : public PageSource {
 public:
  explicit PatternPageSource(PageCount size) : size_(size) {}

  void Fetch(PageRange range, FetchLane, absl::Time, FetchDone done) override {
    if (!IsWithin(range.first.raw(), range.count.raw(), size_)) {
      done(absl::OutOfRangeError("the volume has no such page"));
      return;
    }
    std::vector<uint64_t> words;
    words.reserve(range.count.raw() * kWordsPerPage);
    for (PageIndex page = range.first; page < range.end(); ++page) {
      for (uint64_t i = 0; i < kWordsPerPage; ++i) words.push_back(PatternWord(page.raw(), i));
    }
    const auto* bytes = reinterpret_cast<const std::byte*>(words.data());
    std::vector<FetchedRun> runs;
    for (PageIndex page = range.first; page < range.end(); ++page) {
      const std::byte* at = bytes + (page - range.first).in_bytes();
      const bool hole = IsHole(page.raw());
      if (!runs.empty() && (runs.back().bytes == nullptr) == hole) {
        runs.back().range.count += PageCount(1);
      } else {
        runs.push_back({PageRange::Single(page), hole ? nullptr : at});
      }
    }
    done(std::span<const FetchedRun>(runs));
  }

  PageCount size() const override { return size_; }
  PageCount max_fetch() const override { return PageCount(1024); }

 private:
  const PageCount size_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_RACES_PATTERN_PAGE_SOURCE_H_
