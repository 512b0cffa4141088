// SPDX-License-Identifier: Apache-2.0
//
// The flags of a workload, the same for `faultline workload` and for the program that it starts.
#ifndef FAULTLINE_CLIENT_WORKLOAD_FLAGS_H_
#define FAULTLINE_CLIENT_WORKLOAD_FLAGS_H_

#include <string>
#include <vector>

#include "client/workload/workload.h"

namespace CLI {
class App;
}

namespace faultline::workload {

// NAME and all flags but --output. `options` must outlive the parsing. What is wrong with a single
// flag is a CLI::ValidationError; the rest is for CompleteOptions().
void AddWorkloadFlags(CLI::App* app, WorkloadOptions* options);

// The command line that AddWorkloadFlags() reads as `options`.
std::vector<std::string> WorkloadArguments(const WorkloadOptions& options);

}  // namespace faultline::workload

#endif  // FAULTLINE_CLIENT_WORKLOAD_FLAGS_H_
