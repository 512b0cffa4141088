// SPDX-License-Identifier: Apache-2.0
#include "client/bench/report.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>

#include <nlohmann/json.hpp>

#include "client/bench/statistics.h"
#include "client/bench/text_output.h"

namespace faultline::bench {
namespace {

Series& FindOrAdd(std::vector<Series>* all, const std::string& name, const std::string& unit,
                  const std::string& floor_name) {
  const auto found = std::find_if(all->begin(), all->end(), [&](const Series& one) {
    return one.name == name && one.unit == unit && one.floor_name == floor_name;
  });
  if (found != all->end()) return *found;
  return all->emplace_back(Series{name, unit, floor_name, {}, {}});
}

// With two or three digits that count.
std::string Number(double value) {
  if (value == 0 || std::abs(value) >= 100) return absl::StrFormat("%.0f", value);
  if (std::abs(value) < 0.1) return absl::StrFormat("%.2g", value);
  return absl::StrFormat("%.*f", std::abs(value) >= 10 ? 1 : 2, value);
}

std::string Cell(const std::vector<double>& values) {
  const Spread spread = SpreadOf(values);
  return absl::StrCat(Number(spread.median), " [", Number(spread.min), "-", Number(spread.max),
                      "]");
}

nlohmann::ordered_json SpreadToJson(const std::vector<double>& values) {
  const Spread spread = SpreadOf(values);
  return {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}};
}

nlohmann::ordered_json SeriesToJson(const Series& series) {
  nlohmann::ordered_json json = {
      {"name", series.name}, {"unit", series.unit}, {"faultline", SpreadToJson(series.ours)}};
  if (!series.floor_name.empty()) {
    json["floor_name"] = series.floor_name;
    json["floor"] = SpreadToJson(series.floor);
    json["ratio"] = SpreadToJson(Ratios(series.ours, series.floor));
  }
  return json;
}

std::string CsvSpread(const std::vector<double>& values) {
  if (values.empty()) return ",,,";
  const Spread spread = SpreadOf(values);
  return absl::StrFormat(",%.6g,%.6g,%.6g", spread.median, spread.min, spread.max);
}

std::string CpuModel() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

}  // namespace

void Report::AddFigure(const std::string& name, const std::string& unit, double ours,
                       const std::string& floor_name, double floor) {
  Series& series = FindOrAdd(&figures, name, unit, floor_name);
  series.ours.push_back(ours);
  series.floor.push_back(floor);
}

void Report::AddDetail(const std::string& name, const std::string& unit, double ours) {
  FindOrAdd(&details, name, unit, "").ours.push_back(ours);
}

void Report::AddLatencies(const std::vector<double>& ours, const std::string& floor_name,
                          const std::vector<double>& floor) {
  constexpr struct {
    const char* name;
    double fraction;
  } kQuantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"max", 1}};
  for (const auto& [name, fraction] : kQuantiles) {
    AddFigure(name, "us", Quantile(ours, fraction), floor_name, Quantile(floor, fraction));
  }
  if (latencies.empty()) latencies = {{"faultline", {}}, {floor_name, {}}};
  latencies[0].micros.insert(latencies[0].micros.end(), ours.begin(), ours.end());
  latencies[1].micros.insert(latencies[1].micros.end(), floor.begin(), floor.end());
}

Machine ThisMachine() {
  utsname kernel{};
  uname(&kernel);
  return {absl::StrCat(CpuModel(), ", ", sysconf(_SC_NPROCESSORS_ONLN), " CPUs"),
          absl::StrCat(kernel.sysname, " ", kernel.release)};
}

std::string FormatReport(const Report& report, const Machine& machine) {
  std::vector<std::vector<std::string>> lines = {
      {"median [min-max]", "faultline", "", report.compared_with, "ratio"}};
  for (const Series& series : report.figures) {
    lines.push_back({absl::StrCat(series.name, ", ", series.unit), Cell(series.ours),
                     series.floor_name, Cell(series.floor),
                     Cell(Ratios(series.ours, series.floor))});
  }
  for (const Series& series : report.details) {
    lines.push_back({absl::StrCat(series.name, ", ", series.unit), Cell(series.ours)});
  }
  return absl::StrCat(report.benchmark, "\n  machine        ", machine.processor,
                      "\n  kernel         ", machine.kernel, "\n  configuration  ",
                      report.configuration, "\n\n", AlignColumns(lines, SIZE_MAX, "  "));
}

nlohmann::ordered_json ReportToJson(const Report& report, const Machine& machine) {
  nlohmann::ordered_json json = {{"benchmark", report.benchmark},
                                 {"machine", machine.processor},
                                 {"kernel", machine.kernel},
                                 {"configuration", report.configuration},
                                 {"figures", nlohmann::ordered_json::array()},
                                 {"details", nlohmann::ordered_json::array()}};
  for (const Series& series : report.figures) json["figures"].push_back(SeriesToJson(series));
  for (const Series& series : report.details) json["details"].push_back(SeriesToJson(series));
  return json;
}

std::string ReportsToCsv(const std::vector<Report>& reports) {
  std::string csv =
      "benchmark,configuration,figure,unit,faultline,faultline_min,faultline_max,floor_name,"
      "floor,floor_min,floor_max,ratio,ratio_min,ratio_max\n";
  for (const Report& report : reports) {
    std::vector<Series> all = report.figures;
    all.insert(all.end(), report.details.begin(), report.details.end());
    for (const Series& series : all) {
      const bool compared = !series.floor_name.empty();
      absl::StrAppend(
          &csv, CsvField(report.benchmark), ",", CsvField(report.configuration), ",",
          CsvField(series.name), ",", CsvField(series.unit), CsvSpread(series.ours), ",",
          CsvField(series.floor_name), CsvSpread(series.floor),
          CsvSpread(compared ? Ratios(series.ours, series.floor) : std::vector<double>()), "\n");
    }
  }
  return csv;
}

}  // namespace faultline::bench
