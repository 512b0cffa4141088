// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_FAULT_REPLAY_H_
#define FAULTLINE_CLIENT_FAULT_REPLAY_H_

#include <cstddef>
#include <vector>

#include "proto/page.h"
#include "proto/working_set.h"

namespace faultline {

// In which runs a working set is fetched: about in the order in which its pages were first asked
// for, part after part, and within each in that of the volume, so that neighbours go together; then
// those of which no order is known. Small gaps between runs are fetched, too. A page may come
// twice. Immutable.
struct Replay {
  // What a program needs at once, more or less: a part.
  static constexpr PageCount kPart{1024};
  // A message costs more than some pages.
  static constexpr PageCount kSmallGap{8};

  // `waits`: the target does not run until all of it is there.
  explicit Replay(const WorkingSet& set, bool waits = false);

  std::vector<PageRange> runs;
  size_t first_part = 0;  // so many of the runs are the first part, if an order is known
  bool target_waits = false;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_REPLAY_H_
