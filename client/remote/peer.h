// SPDX-License-Identifier: Apache-2.0
//
// Peer: one of several page servers, and what is known of how it does.
#ifndef FAULTLINE_CLIENT_REMOTE_PEER_H_
#define FAULTLINE_CLIENT_REMOTE_PEER_H_

#include <xxhash.h>

#include <atomic>
#include <chrono>
#include <cstdint>

#include "client/remote/quantile_estimate.h"
#include "client/remote/server_connection.h"
#include "client/remote/server_list.h"

namespace faultline {

// A demand fetch that takes longer than 95 % do is sent to a second server. Not sooner than a
// healthy server may take when it is busy, nor so late that nobody gains.
inline constexpr double kHedgeQuantile = 0.95;
inline constexpr std::chrono::milliseconds kLeastHedgeDelay{1};
inline constexpr std::chrono::milliseconds kMostHedgeDelay{100};

// Thread-safe. Lives as long as the PageServer that it is of.
class Peer {
 public:
  using Clock = std::chrono::steady_clock;

  Peer(const ServerAddress& address, const ServerTls& tls, const PageServerOptions& options,
       CompletionThreads* threads)
      : server(address),
        hash(XXH3_64bits(address.address.data(), address.address.size())),
        connection(address.address, WithName(tls, address.server_name),
                   ServerConnection::Use::kOneOfSeveral, options, threads) {}

  // Whether what is new should go there.
  bool usable() const { return listed && ready && !silent; }

  // It has answered something.
  void Heard(Clock::time_point now) {
    heard = now;
    silent = false;
  }

  const ServerAddress server;
  const uint64_t hash;
  ServerConnection connection;

  std::atomic<bool> listed = true;   // --server names it, or a name there has its address
  std::atomic<bool> ready = false;   // there is a connection, and it says that it serves
  std::atomic<bool> silent = false;  // it was asked, and answers nothing
  std::atomic<Clock::time_point> heard{Clock::time_point()};

  QuantileEstimate latency{kHedgeQuantile, kLeastHedgeDelay, kMostHedgeDelay};  // of demand fetches
  std::atomic<uint64_t> hedges = 0, hedges_won = 0, failovers = 0;

 private:
  static ServerTls WithName(ServerTls tls, const std::string& name) {
    if (tls.server_name.empty() && tls.files.any()) tls.server_name = name;
    return tls;
  }
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_PEER_H_
