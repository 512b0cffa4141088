// SPDX-License-Identifier: Apache-2.0
#include "server/page_window.h"

namespace faultline {

bool PageWindow::Take(uint64_t pages, RequestLane lane, Client* client, Waiter* waiter) {
  const bool is_demand = lane == RequestLane::kDemand;
  MutexLock lock(mu_);
  Queue& queue = is_demand ? demand_ : bulk_;
  // Nobody overtakes within a lane, and bulk work does not overtake demand; but who waits for their
  // own pages holds up nobody else.
  const bool others_first = demand_.Next(&MayBeServed) != nullptr ||
                            queue.Next(&MayBeServed) != nullptr || queue.size_of(client->id()) > 0;
  if (!others_first && client->MayTake(pages) &&
      taken_ + pages <= (is_demand ? limit_ : bulk_limit_)) {
    taken_ += pages;
    client->taken_ += pages;
    return true;
  }
  queue.Push(client->id(), pages, {pages, client, waiter});
  return false;
}

bool PageWindow::Cancel(Waiter* waiter) {
  MutexLock lock(mu_);
  const auto is_it = [waiter](const Waiting& waiting) { return waiting.waiter == waiter; };
  return demand_.Remove(is_it) || bulk_.Remove(is_it);
}

void PageWindow::Give(uint64_t pages, Client* client) {
  {
    MutexLock lock(mu_);
    taken_ -= pages;
    client->taken_ -= pages;
  }
  while (true) {
    Waiter* admitted;
    {
      MutexLock lock(mu_);
      admitted = AdmitNext();
    }
    if (admitted == nullptr) return;
    admitted->OnAdmitted();
  }
}

PageWindow::Waiter* PageWindow::AdmitNext() {
  const bool is_demand = demand_.Next(&MayBeServed) != nullptr;
  Queue& queue = is_demand ? demand_ : bulk_;
  const Waiting* const next = queue.Next(&MayBeServed);
  if (next == nullptr || taken_ + next->pages > (is_demand ? limit_ : bulk_limit_)) return nullptr;
  const Waiting admitted = queue.Pop(&MayBeServed);
  taken_ += admitted.pages;
  admitted.client->taken_ += admitted.pages;
  return admitted.waiter;
}

uint64_t PageWindow::pages_in_flight() const {
  MutexLock lock(mu_);
  return taken_;
}

}  // namespace faultline
