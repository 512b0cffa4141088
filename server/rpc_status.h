// SPDX-License-Identifier: Apache-2.0
//
// absl::Status to grpc::Status: their codes are the same numbers.
#ifndef FAULTLINE_SERVER_RPC_STATUS_H_
#define FAULTLINE_SERVER_RPC_STATUS_H_

#include <absl/status/status.h>
#include <grpcpp/support/status.h>

#include <string>

namespace faultline {

inline grpc::Status ToRpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

}  // namespace faultline

#endif  // FAULTLINE_SERVER_RPC_STATUS_H_
