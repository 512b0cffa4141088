// SPDX-License-Identifier: Apache-2.0
#include "server/unary_call.h"

namespace faultline {

absl::Status DrainingError() {
  return absl::UnavailableError("the server is shutting down; connect again");
}

absl::Status TooManyCallsError() {
  return absl::ResourceExhaustedError("too many calls wait in the server; try again");
}

}  // namespace faultline
