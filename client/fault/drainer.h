// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_FAULT_DRAINER_H_
#define FAULTLINE_CLIENT_FAULT_DRAINER_H_

#include <functional>
#include <memory>
#include <optional>

#include "client/fault/drain_window.h"
#include "client/fault/fetcher.h"
#include "client/fault/paged_memory.h"
#include "client/fault/replay.h"
#include "proto/mutex.h"

namespace faultline {

// Fetches everything that is left, in the order of the volume, some runs at a time, behind the
// faults and whatever the target does to its memory meanwhile. While the target faults, what lies
// around its last fault comes first: it has to be fetched anyway, and programs, their code most of
// all, go on near by. Pages that are moved while it runs are found wherever they are; it goes round
// until nothing is left, or only what cannot be had.
//
// Or fetches only the pages of a replay, once, in its order, and does not look for those that have
// moved.
//
// Thread-safe.
class Drainer : public std::enable_shared_from_this<Drainer> {
 public:
  // Called once, when nothing is left but `left` pages that cannot be had; not where the fetcher is
  // stopped before.
  using Drained = std::function<void(uint64_t left, const DrainWindow& window)>;

  // `replay` is null where everything is to be fetched.
  Drainer(std::shared_ptr<PagedMemory> memory, std::shared_ptr<Fetcher> fetcher, Timers* timers,
          PageCount max_fetch, std::unique_ptr<const Replay> replay, Drained drained);

  // To be called before Run(), where others were fetched before these pages, with what is known of
  // the way from that. The target, which goes on to pages that are not there, counts as faulting.
  void Follow(const DrainWindow& first);

  // Starts. Fetches, and with some sources fills, on the calling thread.
  void Run();

 private:
  class Ticket;
  struct Stretch {
    PageRange pages;
    PageCount under_way;  // with those that were before it
    bool beside_faults;   // the target was faulting
  };

  // What may be under way now.
  struct Room {
    size_t runs = 0;
    PageCount pages;  // together, but for the first run
    PageCount longest_run;
    bool beside_faults = false;
    bool near_faults = false;  // what lies around the last one comes first
  };
  Room FindRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Room FindRoomOfReplay() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether a target is likely to be about to run with the first part of its replay: it needs the
  // processors more than anything that would come next.
  bool IsStarting() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The next run that is absent and mapped, of what is left of the pass, if there is room for it;
  // it is left no more. None at the end of the pass.
  std::optional<Stretch> NextRun() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // A pass begins.
  void BeginPass() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // What is absent around the last fault, once for each; none where that is little.
  std::optional<PageRange> NextAroundFault(PageCount run) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The first run of `wanted` that is absent and mapped, of `longest` pages at most. `*cursor` is
  // set to where to look next; without a run to the end of what was looked at.
  std::optional<PageRange> FindAbsent(PageRange wanted, PageCount longest, PageIndex* cursor) const;
  // How long ago the target waited for a page; zero while it may do so.
  SteadyClock::duration TimeSinceFault() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
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
  const std::unique_ptr<const Replay> replay_;
  const Drained drained_;
  Mutex mu_;
  PageRange left_ ABSL_GUARDED_BY(mu_);            // of the pass, or of the run of the replay
  bool refilling_ ABSL_GUARDED_BY(mu_) = true;     // of a replay, what is under way
  size_t next_replayed_ ABSL_GUARDED_BY(mu_) = 0;  // the run of the replay behind that
  // What is left to look at around which fault.
  uint64_t near_fault_ ABSL_GUARDED_BY(mu_) = 0;
  PageRange near_ ABSL_GUARDED_BY(mu_);
  DrainWindow window_ ABSL_GUARDED_BY(mu_);
  size_t under_way_ ABSL_GUARDED_BY(mu_) = 0;
  PageCount pages_under_way_ ABSL_GUARDED_BY(mu_);
  uint64_t faults_ ABSL_GUARDED_BY(mu_) = 0;  // when that was last looked at
  SteadyClock::time_point last_fault_ ABSL_GUARDED_BY(mu_);
  // Of a target whose first pages were fetched before: when that was. Of a replay: its begin.
  SteadyClock::time_point start_ ABSL_GUARDED_BY(mu_);
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
