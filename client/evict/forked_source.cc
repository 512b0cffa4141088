// SPDX-License-Identifier: Apache-2.0
#include "client/evict/forked_source.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "proto/log.h"

namespace faultline {
namespace {

constexpr auto kFirstBackoff = std::chrono::milliseconds(10);
constexpr auto kLastBackoff = std::chrono::seconds(2);

}  // namespace

ForkedSource::ForkedSource(std::shared_ptr<PageSource> volume, Freeze freeze, Timers* timers)
    : volume_(std::move(volume)), freeze_(std::move(freeze)), timers_(timers) {}

void ForkedSource::StartFreezing() {
  {
    MutexLock lock(mu_);
    if (std::exchange(begun_, true)) return;
  }
  timers_->After(SteadyClock::duration(0),
                 [self = shared_from_this()] { self->TryFreezing(kFirstBackoff); });
}

bool ForkedSource::IsFrozen() const {
  MutexLock lock(mu_);
  return frozen_ != nullptr;
}

void ForkedSource::TryFreezing(SteadyClock::duration backoff) {
  absl::StatusOr<std::shared_ptr<PageSource>> frozen = freeze_();
  if (!frozen.ok()) {
    if (backoff == kFirstBackoff) {
      LogError(
          absl::StrCat("a forked child waits for its memory, and its parent with what it has "
                       "evicted, as the volume cannot be frozen yet: ",
                       frozen.status().ToString()));
    }
    timers_->After(backoff, [self = shared_from_this(), backoff] {
      self->TryFreezing(std::min<SteadyClock::duration>(2 * backoff, kLastBackoff));
    });
    return;
  }
  std::vector<Waiting> waiting;
  {
    MutexLock lock(mu_);
    frozen_ = *frozen;
    waiting.swap(waiting_);
  }
  for (Waiting& fetch : waiting) {
    (*frozen)->Fetch(fetch.range, fetch.lane, fetch.deadline, std::move(fetch.done));
  }
}

void ForkedSource::Fetch(PageRange range, FetchLane lane, absl::Time deadline, FetchDone done) {
  std::shared_ptr<PageSource> frozen;
  {
    MutexLock lock(mu_);
    frozen = frozen_;
    if (frozen == nullptr) waiting_.push_back({range, lane, deadline, std::move(done)});
  }
  if (frozen != nullptr) {
    frozen->Fetch(range, lane, deadline, std::move(done));
  } else {
    StartFreezing();
  }
}

}  // namespace faultline
