// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_SERVER_IMPORT_CALL_H_
#define FAULTLINE_SERVER_IMPORT_CALL_H_

#include "proto/admin.grpc.pb.h"
#include "server/access_control.h"
#include "server/call_loop.h"
#include "server/call_set.h"
#include "server/worker_pool.h"

namespace faultline {

// What ImportVolume and ExportVolume work with. All borrowed; they outlive the calls.
struct TransferEnvironment {
  CallLoop* loop;
  const AccessControl* access;
  WorkerPool* workers;
  CallSet* calls;
};

// Takes calls of ImportVolume. One message after the other is read and then taken in by a worker,
// so a call holds one message in memory. `service` is borrowed and must outlive the calls.
void ServeImports(rpc::AdminService::AsyncService* service, const TransferEnvironment& environment);

}  // namespace faultline

#endif  // FAULTLINE_SERVER_IMPORT_CALL_H_
