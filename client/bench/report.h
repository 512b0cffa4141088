// SPDX-License-Identifier: Apache-2.0
//
// What a benchmark has measured, and the forms in which it is given out. Plain values and pure
// functions.
#ifndef FAULTLINE_CLIENT_BENCH_REPORT_H_
#define FAULTLINE_CLIENT_BENCH_REPORT_H_

#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace faultline::bench {

// One figure, one value for each repetition.
struct Series {
  std::string name, unit;
  // What it is compared with, measured next to it in the same repetition; empty: nothing.
  std::string floor_name;
  std::vector<double> ours, floor;
};

// The latency of single touches, of all repetitions together.
struct LatencyCurve {
  std::string label;
  std::vector<double> micros;
};

// How much of something there was at each time.
struct Timeline {
  std::string label;
  std::vector<std::pair<double, double>> points;  // seconds, value
};

struct Report {
  std::string benchmark;
  std::string configuration;            // what the flags have set, for people
  std::vector<Series> figures;          // compared with a floor
  std::vector<Series> details;          // not compared: floor_name is empty
  std::vector<LatencyCurve> latencies;  // ours first; empty: the benchmark is about throughput
  std::string latency_of = "a touch";   // which latencies they are
  std::vector<Timeline> timelines;      // drawn in place of the latencies
  std::string timeline_axes[2];         // what they have over what
  std::string compared_with = "floor";  // what the floors are

  // Adds one more repetition's value to the figure or detail of that name, which is made where it
  // is the first.
  void AddFigure(const std::string& name, const std::string& unit, double ours,
                 const std::string& floor_name, double floor);
  void AddDetail(const std::string& name, const std::string& unit, double ours);
  // p50, p90, p99 and max of one repetition, compared, and its touches for the curves.
  void AddLatencies(const std::vector<double>& ours, const std::string& floor_name,
                    const std::vector<double>& floor);
};

struct Machine {
  std::string processor;  // its name and the number of CPUs
  std::string kernel;
};
Machine ThisMachine();

std::string FormatReport(const Report& report, const Machine& machine);
nlohmann::ordered_json ReportToJson(const Report& report, const Machine& machine);
// A header line and one line for each figure and detail. Fields that do not apply are empty.
std::string ReportsToCsv(const std::vector<Report>& reports);

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_REPORT_H_
