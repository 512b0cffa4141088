// SPDX-License-Identifier: Apache-2.0
//
// The calls about working sets, of both services; see pager.proto and admin.proto for the contract.
#ifndef FAULTLINE_SERVER_WORKING_SET_CALL_H_
#define FAULTLINE_SERVER_WORKING_SET_CALL_H_

#include <absl/status/status.h>

#include "proto/pager.pb.h"
#include "storage/volume_catalog.h"

namespace faultline {

// Thread-safe. Both read or write the store, so they are for the control workers.
absl::Status GetWorkingSet(const VolumeCatalog& catalog, const rpc::GetWorkingSetRequest& request,
                           rpc::GetWorkingSetResponse* response);
absl::Status MergeWorkingSet(VolumeCatalog& catalog, const rpc::MergeWorkingSetRequest& request,
                             rpc::MergeWorkingSetResponse* response);

}  // namespace faultline

#endif  // FAULTLINE_SERVER_WORKING_SET_CALL_H_
