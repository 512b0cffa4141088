// SPDX-License-Identifier: Apache-2.0
//
// faultline workload: reads the flags and becomes faultline-workload, which has neither gRPC nor an
// allocator's arena of this program in its memory.
#include <absl/strings/str_cat.h>
#include <errno.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "client/bench/local_stack.h"
#include "client/cli/command.h"
#include "client/workload/flags.h"

namespace faultline {
namespace {

absl::Status Become(const workload::WorkloadOptions& options, OutputFormat output) {
  workload::WorkloadOptions completed = options;
  if (const Failure failure = workload::CompleteOptions(&completed); !failure.ok()) {
    return absl::InvalidArgumentError(failure.message);
  }
  std::vector<std::string> argv = workload::WorkloadArguments(options);
  argv.insert(argv.begin(), SiblingProgram("faultline-workload"));
  argv.push_back(output == OutputFormat::kJson ? "--output=json" : "--output=text");
  std::vector<char*> raw;
  for (std::string& argument : argv) raw.push_back(argument.data());
  raw.push_back(nullptr);
  execv(raw[0], raw.data());
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot run ", argv[0]));
}

}  // namespace

void RegisterWorkloadCommand(CLI::App* app, Session* session) {
  const auto options = std::make_shared<workload::WorkloadOptions>();
  CLI::App* command = app->add_subcommand("workload",
                                          "Works on memory of its own and checks every byte of it: "
                                          "a program for `faultline run`, or to "
                                          "compare it with");
  workload::AddWorkloadFlags(command, options.get());
  command->footer(command->get_footer() +
                  "\nExample:  faultline workload zipf --size=1GiB --write-share=0.2");
  command->callback([=] { session->run = [=] { return Become(*options, session->output); }; });
}

}  // namespace faultline
