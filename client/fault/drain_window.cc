// SPDX-License-Identifier: Apache-2.0
#include "client/fault/drain_window.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace faultline {
namespace {

constexpr std::chrono::microseconds kRunTime(1000);
constexpr auto kTooLong = 2 * kRunTime;
// Of a run of kShortestRun: the way itself is narrow.
constexpr auto kTooLongOfShort = kRunTime * 4 / 5;
// Runs that a measurement takes.
constexpr uint64_t kMeasuredRuns = 8;
// While room is made, each run that ends makes it for so many more than itself; which is worth it
// as long as a round is so much faster than the one before.
constexpr size_t kOpeningGrowth = 2;
constexpr double kFaster = 1.25;

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
  if (opening_) MeasureRound(now, pages, took);
  if (took < kRoom * fastest_) {
    size_ = std::min(size_ + (opening_ ? kOpeningGrowth : 1), kLargest);
    return;
  }
  opening_ = false;
  if (took > kQueued * fastest_) size_ = std::max(size_ - 1, kFirst);
  MeasureWay(pages, gap);
}

void DrainWindow::MeasureRound(SteadyClock::time_point now, PageCount pages,
                               SteadyClock::duration took) {
  if (round_ == 0) {
    round_ = round_left_ = size_;
    round_began_ = now - took;
  }
  round_pages_ += pages;
  if (--round_left_ > 0) return;
  const double seconds = std::chrono::duration<double>(now - round_began_).count();
  const double rate = static_cast<double>(round_pages_.raw()) / std::max(seconds, 1e-9);
  if (rate < kFaster * fastest_round_) {
    opening_ = false;
    // What the round before had under way is enough, and twice that is sure to be.
    size_ = std::min(size_, std::max(round_ / (kOpeningGrowth + 1) * 2, kFirst));
  }
  fastest_round_ = rate;
  SetRunBesideFaults(static_cast<uint64_t>(rate * std::chrono::duration<double>(kRunTime).count()));
  round_ = round_left_ = size_;
  round_began_ = now;
  round_pages_ = PageCount(0);
}

void DrainWindow::OnRunBesideFaults(PageCount pages, SteadyClock::duration took) {
  const uint64_t run = run_beside_faults_.raw();
  // One that found much less to fetch says nothing of how long others should be.
  if (pages.raw() * 2 < run) return;
  // As if a whole one had been under way.
  if (pages.raw() < run)
    took = took * static_cast<int64_t>(run) / static_cast<int64_t>(pages.raw());
  // What it took is not the way's alone: where the processors are busy, little of it is.
  if (took < kRunTime / 2) SetRunBesideFaults(run * 2);
  if (took > (run > kShortestRun.raw() ? kTooLong : kTooLongOfShort)) SetRunBesideFaults(run / 2);
}

PageCount DrainWindow::Allowed(SteadyClock::duration since_fault) const {
  if (since_fault < kRunTime) return PageCount(0);
  // More than there can be, without counting too far.
  constexpr int64_t kMostHalves = 2 * kLargest * kLongestRun.raw();
  const int64_t halves = std::min<int64_t>(since_fault / kRunTime, kMostHalves);
  return PageCount(run_beside_faults_.raw() * static_cast<uint64_t>(halves) / 2);
}

void DrainWindow::SetRunBesideFaults(uint64_t pages) {
  run_beside_faults_ =
      PageCount(std::bit_floor(std::clamp(pages, kShortestBesideFaults.raw(), kLongestRun.raw())));
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
