// SPDX-License-Identifier: Apache-2.0
//
// faultline lab locks
#include <memory>

#include <CLI/CLI.hpp>

#include "client/cli/command.h"
#include "client/lab/lab_locks.h"

namespace faultline {

void RegisterLabCommand(CLI::App* app, Session* session) {
  CLI::App* lab = app->add_subcommand("lab", "Experiments with this machine's kernel");
  lab->require_subcommand(1);
  CLI::App* locks = lab->add_subcommand(
      "locks",
      "Measures what fills and changes of the same address space cost each other, and which "
      "protocol of a monitor shows a program pages that it has discarded");
  const auto options = std::make_shared<LabOptions>();
  AddLocksFlags(locks, options.get());
  locks->footer("Example:  faultline lab locks --csv=locks.csv --plot=locks.png");
  locks->callback([session, options] {
    session->run = [session, options] {
      return LocksCommand(
          *options, session->output == OutputFormat::kJson ? LabOutput::kJson : LabOutput::kText);
    };
  });
}

}  // namespace faultline
