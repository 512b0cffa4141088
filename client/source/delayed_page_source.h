// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_SOURCE_DELAYED_PAGE_SOURCE_H_
#define FAULTLINE_CLIENT_SOURCE_DELAYED_PAGE_SOURCE_H_

#include <absl/time/time.h>

#include <cstdint>
#include <memory>

#include "client/source/page_source.h"
#include "client/timers.h"

namespace faultline {

// What is to be held up, for experiments with slow networks.
struct FetchDelay {
  absl::Duration delay = absl::ZeroDuration();
  double share = 1;   // of the fetches, 0 to 1; the others go on at once
  uint64_t seed = 1;  // of the choice
};

// Holds up fetches of another source before it passes them on. Thread-safe. A delayed fetch is
// passed on by a thread of `timers` (borrowed; they outlive the source's last fetch), the others by
// the caller's. One whose deadline comes before the end of its delay is DEADLINE_EXCEEDED then.
std::shared_ptr<PageSource> DelayFetches(std::shared_ptr<PageSource> inner, const FetchDelay& delay,
                                         Timers* timers);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SOURCE_DELAYED_PAGE_SOURCE_H_
