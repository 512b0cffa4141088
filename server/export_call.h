// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_SERVER_EXPORT_CALL_H_
#define FAULTLINE_SERVER_EXPORT_CALL_H_

#include <grpcpp/support/server_callback.h>

#include <string>

#include "server/import_call.h"

namespace faultline {

// Serves one ExportVolume: a worker reads the next batch when the one before it has been sent, so
// the call holds one batch in memory.
grpc::ServerWriteReactor<rpc::ExportVolumeResponse>* StartExportCall(
    const TransferEnvironment& environment, std::string name);

}  // namespace faultline

#endif  // FAULTLINE_SERVER_EXPORT_CALL_H_
