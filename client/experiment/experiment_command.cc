// SPDX-License-Identifier: Apache-2.0
//
// faultline experiment
#include <cstdio>
#include <memory>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/bench/local_stack.h"
#include "client/cli/command.h"
#include "client/cli/print.h"
#include "client/experiment/experiment.h"
#include "client/experiment/summary.h"

namespace faultline {
namespace {

struct Flags {
  experiment::ExperimentOptions options;
  bool dry_run = false;
};

absl::Status Run(Flags flags, const Session& session) {
  experiment::ExperimentOptions& options = flags.options;
  options.surroundings = {.faultline = SiblingProgram("faultline"),
                          .workload = SiblingProgram("faultline-workload"),
                          .server = session.server,
                          .tls = FlagsOf(session.tls),
                          .stats = ""};
  if (flags.dry_run) {
    const absl::StatusOr<std::string> runs = experiment::DescribeRuns(options);
    if (runs.ok()) PrintText(*runs);
    return runs.status();
  }
  std::vector<experiment::Result> results;
  const absl::Status status = experiment::RunExperiment(
      options, [](const std::string& line) { fprintf(stderr, "%s\n", line.c_str()); }, &results);
  const std::vector<experiment::CellSummary> summary = experiment::Summarise(results);
  if (!results.empty() && session.output == OutputFormat::kJson) {
    PrintJson(experiment::SummaryToJson(summary));
  } else if (!results.empty()) {
    PrintText(experiment::FormatSummary(summary));
  }
  return status;
}

}  // namespace

void RegisterExperimentCommand(CLI::App* app, Session* session) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* command = app->add_subcommand(
      "experiment",
      "Runs programs again and again, with more and less local memory, under policies and beside "
      "baselines, and writes a CSV line for each run, a summary and plots");
  command
      ->add_option("spec", flags->options.spec_path,
                   "What is run: a TOML file; client/experiment/README.md has its keys")
      ->required()
      ->option_text("SPEC.toml REQUIRED");
  command
      ->add_option("--directory", flags->options.directory,
                   "Where results.csv, summary.csv and the plots are written to")
      ->default_val("experiment");
  command->add_flag("--resume", flags->options.resume,
                    "Go on with the results that are there: what is missing or has failed is run");
  command->add_flag("--dry-run", flags->dry_run, "Print the command lines, and run nothing");
  command->add_flag("--plots,!--no-plots", flags->options.plots,
                    "Whether plots are drawn, which needs gnuplot [they are]");
  command->footer("Example:  faultline experiment far-memory.toml --directory=/var/tmp/far-memory");
  command->callback([=] { session->run = [=] { return Run(*flags, *session); }; });
}

}  // namespace faultline
