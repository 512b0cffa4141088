// SPDX-License-Identifier: Apache-2.0
//
// What the ticks of a guest tell of its move. Pure functions.
#ifndef FAULTLINE_CLIENT_BENCH_VM_SWITCH_TIMES_H_
#define FAULTLINE_CLIENT_BENCH_VM_SWITCH_TIMES_H_

#include <absl/time/time.h>

#include <string>
#include <utility>
#include <vector>

#include "client/bench/vm/guest.h"

namespace faultline::bench {

// One move of a machine.
struct Move {
  absl::Time stopped;   // QEMU's event STOP at the source
  absl::Time resumed;   // its event RESUME at the destination
  absl::Time complete;  // all of the RAM is at the destination, as that end says
  double faults = 0;    // pages that the destination had to ask for
  // Parts of the time until it was resumed, where they are told.
  std::vector<std::pair<std::string, double>> steps_ms;
  std::vector<GuestTick> before, after;  // at the source, at the destination
};

struct SwitchTimes {
  double resumed_ms = 0;       // from the stop
  double first_output_ms = 0;  // from the stop to the first tick at the destination
  double complete_ms = 0;      // from the stop
  // Between two ticks at the destination, until everything is there and for a second at least.
  double longest_gap_ms = 0;
  double ticks_of_first_second = 0;       // from the first one on
  double ticks_of_second_after_stop = 0;  // from the stop on
};

// REQUIRES: `move.after` is not empty.
SwitchTimes TimesOf(const Move& move);

inline constexpr absl::Duration kBin = absl::Milliseconds(100);

// How many ticks there were in each kBin, `before` bins before the stop and `after` behind it.
std::vector<double> TicksPerBin(const Move& move, int before, int after);

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_VM_SWITCH_TIMES_H_
