// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_SOURCE_MEMORY_PAGE_SOURCE_H_
#define FAULTLINE_CLIENT_SOURCE_MEMORY_PAGE_SOURCE_H_

#include <absl/strings/str_cat.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "client/source/page_source.h"
#include "proto/page_codec.h"

namespace faultline {

// What `bytes`, those of all of `range`, look like as a fetch hands them out.
inline std::vector<FetchedRun> RunsOf(PageRange range, const std::byte* bytes) {
  std::vector<FetchedRun> runs;
  for (PageIndex page = range.first; page < range.end(); ++page, bytes += kPageSize) {
    const bool zero = IsZeroPage(PageBytes(bytes, kPageSize));
    if (!runs.empty() && (runs.back().bytes == nullptr) == zero) {
      runs.back().range.count += PageCount(1);
    } else {
      runs.push_back({PageRange::Single(page), zero ? nullptr : bytes});
    }
  }
  return runs;
}

// A volume in memory: answers before Fetch returns. What the pipeline costs with nothing behind it.
class MemoryPageSource final : public PageSource {
 public:
  // `content` is padded with zeros to whole pages.
  explicit MemoryPageSource(std::string content) : content_(std::move(content)) {
    content_.resize(PageCount::CoveringBytes(content_.size()).in_bytes());
  }

  void Fetch(PageRange range, FetchLane, absl::Time, FetchDone done) override {
    if (!IsWithin(range.first.raw(), range.count.raw(), size())) {
      done(absl::OutOfRangeError(absl::StrCat("page ", range.first.raw(),
                                              " is beyond the volume's ", size().raw(), " pages")));
      return;
    }
    const auto* bytes = reinterpret_cast<const std::byte*>(content_.data());
    const std::vector<FetchedRun> runs = RunsOf(range, bytes + range.first.byte_offset());
    done(std::span<const FetchedRun>(runs));
  }

  PageCount size() const override { return PageCount(content_.size() / kPageSize); }
  PageCount max_fetch() const override { return PageCount(1024); }

 private:
  std::string content_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SOURCE_MEMORY_PAGE_SOURCE_H_
