// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_FAULT_PARKING_H_
#define FAULTLINE_CLIENT_FAULT_PARKING_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "client/timers.h"
#include "proto/mutex.h"

namespace faultline {

// Fills that the kernel has held off wait here. Each is tried again as soon as an event was read,
// and at the latest when its back-off has passed: the kernel lets fills pass only once the event's
// writer has run again, and no further event may ever come ("park_on_eagain").
//
// Thread-safe.
class Parking : public std::enable_shared_from_this<Parking> {
 public:
  // `timers` is borrowed; it may drop what is parked when it ends.
  explicit Parking(Timers* timers) : timers_(timers) {}

  // Runs `retry` once, on a thread of the timers: after `delay`, or at the next Kick(). The fill
  // has been held off since `since`, through all its retries.
  void Park(SteadyClock::duration delay, SteadyClock::time_point since, Timers::Task retry);

  // An event was read: everything that is parked is tried again.
  void Kick();

  // Drops everything that is parked.
  void Clear();

  size_t size() const;
  // Since when the fill that was held off longest waits.
  std::optional<SteadyClock::time_point> OldestSince() const;

 private:
  struct Parked {
    SteadyClock::time_point since;
    Timers::Task retry;
  };

  void Run(uint64_t id);

  Timers* const timers_;
  mutable Mutex mu_;
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<uint64_t, Parked> parked_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_PARKING_H_
