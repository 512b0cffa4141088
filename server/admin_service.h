// SPDX-License-Identifier: Apache-2.0
//
// AdminService: the control plane, volumes and the server itself; see admin.proto for the contract.
// Every call works on the control workers, because nearly all of them wait for the disk.
#ifndef FAULTLINE_SERVER_ADMIN_SERVICE_H_
#define FAULTLINE_SERVER_ADMIN_SERVICE_H_

#include <absl/time/time.h>

#include <string>

#include "proto/admin.grpc.pb.h"
#include "server/call_set.h"
#include "server/counters.h"
#include "server/page_window.h"
#include "server/worker_pool.h"
#include "storage/volume_catalog.h"

namespace faultline {

// Thread-safe. Everything is borrowed and must outlive the service and its calls.
class AdminService final : public rpc::AdminService::CallbackService {
 public:
  struct Environment {
    VolumeCatalog* catalog;
    const ServerCounters* counters;
    const PageWindow* window;
    WorkerPool* workers;
    CallSet* calls;
    std::string store;  // as given by --store
    absl::Time started;
  };

  explicit AdminService(Environment environment) : environment_(std::move(environment)) {}

  grpc::ServerUnaryReactor* CreateVolume(grpc::CallbackServerContext* context,
                                         const rpc::CreateVolumeRequest* request,
                                         rpc::Volume* response) override;
  grpc::ServerUnaryReactor* ListVolumes(grpc::CallbackServerContext* context,
                                        const rpc::ListVolumesRequest* request,
                                        rpc::ListVolumesResponse* response) override;
  grpc::ServerUnaryReactor* StatVolume(grpc::CallbackServerContext* context,
                                       const rpc::StatVolumeRequest* request,
                                       rpc::Volume* response) override;
  grpc::ServerReadReactor<rpc::ImportVolumeRequest>* ImportVolume(
      grpc::CallbackServerContext* context, rpc::Volume* response) override;
  grpc::ServerWriteReactor<rpc::ExportVolumeResponse>* ExportVolume(
      grpc::CallbackServerContext* context, const rpc::ExportVolumeRequest* request) override;
  grpc::ServerUnaryReactor* SnapshotVolume(grpc::CallbackServerContext* context,
                                           const rpc::SnapshotVolumeRequest* request,
                                           rpc::Volume* response) override;
  grpc::ServerUnaryReactor* CloneVolume(grpc::CallbackServerContext* context,
                                        const rpc::CloneVolumeRequest* request,
                                        rpc::Volume* response) override;
  grpc::ServerUnaryReactor* TrimVolume(grpc::CallbackServerContext* context,
                                       const rpc::TrimVolumeRequest* request,
                                       rpc::Volume* response) override;
  grpc::ServerUnaryReactor* DeleteVolume(grpc::CallbackServerContext* context,
                                         const rpc::DeleteVolumeRequest* request,
                                         rpc::DeleteVolumeResponse* response) override;
  grpc::ServerUnaryReactor* ClearWorkingSet(grpc::CallbackServerContext* context,
                                            const rpc::ClearWorkingSetRequest* request,
                                            rpc::ClearWorkingSetResponse* response) override;
  grpc::ServerUnaryReactor* GetServerStatus(grpc::CallbackServerContext* context,
                                            const rpc::GetServerStatusRequest* request,
                                            rpc::ServerStatus* response) override;

 private:
  absl::Status Trim(const rpc::TrimVolumeRequest& request, rpc::Volume* response) const;
  void FillStatus(rpc::ServerStatus* response) const;

  const Environment environment_;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_ADMIN_SERVICE_H_
