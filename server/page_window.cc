// SPDX-License-Identifier: Apache-2.0
#include "server/page_window.h"

#include <algorithm>

namespace faultline {

bool PageWindow::Take(uint64_t pages, RequestLane lane, Waiter* waiter) {
  const bool is_demand = lane == RequestLane::kDemand;
  MutexLock lock(mu_);
  std::deque<Waiting>& queue = is_demand ? demand_ : bulk_;
  // Nobody overtakes within a lane, and bulk work does not overtake demand.
  const bool others_first = !demand_.empty() || !queue.empty();
  if (!others_first && taken_ + pages <= (is_demand ? limit_ : bulk_limit_)) {
    taken_ += pages;
    return true;
  }
  queue.push_back({pages, waiter});
  return false;
}

bool PageWindow::Cancel(Waiter* waiter) {
  MutexLock lock(mu_);
  for (std::deque<Waiting>* queue : {&demand_, &bulk_}) {
    const auto found = std::find_if(queue->begin(), queue->end(), [waiter](const Waiting& waiting) {
      return waiting.waiter == waiter;
    });
    if (found != queue->end()) {
      queue->erase(found);
      return true;
    }
  }
  return false;
}

void PageWindow::Give(uint64_t pages) {
  {
    MutexLock lock(mu_);
    taken_ -= pages;
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
  std::deque<Waiting>& queue = demand_.empty() ? bulk_ : demand_;
  if (queue.empty()) return nullptr;
  const Waiting first = queue.front();
  if (taken_ + first.pages > (demand_.empty() ? bulk_limit_ : limit_)) return nullptr;
  taken_ += first.pages;
  queue.pop_front();
  return first.waiter;
}

uint64_t PageWindow::pages_in_flight() const {
  MutexLock lock(mu_);
  return taken_;
}

}  // namespace faultline
