// SPDX-License-Identifier: Apache-2.0
#include "client/experiment/summary.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "client/bench/text_output.h"
#include "proto/page.h"

namespace faultline::experiment {
namespace {

constexpr double kP99 = 0.99;
constexpr char kMissesPerOperation[] = "misses_per_operation";

const Result* FindGood(const std::vector<Result>& results, const Cell& cell, unsigned repetition) {
  const auto found = std::find_if(results.begin(), results.end(), [&](const Result& one) {
    return one.good() && one.run.cell == cell && one.run.repetition == repetition;
  });
  return found == results.end() ? nullptr : &*found;
}

// The run that has all of its memory, beside this one.
const Result* AllLocal(const std::vector<Result>& results, const Result& result) {
  const unsigned repetition = result.run.repetition;
  Cell cell = {.program = result.run.cell.program};
  if (const Result* plain = FindGood(results, cell, repetition)) return plain;
  cell = result.run.cell;
  cell.local_percent = 100;
  return FindGood(results, cell, repetition);
}

const Result* BesideOnSwap(const std::vector<Result>& results, const Result& result) {
  const Cell& cell = result.run.cell;
  if (cell.system != System::kFar) return nullptr;
  return FindGood(
      results,
      {.program = cell.program, .system = System::kSwap, .local_percent = cell.local_percent},
      result.run.repetition);
}

// Empty where there is no other, or it took no time.
std::optional<double> RatioTo(const Result* other, const Result& result) {
  if (other == nullptr) return std::nullopt;
  const double base = other->Figure("seconds").value_or(0);
  if (base <= 0) return std::nullopt;
  return result.Figure("seconds").value_or(0) / base;
}

std::optional<bench::Spread> SpreadOrNone(const std::vector<double>& values) {
  if (values.empty()) return std::nullopt;
  return bench::SpreadOf(values);
}

CellSummary SummariseCell(const std::vector<Result>& results, const Cell& cell) {
  CellSummary summary;
  summary.cell = cell;
  std::vector<double> seconds, slowdowns, to_swap;
  std::map<std::string, std::vector<double>> values;
  for (const Result& result : results) {
    if (!(result.run.cell == cell)) continue;
    if (!result.good()) {
      ++summary.failed;
      continue;
    }
    ++summary.good;
    seconds.push_back(result.Figure("seconds").value_or(0));
    if (const auto ratio = RatioTo(AllLocal(results, result), result)) slowdowns.push_back(*ratio);
    if (const auto ratio = RatioTo(BesideOnSwap(results, result), result)) {
      to_swap.push_back(*ratio);
    }
    for (const auto& [name, figure] : result.figures) values[name].push_back(figure);
    const double operations = result.Figure("operations").value_or(0);
    // Of far memory what the agent has counted; the kernel counts its own swap.
    auto misses = result.Figure("remote_misses");
    if (!misses) misses = result.Figure("major_faults");
    if (misses && operations > 0) values[kMissesPerOperation].push_back(*misses / operations);
  }
  summary.seconds = bench::SpreadOf(seconds);
  summary.seconds_p99 = bench::Quantile(seconds, kP99);
  summary.slowdown = SpreadOrNone(slowdowns);
  summary.to_swap = SpreadOrNone(to_swap);
  for (const auto& [name, of_runs] : values) summary.medians[name] = bench::Quantile(of_runs, 0.5);
  return summary;
}

std::string Number(double value) { return absl::StrFormat("%.3g", value); }
std::string Number(const std::optional<double>& value) { return value ? Number(*value) : "-"; }
std::string WithSpread(const std::optional<bench::Spread>& spread) {
  return spread ? absl::StrCat(Number(spread->median), " [", Number(spread->min), "-",
                               Number(spread->max), "]")
                : "-";
}

std::string PagesAsMiB(const std::optional<double>& pages) {
  if (!pages) return "-";
  return absl::StrFormat("%.0f", *pages * static_cast<double>(kPageSize) / (1 << 20));
}

std::string CsvSpread(const std::optional<bench::Spread>& spread) {
  return spread ? absl::StrFormat("%.6g,%.6g,%.6g", spread->median, spread->min, spread->max)
                : ",,";
}

}  // namespace

std::optional<double> CellSummary::Median(const std::string& figure) const {
  const auto found = medians.find(figure);
  if (found == medians.end()) return std::nullopt;
  return found->second;
}

std::vector<CellSummary> Summarise(const std::vector<Result>& results) {
  std::vector<CellSummary> cells;
  for (const Result& result : results) {
    const bool known = std::any_of(cells.begin(), cells.end(), [&](const CellSummary& summary) {
      return summary.cell == result.run.cell;
    });
    if (!known) cells.push_back(SummariseCell(results, result.run.cell));
  }
  return cells;
}

std::string FormatSummary(const std::vector<CellSummary>& cells) {
  std::vector<std::vector<std::string>> lines = {{"program", "condition", "local", "runs",
                                                  "seconds", "to all local", "to swap", "misses/op",
                                                  "op p99 us", "MiB in", "MiB out"}};
  for (const CellSummary& summary : cells) {
    const bool any = summary.good > 0;
    lines.push_back(
        {summary.cell.program, ConditionName(summary.cell),
         absl::StrCat(summary.cell.local_percent, "%"),
         summary.failed == 0 ? absl::StrCat(summary.good)
                             : absl::StrCat(summary.good, "+", summary.failed, " failed"),
         any ? WithSpread(summary.seconds) : "-", WithSpread(summary.slowdown),
         WithSpread(summary.to_swap), Number(summary.Median(kMissesPerOperation)),
         Number(summary.Median("operation_p99_us")), PagesAsMiB(summary.Median("fetched_pages")),
         PagesAsMiB(summary.Median("written_pages"))});
  }
  return bench::AlignColumns(lines, 2);
}

nlohmann::ordered_json SummaryToJson(const std::vector<CellSummary>& cells) {
  const auto spread = [](const bench::Spread& of) {
    return nlohmann::ordered_json{{"median", of.median}, {"min", of.min}, {"max", of.max}};
  };
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const CellSummary& summary : cells) {
    const Cell& cell = summary.cell;
    nlohmann::ordered_json json = {{"program", cell.program},
                                   {"system", SystemName(cell.system)},
                                   {"local_percent", cell.local_percent},
                                   {"policy", cell.policy},
                                   {"prefetch", cell.prefetch},
                                   {"inject", cell.inject},
                                   {"runs", summary.good},
                                   {"failed", summary.failed}};
    if (summary.good > 0) {
      json["seconds"] = spread(summary.seconds);
      json["seconds"]["p99"] = summary.seconds_p99;
    }
    if (summary.slowdown) json["to_all_local"] = spread(*summary.slowdown);
    if (summary.to_swap) json["to_swap"] = spread(*summary.to_swap);
    json["medians"] = summary.medians;
    all.push_back(std::move(json));
  }
  return all;
}

std::string SummaryToCsv(const std::vector<CellSummary>& cells) {
  std::vector<std::string> figures = FigureNames();
  figures.emplace_back(kMissesPerOperation);
  std::string csv =
      "program,system,local_percent,policy,prefetch,inject,runs,failed,seconds_median,seconds_min,"
      "seconds_max,seconds_p99,to_all_local_median,to_all_local_min,to_all_local_max,"
      "to_swap_median,to_swap_min,to_swap_max," +
      absl::StrJoin(figures, "_median,") + "_median\n";
  for (const CellSummary& summary : cells) {
    const Cell& cell = summary.cell;
    absl::StrAppend(&csv, bench::CsvField(cell.program), ",", SystemName(cell.system), ",",
                    cell.local_percent, ",", bench::CsvField(cell.policy), ",",
                    bench::CsvField(cell.prefetch), ",", bench::CsvField(cell.inject), ",",
                    summary.good, ",", summary.failed, ",");
    const bool any = summary.good > 0;
    absl::StrAppend(&csv, CsvSpread(any ? std::optional(summary.seconds) : std::nullopt), ",",
                    any ? absl::StrFormat("%.6g", summary.seconds_p99) : "", ",",
                    CsvSpread(summary.slowdown), ",", CsvSpread(summary.to_swap));
    for (const std::string& figure : figures) {
      const std::optional<double> median = summary.Median(figure);
      absl::StrAppend(&csv, ",", median ? absl::StrFormat("%.6g", *median) : "");
    }
    absl::StrAppend(&csv, "\n");
  }
  return csv;
}

}  // namespace faultline::experiment
