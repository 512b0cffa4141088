// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_SERVER_IMPORT_CALL_H_
#define FAULTLINE_SERVER_IMPORT_CALL_H_

#include <grpcpp/support/server_callback.h>

#include "proto/admin.pb.h"
#include "server/call_set.h"
#include "server/worker_pool.h"
#include "storage/volume_catalog.h"

namespace faultline {

// What ImportVolume and ExportVolume work with. All borrowed; they outlive the calls.
struct TransferEnvironment {
  VolumeCatalog* catalog;
  WorkerPool* workers;
  CallSet* calls;
};

// Serves one ImportVolume: one message after the other is read and then taken in by a worker, so
// the call holds one message in memory. `*response` must outlive the call.
grpc::ServerReadReactor<rpc::ImportVolumeRequest>* StartImportCall(
    const TransferEnvironment& environment, rpc::Volume* response);

}  // namespace faultline

#endif  // FAULTLINE_SERVER_IMPORT_CALL_H_
