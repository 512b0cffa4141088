// SPDX-License-Identifier: Apache-2.0
//
// What --server may say, and the names in it looked up.
#ifndef FAULTLINE_CLIENT_REMOTE_SERVER_LIST_H_
#define FAULTLINE_CLIENT_REMOTE_SERVER_LIST_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstddef>
#include <string>
#include <vector>

#include "client/remote/server_tls.h"

namespace faultline {

// Servers that are used at the same time. More would only be more connections.
inline constexpr size_t kMaxServers = 8;

// One entry of --server.
struct ServerEntry {
  std::string address;   // host:port or unix:path
  bool is_name = false;  // dns:///host:port: each address of the name is a server
};

// "ENTRY[,ENTRY...]", where an entry is host:port, unix:path or dns:///host:port. INVALID_ARGUMENT,
// saying what is allowed, for anything else, for the same entry twice, and for more than
// kMaxServers of them; also where `tls` is neither nothing nor files that can be used.
absl::StatusOr<std::vector<ServerEntry>> ParseServers(absl::string_view servers,
                                                      const ServerTls& tls);

// A server that is connected to.
struct ServerAddress {
  std::string address;      // with a number in place of a name
  std::string server_name;  // what its certificate must be of; empty: the address's host

  friend bool operator==(const ServerAddress&, const ServerAddress&) = default;
};

// Whether nothing has to be looked up for `entry`.
bool IsNumeric(const ServerEntry& entry);

// The servers that `entry` stands for now: of a host:port one, of a dns:/// name all those of one
// address family, the one that the system prefers. Blocks while the name is looked up. UNAVAILABLE
// where that fails, with the reason.
absl::StatusOr<std::vector<ServerAddress>> LookUpServers(const ServerEntry& entry);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_SERVER_LIST_H_
