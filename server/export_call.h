// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_SERVER_EXPORT_CALL_H_
#define FAULTLINE_SERVER_EXPORT_CALL_H_

#include "server/import_call.h"

namespace faultline {

// Takes calls of ExportVolume. A worker reads the next batch when the one before it has been sent,
// so a call holds one batch in memory. `service` is borrowed and must outlive the calls.
void ServeExports(rpc::AdminService::AsyncService* service, const TransferEnvironment& environment);

}  // namespace faultline

#endif  // FAULTLINE_SERVER_EXPORT_CALL_H_
