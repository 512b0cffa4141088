// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_SERVER_UNARY_CALL_H_
#define FAULTLINE_SERVER_UNARY_CALL_H_

#include <absl/functional/any_invocable.h>
#include <absl/status/status.h>
#include <grpcpp/support/server_callback.h>

#include "server/call_set.h"
#include "server/worker_pool.h"

namespace faultline {

// What a call gets that comes too late.
absl::Status DrainingError();
// What a call gets when max_queued others wait already.
absl::Status TooManyCallsError();

// Answers a unary call with the status of `work`, which runs on `workers` and so may block. Both
// are borrowed; while the call is under way it is in `calls`. `work` may use the call's request and
// response.
grpc::ServerUnaryReactor* RunUnary(WorkerPool* workers, CallSet* calls,
                                   absl::AnyInvocable<absl::Status()> work);

}  // namespace faultline

#endif  // FAULTLINE_SERVER_UNARY_CALL_H_
