// SPDX-License-Identifier: Apache-2.0
//
// PageWindow: the bound on the pages that all requests of a server hold in memory. A request takes
// its pages before it is worked on and gives them back when its answer has been sent; one that does
// not fit waits, and its stream is not read any further meanwhile, so a client is slowed down by
// the flow control of its connection and the server queues nothing. Of clients that wait, each gets
// as many pages as the others, and none has more than its limit at a time.
#ifndef FAULTLINE_SERVER_PAGE_WINDOW_H_
#define FAULTLINE_SERVER_PAGE_WINDOW_H_

#include <cstdint>

#include "proto/mutex.h"
#include "server/fair_queue.h"

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

  // What a client has of the window. Used by one window only, and outlives what it has there.
  class Client {
   public:
    // A single request may be larger than `limit`, if it is the only one.
    Client(ClientId id, uint64_t limit) : id_(id), limit_(limit) {}
    ClientId id() const { return id_; }

   private:
    friend class PageWindow;
    bool MayTake(uint64_t pages) const {
      return taken_ == 0 || (taken_ <= limit_ && pages <= limit_ - taken_);
    }

    const ClientId id_;
    const uint64_t limit_;
    uint64_t taken_ = 0;  // guarded by the window's lock
  };

  // REQUIRES: limit >= 8.
  explicit PageWindow(uint64_t limit) : limit_(limit), bulk_limit_(limit - limit / 8) {}
  PageWindow(const PageWindow&) = delete;
  PageWindow& operator=(const PageWindow&) = delete;

  // What a single request may take at most.
  uint64_t bulk_limit() const { return bulk_limit_; }

  // True: `pages` pages are taken. False: `waiter` waits for them, within its lane in turn with
  // those of other clients and behind those of its own, until OnAdmitted() or Cancel(); it must
  // stay alive until then. REQUIRES: 0 < pages <= bulk_limit(), and `waiter` does not wait yet.
  [[nodiscard]] bool Take(uint64_t pages, RequestLane lane, Client* client, Waiter* waiter);

  // True: `waiter` waits no longer, OnAdmitted() is not called. False: it did not wait, or
  // OnAdmitted() was or will be called.
  [[nodiscard]] bool Cancel(Waiter* waiter);

  void Give(uint64_t pages, Client* client);

  uint64_t pages_in_flight() const;

 private:
  struct Waiting {
    uint64_t pages;
    Client* client;
    Waiter* waiter;
  };
  using Queue = FairQueue<Waiting>;

  // Whether its client has room for it.
  static bool MayBeServed(ClientId, const Waiting& waiting) {
    return waiting.client->MayTake(waiting.pages);
  }
  // Takes the pages of the next waiter, or returns null where there is no room for it.
  Waiter* AdmitNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const uint64_t limit_;
  const uint64_t bulk_limit_;

  mutable Mutex mu_;
  uint64_t taken_ ABSL_GUARDED_BY(mu_) = 0;
  Queue demand_ ABSL_GUARDED_BY(mu_);
  Queue bulk_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_PAGE_WINDOW_H_
