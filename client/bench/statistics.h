// SPDX-License-Identifier: Apache-2.0
//
// What is told of several measurements of the same thing. Pure functions.
#ifndef FAULTLINE_CLIENT_BENCH_STATISTICS_H_
#define FAULTLINE_CLIENT_BENCH_STATISTICS_H_

#include <algorithm>
#include <cstddef>
#include <vector>

namespace faultline::bench {

// The value that `fraction` (0 to 1) of the others are not above: 0.5 is the median, the lower of
// the two in the middle. 0 where there are none.
inline double Quantile(std::vector<double> values, double fraction) {
  if (values.empty()) return 0;
  const auto at =
      values.begin() + static_cast<ptrdiff_t>(fraction * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

struct Spread {
  double median = 0, min = 0, max = 0;
};

inline Spread SpreadOf(const std::vector<double>& values) {
  return {Quantile(values, 0.5), Quantile(values, 0), Quantile(values, 1)};
}

// What each value is to its own floor: both were measured one after the other, so that what slows
// the whole machine down cancels out.
// REQUIRES: as many of both, and no floor is 0.
inline std::vector<double> Ratios(const std::vector<double>& values,
                                  const std::vector<double>& floors) {
  std::vector<double> ratios;
  ratios.reserve(values.size());
  for (size_t i = 0; i < values.size(); ++i) ratios.push_back(values[i] / floors[i]);
  return ratios;
}

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_STATISTICS_H_
