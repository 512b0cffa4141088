// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_FAULT_FAULT_QUEUE_H_
#define FAULTLINE_CLIENT_FAULT_FAULT_QUEUE_H_

#include <absl/container/inlined_vector.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "client/timers.h"
#include "proto/mutex.h"
#include "proto/page.h"

namespace faultline {

// The pages that some thread of the target waits for: one entry for each, however many threads
// wait. Bounded by the threads of the target, each of which waits for one page.
//
// An entry is taken out *before* the ioctl that fills its page. A fault that is read after that
// makes a new entry and is fetched again, which is wasted at worst (EEXIST). Were it taken out
// afterwards, a fault for a page that was filled, discarded and touched again in between would join
// an entry that nobody looks at any more, and its thread would wait for ever.
//
// Thread-safe.
class FaultQueue {
 public:
  // Notes a fault for `page`; true if it is the first, so that someone has to fetch it.
  bool Join(PageIndex page, SteadyClock::time_point now) {
    MutexLock lock(mu_);
    const auto at = LowerBound(page);
    if (at != waiting_.end() && at->page == page) return false;
    waiting_.insert(at, {page, now});
    size_.store(waiting_.size(), std::memory_order_relaxed);
    return true;
  }

  // Notes that the fault for `page`, if one waits, has to wait for room first.
  void Defer(PageIndex page) {
    MutexLock lock(mu_);
    const auto at = LowerBound(page);
    if (at == waiting_.end() || at->page != page) return;
    waiting_[static_cast<size_t>(at - waiting_.begin())].deferred = true;
  }

  // An entry that was taken out: the page, and since when a thread waits for it.
  struct Waiting {
    PageIndex page;
    SteadyClock::time_point since;
    bool deferred = false;
  };
  using Taken = absl::InlinedVector<Waiting, 4>;

  // Takes out the entries of `pages`, ascending.
  Taken Take(PageRange pages) {
    Taken taken;
    if (size() == 0) return taken;
    MutexLock lock(mu_);
    const auto first = LowerBound(pages.first);
    const auto end = LowerBound(pages.end());
    taken.assign(first, end);
    waiting_.erase(first, end);
    size_.store(waiting_.size(), std::memory_order_relaxed);
    return taken;
  }

  // The first page of `pages` that has an entry.
  std::optional<PageIndex> First(PageRange pages) const {
    if (size() == 0) return std::nullopt;
    MutexLock lock(mu_);
    const auto first = LowerBound(pages.first);
    if (first == waiting_.end() || first->page >= pages.end()) return std::nullopt;
    return first->page;
  }

  // Since when a thread waits for `page`, if one does.
  std::optional<SteadyClock::time_point> Since(PageIndex page) const {
    MutexLock lock(mu_);
    const auto at = LowerBound(page);
    if (at == waiting_.end() || at->page != page) return std::nullopt;
    return at->since;
  }

  // Since when the thread waits that waits the longest, if any does.
  std::optional<SteadyClock::time_point> Oldest() const {
    MutexLock lock(mu_);
    const auto oldest = std::min_element(
        waiting_.begin(), waiting_.end(),
        [](const Waiting& one, const Waiting& other) { return one.since < other.since; });
    if (oldest == waiting_.end()) return std::nullopt;
    return oldest->since;
  }

  std::vector<PageIndex> Pages() const {
    std::vector<PageIndex> pages;
    MutexLock lock(mu_);
    for (const Waiting& one : waiting_) pages.push_back(one.page);
    return pages;
  }

  // Puts back those of `taken` that are at or behind `first`, because they have to be tried again.
  void PutBack(const Taken& taken, PageIndex first) {
    for (const Waiting& waiting : taken) {
      if (waiting.page < first || !Join(waiting.page, waiting.since)) continue;
      if (waiting.deferred) Defer(waiting.page);
    }
  }

  size_t size() const { return size_.load(std::memory_order_relaxed); }

 private:
  std::vector<Waiting>::const_iterator LowerBound(PageIndex page) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return std::lower_bound(waiting_.begin(), waiting_.end(), page,
                            [](const Waiting& waiting, PageIndex p) { return waiting.page < p; });
  }

  mutable Mutex mu_;
  // Ascending. Not a map: its memory is used again, so that a fault costs no allocation.
  std::vector<Waiting> waiting_ ABSL_GUARDED_BY(mu_);
  std::atomic<size_t> size_ = 0;  // of waiting_, to be read without the lock
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_FAULT_QUEUE_H_
