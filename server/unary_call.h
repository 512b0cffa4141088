// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_SERVER_UNARY_CALL_H_
#define FAULTLINE_SERVER_UNARY_CALL_H_

#include <absl/status/status.h>

namespace faultline {

// What a call gets that comes too late.
absl::Status DrainingError();
// What a call gets when max_queued others wait already.
absl::Status TooManyCallsError();

}  // namespace faultline

#endif  // FAULTLINE_SERVER_UNARY_CALL_H_
