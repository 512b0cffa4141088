// SPDX-License-Identifier: Apache-2.0
//
// One row of the second table of `lab locks`: a program discards memory that its monitor is filling
// at that moment. Counts the pages that are there when madvise has returned, which show the program
// what it has discarded.
#ifndef FAULTLINE_CLIENT_LAB_PROTOCOL_CELL_H_
#define FAULTLINE_CLIENT_LAB_PROTOCOL_CELL_H_

#include <absl/status/statusor.h>

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "client/lab/discard_channel.h"
#include "client/lab/samples.h"

namespace faultline {

// How the monitor keeps its fills apart from what it reads. A fill always looks at the page's
// state, calls the ioctl, and notes the result under the shared side of the monitor's lock.
enum class MonitorProtocol {
  // The reader holds the lock exclusively across read() and the update of the states. It waits for
  // its own fills before it lets the program go on.
  kLockAcrossRead,
  // The reader reads first and takes the lock to update the states.
  kLockAfterRead,
  // The reader raises a flag that new fills respect, reads, updates the states, lowers the flag,
  // and never waits: fire and forget on the monitor's side. A fill looks before, not during.
  kFlagBeforeRead,
};
const char* MonitorProtocolName(MonitorProtocol protocol);

struct ProtocolCell {
  DiscardKernel kernel = DiscardKernel::kRunning;
  MonitorProtocol protocol = MonitorProtocol::kLockAcrossRead;
  size_t threads = 2;  // that fill
};

struct ProtocolFigures {
  uint64_t discards = 0;        // calls of madvise
  uint64_t stale_discards = 0;  // after which at least one page was there
  uint64_t stale_pages = 0;
  uint64_t fills = 0;         // pages
  uint64_t racing_fills = 0;  // of them while a discard was under way
  uint64_t refused = 0;       // fills that answered EAGAIN
  Quantiles wait;             // of madvise
};

// `seed` decides which ranges are discarded, and when.
absl::StatusOr<ProtocolFigures> MeasureProtocol(const ProtocolCell& cell,
                                                std::chrono::milliseconds duration, uint64_t seed);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LAB_PROTOCOL_CELL_H_
