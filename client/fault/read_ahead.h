// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_FAULT_READ_AHEAD_H_
#define FAULTLINE_CLIENT_FAULT_READ_AHEAD_H_

#include <array>
#include <memory>
#include <vector>

#include "client/fault/fetcher.h"
#include "client/fault/paged_memory.h"
#include "client/fault/staged_pages.h"
#include "client/prefetch/prefetcher.h"
#include "proto/mutex.h"

namespace faultline {

// Carries out the guesses of a Prefetcher for one attachment, and tells it what became of them.
// Fetches them behind the faults; what is to be mapped is filled as it arrives, what is to be
// staged is kept here until a fault asks for it.
//
// A fault for a page that is on its way is not fetched again: when its flight has ended, in
// whatever way, faults that still wait for one of its pages are served like any other. What is
// staged is the source's content: the source must not change while the attachment lives, but by an
// Evictor, which calls Forget().
//
// Serve() and FetchAhead() are for the one reader of the attachment; the rest is thread-safe.
class ReadAhead : public std::enable_shared_from_this<ReadAhead> {
 public:
  ReadAhead(std::shared_ptr<PagedMemory> memory, std::shared_ptr<Fetcher> fetcher,
            PageCount max_fetch, std::unique_ptr<Prefetcher> prefetcher);

  // A fault waits for `page`, which is absent and has its entry in the fault queue. True where it
  // is served, now or when the flight under way ends; false where it has to be fetched.
  bool Serve(PageIndex page);

  // `page` is about to become the source's again, with another content.
  void Forget(PageIndex page);

  // Those that are kept here, in no order.
  std::vector<PageIndex> Staged() const {
    MutexLock lock(mu_);
    return staged_.Pages();
  }

  // Lets the prefetcher learn of what was served since the last call, or was not, and fetches what
  // it guesses. Call it once the faults themselves are on their way.
  void FetchAhead();

 private:
  class Flight;

  struct Touch {
    PageIndex page;
    TouchKind kind;
  };

  void CarryOut(const std::vector<Guess>& guesses);
  // Fetches those pages that are absent, mapped, and not here or on their way; those before
  // `staged_end` are staged.
  void Fetch(PageRange pages, PageIndex staged_end);
  // The next such pages from the front of `*rest`, which it moves behind them.
  PageRange NextWanted(PageRange* rest);
  // The front of `pages` that is wanted, as far as flights and staged pages go; where it is empty,
  // `*skip` says how many are not.
  PageCount UnknownFront(PageRange pages, PageCount* skip) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Stage(PageRange pages, const std::byte* bytes);
  void OnFlightEnded(PageRange pages);
  // Serves the faults that wait for some of `pages`, which are staged or have to be fetched.
  void ServeWaiting(PageRange pages);
  bool FillStaged(PageIndex page, FaultClass fault, std::array<std::byte, kPageSize>* buffer);

  const std::shared_ptr<PagedMemory> memory_;
  const std::shared_ptr<Fetcher> fetcher_;
  const PageCount max_fetch_;

  // Of the reader.
  const std::unique_ptr<Prefetcher> prefetcher_;
  std::vector<Touch> touches_;
  std::vector<Guess> guesses_;
  std::vector<PageIndex> dropped_;
  std::array<std::byte, kPageSize> buffer_;

  mutable Mutex mu_;
  StagedPages staged_ ABSL_GUARDED_BY(mu_);
  std::vector<PageRange> flights_ ABSL_GUARDED_BY(mu_);  // in no order; few
  uint64_t pages_in_flight_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<PageIndex> wasted_ ABSL_GUARDED_BY(mu_);  // that the prefetcher does not know of yet
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_READ_AHEAD_H_
