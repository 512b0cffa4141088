// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_SOURCE_LINK_SCHEDULE_H_
#define FAULTLINE_CLIENT_SOURCE_LINK_SCHEDULE_H_

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace faultline {

// When bytes come out of one direction of a link of limited speed: pure arithmetic on times that
// the caller gives, which never go back. One byte after the other, as fast as the link is; then the
// delay. Not thread-safe.
class LinkSchedule {
 public:
  using Nanos = std::chrono::nanoseconds;

  // 0 bytes per second: no limit. A link that has had nothing to send for a while makes up for at
  // most `burst` of that time: else whoever is woken a little late would find it too slow.
  LinkSchedule(uint64_t bytes_per_second, Nanos delay, Nanos burst)
      : bytes_per_second_(bytes_per_second), delay_(delay), burst_(burst) {}

  // When the last of `bytes` that are given to the link at `now` has reached the far end.
  // REQUIRES: at most 1 GiB.
  Nanos Arrival(Nanos now, uint64_t bytes) {
    if (bytes_per_second_ == 0) return now + delay_;
    if (free_at_ < now - burst_) {
      free_at_ = now - burst_;
      remainder_ = 0;
    }
    // Parts of a nanosecond are carried over: over time the speed is exact.
    const uint64_t scaled = bytes * kNanosPerSecond + remainder_;
    free_at_ += Nanos(scaled / bytes_per_second_);
    remainder_ = scaled % bytes_per_second_;
    return std::max(now, free_at_) + delay_;
  }

  // How long it takes from `now` to send what the link was given; 0 where it is idle.
  Nanos Backlog(Nanos now) const { return std::max(free_at_ - now, Nanos(0)); }

 private:
  static constexpr uint64_t kNanosPerSecond = 1'000'000'000;

  const uint64_t bytes_per_second_;
  const Nanos delay_, burst_;
  Nanos free_at_{0};        // when everything that it was given is sent
  uint64_t remainder_ = 0;  // of a nanosecond, in units of 1 / bytes_per_second_
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SOURCE_LINK_SCHEDULE_H_
