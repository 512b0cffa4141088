// SPDX-License-Identifier: Apache-2.0
#include "client/cli/top.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "client/cli/format.h"
#include "proto/page.h"
#include "proto/units.h"

namespace faultline {
namespace {

constexpr size_t kBarCells = 20;
constexpr size_t kNameCells = 16;
// Title, totals, legend, an empty line, and the names of the columns.
constexpr size_t kHeadLines = 5;

// Part of an attachment's memory, as the bar shows it.
struct Share {
  char mark;
  const char* name;
  const char* colour;  // of ANSI's, of the mark
};
constexpr std::array<Share, 7> kShares = {{{'#', "resident", "32"},
                                           {'s', "staged", "35"},
                                           {'d', "dirty", "95"},
                                           {'-', "zero", "36"},
                                           {'x', "poisoned", "31"},
                                           {'e', "evicted", "34"},
                                           {'.', "absent", "90"}}};

// Of the pages that the attachment has, in the order of kShares.
std::array<uint64_t, kShares.size()> SharesOf(const AttachmentStats& stats) {
  const LocalMemoryStats& local = stats.local;
  const bool far = local.budget_pages > 0;
  const uint64_t dirty = std::min(local.unwritten_pages, local.staged_pages);
  std::array<uint64_t, kShares.size()> shares = {far ? local.resident_pages : stats.present_pages,
                                                 local.staged_pages - dirty,
                                                 dirty,
                                                 stats.zero_pages,
                                                 stats.poisoned_pages,
                                                 0,
                                                 0};
  uint64_t known = 0;
  for (const uint64_t share : shares) known += share;
  shares[far ? 5 : 6] = stats.tracked_pages - std::min(known, stats.tracked_pages);
  return shares;
}

std::string Coloured(const std::string& text, const char* colour, const TopScreen& screen) {
  if (screen.colour == TopColour::kNone) return text;
  return absl::StrCat("\033[", colour, "m", text, "\033[0m");
}

// Of kBarCells. What there is, however little, is seen where there is room.
std::string BarOf(const AttachmentStats& stats, const TopScreen& screen) {
  const auto shares = SharesOf(stats);
  uint64_t total = 0;
  for (const uint64_t share : shares) total += share;
  std::array<size_t, kShares.size()> cells = {};
  size_t used = 0;
  for (size_t i = 0; i < shares.size() && total > 0; ++i) {
    cells[i] = static_cast<size_t>(static_cast<double>(shares[i]) / static_cast<double>(total) *
                                   kBarCells);
    if (shares[i] > 0) cells[i] = std::max<size_t>(cells[i], 1);
    used += cells[i];
  }
  while (total > 0 && used != kBarCells) {
    size_t& largest = *std::max_element(cells.begin(), cells.end());
    used < kBarCells ? (++largest, ++used) : (--largest, --used);
  }
  std::string bar;
  for (size_t i = 0; i < cells.size(); ++i) {
    if (cells[i] > 0) {
      absl::StrAppend(&bar,
                      Coloured(std::string(cells[i], kShares[i].mark), kShares[i].colour, screen));
    }
  }
  return total > 0 ? bar : std::string(kBarCells, ' ');
}

// At most `cells` characters.
std::string Printable(const std::string& name, size_t cells) {
  std::string text = name.substr(0, cells);
  for (char& c : text) {
    if (c < ' ' || c > '~') c = '?';
  }
  if (name.size() > cells) text.back() = '~';
  return text;
}

std::string Speed(double bytes_per_second) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (bytes_per_second >= 1000 && unit + 1 < kUnits.size()) {
    bytes_per_second /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.*f%s", bytes_per_second < 10 && unit > 0 ? 1 : 0, bytes_per_second,
                         kUnits[unit]);
}

std::string Latency(double us) {
  if (us == 0) return "-";
  if (us < 1000) return absl::StrFormat("%.0fus", us);
  if (us < 1e6) return absl::StrFormat("%.*fms", us < 1e4 ? 1 : 0, us / 1e3);
  return absl::StrFormat("%.1fs", us / 1e6);
}

std::string StateOf(const AttachmentStats& stats) {
  if (stats.oldest_wait_seconds > 1) {
    return absl::StrCat("waits ", Latency(stats.oldest_wait_seconds * 1e6));
  }
  if (stats.parked_fills > 0) return "held off";
  if (stats.drained) return "drained";
  return stats.local.budget_pages > 0 ? "far" : "";
}

std::string LineOf(const TopRow& row, const TopScreen& screen) {
  const AttachmentStats& stats = row.stats;
  const std::string before = absl::StrFormat(
      "%6d %6s %8s %-16s %9s ", stats.id, stats.parent == 0 ? "-" : absl::StrCat(stats.parent),
      stats.pid == 0 ? "-" : absl::StrCat(stats.pid), Printable(stats.volume, kNameCells),
      Speed(static_cast<double>(stats.tracked_pages * kPageSize)));
  const std::string behind =
      absl::StrFormat(" %8.0f %9s %9s %7.0f %7d %7s %7s  %s", row.faults_per_second,
                      Speed(row.filled_bytes_per_second), Speed(row.written_bytes_per_second),
                      row.events_per_second, stats.waiting_faults, Latency(stats.fault_p50_us),
                      Latency(stats.fault_p99_us), StateOf(stats));
  // Cut by what is seen: colours take no room.
  if (before.size() + kBarCells > screen.columns) return before.substr(0, screen.columns);
  return absl::StrCat(before, BarOf(stats, screen),
                      behind.substr(0, screen.columns - before.size() - kBarCells));
}

const char* Columns() {
  return "    ID   FROM      PID VOLUME              MEMORY PAGES                "
         " FAULTS/S  FILLED/S WRITTEN/S EVENT/S WAITING     P50     P99  STATE";
}

}  // namespace

std::vector<TopRow> TopRows(const TopSample& before, const TopSample& after) {
  const double seconds = std::chrono::duration<double>(after.when - before.when).count();
  std::vector<TopRow> rows;
  for (const AttachmentStats& stats : after.attachments) {
    TopRow& row = rows.emplace_back(TopRow{.stats = stats});
    const auto then = std::find_if(before.attachments.begin(), before.attachments.end(),
                                   [&](const AttachmentStats& one) { return one.id == stats.id; });
    if (then == before.attachments.end() || seconds <= 0) continue;
    const auto rate = [seconds](uint64_t now, uint64_t old) {
      // Another agent counts from 0.
      return now > old ? static_cast<double>(now - old) / seconds : 0;
    };
    const auto pages = [](const AttachmentStats& s) {
      return s.copied_pages_total + s.zeroed_pages_total;
    };
    const auto events = [](const AttachmentStats& s) {
      return s.fork_events_total + s.remap_events_total + s.remove_events_total +
             s.unmap_events_total;
    };
    row.faults_per_second = rate(stats.faults_total, then->faults_total);
    row.filled_bytes_per_second = rate(pages(stats), pages(*then)) * kPageSize;
    row.fetched_bytes_per_second =
        rate(stats.fetched_pages_total, then->fetched_pages_total) * kPageSize;
    row.written_bytes_per_second =
        rate(stats.local.written_pages_total, then->local.written_pages_total) * kPageSize;
    row.events_per_second = rate(events(stats), events(*then));
  }
  return rows;
}

std::string DrawTop(std::span<const TopRow> rows, const std::string& title,
                    const TopScreen& screen) {
  TopRow sum;
  for (const TopRow& row : rows) {
    sum.faults_per_second += row.faults_per_second;
    sum.filled_bytes_per_second += row.filled_bytes_per_second;
    sum.fetched_bytes_per_second += row.fetched_bytes_per_second;
    sum.written_bytes_per_second += row.written_bytes_per_second;
    sum.stats.waiting_faults += row.stats.waiting_faults;
  }
  std::vector<std::string> lines = {
      title,
      absl::StrFormat("%d attachments, %d pages waited for; %.0f faults/s, %s/s filled, %s/s "
                      "fetched, %s/s written",
                      rows.size(), sum.stats.waiting_faults, sum.faults_per_second,
                      Speed(sum.filled_bytes_per_second), Speed(sum.fetched_bytes_per_second),
                      Speed(sum.written_bytes_per_second))};
  for (std::string& line : lines) line = line.substr(0, screen.columns);
  std::string legend = std::string("pages:").substr(0, screen.columns);
  size_t seen = legend.size();
  for (const Share& share : kShares) {
    seen += 3 + std::string(share.name).size();
    if (seen > screen.columns) break;
    absl::StrAppend(&legend, " ", Coloured(std::string(1, share.mark), share.colour, screen), " ",
                    share.name);
  }
  lines.push_back(legend);
  lines.emplace_back();
  lines.push_back(Coloured(std::string(Columns()).substr(0, screen.columns), "1", screen));
  // The last line is for those that there is no room for.
  const size_t room = screen.lines > kHeadLines ? screen.lines - kHeadLines : 0;
  const size_t shown = rows.size() <= room ? rows.size() : room - std::min<size_t>(room, 1);
  for (const TopRow& row : rows.subspan(0, shown)) lines.push_back(LineOf(row, screen));
  if (shown < rows.size()) {
    lines.push_back(absl::StrCat("and ", rows.size() - shown, " more").substr(0, screen.columns));
  }
  lines.resize(std::min(lines.size(), screen.lines));
  std::string text;
  for (const std::string& line : lines) absl::StrAppend(&text, line, "\n");
  return text;
}

nlohmann::ordered_json TopToJson(std::span<const TopRow> rows) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const TopRow& row : rows) {
    nlohmann::ordered_json json = AttachmentToJson(row.stats);
    json["faults_per_second"] = row.faults_per_second;
    json["filled_bytes_per_second"] = row.filled_bytes_per_second;
    json["fetched_bytes_per_second"] = row.fetched_bytes_per_second;
    json["written_bytes_per_second"] = row.written_bytes_per_second;
    json["events_per_second"] = row.events_per_second;
    list.push_back(std::move(json));
  }
  return list;
}

}  // namespace faultline
