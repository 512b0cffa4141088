// SPDX-License-Identifier: Apache-2.0
#include "client/prefetch/stride_walk.h"

#include <algorithm>
#include <cstdlib>

namespace faultline {

StrideWalk::StrideWalk(PageIndex page, int64_t stride, uint64_t max_window,
                       std::vector<Guess>* ahead)
    : origin_(page),
      stride_(stride),
      max_window_(std::min(max_window, std::abs(stride) == 1 ? kMaxWindow : kMaxScattered)) {
  AppendWindow(Placement::kStaged, ahead);
}

std::optional<uint64_t> StrideWalk::StepOf(PageIndex page) const {
  const int64_t distance = static_cast<int64_t>(page.raw()) - static_cast<int64_t>(origin_.raw());
  if (distance % stride_ != 0 || distance / stride_ < 0) return std::nullopt;
  return static_cast<uint64_t>(distance / stride_);
}

PageIndex StrideWalk::PageOf(uint64_t step) const {
  return PageIndex(origin_.raw() + static_cast<uint64_t>(stride_) * step);
}

uint64_t StrideWalk::StepsLeft(uint64_t step, uint64_t limit) const {
  const uint64_t width = static_cast<uint64_t>(std::abs(stride_));
  const uint64_t room = stride_ > 0 ? kMaxVolumePages - 1 - origin_.raw() : origin_.raw();
  const uint64_t last = room / width;
  return last < step ? 0 : std::min(limit, last - step + 1);
}

bool StrideWalk::Covers(PageIndex page) const {
  const std::optional<uint64_t> step = StepOf(page);
  // Several threads may walk together, so one can be a little behind.
  return step && *step <= end_ && *step + kBehind >= reached_;
}

bool StrideWalk::Continues(PageIndex page, TouchKind kind) const {
  return Covers(page) && (kind == TouchKind::kHit || StepOf(page) == end_);
}

void StrideWalk::OnTouch(PageIndex page, std::vector<Guess>* ahead) {
  reached_ = std::max(reached_, StepOf(page).value_or(0));
  end_ = std::max(end_, reached_ + 1);
  for (int windows = 0; windows < 2; ++windows) {
    const uint64_t due = window_ >= kEstablished ? before_newest_ : newest_;
    if (due > reached_) return;
    if (!doubted_ && windows == 0) window_ = std::min(2 * window_, max_window_);
    AppendWindow(doubted_ ? Placement::kStaged : Placement::kMapped, ahead);
    doubted_ = false;
  }
}

bool StrideWalk::OnWaste() {
  doubted_ = true;
  window_ /= 2;
  return window_ >= kFirstWindow;
}

void StrideWalk::AppendWindow(Placement rest, std::vector<Guess>* ahead) {
  const uint64_t count = StepsLeft(end_, window_);
  if (count == 0) return;
  before_newest_ = newest_;
  // The first window has to be used up before it is believed.
  newest_ = rest == Placement::kStaged ? end_ + count - 1 : end_;
  const uint64_t staged = rest == Placement::kStaged ? count : 1;
  Append(end_, staged, Placement::kStaged, ahead);
  Append(end_ + staged, count - staged, rest, ahead);
  end_ += count;
}

void StrideWalk::Append(uint64_t step, uint64_t count, Placement placement,
                        std::vector<Guess>* ahead) const {
  if (count == 0) return;
  if (stride_ == 1) {
    ahead->push_back({{PageOf(step), PageCount(count)}, placement});
  } else if (stride_ == -1) {
    ahead->push_back({{PageOf(step + count - 1), PageCount(count)}, placement});
  } else {
    for (uint64_t i = 0; i < count; ++i) {
      ahead->push_back({PageRange::Single(PageOf(step + i)), placement});
    }
  }
}

}  // namespace faultline
