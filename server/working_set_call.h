// SPDX-License-Identifier: Apache-2.0
//
// The calls about working sets, of both services; see pager.proto and admin.proto for the contract.
#ifndef FAULTLINE_SERVER_WORKING_SET_CALL_H_
#define FAULTLINE_SERVER_WORKING_SET_CALL_H_

#include <absl/status/status.h>

#include "proto/pager.pb.h"
#include "server/access_control.h"

namespace faultline {

// Thread-safe. Both read or write the store, so they are for the control workers.
absl::Status GetWorkingSet(const AccessControl& access, const Caller& caller,
                           const rpc::GetWorkingSetRequest& request,
                           rpc::GetWorkingSetResponse* response);
absl::Status MergeWorkingSet(const AccessControl& access, const Caller& caller,
                             const rpc::MergeWorkingSetRequest& request,
                             rpc::MergeWorkingSetResponse* response);

}  // namespace faultline

#endif  // FAULTLINE_SERVER_WORKING_SET_CALL_H_
