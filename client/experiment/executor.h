// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EXPERIMENT_EXECUTOR_H_
#define FAULTLINE_CLIENT_EXPERIMENT_EXECUTOR_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include "client/experiment/command.h"
#include "client/experiment/result.h"

namespace faultline::experiment {

// While it lives, SIGINT, SIGTERM and SIGHUP ask for an end, which Requested() tells, in place of
// making one: what was changed on the machine is to be undone first. One at a time.
class StopRequest {
 public:
  StopRequest();
  ~StopRequest();
  StopRequest(const StopRequest&) = delete;
  StopRequest& operator=(const StopRequest&) = delete;

  static bool Requested();
};

// Runs the programs of an experiment, one after the other, and keeps what each has left below
// `directory`/runs: NUMBER.json with the command line, what the program told and the counters, and
// NUMBER.log with its standard error output, where it has failed. Not thread-safe.
class Executor {
 public:
  // `spec` is borrowed; `directory` exists.
  Executor(const Spec* spec, std::string directory, Surroundings surroundings)
      : spec_(*spec), directory_(std::move(directory)), surroundings_(std::move(surroundings)) {}

  // Makes what has to be there, and tries what the spec needs of the machine.
  absl::Status Prepare() const;

  // What `run` executes; of kSwap, in a group whose memory is limited.
  std::vector<std::string> CommandOf(const Run& run) const;

  // A run that fails has a result that says so. CANCELLED where an end was asked for meanwhile;
  // other errors are the machine's, and would meet every run.
  absl::StatusOr<Result> Execute(const Run& run) const;

  std::string RunFile(const Run& run, const std::string& ending) const;

 private:
  const Program& ProgramOf(const Cell& cell) const;
  std::string SwapDirectory() const;
  // Starts it, waits for it, and takes its exit status and times.
  absl::Status RunToEnd(const std::vector<std::string>& argv, Result* result) const;
  void TakeFigures(const std::vector<std::string>& argv, Result* result) const;

  const Spec& spec_;
  const std::string directory_;
  const Surroundings surroundings_;
};

}  // namespace faultline::experiment

#endif  // FAULTLINE_CLIENT_EXPERIMENT_EXECUTOR_H_
