// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_LATENCY_HISTOGRAM_H_
#define FAULTLINE_CLIENT_LATENCY_HISTOGRAM_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>

namespace faultline {

// Counts latencies in buckets that grow with them: 32 to each power of two, so that a quantile is
// at most 3 % off. Thread-safe and lock-free; a quantile that is read while latencies are recorded
// may miss the newest.
class LatencyHistogram {
 public:
  void Record(uint64_t nanoseconds) {
    buckets_[BucketOf(nanoseconds)].fetch_add(1, std::memory_order_relaxed);
    uint64_t max = max_.load(std::memory_order_relaxed);
    while (nanoseconds > max &&
           !max_.compare_exchange_weak(max, nanoseconds, std::memory_order_relaxed)) {
    }
  }

  void Record(std::chrono::nanoseconds latency) {
    Record(static_cast<uint64_t>(std::max<int64_t>(latency.count(), 0)));
  }

  // The latency, in microseconds, that `fraction` (0 to 1) of all do not exceed; 0 if there is
  // none.
  double QuantileMicros(double fraction) const {
    uint64_t total = 0;
    for (const auto& bucket : buckets_) total += bucket.load(std::memory_order_relaxed);
    if (total == 0) return 0;
    const auto rank = static_cast<uint64_t>(fraction * static_cast<double>(total - 1));
    uint64_t seen = 0;
    for (size_t i = 0; i < buckets_.size(); ++i) {
      seen += buckets_[i].load(std::memory_order_relaxed);
      if (seen > rank) return static_cast<double>(MiddleOf(i)) / 1000;
    }
    return MaxMicros();
  }
  double MaxMicros() const {
    return static_cast<double>(max_.load(std::memory_order_relaxed)) / 1000;
  }

 private:
  static constexpr int kSubBits = 5;
  static constexpr uint64_t kSub = uint64_t{1} << kSubBits;
  static constexpr int kMaxBits = 44;  // about 4.9 hours

  static size_t BucketOf(uint64_t value) {
    if (value < kSub) return value;
    const int bits = static_cast<int>(std::bit_width(value));
    if (bits > kMaxBits) return kBuckets - 1;
    const int shift = bits - kSubBits - 1;
    return (static_cast<size_t>(shift) << kSubBits) + (value >> shift);
  }
  static uint64_t MiddleOf(size_t bucket) {
    if (bucket < 2 * kSub) return bucket;
    const size_t shift = (bucket >> kSubBits) - 1;
    const uint64_t low = (bucket - (shift << kSubBits)) << shift;
    return low + ((uint64_t{1} << shift) >> 1);
  }

  static constexpr size_t kBuckets = ((kMaxBits - kSubBits - 1) << kSubBits) + 2 * kSub;
  std::array<std::atomic<uint32_t>, kBuckets> buckets_ = {};
  std::atomic<uint64_t> max_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LATENCY_HISTOGRAM_H_
