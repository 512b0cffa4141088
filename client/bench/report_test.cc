// SPDX-License-Identifier: Apache-2.0
#include "client/bench/report.h"

#include <absl/strings/match.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "client/bench/benchmark.h"
#include "client/bench/gnuplot.h"
#include "client/bench/plot.h"
#include "client/bench/statistics.h"

namespace faultline::bench {
namespace {

TEST(Statistics, QuantilesAreValuesThatWereMeasured) {
  EXPECT_EQ(Quantile({4, 1, 3, 2}, 0), 1);
  EXPECT_EQ(Quantile({4, 1, 3, 2}, 0.5), 2);
  EXPECT_EQ(Quantile({5, 4, 1, 3, 2}, 0.5), 3);
  EXPECT_EQ(Quantile({4, 1, 3, 2}, 1), 4);
  EXPECT_EQ(Quantile({7}, 0.99), 7);
  EXPECT_EQ(Quantile({}, 0.5), 0);
}

TEST(Statistics, TheSpreadIsOfAllRepetitions) {
  const Spread spread = SpreadOf({30, 10, 20});
  EXPECT_EQ(spread.median, 20);
  EXPECT_EQ(spread.min, 10);
  EXPECT_EQ(spread.max, 30);
}

TEST(Statistics, EachRatioIsThatOfItsOwnRepetition) {
  EXPECT_EQ(Ratios({10, 90}, {5, 30}), (std::vector<double>{2, 3}));
}

const Machine kMachine{"a_processor, 2 CPUs", "Linux 6"};

Report Sample() {
  Report report;
  report.benchmark = "drain";
  report.configuration = "3 pages, \"raw\"";
  for (const double value : {300.0, 100.0, 200.0}) {
    report.AddFigure("throughput", "MiB/s", value, "tcp_stream", 2 * value);
    report.AddDetail("agent CPU", "us/page", value / 100);
  }
  return report;
}

TEST(Report, TextSaysWhereAndHowItWasMeasured) {
  const std::string text = FormatReport(Sample(), kMachine);
  EXPECT_TRUE(absl::StrContains(text, "machine        a_processor, 2 CPUs\n")) << text;
  EXPECT_TRUE(absl::StrContains(text, "kernel         Linux 6\n")) << text;
  EXPECT_TRUE(absl::StrContains(text, "configuration  3 pages, \"raw\"\n")) << text;
  EXPECT_TRUE(absl::StrContains(text, "200 [100-300]")) << text;
  EXPECT_TRUE(absl::StrContains(text, "400 [200-600]")) << text;
  EXPECT_TRUE(absl::StrContains(text, "0.50 [0.50-0.50]\n")) << text;
  EXPECT_TRUE(absl::StrContains(text, "agent CPU, us/page")) << text;
  EXPECT_TRUE(absl::StrContains(text, "2.00 [1.00-3.00]\n")) << text;
}

TEST(Report, ASmallRatioKeepsItsDigits) {
  Report report;
  report.AddFigure("throughput", "MiB/s", 1, "tcp_stream", 250);
  EXPECT_TRUE(absl::StrContains(FormatReport(report, kMachine), "0.004 [0.004-0.004]\n"));
}

TEST(Report, JsonHasEveryFigureWithItsFloorAndRatio) {
  const nlohmann::ordered_json json = ReportToJson(Sample(), kMachine);
  EXPECT_EQ(json["benchmark"], "drain");
  EXPECT_EQ(json["kernel"], "Linux 6");
  const nlohmann::ordered_json& figure = json["figures"][0];
  EXPECT_EQ(figure["faultline"],
            (nlohmann::ordered_json{{"median", 200.0}, {"min", 100.0}, {"max", 300.0}}));
  EXPECT_EQ(figure["floor_name"], "tcp_stream");
  EXPECT_EQ(figure["floor"]["median"], 400);
  EXPECT_EQ(figure["ratio"]["median"], 0.5);
  EXPECT_EQ(json["details"][0]["unit"], "us/page");
  EXPECT_FALSE(json["details"][0].contains("floor"));
}

TEST(Report, CsvHasAsManyFieldsInEveryLine) {
  EXPECT_EQ(ReportsToCsv({Sample()}),
            "benchmark,configuration,figure,unit,faultline,faultline_min,faultline_max,floor_name,"
            "floor,floor_min,floor_max,ratio,ratio_min,ratio_max\n"
            "drain,\"3 pages, \"\"raw\"\"\",throughput,MiB/s,200,100,300,tcp_stream,400,200,600,"
            "0.5,0.5,0.5\n"
            "drain,\"3 pages, \"\"raw\"\"\",agent CPU,us/page,2,1,3,,,,,,,\n");
}

TEST(Report, LatenciesBecomeQuantilesOfEachRepetitionAndOneCurve) {
  Report report;
  report.AddLatencies({1, 2, 3}, "uffd_tcp", {1, 1, 1});
  report.AddLatencies({5, 5, 5}, "uffd_tcp", {1, 1, 1});
  ASSERT_EQ(report.figures.size(), 4u);
  EXPECT_EQ(report.figures[0].name, "p50");
  EXPECT_EQ(report.figures[0].ours, (std::vector<double>{2, 5}));
  EXPECT_EQ(report.figures[3].name, "max");
  EXPECT_EQ(report.figures[3].ours, (std::vector<double>{3, 5}));
  ASSERT_EQ(report.latencies.size(), 2u);
  EXPECT_EQ(report.latencies[0].micros, (std::vector<double>{1, 2, 3, 5, 5, 5}));
  EXPECT_EQ(report.latencies[1].label, "uffd_tcp");
}

TEST(Report, OneFigureMayBeComparedWithTwoFloors) {
  Report report;
  report.AddFigure("throughput", "MiB/s", 1, "disk_write", 2);
  report.AddFigure("throughput", "MiB/s", 1, "tcp_stream", 4);
  ASSERT_EQ(report.figures.size(), 2u);
  EXPECT_EQ(report.figures[1].floor, (std::vector<double>{4}));
}

TEST(Plot, ThroughputIsBarsAndLatencyIsACurve) {
  Report latency;
  latency.benchmark = "fault-random";
  latency.AddLatencies({1, 2, 3}, "uffd_tcp", {0, 1, 1});
  const std::string script = ReportsToGnuplot({Sample(), latency}, kMachine, "svg", "it's.svg");
  EXPECT_TRUE(absl::StrContains(script, "set output 'it''s.svg'")) << script;
  EXPECT_TRUE(absl::StrContains(script, "multiplot layout 1,2")) << script;
  EXPECT_TRUE(absl::StrContains(script, "\"throughput\" 200 100 300 400 200 600\n")) << script;
  EXPECT_TRUE(absl::StrContains(script, "using 5:6:7 title \"tcp_stream\"")) << script;
  EXPECT_TRUE(absl::StrContains(script, "set logscale x")) << script;
  EXPECT_TRUE(absl::StrContains(script, "\n3 1.0000\nEOD")) << script;
  // A logarithmic axis has no 0.
  EXPECT_TRUE(absl::StrContains(script, "\n0.001 0.0000\n")) << script;
}

TEST(Plot, BarsAreOfOneUnitAndNameTheirFloorsWhereTheyDiffer) {
  Report report = Sample();
  report.AddFigure("throughput", "MiB/s", 5, "disk_write", 6);
  report.AddFigure("p50", "us", 7, "disk_write", 8);
  const std::string script = ReportsToGnuplot({report}, kMachine, "pngcairo", "a.png");
  EXPECT_TRUE(absl::StrContains(script, "\"throughput / tcp_stream\" 200")) << script;
  EXPECT_TRUE(absl::StrContains(script, "\"throughput / disk_write\" 5")) << script;
  EXPECT_FALSE(absl::StrContains(script, "p50")) << script;
}

TEST(Plot, AnUnknownKindOfFileIsRefused) {
  const absl::Status status = PlotTerminal("plot.gif").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "--plot=plot.gif: the name must end in .png or .svg");
}

TEST(StandardSet, BeginsWithEveryBenchmarkAndHasLinksWhereThereIsTcp) {
  const std::vector<StandardRun> runs = StandardSet({});
  ASSERT_GT(runs.size(), Benchmarks().size());
  size_t i = 0;
  for (const Benchmark& benchmark : Benchmarks()) {
    if (absl::string_view(benchmark.name) == "demand-under-flood")
      continue;  // clients are told apart by TLS
    EXPECT_EQ(runs[i].benchmark, &benchmark);
    EXPECT_EQ(runs[i].options.pages, benchmark.default_pages);
    EXPECT_EQ(runs[i].options.prefetch, "none");
    EXPECT_FALSE(runs[i].options.stack.link.limits());
    ++i;
  }
  EXPECT_EQ(runs[i].name, "fault-seq, prefetch sequential");
  EXPECT_EQ(runs[i].options.prefetch, "sequential");
  EXPECT_EQ(runs.back().name, "drain, 10ms round trip");
  EXPECT_TRUE(runs.back().options.stack.link.limits());
  BenchOptions tls;
  tls.transport = Transport::kTls;
  EXPECT_EQ(StandardSet(tls).size(), runs.size() + 1);
  BenchOptions local;
  local.transport = Transport::kUnix;
  for (const StandardRun& run : StandardSet(local)) {
    EXPECT_FALSE(run.options.stack.link.limits()) << run.name;
  }
}

}  // namespace
}  // namespace faultline::bench
