// SPDX-License-Identifier: Apache-2.0
//
// AdminClient: the control plane of a page server, for the command line. Blocking calls.
#ifndef FAULTLINE_CLIENT_REMOTE_ADMIN_CLIENT_H_
#define FAULTLINE_CLIENT_REMOTE_ADMIN_CLIENT_H_

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/remote/server_tls.h"
#include "proto/admin.pb.h"
#include "proto/working_set.h"

namespace faultline {

struct AdminClientOptions {
  // As PageServerOptions has it; of several, each call goes to the first that can be reached, and
  // to no other after it failed.
  std::string address;
  ServerTls tls = {};
  absl::Duration call_timeout = absl::Seconds(30);
  // A transfer ends when it has not moved for this long: an import's end waits for a disk.
  absl::Duration stall_timeout = absl::Minutes(5);
};

// Thread-safe. Errors carry the server's own message; UNAVAILABLE where nobody answers, naming the
// address and what to check. A server that knows its clients says PERMISSION_DENIED, and not
// NOT_FOUND, of a volume that is not there or not for this client.
class AdminClient {
 public:
  // Puts the next pages into `*batch`, which is empty; false: there are no more.
  using NextBatch = absl::FunctionRef<absl::StatusOr<bool>(rpc::PageBatch* batch)>;
  // `size_bytes` is that of the whole volume.
  using OnBatch = absl::FunctionRef<absl::Status(uint64_t size_bytes, const rpc::PageBatch& batch)>;

  // Does not connect yet. INVALID_ARGUMENT for an address of no form.
  static absl::StatusOr<std::unique_ptr<AdminClient>> Create(const AdminClientOptions& options);

  virtual ~AdminClient() = default;

  virtual absl::StatusOr<rpc::Volume> CreateVolume(const rpc::CreateVolumeRequest& request) = 0;
  virtual absl::StatusOr<std::vector<rpc::Volume>> ListVolumes() = 0;
  virtual absl::StatusOr<rpc::Volume> StatVolume(absl::string_view name) = 0;
  virtual absl::StatusOr<rpc::Volume> SnapshotVolume(absl::string_view volume,
                                                     absl::string_view snapshot) = 0;
  virtual absl::StatusOr<rpc::Volume> CloneVolume(absl::string_view snapshot,
                                                  absl::string_view volume) = 0;
  virtual absl::StatusOr<rpc::Volume> TrimVolume(const rpc::TrimVolumeRequest& request) = 0;
  virtual absl::Status DeleteVolume(absl::string_view name) = 0;
  // Says what the client `identity` may do with the volume.
  virtual absl::StatusOr<rpc::Volume> SetVolumeRole(absl::string_view name,
                                                    absl::string_view identity,
                                                    rpc::VolumeRole role) = 0;
  // The pages that faults of earlier runs have asked for; see pager.proto.
  virtual absl::StatusOr<WorkingSet> GetWorkingSet(absl::string_view name) = 0;
  virtual absl::Status ClearWorkingSet(absl::string_view name) = 0;
  virtual absl::StatusOr<rpc::ServerStatus> GetServerStatus() = 0;

  // Sends what `next` gives, and then commits. Where `next` fails its error is returned, and the
  // volume stays as it was.
  virtual absl::StatusOr<rpc::Volume> ImportVolume(const rpc::ImportVolumeRequest::Begin& begin,
                                                   NextBatch next) = 0;
  // Hands every batch to `on_batch`, in ascending order; ends at its first error, and returns that.
  virtual absl::Status ExportVolume(absl::string_view name, OnBatch on_batch) = 0;
};

// Whether a volume is not there, or there is none that this client may know of.
inline bool IsNoVolume(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsPermissionDenied(status);
}

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_ADMIN_CLIENT_H_
