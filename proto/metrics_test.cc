// SPDX-License-Identifier: Apache-2.0
#include "proto/metrics.h"

#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <cmath>
#include <limits>
#include <sstream>

namespace faultline {
namespace {

struct Thing {
  double seen = 0, now = 0, oldest = 0;
  LatencyCounts latency = {};
};

const MetricTable<Thing>& Table() {
  using enum MetricKind;
  static const MetricTable<Thing> table({
      {"seen_total",
       kCounter,
       "Seen.",
       "half",
       {{"first", [](const Thing& t) { return std::floor(t.seen / 2); }},
        {"second", [](const Thing& t) { return std::ceil(t.seen / 2); }}}},
      {"now", kGauge, "Now.", &Thing::now},
      {"oldest_seconds", kMaxGauge, "Oldest.", &Thing::oldest},
      {"latency_seconds", kHistogram, "Latency.", &Thing::latency},
  });
  return table;
}

LatencyCounts Latencies(uint64_t first_bucket, uint64_t beyond) {
  LatencyCounts counts;
  counts.counts.front() = first_bucket;
  counts.counts.back() = beyond;
  counts.sum_seconds = static_cast<double>(first_bucket + beyond);
  return counts;
}

BoundedSeries::Source Source(uint64_t id, const Thing& thing) {
  return {id, {{{"thing", std::to_string(id)}}, Table().Sample(thing)}};
}

std::string Text(const std::vector<LabelledSamples>& sources) {
  std::vector<prometheus::MetricFamily> families;
  AppendFamilies("test_", Table().infos(), sources, &families);
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families);
  return text.str();
}

bool Has(const std::string& text, const std::string& line) {
  return text.find(line + "\n") != std::string::npos;
}

TEST(Metrics, EverySeriesOfATableIsWrittenWithItsLabels) {
  const Thing thing{.seen = 5, .now = 2, .oldest = 1.5, .latency = Latencies(3, 1)};
  const std::string text = Text({{{{"thing", "a \"b\""}}, Table().Sample(thing)}});
  EXPECT_TRUE(Has(text, "# HELP test_seen_total Seen.")) << text;
  EXPECT_TRUE(Has(text, "# TYPE test_seen_total counter")) << text;
  EXPECT_TRUE(Has(text, R"(test_seen_total{thing="a \"b\"",half="first"} 2)")) << text;
  EXPECT_TRUE(Has(text, R"(test_seen_total{thing="a \"b\"",half="second"} 3)")) << text;
  EXPECT_TRUE(Has(text, "# TYPE test_now gauge")) << text;
  EXPECT_TRUE(Has(text, "# TYPE test_oldest_seconds gauge")) << text;
  EXPECT_TRUE(Has(text, R"(test_oldest_seconds{thing="a \"b\""} 1.5)")) << text;
}

// Buckets are cumulative and end with all.
TEST(Metrics, HistogramsAreThoseOfPrometheus) {
  const std::string text = Text({{{}, Table().Sample({.latency = Latencies(3, 1)})}});
  EXPECT_TRUE(Has(text, "# TYPE test_latency_seconds histogram")) << text;
  EXPECT_TRUE(Has(text, R"(test_latency_seconds_bucket{le="2.048e-06"} 3)")) << text;
  EXPECT_TRUE(Has(text, R"(test_latency_seconds_bucket{le="68.719476736"} 3)")) << text;
  EXPECT_TRUE(Has(text, R"(test_latency_seconds_bucket{le="+Inf"} 4)")) << text;
  EXPECT_TRUE(Has(text, "test_latency_seconds_count 4")) << text;
  EXPECT_TRUE(Has(text, "test_latency_seconds_sum 4")) << text;
}

TEST(Metrics, WhatIsNotKnownIsLeftOutButNotItsHelp) {
  const std::string text =
      Text({{{}, Table().Sample({.now = std::numeric_limits<double>::quiet_NaN()})}});
  EXPECT_TRUE(Has(text, "# TYPE test_now gauge")) << text;
  EXPECT_EQ(text.find("\ntest_now "), std::string::npos) << text;
}

TEST(Metrics, SourcesAreAddedUpByTheKindOfEach) {
  const double unknown = std::numeric_limits<double>::quiet_NaN();
  MetricSamples sum;
  AddSamples(Table().infos(),
             Table().Sample({.seen = 4, .now = unknown, .oldest = 3, .latency = Latencies(1, 0)}),
             &sum);
  AddSamples(Table().infos(),
             Table().Sample({.seen = 6, .now = 5, .oldest = 2, .latency = Latencies(1, 1)}), &sum);
  EXPECT_EQ(std::get<double>(sum[0]), 5);
  EXPECT_EQ(std::get<double>(sum[2]), 5);
  EXPECT_EQ(std::get<double>(sum[3]), 3);
  EXPECT_EQ(std::get<LatencyCounts>(sum[4]).total(), 3u);
}

TEST(Metrics, OnlyCountersAreKeptAboveWhatTheyWere) {
  const MetricSamples before =
      Table().Sample({.seen = 4, .now = 9, .oldest = 9, .latency = Latencies(2, 0)});
  MetricSamples after =
      Table().Sample({.seen = 3, .now = 1, .oldest = 1, .latency = Latencies(1, 1)});
  KeepAbove(Table().infos(), before, &after);
  EXPECT_EQ(std::get<double>(after[1]), 2);
  EXPECT_EQ(std::get<double>(after[2]), 1);
  EXPECT_EQ(std::get<double>(after[3]), 1);
  EXPECT_EQ(std::get<LatencyCounts>(after[4]).total(), 3u);
}

TEST(BoundedSeries, ThoseBeyondTheLimitAreOneMore) {
  BoundedSeries series(2, &Table().infos());
  const std::vector<LabelledSamples> bounded =
      series.Bound({Source(1, {.seen = 2}), Source(2, {.seen = 4}), Source(3, {.seen = 6}),
                    Source(4, {.seen = 8, .oldest = 7})});
  ASSERT_EQ(bounded.size(), 3u);
  EXPECT_EQ(bounded[0].labels[0].second, "1");
  EXPECT_EQ(bounded[1].labels[0].second, "2");
  EXPECT_EQ(bounded[2].labels, (MetricLabels{{"thing", "other"}}));
  EXPECT_EQ(std::get<double>(bounded[2].samples[0]), 7);
  EXPECT_EQ(std::get<double>(bounded[2].samples[3]), 7);
}

// One that moved out of "other" would make that go down.
TEST(BoundedSeries, WhoIsInOtherStaysThereAndItsCountersNeverGoDown) {
  BoundedSeries series(1, &Table().infos());
  series.Bound({Source(1, {.seen = 2}), Source(2, {.seen = 4, .now = 3})});
  // The first has ended: its labels are for one that comes later.
  std::vector<LabelledSamples> bounded =
      series.Bound({Source(2, {.seen = 6, .now = 3}), Source(3, {.seen = 2, .now = 1})});
  ASSERT_EQ(bounded.size(), 2u);
  EXPECT_EQ(bounded[0].labels[0].second, "3");
  EXPECT_EQ(std::get<double>(bounded[1].samples[0]), 3);
  EXPECT_EQ(std::get<double>(bounded[1].samples[2]), 3);
  // Then the second: what it counted stays, and what it was does not.
  bounded = series.Bound({Source(3, {.seen = 2, .now = 1}), Source(4, {.seen = 2, .now = 8})});
  ASSERT_EQ(bounded.size(), 2u);
  EXPECT_EQ(std::get<double>(bounded[1].samples[0]), 4);
  EXPECT_EQ(std::get<double>(bounded[1].samples[2]), 8);
  bounded = series.Bound({});
  ASSERT_EQ(bounded.size(), 1u);
  EXPECT_EQ(std::get<double>(bounded[0].samples[0]), 4);
  EXPECT_TRUE(std::isnan(std::get<double>(bounded[0].samples[2])));
}

TEST(ProcessMetrics, AreThoseOfThisProcess) {
  std::vector<prometheus::MetricFamily> families;
  AppendProcessFamilies("1.2.3", &families);
  std::map<std::string, double> values;
  for (const prometheus::MetricFamily& family : families) {
    ASSERT_EQ(family.metric.size(), 1u) << family.name;
    values[family.name] = family.type == prometheus::MetricType::Counter
                              ? family.metric[0].counter.value
                              : family.metric[0].gauge.value;
  }
  EXPECT_EQ(values["process_threads"], 1);
  EXPECT_GE(values["process_open_fds"], 3);
  EXPECT_LT(values["process_open_fds"], values["process_max_fds"]);
  EXPECT_GT(values["process_resident_memory_bytes"], 1e6);
  const auto now = static_cast<double>(time(nullptr));
  EXPECT_NEAR(values["process_start_time_seconds"], now, 60);
  EXPECT_LT(values["process_cpu_seconds_total"], 60);
  EXPECT_EQ(values["faultline_build_info"], 1);
}

}  // namespace
}  // namespace faultline
