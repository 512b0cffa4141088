// SPDX-License-Identifier: Apache-2.0
#include "client/remote/rpc_status.h"

#include <absl/strings/str_cat.h>

#include <string>

namespace faultline {
namespace {

absl::Status Unreachable(absl::string_view address, absl::string_view reason) {
  return absl::UnavailableError(absl::StrCat(
      "cannot reach the page server at ", address, " (", reason,
      "); check that faultline-server runs and listens on that address, and with TLS that each "
      "end accepts the other's certificate"));
}

}  // namespace

absl::Status CallError(const grpc::Status& status, absl::string_view address) {
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      return Unreachable(address, status.error_message());
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return absl::DeadlineExceededError(
          absl::StrCat("page server ", address, " did not answer within the deadline"));
    case grpc::StatusCode::UNIMPLEMENTED:
      return absl::UnimplementedError(
          absl::StrCat(address,
                       " does not know this call; check that it is a faultline-server, and its "
                       "version"));
    default:
      return ResponseStatus(status.error_code(), status.error_message());
  }
}

absl::Status BrokenStreamError(const grpc::Status& status, absl::string_view address) {
  switch (status.error_code()) {
    case grpc::StatusCode::UNIMPLEMENTED:
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::PERMISSION_DENIED:
      return CallError(status, address);
    case grpc::StatusCode::OK:
      return absl::UnavailableError(
          absl::StrCat("page server ", address, " has ended the connection"));
    default:
      return Unreachable(address, status.error_message());
  }
}

absl::Status ResponseStatus(int code, absl::string_view message) {
  if (code < 0 || code > static_cast<int>(absl::StatusCode::kUnauthenticated)) {
    return absl::UnknownError(absl::StrCat("code ", code, " from the page server: ", message));
  }
  return absl::Status(static_cast<absl::StatusCode>(code), message);
}

absl::Status ShutDownError() {
  return absl::CancelledError("the connection to the page server was closed");
}

}  // namespace faultline
