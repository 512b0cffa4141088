// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CHURN_FORK_RACE_H_
#define FAULTLINE_CLIENT_CHURN_FORK_RACE_H_

#include <sched.h>

#include <atomic>
#include <cstdint>

#include "client/churn/slot.h"
#include "client/churn/tally.h"

namespace faultline::churn {

// Brings a thread that forks and one that moves memory together, so that the fork comes at some
// point of the other's mremap. The child has the memory at the old or at the new address, and can
// tell at which from its own mappings; the agent has to find out, too, although the events of the
// two threads may be read in any order. Thread-safe; allocates nothing.
class ForkRace {
 public:
  // What the other thread is moving. It leaves it alone until EndFork().
  struct Move {
    const Slot* slot = nullptr;  // as it was before
    uint64_t to = 0;             // a reservation until the memory is there
  };

  // For the thread that forks. Waits a little for one that moves; false where none does. If true,
  // EndFork() must follow.
  bool BeginFork() {
    int none = kNone;
    if (!state_.compare_exchange_strong(none, kWanted)) return false;
    const uint64_t patience_ends = NowNanos() + kPatienceNanos;
    while (state_ == kWanted && NowNanos() < patience_ends) sched_yield();
    int wanted = kWanted;
    if (state_.compare_exchange_strong(wanted, kNone)) return false;
    while (state_ == kFound) sched_yield();
    return true;
  }
  const Move& move() const { return move_; }
  void EndFork() { state_ = kForked; }

  // For the thread that moves, before its mremap. If true, EndMove() must follow it.
  bool BeginMove(const Slot& slot, uint64_t to) {
    int wanted = kWanted;
    if (!state_.compare_exchange_strong(wanted, kFound)) return false;
    move_ = {&slot, to};
    state_ = kMoving;
    return true;
  }
  // Waits for the fork.
  void EndMove() {
    while (state_ != kForked) sched_yield();
    state_ = kNone;
  }

 private:
  static constexpr uint64_t kPatienceNanos = 5'000'000;

  enum State { kNone, kWanted, kFound, kMoving, kForked };
  std::atomic<int> state_ = kNone;
  Move move_;
};

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_FORK_RACE_H_
