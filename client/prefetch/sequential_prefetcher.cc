// SPDX-License-Identifier: Apache-2.0
#include "client/prefetch/sequential_prefetcher.h"

namespace faultline {

void SequentialPrefetcher::OnTouch(PageIndex page, TouchKind kind, std::vector<Guess>* ahead) {
  if (walk_ && walk_->Continues(page, kind)) {
    walk_->OnTouch(page, ahead);
  } else if (last_ && page == *last_ + PageCount(1)) {
    walk_.emplace(page, 1, StrideWalk::kMaxWindow, ahead);
  } else {
    walk_.reset();
  }
  last_ = page;
}

void SequentialPrefetcher::OnWaste(PageIndex page) {
  if (walk_ && walk_->Covers(page) && !walk_->OnWaste()) walk_.reset();
}

}  // namespace faultline
