// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EXPERIMENT_EXPERIMENT_H_
#define FAULTLINE_CLIENT_EXPERIMENT_EXPERIMENT_H_

#include <absl/status/status.h>

#include <functional>
#include <string>
#include <vector>

#include "client/experiment/command.h"
#include "client/experiment/result.h"

namespace faultline::experiment {

struct ExperimentOptions {
  std::string spec_path;
  std::string directory;  // of the results; made where it is missing
  bool resume = false;    // goes on with what is there, in place of refusing it
  bool plots = true;
  Surroundings surroundings;  // but for `stats`
};

// The command lines of all runs, in their order, for people.
absl::StatusOr<std::string> DescribeRuns(const ExperimentOptions& options);

// All runs that are not there yet, into results.csv; afterwards, also where runs have failed,
// summary.csv and the plots. Each run is told to `progress` in a line. Results are what all good
// runs have given, also earlier ones.
//
// INVALID_ARGUMENT: the spec is wrong, or the directory has other results. FAILED_PRECONDITION: the
// machine lacks something. INTERNAL: runs have failed. CANCELLED: a signal has asked for an end.
absl::Status RunExperiment(const ExperimentOptions& options,
                           const std::function<void(const std::string&)>& progress,
                           std::vector<Result>* results);

}  // namespace faultline::experiment

#endif  // FAULTLINE_CLIENT_EXPERIMENT_EXPERIMENT_H_
