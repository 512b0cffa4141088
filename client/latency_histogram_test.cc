// SPDX-License-Identifier: Apache-2.0
#include "client/latency_histogram.h"

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

}  // namespace
}  // namespace faultline
