// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_BENCH_REPORT_WRITER_H_
#define FAULTLINE_CLIENT_BENCH_REPORT_WRITER_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "client/bench/report.h"
#include "client/cli/command.h"

namespace faultline::bench {

struct ReportFiles {
  std::string csv_path, plot_path;  // empty: none
};

void AddReportFlags(CLI::App* command, ReportFiles* files);

// Gives reports out: as text each at once, as JSON all at the end, and into files. Not thread-safe.
class ReportWriter {
 public:
  // An error where the plot cannot be drawn: that is to be known before anything is measured.
  static absl::StatusOr<ReportWriter> Create(const ReportFiles& files, OutputFormat format);

  void Add(Report report);
  absl::Status Finish() const;

 private:
  ReportWriter(const ReportFiles& files, OutputFormat format, std::string terminal);

  ReportFiles files_;
  OutputFormat format_;
  std::string terminal_;  // gnuplot's
  Machine machine_;
  std::vector<Report> reports_;
};

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_REPORT_WRITER_H_
