// SPDX-License-Identifier: Apache-2.0
//
// What all runs of an experiment say together. Pure functions.
#ifndef FAULTLINE_CLIENT_EXPERIMENT_SUMMARY_H_
#define FAULTLINE_CLIENT_EXPERIMENT_SUMMARY_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "client/bench/statistics.h"
#include "client/experiment/plan.h"
#include "client/experiment/result.h"

namespace faultline::experiment {

struct CellSummary {
  Cell cell;
  unsigned good = 0, failed = 0;  // runs; all else is of the good ones
  bench::Spread seconds;
  double seconds_p99 = 0;
  // What a run took to what one with all memory local took in the same repetition: the plain one,
  // or, where there is none, the same condition at 100 %.
  std::optional<bench::Spread> slowdown;
  // To what kernel swap took in the same repetition, with as much memory.
  std::optional<bench::Spread> to_swap;
  // Medians, by FigureNames(), and these: misses_per_operation.
  std::map<std::string, double> medians;

  std::optional<double> Median(const std::string& figure) const;
};

// In the order of the first result of each cell.
std::vector<CellSummary> Summarise(const std::vector<Result>& results);

// A table for people; the same for programs.
std::string FormatSummary(const std::vector<CellSummary>& cells);
nlohmann::ordered_json SummaryToJson(const std::vector<CellSummary>& cells);
std::string SummaryToCsv(const std::vector<CellSummary>& cells);

}  // namespace faultline::experiment

#endif  // FAULTLINE_CLIENT_EXPERIMENT_SUMMARY_H_
