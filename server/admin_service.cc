// SPDX-License-Identifier: Apache-2.0
#include "server/admin_service.h"

#include <absl/strings/str_cat.h>

#include <memory>
#include <utility>
#include <vector>

#include "server/export_call.h"
#include "server/import_call.h"
#include "server/unary_call.h"
#include "server/volume_message.h"

namespace faultline {

grpc::ServerUnaryReactor* AdminService::CreateVolume(grpc::CallbackServerContext*,
                                                     const rpc::CreateVolumeRequest* request,
                                                     rpc::Volume* response) {
  return RunUnary(environment_.workers, environment_.calls, [this, request, response] {
    VolumeCatalog& catalog = *environment_.catalog;
    const absl::StatusOr<Durability> durability = ToDurability(request->durability());
    if (!durability.ok()) return durability.status();
    return FillVolume(catalog, catalog.Create(request->name(), request->size_bytes(), *durability),
                      response);
  });
}

grpc::ServerUnaryReactor* AdminService::ListVolumes(grpc::CallbackServerContext*,
                                                    const rpc::ListVolumesRequest*,
                                                    rpc::ListVolumesResponse* response) {
  return RunUnary(environment_.workers, environment_.calls, [this, response] {
    const VolumeCatalog& catalog = *environment_.catalog;
    for (const VolumeInfo& info : catalog.List()) {
      absl::Status status = FillVolume(catalog, info, response->add_volumes());
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminService::StatVolume(grpc::CallbackServerContext*,
                                                   const rpc::StatVolumeRequest* request,
                                                   rpc::Volume* response) {
  return RunUnary(environment_.workers, environment_.calls, [this, request, response] {
    const VolumeCatalog& catalog = *environment_.catalog;
    const absl::StatusOr<std::shared_ptr<Volume>> volume = catalog.Find(request->name());
    if (!volume.ok()) return volume.status();
    return FillVolume(catalog, (*volume)->info(), response);
  });
}

grpc::ServerReadReactor<rpc::ImportVolumeRequest>* AdminService::ImportVolume(
    grpc::CallbackServerContext*, rpc::Volume* response) {
  return StartImportCall({environment_.catalog, environment_.workers, environment_.calls},
                         response);
}

grpc::ServerWriteReactor<rpc::ExportVolumeResponse>* AdminService::ExportVolume(
    grpc::CallbackServerContext*, const rpc::ExportVolumeRequest* request) {
  return StartExportCall({environment_.catalog, environment_.workers, environment_.calls},
                         request->name());
}

grpc::ServerUnaryReactor* AdminService::SnapshotVolume(grpc::CallbackServerContext*,
                                                       const rpc::SnapshotVolumeRequest* request,
                                                       rpc::Volume* response) {
  return RunUnary(environment_.workers, environment_.calls, [this, request, response] {
    VolumeCatalog& catalog = *environment_.catalog;
    return FillVolume(catalog, catalog.Snapshot(request->volume(), request->snapshot()), response);
  });
}

grpc::ServerUnaryReactor* AdminService::CloneVolume(grpc::CallbackServerContext*,
                                                    const rpc::CloneVolumeRequest* request,
                                                    rpc::Volume* response) {
  return RunUnary(environment_.workers, environment_.calls, [this, request, response] {
    VolumeCatalog& catalog = *environment_.catalog;
    return FillVolume(catalog, catalog.Clone(request->snapshot(), request->volume()), response);
  });
}

grpc::ServerUnaryReactor* AdminService::TrimVolume(grpc::CallbackServerContext*,
                                                   const rpc::TrimVolumeRequest* request,
                                                   rpc::Volume* response) {
  return RunUnary(environment_.workers, environment_.calls,
                  [this, request, response] { return Trim(*request, response); });
}

absl::Status AdminService::Trim(const rpc::TrimVolumeRequest& request,
                                rpc::Volume* response) const {
  const absl::StatusOr<std::shared_ptr<Volume>> volume = environment_.catalog->Find(request.name());
  if (!volume.ok()) return volume.status();
  const auto refuse = [&request](absl::StatusCode code, absl::string_view why) {
    return absl::Status(
        code, absl::StrCat("volume \"", request.name(), "\": cannot trim ", request.length_bytes(),
                           " bytes at ", request.offset_bytes(), ": ", why));
  };
  if (!IsPageAligned(request.offset_bytes()) || !IsPageAligned(request.length_bytes())) {
    return refuse(absl::StatusCode::kInvalidArgument,
                  absl::StrCat("offset and length must be multiples of ", kPageSize));
  }
  if (request.length_bytes() == 0) {
    return refuse(absl::StatusCode::kInvalidArgument, "there is nothing to trim");
  }
  const PageRange range{PageIndex::Containing(request.offset_bytes()),
                        PageCount::CoveringBytes(request.length_bytes())};
  const VolumeInfo info = (*volume)->info();
  if (!IsWithin(range.first.raw(), range.count.raw(), info.size())) {
    return refuse(absl::StatusCode::kOutOfRange,
                  absl::StrCat("it has ", info.size_bytes, " bytes"));
  }
  if (absl::Status status = (*volume)->Trim(range); !status.ok()) return status;
  return FillVolume(*environment_.catalog, (*volume)->info(), response);
}

grpc::ServerUnaryReactor* AdminService::DeleteVolume(grpc::CallbackServerContext*,
                                                     const rpc::DeleteVolumeRequest* request,
                                                     rpc::DeleteVolumeResponse*) {
  return RunUnary(environment_.workers, environment_.calls,
                  [this, request] { return environment_.catalog->Delete(request->name()); });
}

grpc::ServerUnaryReactor* AdminService::ClearWorkingSet(grpc::CallbackServerContext*,
                                                        const rpc::ClearWorkingSetRequest* request,
                                                        rpc::ClearWorkingSetResponse*) {
  return RunUnary(environment_.workers, environment_.calls, [this, request] {
    return environment_.catalog->ClearWorkingSet(request->name());
  });
}

grpc::ServerUnaryReactor* AdminService::GetServerStatus(grpc::CallbackServerContext*,
                                                        const rpc::GetServerStatusRequest*,
                                                        rpc::ServerStatus* response) {
  return RunUnary(environment_.workers, environment_.calls, [this, response] {
    FillStatus(response);
    return absl::OkStatus();
  });
}

void AdminService::FillStatus(rpc::ServerStatus* response) const {
  PageStore& store = environment_.catalog->store();
  const StoreStats stats = store.Stats();
  const ServerCounters& counters = *environment_.counters;
  response->set_version(FAULTLINE_VERSION);
  response->set_store(environment_.store);
  SetTimestamp(environment_.started, response->mutable_started());
  response->set_volumes(static_cast<uint32_t>(environment_.catalog->List().size()));
  response->set_stored_bytes(stats.stored_bytes);
  response->set_free_bytes(stats.free_bytes);
  response->set_fetch_streams(counters.fetch_streams.value());
  response->set_write_streams(counters.write_streams.value());
  response->set_pages_in_flight(environment_.window->pages_in_flight());
  response->set_pages_fetched_total(counters.pages_fetched.value());
  response->set_pages_written_total(counters.pages_written.value());
  response->set_requests_failed_total(counters.requests_failed.value());
  response->set_read_only(store.read_only());
}

}  // namespace faultline
