// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_PROTO_LATENCY_HISTOGRAM_H_
#define FAULTLINE_PROTO_LATENCY_HISTOGRAM_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdint>
#include <span>

namespace faultline {

// Latencies counted in few and fixed buckets, of which the next is twice as wide: what can be added
// up, and put into a time series. A plain value.
struct LatencyCounts {
  // From 2 us, less than any fault takes, to 69 s, more than a fault waits by default.
  static constexpr int kFirstBits = 11, kLastBits = 36;
  static constexpr size_t kBounds = kLastBits - kFirstBits + 1;
  // Of bucket `i`, which has what is less than that and not in the bucket before.
  static constexpr double BoundSeconds(size_t i) {
    return static_cast<double>(uint64_t{1} << (kFirstBits + i)) / 1e9;
  }

  std::array<uint64_t, kBounds + 1> counts = {};  // the last has what is beyond the last bound
  double sum_seconds = 0;                         // at most 2 % off

  uint64_t total() const {
    uint64_t sum = 0;
    for (uint64_t count : counts) sum += count;
    return sum;
  }
  LatencyCounts& operator+=(const LatencyCounts& other) {
    for (size_t i = 0; i < counts.size(); ++i) counts[i] += other.counts[i];
    sum_seconds += other.sum_seconds;
    return *this;
  }
};

// Counts latencies in buckets that grow with them: 32 to each power of two, so that a quantile is
// at most 3 % off. Thread-safe and lock-free; what is read while latencies are recorded may miss
// the newest.
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
  double QuantileMicros(double fraction) const { return QuantileMicros({this, 1}, fraction); }
  double MaxMicros() const { return MaxMicros({this, 1}); }

  // The same of all that several histograms have counted.
  static double QuantileMicros(std::span<const LatencyHistogram> histograms, double fraction) {
    uint64_t total = 0;
    for (size_t i = 0; i < kBuckets; ++i) total += CountOf(histograms, i);
    if (total == 0) return 0;
    const auto rank = static_cast<uint64_t>(fraction * static_cast<double>(total - 1));
    uint64_t seen = 0;
    for (size_t i = 0; i < kBuckets; ++i) {
      seen += CountOf(histograms, i);
      if (seen > rank) return static_cast<double>(MiddleOf(i)) / 1000;
    }
    return MaxMicros(histograms);
  }
  static double MaxMicros(std::span<const LatencyHistogram> histograms) {
    uint64_t max = 0;
    for (const LatencyHistogram& histogram : histograms) {
      max = std::max(max, histogram.max_.load(std::memory_order_relaxed));
    }
    return static_cast<double>(max) / 1000;
  }

  // None of its numbers is ever less than in an earlier one.
  LatencyCounts Counts() const {
    LatencyCounts result;
    for (size_t i = 0; i < kBuckets; ++i) {
      const uint64_t count = buckets_[i].load(std::memory_order_relaxed);
      if (count == 0) continue;
      // A power of two is the edge of a bucket here, too.
      const int bits = static_cast<int>(std::bit_width(LowOf(i)));
      const int bound = std::clamp(bits, LatencyCounts::kFirstBits, LatencyCounts::kLastBits + 1);
      result.counts[static_cast<size_t>(bound - LatencyCounts::kFirstBits)] += count;
      result.sum_seconds += static_cast<double>(count) * static_cast<double>(MiddleOf(i)) / 1e9;
    }
    return result;
  }

 private:
  static constexpr int kSubBits = 5;
  static constexpr uint64_t kSub = uint64_t{1} << kSubBits;
  static constexpr int kMaxBits = 44;  // about 4.9 hours
  static_assert(LatencyCounts::kFirstBits > kSubBits && LatencyCounts::kLastBits < kMaxBits);

  static size_t BucketOf(uint64_t value) {
    if (value < kSub) return value;
    const int bits = static_cast<int>(std::bit_width(value));
    if (bits > kMaxBits) return kBuckets - 1;
    const int shift = bits - kSubBits - 1;
    return (static_cast<size_t>(shift) << kSubBits) + (value >> shift);
  }
  static size_t ShiftOf(size_t bucket) { return bucket < 2 * kSub ? 0 : (bucket >> kSubBits) - 1; }
  static uint64_t LowOf(size_t bucket) {
    const size_t shift = ShiftOf(bucket);
    return (bucket - (shift << kSubBits)) << shift;
  }
  static uint64_t MiddleOf(size_t bucket) {
    return LowOf(bucket) + ((uint64_t{1} << ShiftOf(bucket)) >> 1);
  }
  static uint64_t CountOf(std::span<const LatencyHistogram> histograms, size_t bucket) {
    uint64_t count = 0;
    for (const LatencyHistogram& histogram : histograms) {
      count += histogram.buckets_[bucket].load(std::memory_order_relaxed);
    }
    return count;
  }

  static constexpr size_t kBuckets = ((kMaxBits - kSubBits - 1) << kSubBits) + 2 * kSub;
  // Wide enough never to overflow: what is exported must not go down.
  std::array<std::atomic<uint64_t>, kBuckets> buckets_ = {};
  std::atomic<uint64_t> max_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_PROTO_LATENCY_HISTOGRAM_H_
