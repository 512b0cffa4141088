// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_BENCH_PLOT_H_
#define FAULTLINE_CLIENT_BENCH_PLOT_H_

#include <absl/strings/string_view.h>

#include <string>
#include <vector>

#include "client/bench/report.h"

namespace faultline::bench {

// What gnuplot draws of `reports` to `path`, whose terminal is `terminal`: a panel for each, with
// its timelines or the distribution of its latencies where there are any, otherwise with bars.
// Pure.
std::string ReportsToGnuplot(const std::vector<Report>& reports, const Machine& machine,
                             absl::string_view terminal, absl::string_view path);

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_PLOT_H_
