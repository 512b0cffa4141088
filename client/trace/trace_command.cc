// SPDX-License-Identifier: Apache-2.0
//
// faultline trace
#include <absl/strings/str_cat.h>
#include <absl/time/time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/cli/command.h"
#include "client/cli/format.h"
#include "client/cli/print.h"
#include "client/trace/trace_reader.h"
#include "proto/latency_histogram.h"
#include "proto/units.h"

namespace faultline {
namespace {

using Json = nlohmann::ordered_json;

// Of the records of one kind and outcome.
struct Sort {
  uint64_t records = 0;
  uint64_t pages = 0;
  LatencyHistogram took;  // all stages together
};
using Sorts = std::map<std::pair<TraceKind, TraceOutcome>, Sort>;

struct Summary {
  Sorts sorts;
  uint64_t records = 0;
  uint64_t last_ns = 0;
};

absl::StatusOr<Summary> Summarize(TraceReader* trace) {
  Summary summary;
  for (;;) {
    const absl::StatusOr<std::optional<TraceRecord>> record = trace->Next();
    if (!record.ok()) return record.status();
    if (!*record) return summary;
    Sort& sort = summary.sorts[{(*record)->kind, (*record)->outcome}];
    ++sort.records;
    sort.pages += (*record)->count;
    sort.took.Record(uint64_t{(*record)->queue_ns} + (*record)->transfer_ns + (*record)->memory_ns);
    ++summary.records;
    summary.last_ns = std::max(summary.last_ns, (*record)->time_ns);
  }
}

std::string StartOf(const TraceHeader& header) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::FromUnixNanos(header.start_unix_ns),
                          absl::UTCTimeZone());
}

absl::string_view WhenFullName(const TraceHeader& header) {
  return header.when_full == static_cast<uint32_t>(WhenTraceIsFull::kStop) ? "stop" : "drop-oldest";
}

void PrintSummaryJson(const TraceReader& trace, const Summary& summary) {
  const TraceHeader& header = trace.header();
  Json sorts = Json::array();
  for (const auto& [sort, of] : summary.sorts) {
    sorts.push_back({{"kind", TraceKindName(sort.first)},
                     {"outcome", TraceOutcomeName(sort.second)},
                     {"records", of.records},
                     {"pages", of.pages},
                     {"p50_us", of.took.QuantileMicros(0.5)},
                     {"p99_us", of.took.QuantileMicros(0.99)},
                     {"max_us", of.took.MaxMicros()}});
  }
  PrintJson({{"version", header.version},
             {"began", StartOf(header)},
             {"length_ns", summary.last_ns},
             {"volume_pages", header.volume_pages},
             {"capacity", header.capacity},
             {"when_full", WhenFullName(header)},
             {"records", summary.records},
             {"begun", header.begun},
             {"dropped", header.dropped},
             {"not_whole", trace.skipped()},
             {"sorts", sorts}});
}

void PrintSummaryText(const TraceReader& trace, const Summary& summary) {
  const TraceHeader& header = trace.header();
  PrintText(FormatFields(
      {{"version", absl::StrCat(header.version)},
       {"began", StartOf(header)},
       {"length", absl::FormatDuration(absl::Milliseconds(summary.last_ns / 1'000'000))},
       {"volume", header.volume_pages == 0 ? "-" : FormatBytes(header.volume_pages * kPageSize)},
       {"records", absl::StrCat(summary.records)},
       {"begun", absl::StrCat(header.begun)},
       {"dropped", absl::StrCat(header.dropped)},
       {"not whole", absl::StrCat(trace.skipped())},
       {"room for", absl::StrCat(header.capacity)},
       {"when full", std::string(WhenFullName(header))}}));
  if (summary.sorts.empty()) return;
  std::vector<std::vector<std::string>> rows;
  const auto micros = [](double us) { return absl::StrCat(std::lround(us), "us"); };
  for (const auto& [sort, of] : summary.sorts) {
    const absl::string_view outcome = TraceOutcomeName(sort.second);
    rows.push_back({std::string(TraceKindName(sort.first)),
                    outcome.empty() ? "-" : std::string(outcome), absl::StrCat(of.records),
                    absl::StrCat(of.pages), micros(of.took.QuantileMicros(0.5)),
                    micros(of.took.QuantileMicros(0.99)), micros(of.took.MaxMicros())});
  }
  PrintText("\n" + FormatTable({"KIND", "OUTCOME", "RECORDS", "PAGES", "P50", "P99", "MAX"}, rows));
}

absl::Status Info(const std::string& path, OutputFormat output) {
  absl::StatusOr<TraceReader> trace = TraceReader::Open(path);
  if (!trace.ok()) return trace.status();
  const absl::StatusOr<Summary> summary = Summarize(&*trace);
  if (!summary.ok()) return summary.status();
  output == OutputFormat::kJson ? PrintSummaryJson(*trace, *summary)
                                : PrintSummaryText(*trace, *summary);
  return absl::OkStatus();
}

absl::Status ConvertToCsv(const std::string& path) {
  absl::StatusOr<TraceReader> trace = TraceReader::Open(path);
  if (!trace.ok()) return trace.status();
  PrintText("time_ns,kind,outcome,thread,page,count,queue_ns,transfer_ns,memory_ns\n");
  for (;;) {
    const absl::StatusOr<std::optional<TraceRecord>> next = trace->Next();
    if (!next.ok()) return next.status();
    if (!*next) break;
    const TraceRecord& r = **next;
    PrintText(absl::StrCat(r.time_ns, ",", TraceKindName(r.kind), ",", TraceOutcomeName(r.outcome),
                           ",", r.thread, ",", r.page.raw(), ",", r.count, ",", r.queue_ns, ",",
                           r.transfer_ns, ",", r.memory_ns, "\n"));
    if (ferror(stdout)) break;  // what it is, main() says
  }
  if (trace->skipped() > 0) {
    fprintf(stderr, "faultline: %s: %llu records are not whole and left out\n", path.c_str(),
            static_cast<unsigned long long>(trace->skipped()));
  }
  return absl::OkStatus();
}

}  // namespace

void RegisterTraceCommands(CLI::App* app, Session* session) {
  CLI::App* trace = app->add_subcommand("trace", "Looks into the traces that agents write");
  trace->require_subcommand(1);
  const auto path = std::make_shared<std::string>();

  CLI::App* info = trace->add_subcommand("info", "What is in a trace, by kind and outcome");
  info->add_option("FILE", *path, "The trace")->required();
  info->footer("Times are of all stages together. Also of a trace that is being written.");
  info->callback(
      [session, path] { session->run = [session, path] { return Info(*path, session->output); }; });

  CLI::App* convert = trace->add_subcommand(
      "convert", "Writes the records of a trace to the standard output, the oldest first");
  convert->add_option("FILE", *path, "The trace")->required();
  convert->add_flag("--csv")
      ->description("As comma-separated values, with a line of names first")
      ->required();
  convert->footer(
      "Times are in nanoseconds, time_ns since the trace began; a page is 4096 bytes.\n"
      "Example:  faultline trace convert run.trace --csv >run.csv");
  convert->callback([session, path] { session->run = [path] { return ConvertToCsv(*path); }; });
}

}  // namespace faultline
