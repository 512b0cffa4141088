// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_REMOTE_QUANTILE_ESTIMATE_H_
#define FAULTLINE_CLIENT_REMOTE_QUANTILE_ESTIMATE_H_

#include <algorithm>
#include <atomic>
#include <chrono>

namespace faultline {

// Follows a quantile of durations that changes over time, in one number: what exceeds it raises it,
// what does not lowers it, so much that both are in balance where the quantile is. Forgets within
// some hundred durations. Thread-safe; of two that are recorded at the same time one may be lost.
class QuantileEstimate {
 public:
  using Duration = std::chrono::nanoseconds;

  // Stays between `least` and `most`, where it begins. REQUIRES: 0 < least.
  QuantileEstimate(double fraction, Duration least, Duration most)
      : up_(1 + kStep * fraction),
        down_(1 - kStep * (1 - fraction)),
        least_(static_cast<double>(least.count())),
        most_(static_cast<double>(most.count())),
        nanoseconds_(most_) {}

  void Record(Duration duration) {
    const double now = nanoseconds_.load(std::memory_order_relaxed);
    const double factor = static_cast<double>(duration.count()) > now ? up_ : down_;
    nanoseconds_.store(std::clamp(now * factor, least_, most_), std::memory_order_relaxed);
  }

  Duration value() const {
    return Duration(static_cast<int64_t>(nanoseconds_.load(std::memory_order_relaxed)));
  }

 private:
  // How fast it follows: from 100 ms down to 1 ms in 460 durations, for 0.95.
  static constexpr double kStep = 0.2;

  const double up_, down_, least_, most_;
  std::atomic<double> nanoseconds_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_QUANTILE_ESTIMATE_H_
