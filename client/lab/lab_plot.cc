// SPDX-License-Identifier: Apache-2.0
//
// The plot of `lab locks`: four panels, of which those without figures are left out.
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_replace.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "client/bench/gnuplot.h"
#include "client/lab/lab_result.h"

namespace faultline {
namespace {

constexpr absl::string_view kChunk = "4KiB";
constexpr absl::string_view kMissing = "-";

// The values of a key, in the order of their first row.
std::vector<std::string> Values(const std::vector<LabRow>& rows, absl::string_view key) {
  std::vector<std::string> values;
  for (const LabRow& row : rows) {
    const std::string value(row.Key(key));
    if (std::find(values.begin(), values.end(), value) == values.end()) values.push_back(value);
  }
  return values;
}

using Keys = std::vector<std::pair<std::string, std::string>>;

std::string MedianOf(const std::vector<LabRow>& rows, const Keys& keys, absl::string_view metric) {
  for (const LabRow& row : rows) {
    const bool matches = std::all_of(keys.begin(), keys.end(), [&row](const auto& key) {
      return row.Key(key.first) == key.second;
    });
    if (matches && row.note.empty()) return absl::StrFormat("%.6g", row.Get(metric).median);
  }
  return std::string(kMissing);
}

struct Condition {
  const char *title, *churn, *events;
};
constexpr Condition kConditions[] = {{"no churn", "off", "no"},
                                     {"unrelated", "unrelated", "no"},
                                     {"same VMA", "same VMA", "no"},
                                     {"same VMA, events", "same VMA", "yes"}};

// One group of bars for each operation, one bar for each condition.
std::string BarsByOperation(const std::vector<LabRow>& rows, const std::string& name,
                            absl::string_view metric, size_t first_condition) {
  const std::string threads = Values(rows, "threads").back();
  std::string script = absl::StrCat("$", name, " << EOD\n");
  for (const std::string& op : Values(rows, "operation")) {
    absl::StrAppend(&script, op);
    for (size_t i = first_condition; i < std::size(kConditions); ++i) {
      absl::StrAppend(&script, " ",
                      MedianOf(rows,
                               {{"operation", op},
                                {"chunk", std::string(kChunk)},
                                {"threads", threads},
                                {"churn", kConditions[i].churn},
                                {"events", kConditions[i].events}},
                               metric));
    }
    absl::StrAppend(&script, "\n");
  }
  absl::StrAppend(&script, "EOD\nset style data histograms\nset xtics rotate by -20\nplot ");
  for (size_t i = first_condition; i < std::size(kConditions); ++i) {
    absl::StrAppend(&script, i == first_condition ? "" : ", ", "$", name, " using ",
                    i - first_condition + 2, ":xtic(1) title ",
                    bench::GnuplotQuoted(kConditions[i].title));
  }
  return script + "\n";
}

std::string LinesByThreads(const std::vector<LabRow>& rows) {
  const std::vector<std::string> operations = Values(rows, "operation");
  std::string script = "$scaling << EOD\n";
  for (const std::string& threads : Values(rows, "threads")) {
    absl::StrAppend(&script, threads);
    for (const std::string& op : operations) {
      absl::StrAppend(&script, " ",
                      MedianOf(rows,
                               {{"operation", op},
                                {"chunk", std::string(kChunk)},
                                {"threads", threads},
                                {"churn", "unrelated"},
                                {"events", "no"}},
                               "fill_pages_per_second"));
    }
    absl::StrAppend(&script, "\n");
  }
  absl::StrAppend(&script, "EOD\nset xtics norotate\nplot ");
  for (size_t i = 0; i < operations.size(); ++i) {
    absl::StrAppend(&script, i == 0 ? "" : ", ", "$scaling using ", i + 2,
                    ":xtic(1) with linespoints title ", bench::GnuplotQuoted(operations[i]));
  }
  return script + "\n";
}

std::string ProtocolBars(const std::vector<LabRow>& rows) {
  const std::vector<std::string> monitors = Values(rows, "monitor");
  std::string script = "$protocol << EOD\n";
  bool any_stale = false;
  for (const std::string& kernel : Values(rows, "kernel")) {
    absl::StrAppend(&script, bench::GnuplotQuoted(kernel));
    for (const std::string& monitor : monitors) {
      const auto stale =
          MedianOf(rows, {{"kernel", kernel}, {"monitor", monitor}}, "stale_percent");
      any_stale = any_stale || absl::StrCat(stale).find_first_of("123456789") != std::string::npos;
      absl::StrAppend(&script, " ", stale, " ",
                      MedianOf(rows, {{"kernel", kernel}, {"monitor", monitor}}, "wait_p99_us"));
    }
    absl::StrAppend(&script, "\n");
  }
  absl::StrAppend(&script, "EOD\nset style data histograms\nset xtics norotate\n");
  // gnuplot warns of bars that are all of no height.
  if (!any_stale) absl::StrAppend(&script, "set yrange [0:1]\n");
  // The share of stale discards above zero, and what the program waits as a line over it.
  absl::StrAppend(&script,
                  "set y2tics\nset y2label \"madvise p99, us\"\nset y2range [0:1<*]\nplot ");
  for (size_t i = 0; i < monitors.size(); ++i) {
    absl::StrAppend(
        &script, i == 0 ? "" : ", ", "$protocol using ", 2 * i + 2, ":xtic(1) title ",
        bench::GnuplotQuoted(monitors[i] + ", stale"), ", $protocol using 0:", 2 * i + 3,
        " axes x1y2 with points pointsize 1.5 title ", bench::GnuplotQuoted(monitors[i] + ", p99"));
  }
  return script + "\n";
}

}  // namespace

std::string LabToGnuplot(const LabResult& result, absl::string_view terminal,
                         absl::string_view path) {
  std::string script = absl::StrCat(
      "set terminal ", terminal, " size 1600,1100\nset output '",
      absl::StrReplaceAll(path, {{"'", "''"}}), "'\nset datafile missing '", kMissing,
      "'\nset style fill solid 0.8\nset grid ytics\nset key outside below\nset yrange [0:1<*]\n",
      "set multiplot layout 2,2 title ",
      // Its processor's name may have an underscore, which would be a subscript.
      bench::GnuplotQuoted(result.machine), " noenhanced\n");
  const auto panel = [&script](absl::string_view title, absl::string_view unit) {
    absl::StrAppend(&script, "set title ", bench::GnuplotQuoted(title), "\nset ylabel ",
                    bench::GnuplotQuoted(unit), "\n");
  };
  if (!result.locks.empty()) {
    const std::string threads =
        absl::StrCat(Values(result.locks, "threads").back(), " threads, ", kChunk);
    panel(absl::StrCat("Fills, ", threads), "pages/s");
    absl::StrAppend(&script, BarsByOperation(result.locks, "fills", "fill_pages_per_second", 0));
    panel(absl::StrCat("Fills by threads, unrelated churn, ", kChunk), "pages/s");
    absl::StrAppend(&script, LinesByThreads(result.locks));
    panel(absl::StrCat("What the target waits: map + unmap, ", threads), "p99, us (logarithmic)");
    absl::StrAppend(&script, "set logscale y\nset yrange [*:*]\n",
                    BarsByOperation(result.locks, "target", "map_p99_us", 1),
                    "unset logscale y\nset yrange [0:1<*]\n");
  }
  if (!result.protocol.empty()) {
    panel("Discards that show a stale page", "% of all discards");
    absl::StrAppend(&script, ProtocolBars(result.protocol));
  }
  return script + "unset multiplot\n";
}

}  // namespace faultline
