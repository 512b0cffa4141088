// SPDX-License-Identifier: Apache-2.0
//
// AdminService: the control plane, volumes and the server itself; see admin.proto for the contract.
// Every call works on the control workers, because nearly all of them wait for the disk.
#ifndef FAULTLINE_SERVER_ADMIN_SERVICE_H_
#define FAULTLINE_SERVER_ADMIN_SERVICE_H_

#include <absl/time/time.h>

#include <string>

#include "proto/admin.grpc.pb.h"
#include "server/access_control.h"
#include "server/call_loop.h"
#include "server/call_set.h"
#include "server/counters.h"
#include "server/page_window.h"
#include "server/unary_method.h"
#include "server/worker_pool.h"
#include "storage/volume_catalog.h"

namespace faultline {

// Thread-safe. Everything is borrowed and must outlive the service and its calls.
class AdminService final : public rpc::AdminService::AsyncService {
 public:
  struct Environment {
    const AccessControl* access;
    const ServerCounters* counters;
    const PageWindow* window;
    WorkerPool* workers;
    CallSet* calls;
    std::string store;  // as given by --store
    absl::Time started;
  };

  explicit AdminService(Environment environment) : environment_(std::move(environment)) {}

  // Begins to take calls, on `loop`, which is borrowed. REQUIRES: the server that the service is
  // registered with has started. Call once.
  void Serve(CallLoop* loop);

 private:
  void ServeChanges(const UnaryEnvironment& unary);
  void ServeQueries(const UnaryEnvironment& unary);

  absl::Status Create(const Caller& caller, const rpc::CreateVolumeRequest& request,
                      rpc::Volume* response) const;
  absl::Status Snapshot(const Caller& caller, const rpc::SnapshotVolumeRequest& request,
                        rpc::Volume* response) const;
  absl::Status Clone(const Caller& caller, const rpc::CloneVolumeRequest& request,
                     rpc::Volume* response) const;
  absl::Status Trim(const Caller& caller, const rpc::TrimVolumeRequest& request,
                    rpc::Volume* response) const;
  absl::Status Delete(const Caller& caller, const rpc::DeleteVolumeRequest& request) const;
  absl::Status ClearWorkingSet(const Caller& caller,
                               const rpc::ClearWorkingSetRequest& request) const;
  absl::Status SetRole(const Caller& caller, const rpc::SetVolumeRoleRequest& request,
                       rpc::Volume* response) const;
  absl::Status List(const Caller& caller, rpc::ListVolumesResponse* response) const;
  absl::Status Stat(const Caller& caller, const rpc::StatVolumeRequest& request,
                    rpc::Volume* response) const;
  void FillStatus(rpc::ServerStatus* response) const;

  const Environment environment_;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_ADMIN_SERVICE_H_
