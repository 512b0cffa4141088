// SPDX-License-Identifier: Apache-2.0
#include "server/admin_service.h"

#include <absl/strings/str_cat.h>

#include <memory>
#include <utility>
#include <vector>

#include "server/export_call.h"
#include "server/import_call.h"
#include "server/unary_method.h"
#include "server/volume_message.h"

namespace faultline {

void AdminService::Serve(CallLoop* loop) {
  const UnaryEnvironment unary{loop, environment_.workers, environment_.calls};
  ServeChanges(unary);
  ServeQueries(unary);
  const TransferEnvironment transfer{loop, environment_.catalog, environment_.workers,
                                     environment_.calls};
  ServeImports(this, transfer);
  ServeExports(this, transfer);
}

void AdminService::ServeChanges(const UnaryEnvironment& unary) {
  VolumeCatalog& catalog = *environment_.catalog;
  ServeUnary<AdminService, rpc::CreateVolumeRequest, rpc::Volume>(
      unary, this, &AdminService::RequestCreateVolume,
      [&catalog](const rpc::CreateVolumeRequest& request, rpc::Volume* response) {
        const absl::StatusOr<Durability> durability = ToDurability(request.durability());
        if (!durability.ok()) return durability.status();
        return FillVolume(
            catalog, catalog.Create(request.name(), request.size_bytes(), *durability), response);
      });
  ServeUnary<AdminService, rpc::SnapshotVolumeRequest, rpc::Volume>(
      unary, this, &AdminService::RequestSnapshotVolume,
      [&catalog](const rpc::SnapshotVolumeRequest& request, rpc::Volume* response) {
        return FillVolume(catalog, catalog.Snapshot(request.volume(), request.snapshot()),
                          response);
      });
  ServeUnary<AdminService, rpc::CloneVolumeRequest, rpc::Volume>(
      unary, this, &AdminService::RequestCloneVolume,
      [&catalog](const rpc::CloneVolumeRequest& request, rpc::Volume* response) {
        return FillVolume(catalog, catalog.Clone(request.snapshot(), request.volume()), response);
      });
  ServeUnary<AdminService, rpc::TrimVolumeRequest, rpc::Volume>(
      unary, this, &AdminService::RequestTrimVolume,
      [this](const rpc::TrimVolumeRequest& request, rpc::Volume* response) {
        return Trim(request, response);
      });
  ServeUnary<AdminService, rpc::DeleteVolumeRequest, rpc::DeleteVolumeResponse>(
      unary, this, &AdminService::RequestDeleteVolume,
      [&catalog](const rpc::DeleteVolumeRequest& request, rpc::DeleteVolumeResponse*) {
        return catalog.Delete(request.name());
      });
  ServeUnary<AdminService, rpc::ClearWorkingSetRequest, rpc::ClearWorkingSetResponse>(
      unary, this, &AdminService::RequestClearWorkingSet,
      [&catalog](const rpc::ClearWorkingSetRequest& request, rpc::ClearWorkingSetResponse*) {
        return catalog.ClearWorkingSet(request.name());
      });
}

void AdminService::ServeQueries(const UnaryEnvironment& unary) {
  const VolumeCatalog& catalog = *environment_.catalog;
  ServeUnary<AdminService, rpc::ListVolumesRequest, rpc::ListVolumesResponse>(
      unary, this, &AdminService::RequestListVolumes,
      [&catalog](const rpc::ListVolumesRequest&, rpc::ListVolumesResponse* response) {
        for (const VolumeInfo& info : catalog.List()) {
          absl::Status status = FillVolume(catalog, info, response->add_volumes());
          if (!status.ok()) return status;
        }
        return absl::OkStatus();
      });
  ServeUnary<AdminService, rpc::StatVolumeRequest, rpc::Volume>(
      unary, this, &AdminService::RequestStatVolume,
      [&catalog](const rpc::StatVolumeRequest& request, rpc::Volume* response) {
        const absl::StatusOr<std::shared_ptr<Volume>> volume = catalog.Find(request.name());
        if (!volume.ok()) return volume.status();
        return FillVolume(catalog, (*volume)->info(), response);
      });
  ServeUnary<AdminService, rpc::GetServerStatusRequest, rpc::ServerStatus>(
      unary, this, &AdminService::RequestGetServerStatus,
      [this](const rpc::GetServerStatusRequest&, rpc::ServerStatus* response) {
        FillStatus(response);
        return absl::OkStatus();
      });
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
