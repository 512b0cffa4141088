// SPDX-License-Identifier: Apache-2.0
//
// Which runs an experiment has, and in which order. Pure functions.
#ifndef FAULTLINE_CLIENT_EXPERIMENT_PLAN_H_
#define FAULTLINE_CLIENT_EXPERIMENT_PLAN_H_

#include <absl/strings/string_view.h>

#include <string>
#include <vector>

#include "client/experiment/spec.h"

namespace faultline::experiment {

enum class System {
  kPlain,  // all memory is the machine's
  kSwap,   // the kernel's swap
  kFar,    // Faultline
};
// "plain", "swap", "faultline"
const char* SystemName(System system);

// What is measured: several runs of it are the same but for chance.
struct Cell {
  std::string program;
  System system = System::kPlain;
  double local_percent = 100;
  std::string policy = {}, prefetch = {}, inject = {};  // of kFar

  friend bool operator==(const Cell&, const Cell&) = default;
};

// For people: "faultline s3-fifo majority latency=100us"; without the program and its share.
std::string ConditionName(const Cell& cell);
// The same with both: "zipf 25% faultline s3-fifo majority".
std::string CellName(const Cell& cell);

struct Run {
  Cell cell;
  unsigned repetition = 0;
  unsigned number = 0;  // in the order of the plan
};

// Of each program the plain run, then for each share of local memory swap and what the sweeps have;
// no cell twice.
std::vector<Cell> CellsOf(const Spec& spec);

// Every cell once, then every cell a second time, and so on: what changes while the experiment
// lasts changes for all cells alike.
std::vector<Run> PlanRuns(const Spec& spec);

}  // namespace faultline::experiment

#endif  // FAULTLINE_CLIENT_EXPERIMENT_PLAN_H_
