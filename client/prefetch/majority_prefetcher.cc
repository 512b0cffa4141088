// SPDX-License-Identifier: Apache-2.0
#include "client/prefetch/majority_prefetcher.h"

#include <algorithm>

namespace faultline {

void MajorityPrefetcher::Note(int64_t distance) {
  history_[at_] = distance;
  at_ = (at_ + 1) % kHistory;
  noted_ = std::min(noted_ + 1, kHistory);
}

std::optional<int64_t> MajorityPrefetcher::MajorityOf(size_t votes) const {
  // Boyer and Moore: whoever has a majority is left over when each vote cancels another.
  int64_t candidate = 0;
  size_t lead = 0;
  for (size_t i = 0; i < votes; ++i) {
    if (lead == 0) candidate = Distance(i);
    lead = Distance(i) == candidate ? lead + 1 : lead - 1;
  }
  size_t count = 0;
  for (size_t i = 0; i < votes; ++i) count += Distance(i) == candidate;
  if (count <= votes / 2 || candidate == 0) return std::nullopt;
  return candidate;
}

std::optional<int64_t> MajorityPrefetcher::Trend() const {
  for (size_t votes = kFirstVote; votes <= noted_; votes *= 2) {
    if (const std::optional<int64_t> trend = MajorityOf(votes)) return trend;
  }
  return std::nullopt;
}

void MajorityPrefetcher::OnTouch(PageIndex page, TouchKind kind, std::vector<Guess>* ahead) {
  if (walk_ && walk_->Continues(page, kind)) {
    // Mapped pages in between were touched unseen.
    Note(walk_->stride());
    walk_->OnTouch(page, ahead);
  } else {
    if (last_) Note(static_cast<int64_t>(page.raw()) - static_cast<int64_t>(last_->raw()));
    if (const std::optional<int64_t> trend = Trend()) {
      // A touch off the walk that the others still follow does not end it.
      if (!walk_ || walk_->stride() != *trend || Distance(0) == *trend) {
        walk_.emplace(page, *trend, kMaxWindow, ahead);
      }
    } else {
      walk_.reset();
    }
  }
  last_ = page;
}

void MajorityPrefetcher::NoteRun(PageIndex last) {
  for (size_t i = 0; i < kFirstVote; ++i) Note(1);
  last_ = last;
}

void MajorityPrefetcher::OnWaste(PageIndex page) {
  if (Covers(page) && !walk_->OnWaste()) walk_.reset();
}

}  // namespace faultline
