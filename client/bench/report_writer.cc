// SPDX-License-Identifier: Apache-2.0
#include "client/bench/report_writer.h"

#include <absl/strings/str_cat.h>

#include <cstdio>
#include <utility>

#include <nlohmann/json.hpp>

#include "client/bench/gnuplot.h"
#include "client/bench/plot.h"
#include "client/bench/text_output.h"
#include "client/cli/print.h"

namespace faultline::bench {

void AddReportFlags(CLI::App* command, ReportFiles* files) {
  command->add_option("--csv", files->csv_path, "File for the figures as CSV")
      ->option_text("FILE.csv");
  command
      ->add_option("--plot", files->plot_path,
                   "File for a plot, drawn by gnuplot: what was measured over time, the "
                   "distribution of the latencies, or bars")
      ->option_text("FILE.png|FILE.svg");
}

absl::StatusOr<ReportWriter> ReportWriter::Create(const ReportFiles& files, OutputFormat format) {
  if (files.plot_path.empty()) return ReportWriter(files, format, "");
  absl::StatusOr<std::string> terminal = PlotTerminal(files.plot_path);
  if (!terminal.ok()) return terminal.status();
  return ReportWriter(files, format, *std::move(terminal));
}

ReportWriter::ReportWriter(const ReportFiles& files, OutputFormat format, std::string terminal)
    : files_(files), format_(format), terminal_(std::move(terminal)), machine_(ThisMachine()) {}

void ReportWriter::Add(Report report) {
  if (format_ == OutputFormat::kText) {
    PrintText(absl::StrCat(reports_.empty() ? "" : "\n", FormatReport(report, machine_)));
    fflush(stdout);
  }
  reports_.push_back(std::move(report));
}

absl::Status ReportWriter::Finish() const {
  if (format_ == OutputFormat::kJson) {
    nlohmann::ordered_json json = nlohmann::ordered_json::array();
    for (const Report& report : reports_) json.push_back(ReportToJson(report, machine_));
    PrintJson(json.size() == 1 ? json[0] : json);
  }
  if (!files_.csv_path.empty()) {
    absl::Status status = WriteTextFile(files_.csv_path, ReportsToCsv(reports_));
    if (!status.ok()) return status;
  }
  if (files_.plot_path.empty()) return absl::OkStatus();
  return RunGnuplot(ReportsToGnuplot(reports_, machine_, terminal_, files_.plot_path),
                    files_.plot_path);
}

}  // namespace faultline::bench
