// SPDX-License-Identifier: Apache-2.0
//
// PageWindow: the bound on the pages that all requests of a server hold in memory. A request takes
// its pages before it is worked on and gives them back when its answer has been sent; one that does
// not fit waits, and its stream is not read any further meanwhile, so a client is slowed down by
// the flow control of its connection and the server queues nothing.
#ifndef FAULTLINE_SERVER_PAGE_WINDOW_H_
#define FAULTLINE_SERVER_PAGE_WINDOW_H_

#include <cstdint>
#include <deque>

#include "proto/mutex.h"

namespace faultline {

// Demand requests go before bulk ones, and an eighth of the window is theirs alone, so that bulk
// work, however much there is of it, does not make a fault wait.
enum class RequestLane : uint8_t { kDemand, kBulk };

// A fetch of at most this many pages is a demand request. It is answered on the thread that read
// it: handing it to another would cost more than reading 16 pages from memory does.
inline constexpr uint64_t kMaxInlinePages = 16;

// Thread-safe.
class PageWindow {
 public:
  // Whoever waits for pages.
  class Waiter {
   public:
    virtual ~Waiter() = default;
    // The pages that were waited for are taken now. Called without a lock, on the thread that gave
    // them back; must not block.
    virtual void OnAdmitted() = 0;
  };

  // REQUIRES: limit >= 8.
  explicit PageWindow(uint64_t limit) : limit_(limit), bulk_limit_(limit - limit / 8) {}
  PageWindow(const PageWindow&) = delete;
  PageWindow& operator=(const PageWindow&) = delete;

  // What a single request may take at most.
  uint64_t bulk_limit() const { return bulk_limit_; }

  // True: `pages` pages are taken. False: `waiter` waits for them, first come first served within
  // its lane, until OnAdmitted() or Cancel(); it must stay alive until then.
  // REQUIRES: 0 < pages <= bulk_limit(), and `waiter` does not wait yet.
  [[nodiscard]] bool Take(uint64_t pages, RequestLane lane, Waiter* waiter);

  // True: `waiter` waits no longer, OnAdmitted() is not called. False: it did not wait, or
  // OnAdmitted() was or will be called.
  [[nodiscard]] bool Cancel(Waiter* waiter);

  void Give(uint64_t pages);

  uint64_t pages_in_flight() const;

 private:
  struct Waiting {
    uint64_t pages;
    Waiter* waiter;
  };

  // Takes the pages of the first waiter that fits, or returns null.
  Waiter* AdmitNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const uint64_t limit_;
  const uint64_t bulk_limit_;

  mutable Mutex mu_;
  uint64_t taken_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<Waiting> demand_ ABSL_GUARDED_BY(mu_);
  std::deque<Waiting> bulk_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_PAGE_WINDOW_H_
