// SPDX-License-Identifier: Apache-2.0
//
// The flags of `lab locks`, and what it gives out. Used by faultline and by faultline-lab.
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <string.h>
#include <unistd.h>

#include <cstdio>
#include <map>
#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/bench/gnuplot.h"
#include "client/bench/text_output.h"
#include "client/lab/lab_locks.h"

namespace faultline {
std::string ProtocolCsvPath(const std::string& csv_path) {
  const absl::string_view path = csv_path;
  return absl::EndsWith(path, ".csv")
             ? absl::StrCat(path.substr(0, path.size() - strlen(".csv")), "-protocol.csv")
             : absl::StrCat(path, "-protocol");
}

void AddLocksFlags(CLI::App* app, LabOptions* options) {
  app->add_flag_callback(
      "--quick", [options] { options->scale = LabScale::kQuick; },
      "A few seconds instead of about three minutes: shows that it works, not what things cost");
  app->add_option("--part", options->part,
                  "locks: fills beside changes of the address space; protocol: discards that race "
                  "with fills")
      ->transform(CLI::CheckedTransformer(std::map<std::string, LabPart>{
          {"all", LabPart::kAll}, {"locks", LabPart::kLocks}, {"protocol", LabPart::kProtocol}}))
      ->option_text("all|locks|protocol [all]");
  app->add_option("--threads", options->threads_max,
                  "Most threads that fill; measured with 1, 2, 4, ... up to this")
      ->check(CLI::Range(1, 256))
      ->option_text("N [4]");
  app->add_option("--repetitions", options->repetitions, "How often everything is measured")
      ->check(CLI::Range(1, 1000))
      ->option_text("N [3]");
  app->add_option("--cell-ms", options->cell_milliseconds,
                  "Milliseconds of filling in each repetition of a row; the second table has four "
                  "times as long, with --quick ten times")
      ->check(CLI::Range(1, 60000))
      ->option_text("MS [250]");
  app->add_option_function<uint64_t>(
         "--memory-mib", [options](uint64_t mib) { options->memory_bytes = mib << 20; },
         "MiB that are filled in a round; MOVE needs twice as much")
      ->check(CLI::Range(1, 65536))
      ->option_text("MIB [128]");
  app->add_option("--churn-pause-us", options->churn_pause_micros,
                  "Microseconds that the churn computes between two rounds of four calls")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  app->add_option("--seed", options->seed, "Decides which ranges are discarded, and when")
      ->capture_default_str();
  app->add_option("--csv", options->csv_path,
                  "File for the first table as CSV; the second goes to NAME-protocol.csv")
      ->option_text("NAME.csv");
  app->add_option("--plot", options->plot_path, "File for a plot, drawn by gnuplot")
      ->option_text("NAME.png|NAME.svg");
}

absl::Status LocksCommand(const LabOptions& options, LabOutput output) {
  std::string terminal;
  if (!options.plot_path.empty()) {
    absl::StatusOr<std::string> found = bench::PlotTerminal(options.plot_path);
    if (!found.ok()) return found.status();
    terminal = *std::move(found);
  }
  const bool shows_progress = isatty(STDERR_FILENO) == 1;
  const absl::StatusOr<LabResult> result = RunLocks(options, [&](size_t done, size_t all) {
    if (shows_progress) fprintf(stderr, done < all ? "\r%zu of %zu" : "\r\033[K", done, all);
  });
  if (!result.ok()) return result.status();
  const std::string text =
      output == LabOutput::kJson ? LabToJson(*result).dump(2) + "\n" : FormatLab(*result);
  fwrite(text.data(), 1, text.size(), stdout);
  if (!options.csv_path.empty()) {
    if (!result->locks.empty()) {
      absl::Status status = bench::WriteTextFile(options.csv_path, RowsToCsv(result->locks));
      if (!status.ok()) return status;
    }
    if (!result->protocol.empty()) {
      absl::Status status =
          bench::WriteTextFile(ProtocolCsvPath(options.csv_path), RowsToCsv(result->protocol));
      if (!status.ok()) return status;
    }
  }
  if (!options.plot_path.empty()) {
    return bench::RunGnuplot(LabToGnuplot(*result, terminal, options.plot_path), options.plot_path);
  }
  return absl::OkStatus();
}

}  // namespace faultline
