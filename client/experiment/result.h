// SPDX-License-Identifier: Apache-2.0
//
// What a run has given, and the file that keeps it: a line for each run, written as soon as it is
// over.
#ifndef FAULTLINE_CLIENT_EXPERIMENT_RESULT_H_
#define FAULTLINE_CLIENT_EXPERIMENT_RESULT_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "client/experiment/plan.h"
#include "client/experiment/spec.h"

namespace faultline::experiment {

struct Result {
  Run run;
  int exit_status = 0;
  // By FigureNames(); what the program or the command does not tell is not there.
  std::map<std::string, double> figures;
  std::string checksum;  // of what the program has computed; empty: it does not tell
  std::string error;     // empty: the run is good

  bool good() const { return error.empty(); }
  std::optional<double> Figure(const std::string& name) const;
};

// The columns of figures, each with its unit at its end.
const std::vector<std::string>& FigureNames();

// Adds what a program has written to its standard output, if its last line is one of JSON as
// faultline-workload writes it.
void AddProgramFigures(const nlohmann::json& program, Result* result);

// Adds what `formulas` find in the counters, wherever in the JSON they are: a program that forks
// has several attachments. Counters are added up, quantiles (their name ends in _us) are of the
// worst.
void AddStatsFigures(const nlohmann::json& stats, const StatsFormulas& formulas, Result* result);
const StatsFormulas& DefaultStatsFormulas();

// One line each, with its end.
std::string CsvHeader();
std::string ToCsv(const Result& result);
// The results of a file; a last line without an end, of a run that was under way, is left out.
// DATA_LOSS, with the line's number, where a line is not one of ToCsv().
absl::StatusOr<std::vector<Result>> ParseCsv(absl::string_view text);

}  // namespace faultline::experiment

#endif  // FAULTLINE_CLIENT_EXPERIMENT_RESULT_H_
