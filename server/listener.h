// SPDX-License-Identifier: Apache-2.0
//
// The addresses that a server listens on: "host:port" or "unix:path".
#ifndef FAULTLINE_SERVER_LISTENER_H_
#define FAULTLINE_SERVER_LISTENER_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include <string>

namespace faultline {

// INVALID_ARGUMENT, saying what is allowed, unless `address` has one of the two forms.
absl::Status CheckListenAddress(absl::string_view address);

// INVALID_ARGUMENT, saying what to do, where other hosts can connect to `address`: it is host:port,
// and the host no loopback address.
absl::Status CheckOnlyThisHost(absl::string_view address);

bool IsUnixAddress(absl::string_view address);

// Makes way for listening at `address`: removes the socket file that a dead server left there.
// gRPC would remove a live one too. ALREADY_EXISTS where a server answers there, or where the file
// is no socket. Nothing is done for host:port.
absl::Status PrepareListenAddress(absl::string_view address);

// Why `address` could not be listened on, found out by trying it once more: names the address, the
// reason and what to do. Never OK.
absl::Status ExplainListenFailure(absl::string_view address);

// `address` with the port that was bound in place of its own.
std::string WithPort(absl::string_view address, int port);

}  // namespace faultline

#endif  // FAULTLINE_SERVER_LISTENER_H_
