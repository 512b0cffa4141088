// SPDX-License-Identifier: Apache-2.0
#include "client/experiment/result.h"

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/strip.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "client/bench/text_output.h"

namespace faultline::experiment {
namespace {

// Before the figures, and after them.
constexpr const char* kKeyColumns[] = {"run",      "repetition",    "program",
                                       "system",   "local_percent", "policy",
                                       "prefetch", "inject",        "exit_status"};
constexpr const char* kLastColumns[] = {"checksum", "error"};

// What faultline-workload tells, and as what.
constexpr struct {
  const char *pointer, *figure;
} kProgramFigures[] = {
    {"/seconds", "seconds"},
    {"/initialisation_seconds", "initialisation_seconds"},
    {"/operations", "operations"},
    {"/latency_us/p50", "operation_p50_us"},
    {"/latency_us/p99", "operation_p99_us"},
    {"/latency_us/max", "operation_max_us"},
    {"/major_faults", "major_faults"},
    {"/minor_faults", "minor_faults"},
    {"/cpu_seconds", "cpu_seconds"},
    {"/max_rss_bytes", "max_rss_bytes"},
};

bool IsQuantile(const std::string& name) { return absl::EndsWith(name, "_us"); }

// All numbers of an object and of what is in it, by name.
void Collect(const nlohmann::json& json, std::map<std::string, double>* numbers) {
  if (json.is_array()) {
    for (const nlohmann::json& element : json) Collect(element, numbers);
  }
  if (!json.is_object()) return;
  for (const auto& [name, value] : json.items()) {
    if (value.is_number()) {
      double& number = (*numbers)[name];
      number =
          IsQuantile(name) ? std::max(number, value.get<double>()) : number + value.get<double>();
    } else {
      Collect(value, numbers);
    }
  }
}

// The fields of a line up to its end, of which `*text` is rid. Nullopt where there is no end.
std::optional<std::vector<std::string>> TakeLine(absl::string_view* text) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (size_t i = 0; i < text->size(); ++i) {
    const char c = (*text)[i];
    if (c == '"') {
      // A doubled one stands for itself: it ends the quotes and begins them again.
      if (!quoted && i > 0 && (*text)[i - 1] == '"') fields.back() += c;
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      fields.emplace_back();
    } else if (c == '\n' && !quoted) {
      text->remove_prefix(i + 1);
      return fields;
    } else {
      fields.back() += c;
    }
  }
  return std::nullopt;
}

bool ParseSystem(const std::string& name, System* system) {
  for (const System one : {System::kPlain, System::kSwap, System::kFar}) {
    if (name == SystemName(one)) {
      *system = one;
      return true;
    }
  }
  return false;
}

bool ParseFields(const std::vector<std::string>& fields, Result* result) {
  const std::vector<std::string>& names = FigureNames();
  const size_t keys = std::size(kKeyColumns);
  if (fields.size() != keys + names.size() + std::size(kLastColumns)) return false;
  Cell& cell = result->run.cell;
  bool good = absl::SimpleAtoi(fields[0], &result->run.number) &&
              absl::SimpleAtoi(fields[1], &result->run.repetition) &&
              ParseSystem(fields[3], &cell.system) &&
              absl::SimpleAtod(fields[4], &cell.local_percent) &&
              absl::SimpleAtoi(fields[8], &result->exit_status);
  cell.program = fields[2];
  cell.policy = fields[5];
  cell.prefetch = fields[6];
  cell.inject = fields[7];
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string& field = fields[keys + i];
    if (!field.empty()) good = absl::SimpleAtod(field, &result->figures[names[i]]) && good;
  }
  result->checksum = fields[fields.size() - 2];
  result->error = fields.back();
  return good;
}

}  // namespace

std::optional<double> Result::Figure(const std::string& name) const {
  const auto found = figures.find(name);
  if (found == figures.end()) return std::nullopt;
  return found->second;
}

const std::vector<std::string>& FigureNames() {
  static const auto* const names = new std::vector<std::string>{
      "wall_seconds",     "seconds",          "initialisation_seconds", "operations",
      "operation_p50_us", "operation_p99_us", "operation_max_us",       "major_faults",
      "minor_faults",     "cpu_seconds",      "max_rss_bytes",          "remote_misses",
      "fetched_pages",    "written_pages",    "fault_p50_us",           "fault_p99_us",
      "fault_max_us"};
  return *names;
}

const StatsFormulas& DefaultStatsFormulas() {
  static const auto* const formulas =
      new StatsFormulas{{"remote_misses",
                         {"faults_total", "-joined_faults_total", "-zero_faults_total",
                          "-prefetch_hits_total", "-returned_pages_total"}},
                        {"fetched_pages", {"copied_pages_total", "-returned_pages_total"}},
                        {"written_pages", {"written_pages_total"}},
                        {"fault_p50_us", {"fault_p50_us"}},
                        {"fault_p99_us", {"fault_p99_us"}},
                        {"fault_max_us", {"fault_max_us"}}};
  return *formulas;
}

void AddProgramFigures(const nlohmann::json& program, Result* result) {
  for (const auto& [pointer, figure] : kProgramFigures) {
    const nlohmann::json::json_pointer at(pointer);
    if (program.contains(at) && program[at].is_number()) {
      result->figures[figure] = program[at].get<double>();
    }
  }
  if (program.contains("checksum") && program["checksum"].is_string()) {
    result->checksum = program["checksum"].get<std::string>();
  }
}

void AddStatsFigures(const nlohmann::json& stats, const StatsFormulas& formulas, Result* result) {
  std::map<std::string, double> numbers;
  Collect(stats, &numbers);
  for (const auto& [figure, terms] : formulas) {
    bool any = false;
    double sum = 0;
    for (absl::string_view term : terms) {
      const bool subtracted = absl::ConsumePrefix(&term, "-");
      const auto found = numbers.find(std::string(term));
      if (found == numbers.end()) continue;
      any = true;
      sum += subtracted ? -found->second : found->second;
    }
    if (any) result->figures[figure] = sum;
  }
}

std::string CsvHeader() {
  std::vector<std::string> names(std::begin(kKeyColumns), std::end(kKeyColumns));
  names.insert(names.end(), FigureNames().begin(), FigureNames().end());
  names.insert(names.end(), std::begin(kLastColumns), std::end(kLastColumns));
  return absl::StrJoin(names, ",") + "\n";
}

std::string ToCsv(const Result& result) {
  const Cell& cell = result.run.cell;
  std::vector<std::string> fields = {
      absl::StrCat(result.run.number),  absl::StrCat(result.run.repetition),
      bench::CsvField(cell.program),    SystemName(cell.system),
      absl::StrCat(cell.local_percent), bench::CsvField(cell.policy),
      bench::CsvField(cell.prefetch),   bench::CsvField(cell.inject),
      absl::StrCat(result.exit_status)};
  for (const std::string& name : FigureNames()) {
    const std::optional<double> figure = result.Figure(name);
    fields.push_back(figure ? nlohmann::json(*figure).dump() : "");
  }
  fields.push_back(result.checksum);
  fields.push_back(bench::CsvField(result.error));
  return absl::StrJoin(fields, ",") + "\n";
}

absl::StatusOr<std::vector<Result>> ParseCsv(absl::string_view text) {
  if (text.empty()) return std::vector<Result>();
  if (!absl::ConsumePrefix(&text, CsvHeader())) {
    return absl::DataLossError("line 1 names other columns than this version writes");
  }
  std::vector<Result> results;
  while (const auto fields = TakeLine(&text)) {
    Result result;
    if (!ParseFields(*fields, &result)) {
      return absl::DataLossError(
          absl::StrCat("the line of result ", results.size() + 1, " is not one of this version"));
    }
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace faultline::experiment
