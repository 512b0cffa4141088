// SPDX-License-Identifier: Apache-2.0
//
// `lab locks`: what the per-VMA-lock change of userfaultfd (Linux 6.9) has bought on this machine,
// and what its open question is worth. START HERE; lock_cell.h and protocol_cell.h are its two
// tables. All of it happens in this process: it is the target and the monitor.
#ifndef FAULTLINE_CLIENT_LAB_LAB_LOCKS_H_
#define FAULTLINE_CLIENT_LAB_LAB_LOCKS_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "client/lab/lab_result.h"

namespace CLI {
class App;
}

namespace faultline {

enum class LabPart { kAll, kLocks, kProtocol };
enum class LabScale { kFull, kQuick };

struct LabOptions {
  LabPart part = LabPart::kAll;
  LabScale scale = LabScale::kFull;
  // 0 stands for what the scale has.
  size_t threads_max = 0;  // measured with 1, 2, 4, ... threads up to this
  int repetitions = 0;
  int cell_milliseconds = 0;
  uint64_t memory_bytes = 0;    // that are filled in one round
  int churn_pause_micros = 20;  // between two rounds of the churn
  uint64_t seed = 1;
  std::string csv_path, plot_path;  // empty: none
};
enum class LabOutput { kText, kJson };

// Measures everything. `progress` is called before each cell, with how many are done and how many
// there are. What the kernel does not have is a row that says so.
absl::StatusOr<LabResult> RunLocks(const LabOptions& options,
                                   const std::function<void(size_t done, size_t all)>& progress);

// Adds the flags of the command `app`, which must not outlive `options`.
void AddLocksFlags(CLI::App* app, LabOptions* options);

// The command: measures, prints to the standard output, writes the files. Before it measures,
// FAILED_PRECONDITION where a plot is asked for and gnuplot is not installed, INVALID_ARGUMENT
// where its name ends neither in .png nor in .svg.
absl::Status LocksCommand(const LabOptions& options, LabOutput output);

// Where the second table goes: "x.csv" becomes "x-protocol.csv".
std::string ProtocolCsvPath(const std::string& csv_path);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LAB_LAB_LOCKS_H_
