// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVICT_RANGE_FETCHER_H_
#define FAULTLINE_CLIENT_EVICT_RANGE_FETCHER_H_

#include <atomic>
#include <deque>
#include <memory>

#include "client/evict/far_command.h"
#include "client/fault/fetcher.h"
#include "client/fault/paged_memory.h"

namespace faultline {

// Brings ranges of far memory here whose program has asked for it: kWillNeed and kPin. Fetches
// behind all faults, and no faster than pages leave that have to make room.
//
// Of the Evictor's thread.
class RangeFetcher {
 public:
  RangeFetcher(std::shared_ptr<PagedMemory> memory, std::shared_ptr<Fetcher> fetcher);
  // Ends what is left with an error.
  ~RangeFetcher();

  // kWillNeed is answered at once, and is forgotten at its deadline.
  void Add(FarCommand command, FarDone done);
  // Gets on with the oldest, and returns whether it got anywhere. LocalMemory is woken when it can
  // again.
  bool Step();
  bool idle() const { return work_.empty(); }

 private:
  struct Work {
    FarCommand command;
    FarDone done;
    PageIndex cursor;
    PageCount room;      // of kWillNeed: so many pages are fetched at most
    bool found = false;  // in this pass
  };
  class Ticket;

  // Fetches the next pages that are not here. False at the end of the range.
  bool FetchNext(Work& work);
  void EndPass();

  const std::shared_ptr<PagedMemory> memory_;
  const std::shared_ptr<Fetcher> fetcher_;
  const std::shared_ptr<std::atomic<int>> under_way_ = std::make_shared<std::atomic<int>>(0);
  std::deque<Work> work_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_RANGE_FETCHER_H_
