// SPDX-License-Identifier: Apache-2.0
//
// faultline-lab: the experiments of `faultline lab` in a program of their own, without gRPC and
// linked statically, for machines that have nothing else: an initramfs of another kernel.
#include <signal.h>

#include <cstdio>
#include <map>
#include <string>

#include <CLI/CLI.hpp>

#include "client/lab/lab_locks.h"

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);  // writing to a closed pipe is an error like any other
  CLI::App app("Experiments with this machine's kernel, as those of `faultline lab`.",
               "faultline-lab");
  app.fallthrough();
  app.require_subcommand(1);
  faultline::LabOutput output = faultline::LabOutput::kText;
  app.add_option("--output", output, "How results are printed: text or json")
      ->transform(CLI::CheckedTransformer(std::map<std::string, faultline::LabOutput>{
          {"text", faultline::LabOutput::kText}, {"json", faultline::LabOutput::kJson}}))
      ->option_text("text|json [text]");
  faultline::LabOptions options;
  CLI::App* locks = app.add_subcommand(
      "locks", "What fills and changes of the same address space cost each other");
  faultline::AddLocksFlags(locks, &options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const absl::Status status = faultline::LocksCommand(options, output);
  if (!status.ok()) {
    fprintf(stderr, "faultline-lab: %s\n", std::string(status.message()).c_str());
    return absl::IsInvalidArgument(status) ? 2 : 1;
  }
  return fflush(stdout) == 0 ? 0 : 1;
}
