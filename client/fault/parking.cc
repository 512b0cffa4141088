// SPDX-License-Identifier: Apache-2.0
#include "client/fault/parking.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace faultline {

void Parking::Park(SteadyClock::duration delay, SteadyClock::time_point since, Timers::Task retry) {
  uint64_t id;
  {
    MutexLock lock(mu_);
    id = next_id_++;
    parked_.emplace(id, Parked{since, std::move(retry)});
  }
  timers_->After(delay, [self = shared_from_this(), id] { self->Run(id); });
}

void Parking::Kick() {
  std::vector<uint64_t> ids;
  {
    MutexLock lock(mu_);
    for (const auto& [id, parked] : parked_) ids.push_back(id);
  }
  // One task each, so that several threads share them.
  for (const uint64_t id : ids) {
    timers_->After(SteadyClock::duration(0), [self = shared_from_this(), id] { self->Run(id); });
  }
}

void Parking::Run(uint64_t id) {
  Timers::Task retry;
  {
    MutexLock lock(mu_);
    auto node = parked_.extract(id);
    if (node.empty()) return;  // the other of timer and event was first
    retry = std::move(node.mapped().retry);
  }
  retry();
}

void Parking::Clear() {
  std::map<uint64_t, Parked> dropped;  // dies after the lock is released: it may own anything
  MutexLock lock(mu_);
  dropped.swap(parked_);
}

size_t Parking::size() const {
  MutexLock lock(mu_);
  return parked_.size();
}

std::optional<SteadyClock::time_point> Parking::OldestSince() const {
  MutexLock lock(mu_);
  std::optional<SteadyClock::time_point> oldest;
  for (const auto& [id, parked] : parked_) {
    oldest = oldest ? std::min(*oldest, parked.since) : parked.since;
  }
  return oldest;
}

}  // namespace faultline
