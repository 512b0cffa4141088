// SPDX-License-Identifier: Apache-2.0
//
// What gRPC's errors mean to the client. The only place that knows.
#ifndef FAULTLINE_CLIENT_REMOTE_RPC_STATUS_H_
#define FAULTLINE_CLIENT_REMOTE_RPC_STATUS_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>
#include <grpcpp/support/status.h>

namespace faultline {

// The end of a call to the server at `address`. The server's own words stay as they are; where
// nobody answers, the message names the address and says what to check.
absl::Status CallError(const grpc::Status& status, absl::string_view address);

// Why a stream to the server at `address` broke. UNAVAILABLE, unless trying again cannot help.
absl::Status BrokenStreamError(const grpc::Status& status, absl::string_view address);

// The `code` and `message` of a response, as they are.
absl::Status ResponseStatus(int code, absl::string_view message);

// Of what is under way when the client itself closes the connection.
absl::Status ShutDownError();

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_RPC_STATUS_H_
