// SPDX-License-Identifier: Apache-2.0
//
// The command lines of an experiment. Pure functions.
#ifndef FAULTLINE_CLIENT_EXPERIMENT_COMMAND_H_
#define FAULTLINE_CLIENT_EXPERIMENT_COMMAND_H_

#include <absl/status/status.h>

#include <string>
#include <vector>

#include "client/experiment/plan.h"
#include "client/experiment/spec.h"

namespace faultline::experiment {

// What the placeholders that do not follow from the cell stand for.
struct Surroundings {
  std::string faultline, workload;    // the programs
  std::string server;                 // address of the page server
  std::vector<std::string> tls = {};  // flags of the first for it
  std::string stats;                  // path for the counters of this run
};

// `faultline run` with the flags that a cell needs.
const std::vector<std::string>& DefaultCommand();

// INVALID_ARGUMENT, with those that are known, where it has a placeholder that is not; and where
// "{program}", which becomes the program and its arguments, is no argument of it.
absl::Status CheckCommand(const std::vector<std::string>& command);

// What runs `cell`, whose program is `program`: without far memory the program itself. Replaced are
// {faultline} (and, where that is the argument, followed by the flags of TLS), {server}, {stats},
// {local} (percent), {local_bytes}, {local_memory} (bytes, from the beginning, as a limit of swap;
// 100% as that, without a limit), {policy}, {prefetch}, {inject} and {program}; an argument whose
// placeholder is empty is left out.
std::vector<std::string> CommandOf(const Spec& spec, const Cell& cell, const Program& program,
                                   const Surroundings& surroundings);

uint64_t LocalBytes(const Cell& cell, const Program& program);

// As a shell reads it.
std::string ShellQuoted(const std::vector<std::string>& argv);

}  // namespace faultline::experiment

#endif  // FAULTLINE_CLIENT_EXPERIMENT_COMMAND_H_
