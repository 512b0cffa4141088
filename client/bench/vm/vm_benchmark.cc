// SPDX-License-Identifier: Apache-2.0
//
// vm: moves of a running machine, by Faultline and by QEMU alone.
#include "client/bench/vm/vm_benchmark.h"

#include <absl/strings/str_cat.h>

#include <map>
#include <optional>
#include <utility>

#include "client/bench/limited_link.h"
#include "client/bench/statistics.h"
#include "client/bench/vm/link_namespace.h"
#include "client/bench/vm/switch_times.h"

namespace faultline::bench {
namespace {

// What is drawn: this long before the stop, and behind it.
constexpr int kBinsBefore = 10, kBinsAfter = 60;

constexpr struct {
  const char* name;
  const char* unit;
  double SwitchTimes::*value;
} kFigures[] = {
    {"stop to RESUME", "ms", &SwitchTimes::resumed_ms},
    {"stop to first output", "ms", &SwitchTimes::first_output_ms},
    {"stop to all pages there", "ms", &SwitchTimes::complete_ms},
    {"longest gap of ticks", "ms", &SwitchTimes::longest_gap_ms},
    {"ticks, first second of output", "ticks", &SwitchTimes::ticks_of_first_second},
};

// Of all repetitions of one mode.
struct Outcomes {
  int moved = 0, not_converged = 0, broken = 0;
  std::string why_broken;  // the first time
  std::vector<std::vector<double>> bins;
};

void AddMode(MoveMode mode, const Move& move, const std::optional<SwitchTimes>& ours,
             Outcomes* outcomes, Report* report) {
  const SwitchTimes times = TimesOf(move);
  ++outcomes->moved;
  outcomes->bins.push_back(TicksPerBin(move, kBinsBefore, kBinsAfter));
  const std::string suffix = absl::StrCat(", ", MoveModeName(mode));
  if (ours) {
    for (const auto& [name, unit, value] : kFigures) {
      // All pages of a pre-copy are there when the machine stops.
      if (mode == MoveMode::kPrecopy && value == &SwitchTimes::complete_ms) continue;
      report->AddFigure(name, unit, (*ours).*value, MoveModeName(mode), times.*value);
    }
  }
  report->AddDetail(absl::StrCat("ticks, second after the stop", suffix), "ticks",
                    times.ticks_of_second_after_stop);
  report->AddDetail(absl::StrCat("faults", suffix), "pages", move.faults);
  for (const auto& [step, ms] : move.steps_ms) {
    report->AddDetail(absl::StrCat("of stop to RESUME: ", step), "ms", ms);
  }
}

absl::Status AddRepetition(const VmBenchOptions& options, std::map<MoveMode, Outcomes>* outcomes,
                           Report* report) {
  std::optional<SwitchTimes> ours;
  const bool alone = options.modes == std::vector<MoveMode>{MoveMode::kFaultline};
  std::vector<MoveMode> modes = {MoveMode::kFaultline};
  if (!alone) modes.insert(modes.end(), options.modes.begin(), options.modes.end());
  for (const MoveMode mode : modes) {
    const absl::StatusOr<std::optional<Move>> move = MoveOnce(mode, options.move);
    Outcomes& of_mode = (*outcomes)[mode];
    if (!move.ok()) {
      // What QEMU does to a guest by itself is something to tell, and no failure of this.
      if (mode == MoveMode::kFaultline || !absl::IsDataLoss(move.status())) return move.status();
      if (++of_mode.broken == 1) of_mode.why_broken = std::string(move.status().message());
      continue;
    }
    if (!*move) {
      ++of_mode.not_converged;
      continue;
    }
    AddMode(mode, **move, ours, &of_mode, report);
    if (mode == MoveMode::kFaultline) ours = TimesOf(**move);
  }
  if (alone) {
    for (const auto& [name, unit, value] : kFigures) report->AddDetail(name, unit, (*ours).*value);
  }
  return absl::OkStatus();
}

void AddTimelines(const std::map<MoveMode, Outcomes>& outcomes, Report* report) {
  report->timeline_axes[0] = "seconds since the stop at the source";
  report->timeline_axes[1] = "guest ticks in 100 ms (median)";
  for (const auto& [mode, of_mode] : outcomes) {
    if (of_mode.bins.empty()) continue;
    Timeline line{.label = MoveModeName(mode), .points = {}};
    for (size_t bin = 0; bin < of_mode.bins[0].size(); ++bin) {
      std::vector<double> ticks;
      for (const std::vector<double>& bins : of_mode.bins) ticks.push_back(bins[bin]);
      line.points.emplace_back(
          (static_cast<double>(bin) - kBinsBefore) * absl::ToDoubleSeconds(kBin),
          Quantile(ticks, 0.5));
    }
    report->timelines.push_back(std::move(line));
  }
}

}  // namespace

absl::StatusOr<Report> MoveVms(const VmBenchOptions& options) {
  const GuestOptions& guest = options.move.guest;
  if (absl::Status status = CheckGuest(guest); !status.ok()) return status;
  if (options.link_bytes_per_second != 0) {
    absl::Status status = EnterLinkNamespace(options.link_bytes_per_second);
    if (!status.ok()) return status;
  }
  Report report;
  report.benchmark = "vm";
  report.compared_with = "QEMU alone";
  std::map<MoveMode, Outcomes> outcomes;
  for (int i = 0; i < options.repetitions; ++i) {
    if (absl::Status status = AddRepetition(options, &outcomes, &report); !status.ok()) {
      return status;
    }
  }
  report.configuration =
      absl::StrCat("guest of ", guest.ram_mib, " MiB, ", guest.busy_mib,
                   " MiB rewritten all the time, ", guest.accelerator, ", 1 CPU; ",
                   options.link_bytes_per_second == 0
                       ? "loopback"
                       : DescribeLink({.bytes_per_second = options.link_bytes_per_second}),
                   "; ", options.repetitions, " repetitions");
  for (const auto& [mode, of_mode] : outcomes) {
    absl::StrAppend(&report.configuration, "; ", MoveModeName(mode), ": ", of_mode.moved,
                    " moved with no wrong word");
    if (of_mode.not_converged > 0) {
      absl::StrAppend(&report.configuration, ", ", of_mode.not_converged, " not converged within ",
                      absl::FormatDuration(options.move.precopy_limit));
    }
    if (of_mode.broken > 0) {
      absl::StrAppend(&report.configuration, ", ", of_mode.broken, " with a broken guest (",
                      of_mode.why_broken, ")");
    }
  }
  AddTimelines(outcomes, &report);
  return report;
}

}  // namespace faultline::bench
