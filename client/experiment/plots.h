// SPDX-License-Identifier: Apache-2.0
//
// The plots of an experiment, one panel for each program. Pure functions: they make scripts for
// gnuplot.
#ifndef FAULTLINE_CLIENT_EXPERIMENT_PLOTS_H_
#define FAULTLINE_CLIENT_EXPERIMENT_PLOTS_H_

#include <string>
#include <vector>

#include "client/bench/report.h"
#include "client/experiment/summary.h"

namespace faultline::experiment {

// Latencies of what one run has timed, 0 to 100 percent, in microseconds.
struct LatencyOfRun {
  Cell cell;
  std::vector<double> operations, faults;  // empty: not told
};

struct Plot {
  std::string name;    // "slowdown": its file is slowdown.svg
  std::string script;  // draws it to there
};

// Slowdown, misses and traffic over the share of local memory, and the distributions of latencies;
// those for which there are figures. `directory` is where they are drawn to.
std::vector<Plot> MakePlots(const std::string& experiment, const std::vector<CellSummary>& cells,
                            const std::vector<LatencyOfRun>& latencies,
                            const bench::Machine& machine, const std::string& directory);

}  // namespace faultline::experiment

#endif  // FAULTLINE_CLIENT_EXPERIMENT_PLOTS_H_
