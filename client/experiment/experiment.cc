// SPDX-License-Identifier: Apache-2.0
#include "client/experiment/experiment.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/time/clock.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>

#include <nlohmann/json.hpp>

#include "client/bench/gnuplot.h"
#include "client/bench/report.h"
#include "client/bench/text_output.h"
#include "client/experiment/executor.h"
#include "client/experiment/plan.h"
#include "client/experiment/plots.h"
#include "client/experiment/spec.h"
#include "client/experiment/summary.h"

namespace faultline::experiment {
namespace {

std::optional<std::string> ReadTextFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  return std::string{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

absl::StatusOr<std::string> ReadSpecFile(const std::string& path) {
  std::optional<std::string> text = ReadTextFile(path);
  if (text) return *std::move(text);
  return absl::InvalidArgumentError(
      absl::StrCat("cannot read the spec ", path, ": ", strerror(errno)));
}

// The folder of an experiment: what is in it, and what is written into it.
class ResultFolder {
 public:
  explicit ResultFolder(std::string path) : path_(std::move(path)) {}

  // Makes it, or sees to it that what is there belongs to the spec, and takes the good results.
  absl::Status Open(const std::string& spec_text, bool resume, std::vector<Result>* results);
  absl::Status Append(const Result& result) const;
  absl::Status WriteSummary(const std::vector<Result>& results) const;
  absl::Status DrawPlots(const Spec& spec, const std::vector<Result>& results,
                         const Executor& executor) const;

  std::string File(const std::string& name) const { return absl::StrCat(path_, "/", name); }

 private:
  const std::string path_;
};

absl::Status ResultFolder::Open(const std::string& spec_text, bool resume,
                                std::vector<Result>* results) {
  if (mkdir(path_.c_str(), 0755) != 0 && errno != EEXIST) {
    return absl::InvalidArgumentError(absl::StrCat("cannot make the folder ", path_, ": ",
                                                   strerror(errno),
                                                   "; name another one with --directory"));
  }
  const std::optional<std::string> earlier_spec = ReadTextFile(File("spec.toml"));
  const std::optional<std::string> csv = ReadTextFile(File("results.csv"));
  if (csv && !resume) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_,
                     " has results already: go on with them by --resume, or name another "
                     "folder with --directory"));
  }
  if (csv && earlier_spec != spec_text) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the results in ", path_, " are of another spec, which is in ", File("spec.toml"),
        ": resume that one, or name another folder with "
        "--directory"));
  }
  absl::StatusOr<std::vector<Result>> earlier = ParseCsv(csv.value_or(""));
  if (!earlier.ok()) {
    return absl::DataLossError(absl::StrCat(File("results.csv"), ": ", earlier.status().message(),
                                            "; move it away, or name another folder with "
                                            "--directory"));
  }
  // Those that have failed are to be repeated; with them goes a line that was not finished.
  std::string kept = CsvHeader();
  for (Result& result : *earlier) {
    if (!result.good()) continue;
    absl::StrAppend(&kept, ToCsv(result));
    results->push_back(std::move(result));
  }
  absl::Status status = bench::WriteTextFile(File("spec.toml"), spec_text);
  if (status.ok()) status = bench::WriteTextFile(File("results.csv"), kept);
  return status;
}

absl::Status ResultFolder::Append(const Result& result) const {
  const std::string path = File("results.csv"), line = ToCsv(result);
  FILE* file = fopen(path.c_str(), "ae");
  bool written = file != nullptr && fwrite(line.data(), 1, line.size(), file) == line.size();
  if (file != nullptr && fclose(file) != 0) written = false;
  return written ? absl::OkStatus()
                 : absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
}

absl::Status ResultFolder::WriteSummary(const std::vector<Result>& results) const {
  return bench::WriteTextFile(File("summary.csv"), SummaryToCsv(Summarise(results)));
}

// The first list of numbers of this name, wherever it is.
std::vector<double> FindNumbers(const nlohmann::json& json, const std::string& name) {
  if (json.is_object() && json.contains(name) && json[name].is_array()) {
    std::vector<double> numbers;
    for (const nlohmann::json& number : json[name]) {
      if (number.is_number()) numbers.push_back(number.get<double>());
    }
    return numbers;
  }
  if (json.is_structured()) {
    for (const nlohmann::json& element : json) {
      std::vector<double> numbers = FindNumbers(element, name);
      if (!numbers.empty()) return numbers;
    }
  }
  return {};
}

absl::Status ResultFolder::DrawPlots(const Spec& spec, const std::vector<Result>& results,
                                     const Executor& executor) const {
  std::vector<LatencyOfRun> latencies;
  for (const Result& result : results) {
    if (!result.good()) continue;
    const auto text = ReadTextFile(executor.RunFile(result.run, "json"));
    const nlohmann::json json =
        nlohmann::json::parse(text.value_or(""), nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) continue;
    latencies.push_back(
        {result.run.cell, FindNumbers(json.value("program", nlohmann::json()), "percentiles"),
         FindNumbers(json.value("stats", nlohmann::json()), "fault_percentiles_us")});
  }
  for (const Plot& plot :
       MakePlots(spec.name, Summarise(results), latencies, bench::ThisMachine(), path_)) {
    absl::Status status = bench::RunGnuplot(plot.script, File(plot.name + ".svg"));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// Every run of a program computes the same, wherever its memory is.
void CheckAgreement(const std::vector<Result>& results, Result* result) {
  if (!result->good() || result->checksum.empty()) return;
  for (const Result& other : results) {
    if (!other.good() || other.checksum.empty()) continue;
    if (other.run.cell.program != result->run.cell.program) continue;
    if (other.checksum == result->checksum) return;
    result->error =
        absl::StrCat("has computed ", result->checksum, ", where run ", other.run.number, " (",
                     CellName(other.run.cell), ") has computed ", other.checksum,
                     ": wrong bytes, or a program whose output is not the same each "
                     "time (compare-output = false)");
    return;
  }
}

std::string ProgressLine(const Result& result, size_t runs) {
  return absl::StrFormat("[%u/%u] %s: %s", result.run.number, runs, CellName(result.run.cell),
                         result.good()
                             ? absl::StrFormat("%.3f s", result.Figure("seconds").value_or(0))
                             : "FAILED: " + result.error);
}

bool IsDone(const std::vector<Result>& results, const Run& run) {
  return std::any_of(results.begin(), results.end(), [&](const Result& result) {
    return result.good() && result.run.number == run.number && result.run.cell == run.cell;
  });
}

absl::Status RunAll(const std::vector<Run>& runs, const Executor& executor,
                    const ResultFolder& folder,
                    const std::function<void(const std::string&)>& progress,
                    std::vector<Result>* results) {
  const StopRequest stop;
  for (const Run& run : runs) {
    if (IsDone(*results, run)) continue;
    absl::StatusOr<Result> result = executor.Execute(run);
    if (!result.ok()) return result.status();
    CheckAgreement(*results, &*result);
    if (absl::Status status = folder.Append(*result); !status.ok()) return status;
    progress(ProgressLine(*result, runs.size()));
    results->push_back(*std::move(result));
    // Also where the program itself has obeyed the signal, and has ended well.
    if (StopRequest::Requested()) return absl::CancelledError("stopped by a signal");
  }
  return absl::OkStatus();
}

absl::Status Outcome(absl::Status status, const std::vector<Result>& results,
                     const ResultFolder& folder) {
  if (absl::IsCancelled(status)) {
    return absl::CancelledError(absl::StrCat(status.message(), "; what was measured is in ",
                                             folder.File("results.csv"),
                                             ", and --resume goes on with it"));
  }
  const auto failed = std::count_if(results.begin(), results.end(),
                                    [](const Result& result) { return !result.good(); });
  if (!status.ok() || failed == 0) return status;
  return absl::InternalError(absl::StrCat(failed, " of ", results.size(),
                                          " runs have failed: why is in the column \"error\" of ",
                                          folder.File("results.csv"), ", and what they said in ",
                                          folder.File("runs"), "; --resume repeats them"));
}

}  // namespace

absl::StatusOr<std::string> DescribeRuns(const ExperimentOptions& options) {
  const absl::StatusOr<std::string> text = ReadSpecFile(options.spec_path);
  if (!text.ok()) return text.status();
  const absl::StatusOr<Spec> spec = ParseSpec(*text, options.spec_path);
  if (!spec.ok()) return spec.status();
  const Executor executor(&*spec, options.directory, options.surroundings);
  std::string lines;
  for (const Run& run : PlanRuns(*spec)) {
    absl::StrAppend(&lines, "# ", run.number, ": ", CellName(run.cell), ", repetition ",
                    run.repetition, "\n", ShellQuoted(executor.CommandOf(run)), "\n");
  }
  return lines;
}

absl::Status RunExperiment(const ExperimentOptions& options,
                           const std::function<void(const std::string&)>& progress,
                           std::vector<Result>* results) {
  const absl::StatusOr<std::string> text = ReadSpecFile(options.spec_path);
  if (!text.ok()) return text.status();
  const absl::StatusOr<Spec> spec = ParseSpec(*text, options.spec_path);
  if (!spec.ok()) return spec.status();
  if (options.plots) {
    const absl::StatusOr<std::string> terminal = bench::PlotTerminal("slowdown.svg");
    if (!terminal.ok()) {
      return absl::FailedPreconditionError(
          "the plots need gnuplot, which is not installed: install it (Debian: gnuplot-nox), or "
          "leave them out with --no-plots; --resume draws them later");
    }
  }
  ResultFolder folder(options.directory);
  if (absl::Status status = folder.Open(*text, options.resume, results); !status.ok()) {
    return status;
  }
  const Executor executor(&*spec, options.directory, options.surroundings);
  if (absl::Status status = executor.Prepare(); !status.ok()) return status;
  absl::Status status = RunAll(PlanRuns(*spec), executor, folder, progress, results);
  std::sort(results->begin(), results->end(),
            [](const Result& a, const Result& b) { return a.run.number < b.run.number; });
  absl::Status written = folder.WriteSummary(*results);
  if (written.ok() && options.plots) written = folder.DrawPlots(*spec, *results, executor);
  if (!status.ok() || written.ok()) return Outcome(status, *results, folder);
  return written;
}

}  // namespace faultline::experiment
