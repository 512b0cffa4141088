// SPDX-License-Identifier: Apache-2.0
//
// What `lab locks` has measured, and the forms in which it is given out. Plain values and pure
// functions.
#ifndef FAULTLINE_CLIENT_LAB_LAB_RESULT_H_
#define FAULTLINE_CLIENT_LAB_LAB_RESULT_H_

#include <absl/strings/string_view.h>

#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace faultline {

struct Spread {
  double median = 0, min = 0, max = 0;
};

// One cell: what was set, and the figures of each repetition.
struct LabRow {
  struct Metric {
    std::string name;  // with its unit
    std::vector<double> values;
  };
  std::vector<std::pair<std::string, std::string>> keys;
  // Why there are no figures: "not on this kernel".
  std::string note;
  std::vector<Metric> metrics;

  absl::string_view Key(absl::string_view name) const;
  // All 0 where there is no such metric.
  Spread Get(absl::string_view name) const;
  double Sum(absl::string_view name) const;
  // Adds the value of one more repetition.
  void Add(absl::string_view name, double value);
};

struct LabResult {
  std::string machine;        // processor, CPUs, kernel
  std::string configuration;  // what the flags have set
  std::vector<LabRow> locks, protocol;
};

// Tables for people, with a few lines on how to read them.
std::string FormatLab(const LabResult& result);
nlohmann::ordered_json LabToJson(const LabResult& result);
// A header line and one line for each row; of each metric the median, the least and the greatest.
std::string RowsToCsv(const std::vector<LabRow>& rows);
// What gnuplot draws of it to `path`, whose terminal is `terminal`.
std::string LabToGnuplot(const LabResult& result, absl::string_view terminal,
                         absl::string_view path);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LAB_LAB_RESULT_H_
