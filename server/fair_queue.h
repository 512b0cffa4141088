// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_SERVER_FAIR_QUEUE_H_
#define FAULTLINE_SERVER_FAIR_QUEUE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <utility>

namespace faultline {

// Tells clients apart; see client_accounts.h.
using ClientId = uint64_t;

// What waits for several clients, so that each of them gets the same share, however much another
// one has waiting: whoever has been served least is next (start-time fair queueing), and within a
// client it is first come, first served. Who begins to wait neither has to make up for others nor
// is owed anything for the time before.
//
// Looks at each client that waits, which are few. Not thread-safe.
template <typename Item>
class FairQueue {
 public:
  // `cost` is in units of the owner's choice.
  void Push(ClientId client, uint64_t cost, Item item) {
    Client& entry = EntryOf(client);
    entry.waiting.push_back({cost, std::move(item)});
    ++size_;
  }

  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  size_t size_of(ClientId client) const {
    for (const Client& entry : clients_) {
      if (entry.id == client) return entry.waiting.size();
    }
    return 0;
  }

  // The item that is next, of those whose client `may_be_served` is true for; null: none.
  template <typename MayBeServed>
  Item* Next(const MayBeServed& may_be_served) {
    Client* const next = NextClient(may_be_served);
    return next == nullptr ? nullptr : &next->waiting.front().item;
  }
  Item* Next() {
    return Next([](ClientId, const Item&) { return true; });
  }

  // Takes it. REQUIRES: there is one.
  template <typename MayBeServed>
  Item Pop(const MayBeServed& may_be_served) {
    Client* const next = NextClient(may_be_served);
    Waiting taken = std::move(next->waiting.front());
    next->waiting.pop_front();
    --size_;
    now_ = std::max(now_, next->served);
    next->served += taken.cost;
    // Who waits no more is remembered until it would be served again: else it would be forgiven by
    // having a single item at a time.
    // Where nobody waits, nobody is owed anything.
    std::erase_if(clients_, [this](const Client& client) {
      return client.waiting.empty() && (size_ == 0 || client.served <= now_);
    });
    return std::move(taken.item);
  }
  Item Pop() {
    return Pop([](ClientId, const Item&) { return true; });
  }

  // Takes the first item that `is_it` is true for away; false: there is none.
  template <typename IsIt>
  bool Remove(const IsIt& is_it) {
    for (Client& client : clients_) {
      const auto found = std::find_if(client.waiting.begin(), client.waiting.end(),
                                      [&](const Waiting& waiting) { return is_it(waiting.item); });
      if (found == client.waiting.end()) continue;
      client.waiting.erase(found);
      --size_;
      return true;
    }
    return false;
  }

 private:
  struct Waiting {
    uint64_t cost;
    Item item;
  };
  struct Client {
    ClientId id;
    uint64_t served;  // what it has had, and what it has missed before it began to wait
    std::deque<Waiting> waiting;
  };

  Client& EntryOf(ClientId id) {
    for (Client& client : clients_) {
      if (client.id != id) continue;
      if (client.waiting.empty()) client.served = std::max(client.served, now_);
      return client;
    }
    return clients_.emplace_back(Client{id, now_, {}});
  }

  template <typename MayBeServed>
  Client* NextClient(const MayBeServed& may_be_served) {
    Client* next = nullptr;
    for (Client& client : clients_) {
      if (client.waiting.empty() || !may_be_served(client.id, client.waiting.front().item)) {
        continue;
      }
      if (next == nullptr || client.served < next->served) next = &client;
    }
    return next;
  }

  std::list<Client> clients_;  // with items, or served beyond now_
  uint64_t now_ = 0;           // the most that any client had been served when it was next
  size_t size_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_FAIR_QUEUE_H_
