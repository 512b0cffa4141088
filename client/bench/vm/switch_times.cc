// SPDX-License-Identifier: Apache-2.0
#include "client/bench/vm/switch_times.h"

#include <algorithm>
#include <cmath>

namespace faultline::bench {

SwitchTimes TimesOf(const Move& move) {
  const auto since_stop = [&](absl::Time time) {
    return absl::ToDoubleMilliseconds(time - move.stopped);
  };
  SwitchTimes times;
  const absl::Time first = move.after.front().at;
  times.resumed_ms = since_stop(move.resumed);
  times.first_output_ms = since_stop(first);
  times.complete_ms = since_stop(move.complete);
  const absl::Time watched = std::max(move.complete, first + absl::Seconds(1));
  absl::Time last = first;
  for (const GuestTick& tick : move.after) {
    times.ticks_of_first_second += tick.at < first + absl::Seconds(1) ? 1 : 0;
    times.ticks_of_second_after_stop += tick.at < move.stopped + absl::Seconds(1) ? 1 : 0;
    if (last < watched) {
      times.longest_gap_ms =
          std::max(times.longest_gap_ms, absl::ToDoubleMilliseconds(tick.at - last));
    }
    last = tick.at;
  }
  return times;
}

std::vector<double> TicksPerBin(const Move& move, int before, int after) {
  std::vector<double> bins(static_cast<size_t>(before + after));
  const auto count = [&](const std::vector<GuestTick>& ticks) {
    for (const GuestTick& tick : ticks) {
      const double bin = std::floor(absl::FDivDuration(tick.at - move.stopped, kBin)) + before;
      if (bin >= 0 && bin < static_cast<double>(bins.size())) ++bins[static_cast<size_t>(bin)];
    }
  };
  count(move.before);
  count(move.after);
  return bins;
}

}  // namespace faultline::bench
