// SPDX-License-Identifier: Apache-2.0
#include "client/experiment/plots.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_replace.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "client/bench/gnuplot.h"
#include "client/bench/plot.h"
#include "client/bench/statistics.h"
#include "proto/page.h"

namespace faultline::experiment {
namespace {

constexpr int kPanelWidth = 700, kPanelHeight = 480;

// A value over the share of local memory, for each condition of each program.
struct Chart {
  const char *name, *title, *axis;
  bool logarithmic;
  std::function<std::optional<double>(const CellSummary&)> value;
};

std::vector<Chart> Charts() {
  const auto traffic = [](const CellSummary& cell) -> std::optional<double> {
    const auto in = cell.Median("fetched_pages"), out = cell.Median("written_pages");
    if (!in && !out) return std::nullopt;
    return (in.value_or(0) + out.value_or(0)) * static_cast<double>(kPageSize) / (1 << 20);
  };
  return {{"slowdown", "slowdown", "time to that with all memory local", true,
           [](const CellSummary& cell) -> std::optional<double> {
             if (!cell.slowdown) return std::nullopt;
             return cell.slowdown->median;
           }},
          {"misses", "misses", "remote misses or major faults per operation", false,
           [](const CellSummary& cell) { return cell.Median("misses_per_operation"); }},
          {"traffic", "traffic", "MiB in and out", false, traffic}};
}

template <typename Items, typename NameOf>
std::vector<std::string> DistinctNames(const Items& items, NameOf name_of) {
  std::vector<std::string> names;
  for (const auto& item : items) {
    const std::string name = name_of(item);
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

// gnuplot finds a range by itself, but complains where all values are the same.
std::string AxisRange(const Chart& chart, double least, double greatest) {
  if (chart.logarithmic) {
    return absl::StrFormat("set yrange [%.6g:%.6g]\n", std::min(1.0, least * 0.9),
                           std::max(1.1, greatest * 1.1));
  }
  return absl::StrFormat("set yrange [0:%.6g]\n", greatest > 0 ? greatest * 1.1 : 1);
}

// "$data << EOD ... plot ..." of one program; empty where there is nothing to draw.
std::string Panel(const Chart& chart, const std::vector<CellSummary>& cells,
                  const std::string& program, const std::string& block) {
  std::map<std::string, std::map<double, double>> lines;  // by condition: percent, value
  for (const CellSummary& summary : cells) {
    if (summary.cell.program != program || summary.cell.system == System::kPlain) continue;
    const std::optional<double> value = summary.good > 0 ? chart.value(summary) : std::nullopt;
    // A logarithmic axis has no 0.
    if (!value || (chart.logarithmic && *value <= 0)) continue;
    lines[ConditionName(summary.cell)][summary.cell.local_percent] = *value;
  }
  if (lines.empty()) return "";
  double least = lines.begin()->second.begin()->second, greatest = least;
  std::string script, plot = "plot ";
  size_t number = 0;
  for (const auto& [condition, points] : lines) {
    const std::string name = absl::StrCat("$", block, "_", number);
    absl::StrAppend(&script, name, " << EOD\n");
    for (const auto& [percent, value] : points) {
      absl::StrAppend(&script, absl::StrFormat("%.6g %.6g\n", percent, value));
      least = std::min(least, value);
      greatest = std::max(greatest, value);
    }
    absl::StrAppend(&script, "EOD\n");
    absl::StrAppend(&plot, number++ == 0 ? "" : ", ", name,
                    " using 1:2 with linespoints linewidth 2 title ",
                    bench::GnuplotQuoted(condition));
  }
  return absl::StrCat("set title ", bench::GnuplotQuoted(program), "\n",
                      AxisRange(chart, least, greatest), script, plot, "\n");
}

std::string ChartScript(const Chart& chart, const std::string& title,
                        const std::vector<CellSummary>& cells, const std::string& path) {
  std::vector<std::string> panels;
  for (const std::string& program :
       DistinctNames(cells, [](const CellSummary& summary) { return summary.cell.program; })) {
    std::string panel = Panel(chart, cells, program, absl::StrCat("data", panels.size()));
    if (!panel.empty()) panels.push_back(std::move(panel));
  }
  if (panels.empty()) return "";
  const int columns = panels.size() > 1 ? 2 : 1;
  const int rows = (static_cast<int>(panels.size()) + columns - 1) / columns;
  std::string script = absl::StrCat(
      // Names may have an underscore, which would be a subscript.
      "set terminal svg size ", columns * kPanelWidth, ",", rows * kPanelHeight,
      " noenhanced\nset output '", absl::StrReplaceAll(path, {{"'", "''"}}),
      "'\nset grid\nset key outside below\nset xlabel \"local memory, % of the program's\"\n",
      "set xrange [0:105]\nset ylabel ", bench::GnuplotQuoted(chart.axis), "\n",
      chart.logarithmic ? "set logscale y\n" : "", "set multiplot layout ", rows, ",", columns,
      " title ", bench::GnuplotQuoted(title), "\n");
  for (const std::string& panel : panels) absl::StrAppend(&script, panel);
  return script + "unset multiplot\n";
}

// The median of all runs at each percentile.
std::vector<double> Together(const std::vector<std::vector<double>>& runs) {
  std::vector<double> together;
  for (size_t i = 0; i < runs.front().size(); ++i) {
    std::vector<double> at;
    for (const auto& run : runs) {
      if (i < run.size()) at.push_back(run[i]);
    }
    together.push_back(bench::Quantile(at, 0.5));
  }
  return together;
}

// Where there is least local memory: that is what latency is about. With the plain run beside it.
bool IsShown(const Cell& cell, const std::vector<LatencyOfRun>& latencies) {
  if (cell.system == System::kPlain) return true;
  return std::none_of(latencies.begin(), latencies.end(), [&](const LatencyOfRun& other) {
    return other.cell.program == cell.program && other.cell.system != System::kPlain &&
           other.cell.local_percent < cell.local_percent;
  });
}

std::string LatencyScript(const std::vector<LatencyOfRun>& latencies,
                          std::vector<double> LatencyOfRun::*which, const bench::Machine& machine,
                          const std::string& path) {
  std::vector<bench::Report> reports;
  for (const std::string& program :
       DistinctNames(latencies, [](const LatencyOfRun& one) { return one.cell.program; })) {
    bench::Report report;
    report.benchmark = program;
    report.latency_of = which == &LatencyOfRun::faults ? "a fault" : "an operation";
    std::map<std::string, std::vector<std::vector<double>>> by_name;
    for (const LatencyOfRun& one : latencies) {
      if (one.cell.program != program || (one.*which).empty()) continue;
      if (!IsShown(one.cell, latencies)) continue;
      const std::string share = absl::StrCat(", ", one.cell.local_percent, "% local");
      by_name[ConditionName(one.cell) + share].push_back(one.*which);
    }
    for (const auto& [name, runs] : by_name) report.latencies.push_back({name, Together(runs)});
    if (!report.latencies.empty()) reports.push_back(std::move(report));
  }
  return reports.empty() ? "" : bench::ReportsToGnuplot(reports, machine, "svg", path);
}

}  // namespace

std::vector<Plot> MakePlots(const std::string& experiment, const std::vector<CellSummary>& cells,
                            const std::vector<LatencyOfRun>& latencies,
                            const bench::Machine& machine, const std::string& directory) {
  std::vector<Plot> plots;
  const auto path = [&](const std::string& name) {
    return absl::StrCat(directory, "/", name, ".svg");
  };
  const auto add = [&](const std::string& name, std::string script) {
    if (!script.empty()) plots.push_back({name, std::move(script)});
  };
  for (const Chart& chart : Charts()) {
    const std::string title = absl::StrCat(experiment, ": ", chart.title, " (", machine.processor,
                                           ", ", machine.kernel, ")");
    add(chart.name, ChartScript(chart, title, cells, path(chart.name)));
  }
  add("latency", LatencyScript(latencies, &LatencyOfRun::operations, machine, path("latency")));
  add("faults", LatencyScript(latencies, &LatencyOfRun::faults, machine, path("faults")));
  return plots;
}

}  // namespace faultline::experiment
