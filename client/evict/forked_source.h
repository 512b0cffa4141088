// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVICT_FORKED_SOURCE_H_
#define FAULTLINE_CLIENT_EVICT_FORKED_SOURCE_H_

#include <functional>
#include <memory>
#include <vector>

#include "client/source/page_source.h"
#include "client/timers.h"
#include "proto/mutex.h"

namespace faultline {

// A volume as it was when a process with far memory forked, for the child: its parent goes on and
// writes to the volume. It is frozen, as a snapshot, when that is needed: before the parent's next
// write, or for the first fetch of the child; for a child that ends or executes another program
// before, never.
//
// Thread-safe.
class ForkedSource final : public PageSource, public std::enable_shared_from_this<ForkedSource> {
 public:
  // Freezes the volume and opens what is frozen; blocks. What it returns undoes that when it is
  // destroyed.
  using Freeze = std::function<absl::StatusOr<std::shared_ptr<PageSource>>()>;

  // `volume` is that which is to be frozen; `timers`, borrowed, runs `freeze`, again and again
  // until it succeeds.
  ForkedSource(std::shared_ptr<PageSource> volume, Freeze freeze, Timers* timers);

  // Has it frozen, if that has not begun.
  void StartFreezing();
  bool IsFrozen() const;

  void Fetch(PageRange range, FetchLane lane, absl::Time deadline, FetchDone done) override;
  PageCount size() const override { return volume_->size(); }
  PageCount max_fetch() const override { return volume_->max_fetch(); }

 private:
  struct Waiting {
    PageRange range;
    FetchLane lane;
    absl::Time deadline;
    FetchDone done;
  };

  void TryFreezing(SteadyClock::duration backoff);

  const std::shared_ptr<PageSource> volume_;
  const Freeze freeze_;
  Timers* const timers_;
  mutable Mutex mu_;
  bool begun_ ABSL_GUARDED_BY(mu_) = false;
  std::shared_ptr<PageSource> frozen_ ABSL_GUARDED_BY(mu_);
  std::vector<Waiting> waiting_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_FORKED_SOURCE_H_
