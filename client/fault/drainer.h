// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_FAULT_DRAINER_H_
#define FAULTLINE_CLIENT_FAULT_DRAINER_H_

#include <functional>
#include <memory>
#include <optional>

#include "client/fault/drain_window.h"
#include "client/fault/fetcher.h"
#include "client/fault/paged_memory.h"
#include "client/source/working_sets.h"
#include "proto/mutex.h"

namespace faultline {

// Fetches everything that is left, in the order of the volume, some runs at a time, behind the
// faults and whatever the target does to its memory meanwhile. Pages that are moved while it runs
// are found wherever they are; it goes round until nothing is left, or only what cannot be had.
//
// Or fetches only the pages of a working set, once, and does not look for those that have moved.
//
// Thread-safe.
class Drainer : public std::enable_shared_from_this<Drainer> {
 public:
  // `working_set` is null where everything is to be fetched. `drained` is called once, when nothing
  // is left but `left` pages that cannot be had; not where the fetcher is stopped before.
  Drainer(std::shared_ptr<PagedMemory> memory, std::shared_ptr<Fetcher> fetcher, Timers* timers,
          PageCount max_fetch, std::shared_ptr<const PageSet> working_set,
          std::function<void(uint64_t left)> drained);

  // Starts. Fetches, and with some sources fills, on the calling thread.
  void Run();

 private:
  class Ticket;
  struct Stretch {
    PageRange pages;
    bool beside_faults;  // the target was faulting
  };

  // The next run that is absent and mapped, from the cursor on; moves the cursor behind it. None at
  // the end of the volume.
  std::optional<Stretch> NextRun() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The next pages from `from` on that are to be fetched at all.
  PageRange NextOfSet(PageIndex from) const;
  // Whether the target waits for pages now and then, so that what is fetched meanwhile must be
  // little.
  bool IsTargetFaulting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  size_t Window() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether pages may be on the move, of which it is not known where they are.
  bool IsUnsettled() const;
  // Whether the pass that has ended was the last.
  bool EndPass() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Pump();
  void OnRunEnded(const Stretch& run, SteadyClock::time_point began);

  const std::shared_ptr<PagedMemory> memory_;
  const std::shared_ptr<Fetcher> fetcher_;
  Timers* const timers_;  // outlives it
  const PageCount max_run_;
  const std::shared_ptr<const PageSet> working_set_;
  const std::function<void(uint64_t left)> drained_;
  Mutex mu_;
  PageIndex cursor_ ABSL_GUARDED_BY(mu_);
  DrainWindow window_ ABSL_GUARDED_BY(mu_);
  size_t under_way_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t faults_ ABSL_GUARDED_BY(mu_) = 0;  // when that was last looked at
  SteadyClock::time_point last_fault_ ABSL_GUARDED_BY(mu_);
  bool pumping_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  // Of the pass under way, and of the one before; and how many have found just as much in a row:
  // then it is what cannot be had.
  uint64_t found_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t found_before_ ABSL_GUARDED_BY(mu_) = ~uint64_t{0};
  int same_passes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_DRAINER_H_
