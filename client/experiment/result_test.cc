// SPDX-License-Identifier: Apache-2.0
#include "client/experiment/result.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "client/experiment/plots.h"
#include "client/experiment/summary.h"

namespace faultline::experiment {
namespace {

Result MakeResult(const Cell& cell, unsigned repetition, double seconds) {
  static unsigned number = 0;
  Result result;
  result.run = {cell, repetition, ++number};
  result.figures["seconds"] = seconds;
  return result;
}

const Cell kPlain = {.program = "zipf"};
const Cell kSwap = {.program = "zipf", .system = System::kSwap, .local_percent = 25};
const Cell kFar = {.program = "zipf",
                   .system = System::kFar,
                   .local_percent = 25,
                   .policy = "fifo",
                   .prefetch = "",
                   .inject = "latency=1ms,jitter=2ms"};

TEST(ResultCsv, IsReadAsItWasWritten) {
  Result result = MakeResult(kFar, 3, 1.0 / 3);
  result.figures["operations"] = 1e15;
  result.exit_status = 1;
  result.checksum = "00ff";
  result.error = "page 7, \"quoted\",\nand more";
  Result other = MakeResult(kPlain, 1, 0);
  const absl::StatusOr<std::vector<Result>> parsed =
      ParseCsv(CsvHeader() + ToCsv(result) + ToCsv(other));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  ASSERT_EQ(parsed->size(), 2u);
  const Result& read = (*parsed)[0];
  EXPECT_EQ(read.run.cell, result.run.cell);
  EXPECT_EQ(read.run.number, result.run.number);
  EXPECT_EQ(read.run.repetition, 3u);
  EXPECT_EQ(read.exit_status, 1);
  EXPECT_EQ(read.figures, result.figures);
  EXPECT_EQ(read.checksum, result.checksum);
  EXPECT_EQ(read.error, result.error);
  EXPECT_FALSE(read.good());
  EXPECT_TRUE((*parsed)[1].good());
  EXPECT_EQ((*parsed)[1].run.cell, kPlain);
  EXPECT_EQ((*parsed)[1].Figure("operations"), std::nullopt);
}

TEST(ResultCsv, ALineThatWasNotFinishedIsLeftOut) {
  const std::string whole = CsvHeader() + ToCsv(MakeResult(kFar, 1, 1));
  const std::string second = ToCsv(MakeResult(kPlain, 1, 1));
  for (size_t length = 0; length < second.size(); ++length) {
    const auto parsed = ParseCsv(whole + second.substr(0, length));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->size(), 1u);
  }
  EXPECT_EQ(ParseCsv("")->size(), 0u);
}

TEST(ResultCsv, WhatIsOfAnotherVersionIsRefused) {
  EXPECT_TRUE(absl::IsDataLoss(ParseCsv("time,benchmark\n1,2\n").status()));
  EXPECT_TRUE(absl::IsDataLoss(ParseCsv(CsvHeader() + "1,2,3\n").status()));
  std::string line = ToCsv(MakeResult(kFar, 1, 1));
  line.replace(line.find("faultline"), 9, "zram");
  EXPECT_TRUE(absl::IsDataLoss(ParseCsv(CsvHeader() + line).status()));
}

TEST(Figures, AreTakenFromWhatTheProgramTells) {
  Result result;
  AddProgramFigures(nlohmann::json::parse(R"({"workload":"zipf","seconds":2.5,"operations":100,
      "latency_us":{"p50":1,"p99":2,"max":3},"major_faults":4,"checksum":"abcd"})"),
                    &result);
  EXPECT_EQ(result.Figure("seconds"), 2.5);
  EXPECT_EQ(result.Figure("operation_max_us"), 3);
  EXPECT_EQ(result.Figure("major_faults"), 4);
  EXPECT_EQ(result.Figure("cpu_seconds"), std::nullopt);
  EXPECT_EQ(result.checksum, "abcd");
}

TEST(Figures, OfSeveralAttachmentsAreAddedUp) {
  const nlohmann::json stats = nlohmann::json::parse(R"({"attachments":[
      {"faults_total":100,"joined_faults_total":10,"zero_faults_total":15,
       "zeroed_pages_total":960,"copied_pages_total":70,"fault_p99_us":50.5},
      {"faults_total":1,"written_pages_total":5,"fault_p99_us":20}]})");
  Result result;
  AddStatsFigures(stats, DefaultStatsFormulas(), &result);
  EXPECT_EQ(result.Figure("remote_misses"), 76);
  EXPECT_EQ(result.Figure("fetched_pages"), 70);
  EXPECT_EQ(result.Figure("written_pages"), 5);
  EXPECT_EQ(result.Figure("fault_p99_us"), 50.5);
  EXPECT_EQ(result.Figure("fault_p50_us"), std::nullopt);
}

// Ratios are to what was measured beside it: what slows the whole machine down cancels out.
TEST(Summary, RatiosAreWithinARepetition) {
  std::vector<Result> results = {
      MakeResult(kPlain, 1, 1),  MakeResult(kSwap, 1, 8),   MakeResult(kFar, 1, 4),
      MakeResult(kPlain, 2, 10), MakeResult(kSwap, 2, 100), MakeResult(kFar, 2, 50),
      MakeResult(kPlain, 3, 1),  MakeResult(kSwap, 3, 8),   MakeResult(kFar, 3, 6)};
  results[2].figures["major_faults"] = 50;
  results[2].figures["operations"] = 200;
  const std::vector<CellSummary> cells = Summarise(results);
  ASSERT_EQ(cells.size(), 3u);
  EXPECT_EQ(cells[2].cell, kFar);
  EXPECT_EQ(cells[2].good, 3u);
  EXPECT_EQ(cells[2].seconds.median, 6);
  EXPECT_EQ(cells[2].seconds.max, 50);
  ASSERT_TRUE(cells[2].slowdown.has_value());
  EXPECT_EQ(cells[2].slowdown->median, 5);
  EXPECT_EQ(cells[2].slowdown->min, 4);
  EXPECT_EQ(cells[2].slowdown->max, 6);
  ASSERT_TRUE(cells[2].to_swap.has_value());
  EXPECT_EQ(cells[2].to_swap->median, 0.5);
  EXPECT_EQ(cells[2].Median("misses_per_operation"), 0.25);
  EXPECT_EQ(cells[0].slowdown->median, 1);
  EXPECT_FALSE(cells[0].to_swap.has_value());
}

TEST(Summary, AFailedRunCountsAndGivesNoFigures) {
  std::vector<Result> results = {MakeResult(kPlain, 1, 1), MakeResult(kFar, 1, 4),
                                 MakeResult(kPlain, 2, 1), MakeResult(kFar, 2, 1000)};
  results[2].error = "wrong content";
  const std::vector<CellSummary> cells = Summarise(results);
  EXPECT_EQ(cells[0].good, 1u);
  EXPECT_EQ(cells[0].failed, 1u);
  EXPECT_EQ(cells[1].slowdown->max, 4);  // the second has nothing beside it
  EXPECT_TRUE(absl::StrContains(FormatSummary(cells), "1+1 failed"));
  results[1].error = results[3].error = "wrong content";
  EXPECT_FALSE(Summarise(results)[1].slowdown.has_value());
  EXPECT_TRUE(absl::StrContains(FormatSummary(Summarise(results)), "0+2 failed"));
}

TEST(Summary, WithoutAPlainRunItIsToTheOneThatHasAllMemory) {
  Cell all = kFar;
  all.local_percent = 100;
  const std::vector<CellSummary> cells = Summarise({MakeResult(all, 1, 2), MakeResult(kFar, 1, 6)});
  EXPECT_EQ(cells[0].slowdown->median, 1);
  EXPECT_EQ(cells[1].slowdown->median, 3);
}

TEST(Summary, EveryFormHasAllCells) {
  const std::vector<CellSummary> cells =
      Summarise({MakeResult(kPlain, 1, 1), MakeResult(kSwap, 1, 8), MakeResult(kFar, 1, 4)});
  const std::string csv = SummaryToCsv(cells);
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 4);
  EXPECT_TRUE(absl::StrContains(csv, "\"latency=1ms,jitter=2ms\",1,0,4,4,4,4,4,4,4,0.5,0.5,0.5,"));
  const nlohmann::ordered_json json = SummaryToJson(cells);
  ASSERT_EQ(json.size(), 3u);
  EXPECT_EQ(json[2]["system"], "faultline");
  EXPECT_EQ(json[2]["to_all_local"]["median"], 4.0);
  EXPECT_EQ(json[2]["seconds"]["p99"], 4.0);
}

TEST(Plots, HaveALineForEachConditionAndAPanelForEachProgram) {
  std::vector<Result> results;
  for (const char* const program : {"zipf", "sort_it"}) {
    Cell plain = kPlain, far = kFar;
    plain.program = far.program = program;
    results.push_back(MakeResult(plain, 1, 1));
    for (const double percent : {25.0, 50.0}) {
      far.local_percent = percent;
      results.push_back(MakeResult(far, 1, 100 / percent));
      results.back().figures["fetched_pages"] = 512;
    }
  }
  std::vector<double> percentiles(101, 1);
  const std::vector<LatencyOfRun> latencies = {
      {kPlain, percentiles, {}}, {kFar, percentiles, percentiles}, {kFar, percentiles, {}}};
  const std::vector<Plot> plots =
      MakePlots("my \"test\"", Summarise(results), latencies, {"A CPU", "Linux"}, "/out");
  std::vector<std::string> names;
  for (const Plot& plot : plots) names.push_back(plot.name);
  // None of misses: no run has told of any.
  EXPECT_EQ(names, (std::vector<std::string>{"slowdown", "traffic", "latency", "faults"}));
  const std::string& slowdown = plots[0].script;
  EXPECT_TRUE(absl::StrContains(slowdown, "set output '/out/slowdown.svg'"));
  EXPECT_TRUE(
      absl::StrContains(slowdown, "layout 1,2 title \"my 'test': slowdown (A CPU, Linux)\""));
  EXPECT_TRUE(absl::StrContains(slowdown, "set title \"sort_it\""));
  EXPECT_TRUE(absl::StrContains(slowdown, "25 4\n50 2\nEOD"));
  EXPECT_TRUE(absl::StrContains(slowdown, "title \"faultline fifo latency=1ms,jitter=2ms\""));
  EXPECT_TRUE(absl::StrContains(plots[1].script, "25 2\n50 2\nEOD"));
  EXPECT_TRUE(absl::StrContains(plots[2].script, "title \"plain, 100% local\""));
  EXPECT_FALSE(absl::StrContains(plots[3].script, "plain"));
  EXPECT_TRUE(MakePlots("nothing", {}, {}, {}, "/out").empty());
}

}  // namespace
}  // namespace faultline::experiment
