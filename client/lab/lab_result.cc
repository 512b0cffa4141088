// SPDX-License-Identifier: Apache-2.0
#include "client/lab/lab_result.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>
#include <numeric>

#include <nlohmann/json.hpp>

#include "client/bench/text_output.h"

namespace faultline {
namespace {

using Lines = std::vector<std::vector<std::string>>;

std::string Count(double value) {
  if (value >= 1e6) return absl::StrFormat("%.2fM", value / 1e6);
  if (value >= 1e4) return absl::StrFormat("%.0fk", value / 1e3);
  return absl::StrFormat("%.0f", value);
}

// Microseconds.
std::string Micros(double value) {
  return value < 100 ? absl::StrFormat("%.1f", value) : absl::StrFormat("%.0f", value);
}

// "1.2/3.4/56": medians over the repetitions, but the greatest of the maxima.
std::string Latency(const LabRow& row, const std::string& name) {
  return absl::StrCat(Micros(row.Get(name + "_p50_us").median), "/",
                      Micros(row.Get(name + "_p99_us").median), "/",
                      Micros(row.Get(name + "_max_us").max));
}

double Percent(double part, double whole) { return whole == 0 ? 0 : 100 * part / whole; }

std::string FormatLocks(const std::vector<LabRow>& rows) {
  Lines lines = {{"", "", "", "", "", "", "fills: pages/s", "us per ioctl", "refused",
                  "target's calls", "map+unmap, us", "mremap, us"},
                 {"operation", "lock", "chunk", "threads", "churn", "events", "median [min-max]",
                  "p50/p99/max", "per s", "per s", "p50/p99/max", "p50/p99/max"}};
  for (const LabRow& row : rows) {
    std::vector<std::string> line;
    for (const auto& [name, value] : row.keys) line.push_back(value);
    if (!row.note.empty()) {
      line.push_back(row.note);
    } else {
      const Spread pages = row.Get("fill_pages_per_second");
      line.push_back(
          absl::StrCat(Count(pages.median), " [", Count(pages.min), "-", Count(pages.max), "]"));
      line.push_back(Latency(row, "fill"));
      line.push_back(Count(row.Get("refused_per_second").median));
      if (row.Key("churn") != "off") {
        line.push_back(Count(row.Get("churn_calls_per_second").median));
        line.push_back(Latency(row, "map"));
        line.push_back(Latency(row, "mremap"));
      }
    }
    lines.push_back(std::move(line));
  }
  return bench::AlignColumns(lines, 6);
}

constexpr absl::string_view kHowToReadLocks =
    R"(How to read it: fills of one chunk each go on in `threads` threads while one more thread of the same
process changes its address space (churn): mmap, madvise, mremap and munmap of memory that is not
registered (unrelated), or of the end of the very VMA that is filled (same VMA). Where fills take the
per-VMA lock, unrelated churn leaves them alone and does not wait for them; where they take mmap_lock,
each waits for the other. "refused" are fills that answered EAGAIN because an event was unread.
)";

std::string FormatProtocol(const std::vector<LabRow>& rows) {
  Lines lines = {
      {"", "", "", "discards with a stale page", "", "fills, pages", "", "refused", "madvise, us"},
      {"kernel's side", "monitor's side", "discards", "all [min-max %]", "stale pages", "all",
       "racing", "fills", "p50/p99/max"}};
  for (const LabRow& row : rows) {
    const Spread percent = row.Get("stale_percent");
    lines.push_back({std::string(row.Key("kernel")), std::string(row.Key("monitor")),
                     Count(row.Sum("discards")),
                     absl::StrFormat("%.0f = %.2f %% [%.2f-%.2f]", row.Sum("stale_discards"),
                                     Percent(row.Sum("stale_discards"), row.Sum("discards")),
                                     percent.min, percent.max),
                     absl::StrFormat("%.0f", row.Sum("stale_pages")), Count(row.Sum("fill_pages")),
                     Count(row.Sum("racing_fill_pages")), Count(row.Sum("refused_fills")),
                     Latency(row, "wait")});
  }
  return bench::AlignColumns(lines, 2);
}

constexpr absl::string_view kHowToReadProtocol =
    R"(How to read it: a program discards pages with madvise(MADV_DONTNEED) while its monitor fills them; a page
that is there after madvise has returned is stale. Kernel's side: "exclusive wait", the event waits for
fills under way (down_write, as merged in 6.9), "fire and forget", it does not (atomic_inc alone, as was
asked on the list); the model does this in user space around the kernel's own fill and zap, and the
model's exclusive wait is to be compared with "this kernel". Monitor's side: what its reader of events
does about its own fills. With the lock across read() the monitor itself waits for them, and the kernel's
wait adds nothing to what is right; without it no kernel makes up for the time between read() and the
update of the monitor's tables.
)";

nlohmann::ordered_json RowsToJson(const std::vector<LabRow>& rows) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const LabRow& row : rows) {
    nlohmann::ordered_json object;
    for (const auto& [name, value] : row.keys) object[name] = value;
    if (!row.note.empty()) object["note"] = row.note;
    for (const LabRow::Metric& metric : row.metrics) {
      const Spread spread = row.Get(metric.name);
      object[metric.name] = {{"median", spread.median}, {"min", spread.min}, {"max", spread.max}};
    }
    list.push_back(std::move(object));
  }
  return list;
}

}  // namespace

absl::string_view LabRow::Key(absl::string_view name) const {
  for (const auto& [key, value] : keys) {
    if (key == name) return value;
  }
  return "";
}

Spread LabRow::Get(absl::string_view name) const {
  for (const Metric& metric : metrics) {
    if (metric.name != name || metric.values.empty()) continue;
    std::vector<double> values = metric.values;
    std::sort(values.begin(), values.end());
    const size_t n = values.size();
    return {(values[(n - 1) / 2] + values[n / 2]) / 2, values.front(), values.back()};
  }
  return {};
}

double LabRow::Sum(absl::string_view name) const {
  for (const Metric& metric : metrics) {
    if (metric.name == name) return std::accumulate(metric.values.begin(), metric.values.end(), 0.);
  }
  return 0;
}

void LabRow::Add(absl::string_view name, double value) {
  for (Metric& metric : metrics) {
    if (metric.name == name) {
      metric.values.push_back(value);
      return;
    }
  }
  metrics.push_back({std::string(name), {value}});
}

std::string FormatLab(const LabResult& result) {
  std::string text = absl::StrCat("machine        ", result.machine, "\nconfiguration  ",
                                  result.configuration, "\n");
  if (!result.locks.empty()) {
    absl::StrAppend(&text, "\nFills beside changes of the address space\n\n",
                    FormatLocks(result.locks), "\n", kHowToReadLocks);
  }
  if (!result.protocol.empty()) {
    absl::StrAppend(&text, "\nDiscards that race with fills\n\n", FormatProtocol(result.protocol),
                    "\n", kHowToReadProtocol);
  }
  return text;
}

nlohmann::ordered_json LabToJson(const LabResult& result) {
  return {{"machine", result.machine},
          {"configuration", result.configuration},
          {"locks", RowsToJson(result.locks)},
          {"protocol", RowsToJson(result.protocol)}};
}

std::string RowsToCsv(const std::vector<LabRow>& rows) {
  // A row without figures has no metrics; all others have the same.
  const LabRow* widest = nullptr;
  for (const LabRow& row : rows) {
    if (widest == nullptr || row.metrics.size() > widest->metrics.size()) widest = &row;
  }
  if (widest == nullptr) return "";
  std::string csv;
  for (const auto& [name, value] : widest->keys) absl::StrAppend(&csv, name, ",");
  absl::StrAppend(&csv, "note");
  for (const LabRow::Metric& metric : widest->metrics) {
    absl::StrAppend(&csv, ",", metric.name, ",", metric.name, "_min,", metric.name, "_max");
  }
  for (const LabRow& row : rows) {
    absl::StrAppend(&csv, "\n");
    for (const auto& [name, value] : row.keys) absl::StrAppend(&csv, value, ",");
    absl::StrAppend(&csv, row.note);
    for (const LabRow::Metric& metric : widest->metrics) {
      const Spread s = row.Get(metric.name);
      if (row.note.empty()) {
        absl::StrAppend(&csv, absl::StrFormat(",%.6g,%.6g,%.6g", s.median, s.min, s.max));
      } else {
        absl::StrAppend(&csv, ",,,");
      }
    }
  }
  return csv + "\n";
}

}  // namespace faultline
