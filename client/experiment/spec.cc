// SPDX-License-Identifier: Apache-2.0
#include "client/experiment/spec.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/strip.h>

#include <algorithm>
#include <utility>

#include "client/experiment/command.h"
#include "client/experiment/result.h"
#include "client/experiment/spec_section.h"
#include "client/workload/flags.h"
#include "client/workload/workload.h"
#include "proto/page.h"
#include "proto/units.h"

namespace faultline::experiment {
namespace {

constexpr unsigned kMostRepetitions = 1000;

// The flags of faultline-workload, by the keys of the same names.
workload::WorkloadOptions ReadWorkload(const std::string& name, uint64_t size_bytes,
                                       SpecSection* section) {
  workload::WorkloadOptions options;
  options.name = name;
  options.size_bytes = size_bytes;
  options.operations = section->Integer("operations");
  options.passes = section->Integer("passes");
  options.seed = section->Integer("seed").value_or(options.seed);
  const uint64_t threads = section->Integer("threads").value_or(1);
  options.threads = static_cast<unsigned>(std::min<uint64_t>(threads, workload::kMaxThreads + 1));
  options.write_share = section->Number("write-share");
  options.stride_pages = section->Integer("stride");
  options.graph = section->Text("graph");
  options.pin_cpu = section->Switch("pin-cpu").value_or(false);
  return options;
}

Program ReadProgram(SpecSection* section) {
  Program program;
  const std::optional<std::string> workload = section->Text("workload");
  const std::optional<std::vector<std::string>> command = section->Texts("command");
  program.name = section->Text("name").value_or(workload.value_or(""));
  program.size_bytes = section->Bytes("size").value_or(0);
  if (program.size_bytes < kPageSize) {
    section->Error("size", "needed: how much memory the program has, such as \"256MiB\"");
  }
  if (workload.has_value() == command.has_value()) {
    section->Error(
        "command",
        "needed is either workload = \"NAME\", one of `faultline workload`, or command = "
        "[\"PROGRAM\", \"ARGUMENT\", ...]");
  } else if (program.name.empty()) {
    section->Error("name", "needed with command: what the results call it");
  }
  if (command) {
    program.command = *command;
    program.compare_output = section->Switch("compare-output").value_or(true);
  }
  program.tells_result = workload.has_value();
  if (workload) {
    workload::WorkloadOptions options = ReadWorkload(*workload, program.size_bytes, section);
    program.command = workload::WorkloadArguments(options);
    program.command.insert(program.command.begin(), "{workload}");
    program.command.emplace_back("--output=json");
    if (const Failure failure = workload::CompleteOptions(&options); !failure.ok()) {
      section->Error("workload", failure.message);
    }
  }
  section->FinishReading();
  return program;
}

std::vector<double> ReadShares(SpecSection* section) {
  std::vector<double> percents;
  const std::optional<std::vector<std::string>> texts = section->Texts("local", /*numbers=*/true);
  if (!texts) section->Error("local", "needed: shares of the program's memory, such as [\"25%\"]");
  for (const absl::string_view text : texts.value_or(std::vector<std::string>())) {
    double percent = 0;
    if (absl::SimpleAtod(absl::StripSuffix(text, "%"), &percent) && percent > 0 && percent <= 100) {
      percents.push_back(percent);
    } else {
      section->Error("local", absl::StrCat("\"", text,
                                           "\" is no share: give percents above 0 and "
                                           "up to 100, such as 25 or \"25%\""));
    }
  }
  return percents;
}

Sweep ReadSweep(const std::vector<Program>& programs, SpecSection* section) {
  const std::vector<std::string> by_default = {""};
  Sweep sweep;
  sweep.local_percents = ReadShares(section);
  sweep.policies = section->Texts("policy").value_or(by_default);
  sweep.prefetches = section->Texts("prefetch").value_or(by_default);
  sweep.injections = section->Texts("inject").value_or(by_default);
  std::replace(sweep.injections.begin(), sweep.injections.end(), std::string("none"),
               std::string());
  std::vector<std::string> all;
  for (const Program& program : programs) all.push_back(program.name);
  sweep.programs = section->Texts("programs").value_or(all);
  for (const std::string& name : sweep.programs) {
    if (std::find(all.begin(), all.end(), name) == all.end()) {
      section->Error("programs", absl::StrCat("there is no program \"", name, "\"; there are ",
                                              absl::StrJoin(all, ", ")));
    }
  }
  section->FinishReading();
  return sweep;
}

Baselines ReadBaselines(SpecSection* section) {
  Baselines baselines;
  baselines.plain = section->Switch("plain").value_or(baselines.plain);
  baselines.swap = section->Switch("swap").value_or(baselines.swap);
  baselines.swap_directory = section->Text("swap-directory").value_or("");
  baselines.swap_extra_bytes = section->Bytes("swap-extra").value_or(baselines.swap_extra_bytes);
  section->FinishReading();
  return baselines;
}

void ReadStats(SpecSection* section, StatsFormulas* stats) {
  const std::vector<std::string>& figures = FigureNames();
  for (const std::string& key : section->Keys()) {
    if (std::find(figures.begin(), figures.end(), key) == figures.end()) {
      section->Error(key, absl::StrCat("no such figure; there are ", absl::StrJoin(figures, ", ")));
    } else if (const auto terms = section->Texts(key)) {
      (*stats)[key] = *terms;
    }
  }
}

void ReadGeneral(SpecSection* root, Spec* spec) {
  spec->name = root->Text("name").value_or("");
  if (spec->name.empty()) root->Error("name", "needed: what the plots call the experiment");
  const uint64_t repetitions = root->Integer("repetitions").value_or(spec->repetitions);
  if (repetitions < 1 || repetitions > kMostRepetitions) {
    root->Error("repetitions", absl::StrCat("give 1 to ", kMostRepetitions));
  }
  spec->repetitions = static_cast<unsigned>(std::min<uint64_t>(repetitions, kMostRepetitions));
  if (const std::optional<std::string> timeout = root->Text("timeout")) {
    const absl::StatusOr<absl::Duration> parsed = ParseDuration(*timeout);
    if (!parsed.ok() || *parsed <= absl::ZeroDuration()) {
      root->Error("timeout", absl::StrCat("\"", *timeout, "\": give a time such as \"20m\""));
    } else {
      spec->timeout = *parsed;
    }
  }
  spec->command = root->Texts("command").value_or(DefaultCommand());
  if (absl::Status status = CheckCommand(spec->command); !status.ok()) {
    root->Error("command", status.message());
  }
}

Spec ReadSpec(SpecSection* root) {
  Spec spec;
  spec.stats = DefaultStatsFormulas();
  ReadGeneral(root, &spec);
  for (SpecSection& section : root->Sections("programs")) {
    Program program = ReadProgram(&section);
    const bool twice = std::any_of(spec.programs.begin(), spec.programs.end(),
                                   [&](const Program& one) { return one.name == program.name; });
    if (twice) {
      section.Error("name", absl::StrCat("there are two programs \"", program.name,
                                         "\": give one of them another name"));
    }
    spec.programs.push_back(std::move(program));
  }
  if (spec.programs.empty()) root->Error("programs", "needed: [[programs]], once for each program");
  for (SpecSection& section : root->Sections("sweep")) {
    spec.sweeps.push_back(ReadSweep(spec.programs, &section));
  }
  if (spec.sweeps.empty()) {
    root->Error("sweep", "needed: [sweep] with local = [...], or [[sweep]] several times");
  }
  for (SpecSection& section : root->Sections("baselines")) {
    spec.baselines = ReadBaselines(&section);
  }
  for (SpecSection& section : root->Sections("stats")) ReadStats(&section, &spec.stats);
  root->FinishReading();
  return spec;
}

}  // namespace

absl::StatusOr<Spec> ParseSpec(absl::string_view text, const std::string& path) {
  SpecErrors errors(path);
  try {
    const toml::table table = toml::parse(std::string_view(text.data(), text.size()));
    SpecSection root(&table, "", &errors);
    Spec spec = ReadSpec(&root);
    if (!errors.first().ok()) return errors.first();
    return spec;
  } catch (const toml::parse_error& error) {
    errors.Add(error.source(), "", std::string(error.description()));
    return errors.first();
  }
}

}  // namespace faultline::experiment
