// SPDX-License-Identifier: Apache-2.0
#include "client/experiment/plan.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

namespace faultline::experiment {
namespace {

constexpr double kAll = 100;

bool Contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

void AddOnce(const Cell& cell, std::vector<Cell>* cells) {
  if (std::find(cells->begin(), cells->end(), cell) == cells->end()) cells->push_back(cell);
}

void AddFarCells(const Sweep& sweep, const std::string& program, double local_percent,
                 std::vector<Cell>* cells) {
  for (const std::string& policy : sweep.policies) {
    for (const std::string& prefetch : sweep.prefetches) {
      for (const std::string& inject : sweep.injections) {
        AddOnce({program, System::kFar, local_percent, policy, prefetch, inject}, cells);
      }
    }
  }
}

}  // namespace

const char* SystemName(System system) {
  switch (system) {
    case System::kPlain:
      return "plain";
    case System::kSwap:
      return "swap";
    case System::kFar:
      break;
  }
  return "faultline";
}

std::string ConditionName(const Cell& cell) {
  std::string name = SystemName(cell.system);
  for (const std::string& part : {cell.policy, cell.prefetch, cell.inject}) {
    if (!part.empty()) absl::StrAppend(&name, " ", part);
  }
  return name;
}

std::string CellName(const Cell& cell) {
  return absl::StrCat(cell.program, " ", cell.local_percent, "% ", ConditionName(cell));
}

std::vector<Cell> CellsOf(const Spec& spec) {
  std::vector<Cell> cells;
  for (const Program& program : spec.programs) {
    if (spec.baselines.plain) AddOnce({.program = program.name}, &cells);
    for (const Sweep& sweep : spec.sweeps) {
      if (!Contains(sweep.programs, program.name)) continue;
      for (const double percent : sweep.local_percents) {
        // With all of its memory it would be the plain run once more.
        if (spec.baselines.swap && percent < kAll) {
          AddOnce({.program = program.name, .system = System::kSwap, .local_percent = percent},
                  &cells);
        }
        AddFarCells(sweep, program.name, percent, &cells);
      }
    }
  }
  return cells;
}

std::vector<Run> PlanRuns(const Spec& spec) {
  const std::vector<Cell> cells = CellsOf(spec);
  std::vector<Run> runs;
  for (unsigned repetition = 1; repetition <= spec.repetitions; ++repetition) {
    for (const Cell& cell : cells) {
      runs.push_back({cell, repetition, static_cast<unsigned>(runs.size() + 1)});
    }
  }
  return runs;
}

}  // namespace faultline::experiment
