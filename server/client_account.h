// SPDX-License-Identifier: Apache-2.0
//
// ClientAccount: what one client uses of a server at the moment, and what it may. Clients are told
// apart by their names and, where they have none, by the hosts that they call from.
#ifndef FAULTLINE_SERVER_CLIENT_ACCOUNT_H_
#define FAULTLINE_SERVER_CLIENT_ACCOUNT_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>

#include "proto/mutex.h"
#include "server/page_window.h"

namespace faultline {

inline constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

struct ClientLimits {
  // Streams of pages that it may have open, over all of its connections.
  uint64_t max_streams = 1024;
  // Pages that its requests may hold in memory; what is beyond waits. What is under way for one
  // that floods the server is what a fault of another one finds in front of it.
  uint64_t max_pages_in_flight = 2048;
  // The size of a volume that it makes, and what all that it owns may take in the store. Not of
  // administrators.
  uint64_t max_volume_bytes = kUnlimited;
  uint64_t quota_bytes = kUnlimited;
};

// Thread-safe.
class ClientAccount {
 public:
  ClientAccount(ClientId id, std::string name, const ClientLimits& limits)
      : name_(std::move(name)),
        max_streams_(limits.max_streams),
        pages_(id, limits.max_pages_in_flight) {}

  ClientId id() const { return pages_.id(); }
  // Of the pages in the window.
  PageWindow::Client* pages() { return &pages_; }

  // RESOURCE_EXHAUSTED where it has as many as it may. After OK, CloseStream() has to follow.
  absl::Status OpenStream();
  void CloseStream();

 private:
  const std::string name_;  // for messages
  const uint64_t max_streams_;
  PageWindow::Client pages_;
  Mutex mu_;
  uint64_t streams_ ABSL_GUARDED_BY(mu_) = 0;
};

// Thread-safe.
class ClientAccounts {
 public:
  explicit ClientAccounts(const ClientLimits& limits) : limits_(limits) {}

  // Of the client that has this name or, where that is empty, calls from `peer`, an address as gRPC
  // writes it. One and the same for as long as anybody holds it.
  std::shared_ptr<ClientAccount> Of(absl::string_view identity, absl::string_view peer);

 private:
  const ClientLimits limits_;
  Mutex mu_;
  std::map<std::string, std::weak_ptr<ClientAccount>, std::less<>> accounts_ ABSL_GUARDED_BY(mu_);
  ClientId next_ ABSL_GUARDED_BY(mu_) = 1;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_CLIENT_ACCOUNT_H_
