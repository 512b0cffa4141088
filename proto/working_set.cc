// SPDX-License-Identifier: Apache-2.0
#include "proto/working_set.h"

#include <absl/strings/str_cat.h>

#include <utility>

namespace faultline {

absl::StatusOr<WorkingSet> WorkingSet::Create(PageCount volume_size) {
  absl::StatusOr<PageSet> pages = PageSet::Create(volume_size);
  if (!pages.ok()) return pages.status();
  WorkingSet set(*std::move(pages));
  set.first_.reserve(kMaxFirst);  // takes memory only when it is written to
  return set;
}

void WorkingSet::Insert(PageIndex page) {
  if (pages_.Insert(page) && first_.size() < kMaxFirst) first_.push_back(page);
}

void WorkingSet::Merge(const WorkingSet& later) {
  for (const PageIndex page : later.first_) Insert(page);
  pages_.Merge(later.pages_);
}

std::vector<int64_t> WorkingSet::EncodeFirst() const {
  std::vector<int64_t> steps;
  steps.reserve(first_.size());
  int64_t before = 0;
  for (const PageIndex page : first_) {
    const auto at = static_cast<int64_t>(page.raw());
    steps.push_back(at - std::exchange(before, at));
  }
  return steps;
}

absl::Status WorkingSet::SetFirst(std::vector<PageIndex> first) {
  first_.clear();
  if (first.size() > kMaxFirst) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a working set has the order of ", first.size(), " pages, the most is ", kMaxFirst));
  }
  absl::StatusOr<PageSet> seen = PageSet::Create(pages_.volume_size());
  if (!seen.ok()) return seen.status();
  for (size_t i = 0; i < first.size(); ++i) {
    const PageIndex page = first[i];
    if (page.raw() >= pages_.volume_size().raw() || !pages_.Contains(page) || !seen->Insert(page)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the order of a working set names page ", page.raw(), " as number ", i,
                       ", which it does not have, or has named before"));
    }
  }
  first_ = std::move(first);
  return absl::OkStatus();
}

absl::Status WorkingSet::DecodeFirst(std::span<const int64_t> steps) {
  std::vector<PageIndex> first;
  first.reserve(steps.size());
  uint64_t at = 0;
  for (const int64_t step : steps) {
    at += static_cast<uint64_t>(step);  // modulo 2^64: what is beyond the volume is found out
    first.emplace_back(at);
  }
  return SetFirst(std::move(first));
}

}  // namespace faultline
