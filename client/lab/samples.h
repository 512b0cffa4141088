// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_LAB_SAMPLES_H_
#define FAULTLINE_CLIENT_LAB_SAMPLES_H_

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

namespace faultline {

// In microseconds; all 0 where nothing was measured.
struct Quantiles {
  double p50 = 0, p99 = 0, max = 0;
};

// Nanoseconds of a clock that never goes back.
inline uint64_t NowNanos() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                   std::chrono::steady_clock::now().time_since_epoch())
                                   .count());
}

// Latencies that one thread has seen. Its memory is there from the beginning, so that recording
// neither allocates nor faults: that would take the very locks that are measured. Quantiles are of
// the latest kCapacity latencies, the maximum is of all.
class LatencySamples {
 public:
  static constexpr size_t kCapacity = 1 << 15;

  LatencySamples() : nanos_(kCapacity, 1) {}

  void Record(uint64_t nanos) {
    nanos_[count_++ % kCapacity] = nanos;
    max_ = std::max(max_, nanos);
  }
  uint64_t count() const { return count_; }

  static Quantiles Of(const std::vector<const LatencySamples*>& threads) {
    std::vector<uint64_t> all;
    uint64_t max = 0;
    for (const LatencySamples* samples : threads) {
      const auto end = samples->nanos_.begin() + static_cast<ptrdiff_t>(std::min<uint64_t>(
                                                     samples->count_, uint64_t{kCapacity}));
      all.insert(all.end(), samples->nanos_.begin(), end);
      max = std::max(max, samples->max_);
    }
    if (all.empty()) return {};
    const auto quantile = [&all](double fraction) {
      const auto at =
          all.begin() + static_cast<ptrdiff_t>(fraction * static_cast<double>(all.size() - 1));
      std::nth_element(all.begin(), at, all.end());
      return static_cast<double>(*at) / 1000;
    };
    return {quantile(0.5), quantile(0.99), static_cast<double>(max) / 1000};
  }

 private:
  std::vector<uint64_t> nanos_;
  uint64_t count_ = 0;
  uint64_t max_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LAB_SAMPLES_H_
