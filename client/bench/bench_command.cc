// SPDX-License-Identifier: Apache-2.0
//
// faultline bench: what paging costs on this machine, beside what the machine itself costs,
// measured in turn in the same run. Absolute figures of a shared machine mean little; the ratios
// do.
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <errno.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/bench/benchmark.h"
#include "client/bench/report_writer.h"
#include "client/cli/command.h"
#include "client/cli/flags.h"
#include "client/cli/print.h"

namespace faultline {
namespace {

using bench::Benchmark;
using bench::BenchOptions;
using bench::Report;

// With --quick: so much less than by default, but enough for every benchmark to work.
constexpr uint64_t kQuickPart = 32;
constexpr uint64_t kPagesMin = 100, kPagesMax = uint64_t{1} << 24;

struct Flags {
  BenchOptions options;
  bool quick = false;
  bench::ReportFiles files;
};

absl::Status RunAll(const Flags& flags, std::vector<bench::StandardRun> runs, OutputFormat output) {
  absl::StatusOr<bench::ReportWriter> writer = bench::ReportWriter::Create(flags.files, output);
  if (!writer.ok()) return writer.status();
  for (bench::StandardRun& run : runs) {
    if (flags.quick) {
      run.options.repetitions = 1;
      run.options.pages = std::max(run.options.pages / kQuickPart, kPagesMin);
    }
    absl::StatusOr<Report> report = run.benchmark->run(run.options);
    if (!report.ok()) {
      return absl::Status(report.status().code(),
                          absl::StrCat(run.name, ": ", report.status().message()));
    }
    report->benchmark = run.name;
    writer->Add(*std::move(report));
  }
  return writer->Finish();
}

void AddCommonFlags(CLI::App* command, Flags* flags) {
  BenchOptions* options = &flags->options;
  command
      ->add_option("--transport", options->transport,
                   "Between agent and server: tcp, unix, or tls (mutual, over tcp)")
      ->transform(CLI::CheckedTransformer(std::map<std::string, Transport>{
          {"tcp", Transport::kTcp}, {"unix", Transport::kUnix}, {"tls", Transport::kTls}}))
      ->option_text("tcp|unix|tls [tcp]");
  command->add_option("--repetitions", options->repetitions, "How often everything is measured")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_flag("--quick", flags->quick,
                    "Once, with a 32nd of the pages: shows that it works, not what it costs");
  command->add_option("--directory", options->directory,
                      "Where store and files are put for the time of the run [/var/tmp]");
  command
      ->add_option("--agent-flag", options->stack.agent,
                   "Flag for the agent, such as --agent-flag=--readers=2; repeatable")
      ->allow_extra_args(false)
      ->option_text("FLAG");
  command
      ->add_option("--server-flag", options->stack.server, "Flag for the page server; repeatable")
      ->allow_extra_args(false)
      ->option_text("FLAG");
  AddReportFlags(command, &flags->files);
}

absl::StatusOr<uint64_t> ParsePagesOfSize(absl::string_view text) {
  absl::StatusOr<uint64_t> bytes = ParseWholePages(text);
  if (!bytes.ok()) return bytes;
  const uint64_t pages = *bytes / kPageSize;
  if (pages >= kPagesMin && pages <= kPagesMax) return pages;
  return absl::InvalidArgumentError(absl::StrCat(text, " is not between 400KiB and 64GiB"));
}

void AddLinkFlags(CLI::App* command, bench::LinkOptions* link) {
  AddParsed(command, "--link", "RATE",
            "Speed of the link between agent and server, in each direction, such as 100mbit or "
            "1gbit: a TCP proxy of this program, whose limit is that of the bytes in the streams",
            ParseBitRate, &link->bytes_per_second);
  AddParsed(command, "--link-delay", "DURATION",
            "Delay of that link, one way, such as 5ms; a round trip has it twice", ParseDuration,
            &link->delay);
}

void AddOwnFlags(CLI::App* command, const Benchmark& benchmark, BenchOptions* options) {
  options->pages = benchmark.default_pages;
  command->add_option("--pages", options->pages, "Pages (4 KiB) of the volume")
      ->check(CLI::Range(kPagesMin, kPagesMax))
      ->capture_default_str();
  AddParsed(command, "--size", "SIZE", "The same in bytes, such as 256MiB or 1GiB",
            ParsePagesOfSize, &options->pages);
  if (benchmark.flags & bench::kThreadsFlag) {
    command->add_option("--threads", options->threads, "Faulting threads")
        ->check(CLI::Range(1u, 1024u))
        ->capture_default_str();
  }
  if (benchmark.flags & bench::kPrefetchFlag) {
    command->add_flag("--stages", options->stages,
                      "Also where the time of a fault goes: in the kernel, in the agent, until "
                      "the answer of the server, and in the fill");
    command->add_option("--prefetch", options->prefetch, "Prefetch policy of the agent")
        ->option_text("POLICY [none]");
  }
  if (benchmark.flags & bench::kCodecFlag) {
    command
        ->add_option("--codec", options->codec,
                     "How the pages are compressed; with lz4 and zstd half of each page is easy "
                     "to compress, with raw nothing is")
        ->check(CLI::IsMember({"raw", "lz4", "zstd"}))
        ->option_text("raw|lz4|zstd [raw]");
  }
  if (benchmark.flags & bench::kLinkFlag) AddLinkFlags(command, &options->stack.link);
  if (benchmark.flags & bench::kWriteFlags) {
    command
        ->add_option("--durability", options->durability,
                     "When a write is acknowledged; see "
                     "faultline volume create")
        ->check(CLI::IsMember({"sync", "interval", "none"}))
        ->option_text("sync|interval|none [sync]");
    command->add_option("--batch", options->batch_pages, "Pages of a batch")
        ->check(CLI::Range(1, 256))
        ->capture_default_str();
  }
}

absl::Status List(OutputFormat output) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  std::string text;
  for (const Benchmark& one : bench::Benchmarks()) {
    json.push_back({{"name", one.name}, {"description", one.description}});
    absl::StrAppend(&text, absl::StrFormat("%-20s %s\n", one.name, one.description));
  }
  if (output == OutputFormat::kJson) {
    PrintJson(json);
  } else {
    PrintText(text);
  }
  return absl::OkStatus();
}

}  // namespace

void RegisterBenchCommand(CLI::App* app, Session* session) {
  CLI::App* group = app->add_subcommand(
      "bench",
      "Measures, with a server and an agent of its own on loopback, what paging costs beside what "
      "this machine cannot go below; the bytes of all pages are checked");
  group->require_subcommand(0, 1);
  const auto list = std::make_shared<bool>(false);
  group->add_flag("--list", *list, "Tell which benchmarks there are");
  group->footer(
      "Every figure is the median of all repetitions, with the least and the greatest, and has a "
      "ratio to a floor that was measured beside it.\n"
      "Example:  faultline bench all --csv=bench.csv --plot=bench.svg");

  for (const Benchmark& benchmark : bench::Benchmarks()) {
    const auto flags = std::make_shared<Flags>();
    CLI::App* command = group->add_subcommand(benchmark.name, benchmark.description);
    AddCommonFlags(command, flags.get());
    AddOwnFlags(command, benchmark, &flags->options);
    command->callback([=, &benchmark] {
      session->run = [=, &benchmark] {
        return RunAll(*flags, {{&benchmark, benchmark.name, flags->options}}, session->output);
      };
    });
  }
  const auto flags = std::make_shared<Flags>();
  CLI::App* all = group->add_subcommand(
      "all",
      "All of them, once more with each prefetch policy, and drains over links: about six minutes");
  AddCommonFlags(all, flags.get());
  all->callback([=] {
    session->run = [=] {
      return RunAll(*flags, bench::StandardSet(flags->options), session->output);
    };
  });
  group->callback([=] {
    if (*list) {
      session->run = [=] { return List(session->output); };
    } else if (group->get_subcommands().empty()) {
      throw CLI::RequiredError("The name of a benchmark (see --list), or \"all\",");
    }
  });
}

}  // namespace faultline
