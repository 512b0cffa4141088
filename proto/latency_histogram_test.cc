// SPDX-License-Identifier: Apache-2.0
#include "proto/latency_histogram.h"

#include <gtest/gtest.h>

namespace faultline {
namespace {

TEST(LatencyHistogram, WithoutLatenciesEveryQuantileIsZero) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.QuantileMicros(0.5), 0);
  EXPECT_EQ(histogram.MaxMicros(), 0);
}

TEST(LatencyHistogram, QuantilesAreWithinThreePercentOverAllMagnitudes) {
  for (uint64_t value = 1; value < uint64_t{1} << 43; value = value * 5 / 3 + 1) {
    LatencyHistogram histogram;
    histogram.Record(value);
    const double micros = static_cast<double>(value) / 1000;
    EXPECT_NEAR(histogram.QuantileMicros(0.5), micros, micros * 0.03 + 1e-9) << value;
    EXPECT_EQ(histogram.MaxMicros(), micros);
  }
}

TEST(LatencyHistogram, QuantilesSplitTheLatenciesByRank) {
  LatencyHistogram histogram;
  for (int i = 0; i < 99; ++i) histogram.Record(1000);
  histogram.Record(1000000);
  EXPECT_NEAR(histogram.QuantileMicros(0.5), 1, 0.03);
  EXPECT_NEAR(histogram.QuantileMicros(0.98), 1, 0.03);
  EXPECT_NEAR(histogram.QuantileMicros(1), 1000, 30);
}

TEST(LatencyHistogram, LatenciesBeyondTheLastBucketAreCountedInIt) {
  LatencyHistogram histogram;
  histogram.Record(~uint64_t{0});
  EXPECT_GT(histogram.QuantileMicros(0.5), 1e9);
}

TEST(LatencyHistogram, SeveralAreTakenTogether) {
  LatencyHistogram histograms[2];
  for (int i = 0; i < 60; ++i) histograms[0].Record(1000);
  for (int i = 0; i < 40; ++i) histograms[1].Record(1000000);
  EXPECT_NEAR(LatencyHistogram::QuantileMicros(histograms, 0.5), 1, 0.03);
  EXPECT_NEAR(LatencyHistogram::QuantileMicros(histograms, 0.7), 1000, 30);
  EXPECT_EQ(LatencyHistogram::MaxMicros(histograms), 1000);
}

// Just below a bound, at it, and in the middle of what follows, of every one.
TEST(LatencyCounts, EachLatencyIsInTheBucketOfItsBounds) {
  for (size_t i = 0; i < LatencyCounts::kBounds; ++i) {
    const uint64_t bound = uint64_t{1} << (LatencyCounts::kFirstBits + i);
    EXPECT_DOUBLE_EQ(LatencyCounts::BoundSeconds(i), static_cast<double>(bound) / 1e9);
    LatencyHistogram histogram;
    histogram.Record(bound - 1);
    histogram.Record(bound);
    histogram.Record(bound + bound / 2);
    const LatencyCounts counts = histogram.Counts();
    EXPECT_EQ(counts.counts[i], 1u) << i;
    EXPECT_EQ(counts.counts[i + 1], 2u) << i;
    EXPECT_EQ(counts.total(), 3u);
    EXPECT_NEAR(counts.sum_seconds, 3.5 * static_cast<double>(bound) / 1e9,
                0.02 * 3.5 * static_cast<double>(bound) / 1e9);
  }
}

TEST(LatencyCounts, TheFirstAndTheLastBucketHaveTheRest) {
  LatencyHistogram histogram;
  histogram.Record(uint64_t{0});
  histogram.Record(uint64_t{31});
  histogram.Record(~uint64_t{0});
  LatencyCounts counts = histogram.Counts();
  EXPECT_EQ(counts.counts.front(), 2u);
  EXPECT_EQ(counts.counts.back(), 1u);
  counts += histogram.Counts();
  EXPECT_EQ(counts.counts.front(), 4u);
  EXPECT_EQ(counts.total(), 6u);
}

}  // namespace
}  // namespace faultline
