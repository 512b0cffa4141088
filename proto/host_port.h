// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_PROTO_HOST_PORT_H_
#define FAULTLINE_PROTO_HOST_PORT_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <memory>
#include <optional>
#include <string>

struct addrinfo;
struct sockaddr;

namespace faultline {

// "host:port" or "[host]:port" taken apart.
struct HostPort {
  std::string host;  // without brackets
  std::string port;  // a number from 0 to 65535
};

// None where `address` is of neither form. The host is not looked up.
std::optional<HostPort> SplitHostPort(absl::string_view address);

struct FreeAddresses {
  void operator()(addrinfo* first) const;
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

// What may be listened at for `where`, at least one. INVALID_ARGUMENT, naming the host, where it
// has no address.
absl::StatusOr<Addresses> AddressesOf(const HostPort& where);

// Whether only this host reaches `address`, which is of IPv4 or IPv6.
bool IsLoopback(const sockaddr* address);

}  // namespace faultline

#endif  // FAULTLINE_PROTO_HOST_PORT_H_
