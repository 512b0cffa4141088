// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CHURN_WATCHDOG_H_
#define FAULTLINE_CLIENT_CHURN_WATCHDOG_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "client/churn/tally.h"

namespace faultline::churn {

// A thread that looks for operations that take too long: each is reported and counted once, and a
// child that hangs is killed. It touches no paged memory, and allocates nothing while it runs.
class Watchdog {
 public:
  // `tally` is borrowed. The seed is for the reports.
  Watchdog(Tally* tally, std::chrono::nanoseconds limit, uint64_t seed);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  void Run();
  void Look(size_t entry);

  Tally* const tally_;
  const uint64_t limit_nanos_;
  const uint64_t seed_;
  // When what hangs in each entry began, once it is reported.
  std::array<uint64_t, std::tuple_size_v<decltype(Tally::progress)>> reported_ = {};
  std::atomic<bool> stop_ = false;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_WATCHDOG_H_
