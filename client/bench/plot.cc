// SPDX-License-Identifier: Apache-2.0
#include "client/bench/plot.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_replace.h>

#include <algorithm>

#include "client/bench/gnuplot.h"
#include "client/bench/statistics.h"

namespace faultline::bench {
namespace {

// Points of a curve: a step of a few thousandths, finer than a line is thick.
constexpr size_t kCurvePoints = 400;
constexpr int kPanelWidth = 800, kPanelHeight = 500;

// "share of touches, microseconds" lines.
std::string CurvePoints(std::vector<double> micros) {
  std::sort(micros.begin(), micros.end());
  std::string lines;
  for (size_t i = 0; i <= kCurvePoints && !micros.empty(); ++i) {
    const double share = static_cast<double>(i) / kCurvePoints;
    const auto at = static_cast<size_t>(share * static_cast<double>(micros.size() - 1));
    // A logarithmic axis has no 0.
    absl::StrAppend(&lines, absl::StrFormat("%.5g %.4f\n", std::max(micros[at], 1e-3), share));
  }
  return lines;
}

std::string LatencyPanel(const Report& report, const std::string& block) {
  std::string script,
      plot = absl::StrCat(
          "set logscale x\nset xlabel ",
          GnuplotQuoted(absl::StrCat("latency of ", report.latency_of, ", us")),
          "\nset ylabel \"share of all\"\nset yrange [0:1]\nset xtics norotate\nplot ");
  for (size_t i = 0; i < report.latencies.size(); ++i) {
    const std::string name = absl::StrCat("$", block, "_", i);
    absl::StrAppend(&script, name, " << EOD\n", CurvePoints(report.latencies[i].micros), "EOD\n");
    absl::StrAppend(&plot, i == 0 ? "" : ", ", name, " using 1:2 with lines linewidth 2 title ",
                    GnuplotQuoted(report.latencies[i].label));
  }
  return absl::StrCat(script, plot, "\nunset logscale x\n");
}

std::string TimelinePanel(const Report& report, const std::string& block) {
  std::string script, plot = absl::StrCat("set xlabel ", GnuplotQuoted(report.timeline_axes[0]),
                                          "\nset ylabel ", GnuplotQuoted(report.timeline_axes[1]),
                                          "\nset yrange [0:*]\nset xtics norotate\nplot ");
  for (size_t i = 0; i < report.timelines.size(); ++i) {
    const std::string name = absl::StrCat("$", block, "_", i);
    absl::StrAppend(&script, name, " << EOD\n");
    for (const auto& [seconds, value] : report.timelines[i].points) {
      absl::StrAppend(&script, absl::StrFormat("%.6g %.6g\n", seconds, value));
    }
    absl::StrAppend(&script, "EOD\n");
    absl::StrAppend(&plot, i == 0 ? "" : ", ", name, " using 1:2 with steps linewidth 2 title ",
                    GnuplotQuoted(report.timelines[i].label));
  }
  return absl::StrCat(script, plot, "\n");
}

// Ours beside the floor, with the spread over the repetitions.
std::string BarPanel(const Report& report, const std::string& block) {
  std::vector<const Series*> shown;
  bool one_floor = true;
  for (const Series& series : report.figures) {
    // One axis, one unit.
    if (series.unit == report.figures[0].unit) shown.push_back(&series);
    one_floor = one_floor && series.floor_name == report.figures[0].floor_name;
  }
  if (shown.empty()) return "";
  std::string script = absl::StrCat("$", block, " << EOD\n");
  for (const Series* series : shown) {
    const Spread ours = SpreadOf(series->ours), floor = SpreadOf(series->floor);
    absl::StrAppend(
        &script,
        GnuplotQuoted(one_floor ? series->name
                                : absl::StrCat(series->name, " / ", series->floor_name)),
        absl::StrFormat(" %.6g %.6g %.6g %.6g %.6g %.6g\n", ours.median, ours.min, ours.max,
                        floor.median, floor.min, floor.max));
  }
  // More names than stand beside each other are set aslant.
  return absl::StrCat(
      script, "EOD\nset xlabel \"\"\nset ylabel ", GnuplotQuoted(shown[0]->unit), "\nset xtics ",
      shown.size() > 2 ? "rotate by -15" : "norotate",
      "\nset yrange [0:*]\nset style data histograms\nset style histogram errorbars gap 1\n"
      "plot $",
      block, " using 2:3:4:xtic(1) title \"faultline\", $", block, " using 5:6:7 title ",
      GnuplotQuoted(one_floor ? shown[0]->floor_name : report.compared_with), "\n");
}

std::string Panel(const Report& report, const std::string& block) {
  if (!report.timelines.empty()) return TimelinePanel(report, block);
  return report.latencies.empty() ? BarPanel(report, block) : LatencyPanel(report, block);
}

}  // namespace

std::string ReportsToGnuplot(const std::vector<Report>& reports, const Machine& machine,
                             absl::string_view terminal, absl::string_view path) {
  const int columns = reports.size() > 1 ? 2 : 1;
  const int rows = (static_cast<int>(reports.size()) + columns - 1) / columns;
  std::string script = absl::StrCat(
      "set terminal ", terminal, " size ", columns * kPanelWidth, ",", rows * kPanelHeight,

      // Names may have an underscore, which would be a subscript.
      " noenhanced\nset output '", absl::StrReplaceAll(path, {{"'", "''"}}),
      "'\nset style fill solid 0.8\nset grid\nset key outside below\nset multiplot layout ", rows,
      ",", columns, " title ", GnuplotQuoted(absl::StrCat(machine.processor, ", ", machine.kernel)),
      "\n");
  for (size_t i = 0; i < reports.size(); ++i) {
    const std::string block = absl::StrCat("data", i);
    absl::StrAppend(&script, "set title ", GnuplotQuoted(reports[i].benchmark), "\n",
                    Panel(reports[i], block));
  }
  return script + "unset multiplot\n";
}

}  // namespace faultline::bench
