// SPDX-License-Identifier: Apache-2.0
#include "client/fault/drain_window.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace faultline {
namespace {

constexpr auto kRunTime = std::chrono::milliseconds(1);
// Runs that a measurement takes.
constexpr uint64_t kMeasuredRuns = 8;
// While nothing has waited yet, each run that ends makes room for so many more than itself.
constexpr size_t kOpeningGrowth = 2;

}  // namespace

void DrainWindow::OnRunEnded(SteadyClock::time_point now, PageCount pages,
                             SteadyClock::duration took) {
  // Ways change; and a machine that was busy from the start has shown no fast run yet.
  if (now - epoch_ > kEpoch) {
    epoch_ = now;
    fastest_ = std::exchange(fastest_of_epoch_, kNone);
  }
  fastest_of_epoch_ = std::min(fastest_of_epoch_, took);
  fastest_ = std::min(fastest_, took);
  const SteadyClock::duration gap = now - std::exchange(last_end_, now);
  if (took < kRoom * fastest_) {
    size_ = std::min(size_ + (opening_ ? kOpeningGrowth : 1), kLargest);
    return;
  }
  opening_ = false;
  if (took > kQueued * fastest_) size_ = std::max(size_ - 1, kFirst);
  MeasureWay(pages, gap);
}

void DrainWindow::MeasureWay(PageCount pages, SteadyClock::duration gap) {
  full_pages_ += pages;
  full_time_ += gap;
  if (full_pages_.raw() < kMeasuredRuns * run_.raw() || full_time_.count() <= 0) return;
  const auto in_run_time = static_cast<uint64_t>(
      static_cast<double>(full_pages_.raw()) *
      (std::chrono::duration<double>(kRunTime) / std::chrono::duration<double>(full_time_)));
  full_pages_ = PageCount(0);
  full_time_ = SteadyClock::duration(0);
  const PageCount run(
      std::bit_floor(std::clamp(in_run_time, kShortestRun.raw(), kLongestRun.raw())));
  if (run == run_) return;
  run_ = run;
  // What was fastest was so for runs of another length.
  fastest_ = fastest_of_epoch_ = kNone;
}

}  // namespace faultline
