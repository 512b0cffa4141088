// SPDX-License-Identifier: Apache-2.0
//
// faultline simulate: what a policy and a prefetcher would have made of a program's accesses.
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/cli/command.h"
#include "client/cli/flags.h"
#include "client/cli/format.h"
#include "client/cli/print.h"
#include "client/evict/memory_share.h"
#include "client/evict/policies.h"
#include "client/simulate/access_pattern.h"
#include "client/simulate/access_trace.h"
#include "client/simulate/bounds.h"
#include "client/simulate/simulator.h"
#include "proto/units.h"

namespace faultline {
namespace {

using Json = nlohmann::ordered_json;

struct CommandOptions {
  std::string trace;
  std::string generate;
  PatternOptions pattern;
  MemoryShare writes = MemoryShare::Percent(0);
  std::string write_trace;
  std::vector<std::string> policies = {"fifo", "second-chance", "s3-fifo"};
  std::vector<PrefetchPolicy> prefetchers = {PrefetchPolicy::kNone};
  std::vector<MemoryShare> locals = {MemoryShare::Percent(25)};
  std::vector<MemoryShare> victim_stages = {MemoryShare::Percent(15)};
  uint64_t batch = LocalMemory().batch.raw();
};

// One line of the table.
struct Run {
  std::string policy;
  PrefetchPolicy prefetcher;
  LocalMemory local;
  SimulationResult result;
};

struct Bounds {
  PageCount local;
  uint64_t min_misses, lru_misses;
};

struct Report {
  std::string source;
  LoadedAccesses input;
  std::vector<Run> runs;
  std::vector<Bounds> bounds;  // by local memory
};

absl::StatusOr<LoadedAccesses> Input(const CommandOptions& options) {
  if (!options.trace.empty()) return LoadAccesses(options.trace);
  PatternOptions pattern = options.pattern;
  pattern.write_share = static_cast<double>(options.writes.Of(PageCount(1'000'000)).raw()) / 1e6;
  absl::StatusOr<AccessSequence> sequence = GenerateAccesses(options.generate, pattern);
  if (!sequence.ok()) return sequence.status();
  LoadedAccesses input;
  input.sequence = *std::move(sequence);
  return input;
}

absl::StatusOr<LocalMemory> MakeLocal(MemoryShare local, MemoryShare victim_stage, uint64_t batch,
                                      PageCount volume) {
  LocalMemory memory;
  memory.local = local.Of(volume);
  memory.victim_stage = victim_stage.Of(memory.local);
  memory.batch = PageCount(batch);
  if (memory.local == PageCount(0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--local=", local.ToString(), " is less than a page of ", FormatBytes(volume.in_bytes())));
  }
  if (memory.victim_stage >= memory.local) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--victim-stage=", victim_stage.ToString(), " leaves nothing of ",
        FormatBytes(memory.local.in_bytes()), " of local memory for pages that are mapped"));
  }
  return memory;
}

absl::StatusOr<Run> RunOne(const AccessSequence& sequence, const std::string& policy,
                           PrefetchPolicy prefetcher, const LocalMemory& local) {
  const absl::StatusOr<std::unique_ptr<EvictionPolicy>> made =
      MakeEvictionPolicy(policy, local.mapped());
  if (!made.ok()) return made.status();
  return Run{policy, prefetcher, local,
             Simulate(sequence, local, made->get(), NewPrefetcher(prefetcher).get())};
}

absl::StatusOr<Report> Simulate(const CommandOptions& options) {
  absl::StatusOr<LoadedAccesses> input = Input(options);
  if (!input.ok()) return input.status();
  Report report;
  report.source = options.trace.empty() ? options.generate : options.trace;
  report.input = *std::move(input);
  const AccessSequence& sequence = report.input.sequence;
  if (!options.write_trace.empty()) {
    if (absl::Status s = SaveAccesses(sequence, options.write_trace); !s.ok()) return s;
  }
  for (const MemoryShare& share : options.locals) {
    PageCount local;
    for (PrefetchPolicy prefetcher : options.prefetchers) {
      for (const MemoryShare& victim_stage : options.victim_stages) {
        for (const std::string& policy : options.policies) {
          const absl::StatusOr<LocalMemory> memory =
              MakeLocal(share, victim_stage, options.batch, sequence.volume);
          if (!memory.ok()) return memory.status();
          local = memory->local;
          absl::StatusOr<Run> run = RunOne(sequence, policy, prefetcher, *memory);
          if (!run.ok()) return run.status();
          report.runs.push_back(*std::move(run));
        }
      }
    }
    report.bounds.push_back({local, MinMisses(sequence, local), LruMisses(sequence, local)});
  }
  return report;
}

double PerHundred(uint64_t misses, uint64_t accesses) {
  return accesses == 0 ? 0 : 100.0 * static_cast<double>(misses) / static_cast<double>(accesses);
}

std::string NoteOf(const LoadedAccesses& input) {
  std::string note;
  if (input.is_of_faults) {
    note =
        "note: the trace has faults and no accesses, so this is what was missed in the memory of\n"
        "that run: a larger memory, and whether pages are written to, cannot be told from it.\n";
  }
  if (input.dropped + input.not_whole > 0) {
    absl::StrAppend(&note, "note: ", input.dropped + input.not_whole,
                    " records of the trace are missing.\n");
  }
  return note;
}

void PrintReportText(const Report& report) {
  const uint64_t accesses = report.runs.front().result.accesses;
  PrintText(absl::StrCat(report.source, ": ", accesses, " accesses, ",
                         FormatBytes(report.input.sequence.volume.in_bytes()), "\n",
                         NoteOf(report.input), "\n"));
  std::vector<std::vector<std::string>> rows;
  auto run = report.runs.begin();
  const size_t runs_per_local = report.runs.size() / report.bounds.size();
  for (const Bounds& bounds : report.bounds) {
    const std::string local = FormatBytes(bounds.local.in_bytes());
    const uint64_t first = run->result.misses;
    const auto misses = [&](uint64_t count) {
      const double more =
          first == 0 ? 0 : 100.0 * (static_cast<double>(count) / static_cast<double>(first) - 1);
      return std::vector<std::string>{absl::StrCat(count),
                                      absl::StrFormat("%.2f", PerHundred(count, accesses)),
                                      absl::StrFormat("%+.1f%%", more)};
    };
    for (size_t i = 0; i < runs_per_local; ++i, ++run) {
      const SimulationResult& r = run->result;
      rows.push_back({run->policy, std::string(PrefetchPolicyName(run->prefetcher)), local,
                      FormatBytes(run->local.victim_stage.in_bytes())});
      const std::vector<std::string> m = misses(r.misses);
      rows.back().insert(rows.back().end(), m.begin(), m.end());
      for (uint64_t n : {r.victim_hits, r.prefetch_hits, r.zero_fills, r.pages_in, r.pages_out,
                         r.dropped_clean}) {
        rows.back().push_back(absl::StrCat(n));
      }
    }
    for (const auto& [name, count] :
         {std::pair("lru *", bounds.lru_misses), std::pair("min *", bounds.min_misses)}) {
      rows.push_back({name, "none", local, "-"});
      const std::vector<std::string> m = misses(count);
      rows.back().insert(rows.back().end(), m.begin(), m.end());
      rows.back().resize(rows.front().size(), "-");
    }
  }
  PrintText(FormatTable({"POLICY", "PREFETCH", "LOCAL", "VICTIMS", "MISSES", "OF 100", "TO FIRST",
                         "VICTIM HITS", "AHEAD HITS", "ZERO", "IN", "OUT", "CLEAN"},
                        rows));
  PrintText("\n* sees every access; min (Belady's) knows the future, and is the bound\n");
}

void PrintReportJson(const Report& report) {
  Json runs = Json::array();
  for (const Run& run : report.runs) {
    const SimulationResult& r = run.result;
    runs.push_back({{"policy", run.policy},
                    {"prefetch", PrefetchPolicyName(run.prefetcher)},
                    {"local_pages", run.local.local.raw()},
                    {"victim_stage_pages", run.local.victim_stage.raw()},
                    {"misses", r.misses},
                    {"misses_per_100", PerHundred(r.misses, r.accesses)},
                    {"victim_hits", r.victim_hits},
                    {"prefetch_hits", r.prefetch_hits},
                    {"zero_fills", r.zero_fills},
                    {"pages_in", r.pages_in},
                    {"pages_out", r.pages_out},
                    {"dropped_clean", r.dropped_clean},
                    {"prefetch_wasted", r.wasted}});
  }
  Json bounds = Json::array();
  for (const Bounds& b : report.bounds) {
    bounds.push_back({{"local_pages", b.local.raw()},
                      {"min_misses", b.min_misses},
                      {"lru_misses", b.lru_misses}});
  }
  PrintJson({{"source", report.source},
             {"accesses", report.runs.front().result.accesses},
             {"volume_pages", report.input.sequence.volume.raw()},
             {"of_faults", report.input.is_of_faults},
             {"records_missing", report.input.dropped + report.input.not_whole},
             {"runs", runs},
             {"bounds", bounds}});
}

absl::Status SimulateCommand(const CommandOptions& options, OutputFormat output) {
  if (options.trace.empty() == options.generate.empty()) {
    return absl::InvalidArgumentError("give either a TRACE or --generate=PATTERN");
  }
  const absl::StatusOr<Report> report = Simulate(options);
  if (!report.ok()) return report.status();
  output == OutputFormat::kJson ? PrintReportJson(*report) : PrintReportText(*report);
  return absl::OkStatus();
}

// Adds a flag with a list of values, "a,b", each of which `parse` reads.
template <typename T>
void AddList(CLI::App* app, const std::string& name, const std::string& form,
             const std::string& description, absl::StatusOr<T> (*parse)(absl::string_view),
             std::vector<T>* values) {
  app->add_option_function<std::vector<std::string>>(
         name,
         [name, parse, values](const std::vector<std::string>& texts) {
           values->clear();
           for (const std::string& text : texts) {
             absl::StatusOr<T> value = parse(text);
             if (!value.ok()) {
               throw CLI::ValidationError(name, std::string(value.status().message()));
             }
             values->push_back(*std::move(value));
           }
         },
         description)
      ->delimiter(',')
      ->option_text(form);
}

// A name that MakeEvictionPolicy() takes.
absl::StatusOr<std::string> ParsePolicy(absl::string_view name) {
  const auto made = MakeEvictionPolicy(name, PageCount(1));
  if (!made.ok()) return made.status();
  return std::string(name);
}

absl::StatusOr<MemoryShare> ParsePercent(absl::string_view text) {
  if (text.empty() || text.back() != '%') {
    return absl::InvalidArgumentError(absl::StrCat("\"", text, "\" is no share, like 30%"));
  }
  return ParseMemoryShare(text);
}

std::string PatternsText() {
  return absl::StrCat(
      "Patterns of --generate:\n",
      absl::StrJoin(kAccessPatterns, "", [](std::string* out, const AccessPattern& pattern) {
        absl::StrAppendFormat(out, "  %-10s %s\n", pattern.name, pattern.description);
      }));
}

void AddFlags(CLI::App* app, CommandOptions* options) {
  app->add_option("TRACE", options->trace, "A trace with accesses, or with faults");
  app->add_option("--generate", options->generate, "Accesses of a pattern instead of a trace's")
      ->option_text("PATTERN");
  AddList(app, "--policy", absl::StrCat(kEvictionPolicyForm, ",... [fifo,second-chance,s3-fifo]"),
          "Which pages leave", &ParsePolicy, &options->policies);
  AddList(app, "--prefetch", "none|sequential|majority|streams|cluster,... [none]",
          "Which pages are fetched before they are touched", &ParsePrefetchPolicy,
          &options->prefetchers);
  AddList(app, "--local", "SHARE|SIZE,... [25%]",
          "Local memory, the victim stage included; a share is of the volume", &ParseMemoryShare,
          &options->locals);
  AddList(app, "--victim-stage", "SHARE|SIZE,... [15%]",
          "The part of it in which chosen pages wait", &ParseMemoryShare, &options->victim_stages);
  app->add_option("--batch", options->batch, "Pages that are chosen at a time")
      ->check(CLI::PositiveNumber)
      ->option_text("PAGES [64]");
  app->add_option_function<uint64_t>(
         "--pages", [options](uint64_t pages) { options->pattern.pages = PageCount(pages); },
         "Pages of the pattern")
      ->option_text("PAGES [16384]");
  app->add_option("--accesses", options->pattern.accesses, "Accesses of the pattern")
      ->check(CLI::Range(uint64_t{1}, kMaxAccesses))
      ->option_text("COUNT [160000]");
  app->add_option("--seed", options->pattern.seed, "Of the pattern")->option_text("NUMBER [1]");
  AddParsed(app, "--writes", "SHARE [0%]", "How many accesses of the pattern are writes",
            &ParsePercent, &options->writes);
  app->add_option("--write-trace", options->write_trace, "Writes the accesses to a trace, too")
      ->option_text("FILE");
}

}  // namespace

void RegisterSimulateCommand(CLI::App* app, Session* session) {
  CLI::App* simulate = app->add_subcommand(
      "simulate",
      "Counts what policies would have missed, with the very code that an agent runs, beside the "
      "bounds of every policy");
  const auto options = std::make_shared<CommandOptions>();
  AddFlags(simulate, options.get());
  simulate->footer(absl::StrCat(
      "Times are not simulated. OF 100 is misses of a hundred accesses, TO FIRST against the "
      "first\n"
      "line of the same local memory.\n",
      PatternsText(),
      "Example:  faultline simulate run.trace --policy=fifo,./my_policy.so --local=25%,50%"));
  simulate->callback([session, options] {
    session->run = [session, options] { return SimulateCommand(*options, session->output); };
  });
}

}  // namespace faultline
