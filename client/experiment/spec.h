// SPDX-License-Identifier: Apache-2.0
//
// What an experiment is: which programs run with how much local memory, under which policies, how
// often, and beside what. Read from a TOML file; README.md has every key. Plain values.
#ifndef FAULTLINE_CLIENT_EXPERIMENT_SPEC_H_
#define FAULTLINE_CLIENT_EXPERIMENT_SPEC_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace faultline::experiment {

// A program that is run again and again.
struct Program {
  std::string name;  // in the results
  // As it is executed without Faultline. A name without a slash is looked for in $PATH;
  // "{workload}" stands for faultline-workload.
  std::vector<std::string> command;
  uint64_t size_bytes = 0;     // of its memory: what shares of local memory are shares of
  bool tells_result = false;   // in a line of JSON, as faultline-workload does
  bool compare_output = true;  // with that of the other runs, where it tells no checksum
};

// Every combination of these, for each of the programs. Empty text: nothing is said about it, and
// the command has its own default.
struct Sweep {
  std::vector<double> local_percents;
  std::vector<std::string> policies, prefetches, injections;
  std::vector<std::string> programs;  // by name
};

struct Baselines {
  bool plain = true;  // the program as it is, with all its memory local
  // The kernel's own swap, to a file, with a limit of the same share for each share of a sweep.
  bool swap = false;
  std::string swap_directory;  // empty: where the results are
  // What the limit allows above the share, for what is not the program's memory proper.
  uint64_t swap_extra_bytes = uint64_t{8} << 20;
};

// Figures of a run that are read out of the counters that the command leaves in {stats}: each is
// the sum of some of them, by name; a name with a "-" before it is subtracted.
using StatsFormulas = std::map<std::string, std::vector<std::string>>;

struct Spec {
  std::string name;
  unsigned repetitions = 3;
  absl::Duration timeout = absl::Minutes(30);  // of one run
  // What runs a program on far memory, with placeholders; see command.h.
  std::vector<std::string> command;
  std::vector<Program> programs;
  std::vector<Sweep> sweeps;
  Baselines baselines;
  StatsFormulas stats;
};

// Reads the text of a spec. INVALID_ARGUMENT, "PATH:LINE: KEY: what is wrong and what to do", for
// the first thing that is; `path` is only for that.
absl::StatusOr<Spec> ParseSpec(absl::string_view text, const std::string& path);

}  // namespace faultline::experiment

#endif  // FAULTLINE_CLIENT_EXPERIMENT_SPEC_H_
