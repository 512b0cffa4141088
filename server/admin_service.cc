// SPDX-License-Identifier: Apache-2.0
#include "server/admin_service.h"

#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/export_call.h"
#include "server/import_call.h"
#include "server/unary_method.h"
#include "server/volume_message.h"

namespace faultline {
namespace {

// A call that makes a volume, for the audit log.
std::string NamingCall(absl::string_view call, absl::string_view name) {
  return absl::StrCat(call, "(", absl::CEscape(name.substr(0, 128)), ")");
}

}  // namespace

void AdminService::Serve(CallLoop* loop) {
  const UnaryEnvironment unary{loop, environment_.workers, environment_.calls, environment_.access};
  ServeChanges(unary);
  ServeQueries(unary);
  const TransferEnvironment transfer{loop, environment_.access, environment_.workers,
                                     environment_.calls};
  ServeImports(this, transfer);
  ServeExports(this, transfer);
}

void AdminService::ServeChanges(const UnaryEnvironment& unary) {
  const AccessControl& access = *environment_.access;
  ServeUnary<AdminService, rpc::CreateVolumeRequest, rpc::Volume>(
      unary, this, &AdminService::RequestCreateVolume,
      [this, &access](const Caller& caller, const auto& request, rpc::Volume* response) {
        return access.Audit(caller, {"CreateVolume", request.name()},
                            Create(caller, request, response));
      });
  ServeUnary<AdminService, rpc::SnapshotVolumeRequest, rpc::Volume>(
      unary, this, &AdminService::RequestSnapshotVolume,
      [this, &access](const Caller& caller, const auto& request, rpc::Volume* response) {
        return access.Audit(caller,
                            {NamingCall("SnapshotVolume", request.snapshot()), request.volume()},
                            Snapshot(caller, request, response));
      });
  ServeUnary<AdminService, rpc::CloneVolumeRequest, rpc::Volume>(
      unary, this, &AdminService::RequestCloneVolume,
      [this, &access](const Caller& caller, const auto& request, rpc::Volume* response) {
        return access.Audit(caller,
                            {NamingCall("CloneVolume", request.volume()), request.snapshot()},
                            Clone(caller, request, response));
      });
  ServeUnary<AdminService, rpc::TrimVolumeRequest, rpc::Volume>(
      unary, this, &AdminService::RequestTrimVolume,
      [this, &access](const Caller& caller, const auto& request, rpc::Volume* response) {
        return access.Audit(caller, {"TrimVolume", request.name()},
                            Trim(caller, request, response));
      });
  ServeUnary<AdminService, rpc::DeleteVolumeRequest, rpc::DeleteVolumeResponse>(
      unary, this, &AdminService::RequestDeleteVolume,
      [this, &access](const Caller& caller, const auto& request, rpc::DeleteVolumeResponse*) {
        return access.Audit(caller, {"DeleteVolume", request.name()}, Delete(caller, request));
      });
  ServeUnary<AdminService, rpc::ClearWorkingSetRequest, rpc::ClearWorkingSetResponse>(
      unary, this, &AdminService::RequestClearWorkingSet,
      [this, &access](const Caller& caller, const auto& request, rpc::ClearWorkingSetResponse*) {
        return access.Audit(caller, {"ClearWorkingSet", request.name()},
                            ClearWorkingSet(caller, request));
      });
  ServeUnary<AdminService, rpc::SetVolumeRoleRequest, rpc::Volume>(
      unary, this, &AdminService::RequestSetVolumeRole,
      [this, &access](const Caller& caller, const auto& request, rpc::Volume* response) {
        const absl::StatusOr<VolumeRole> role = ToVolumeRole(request.role());
        const std::string call =
            absl::StrCat("SetVolumeRole(", absl::CEscape(request.identity().substr(0, 128)), ",",
                         role.ok() ? VolumeRoleName(*role) : "?", ")");
        return access.Audit(caller, {call, request.name()}, SetRole(caller, request, response));
      });
}

void AdminService::ServeQueries(const UnaryEnvironment& unary) {
  const AccessControl& access = *environment_.access;
  ServeUnary<AdminService, rpc::ListVolumesRequest, rpc::ListVolumesResponse>(
      unary, this, &AdminService::RequestListVolumes,
      [this](const Caller& caller, const auto&, rpc::ListVolumesResponse* response) {
        return List(caller, response);
      });
  ServeUnary<AdminService, rpc::StatVolumeRequest, rpc::Volume>(
      unary, this, &AdminService::RequestStatVolume,
      [this, &access](const Caller& caller, const auto& request, rpc::Volume* response) {
        return access.Audit(caller, {"StatVolume", request.name(), AuditedCall::Log::kRefusals},
                            Stat(caller, request, response));
      });
  ServeUnary<AdminService, rpc::GetServerStatusRequest, rpc::ServerStatus>(
      unary, this, &AdminService::RequestGetServerStatus,
      [this, &access](const Caller& caller, const auto&, rpc::ServerStatus* response) {
        absl::Status status =
            access.Audit(caller, {"GetServerStatus", "", AuditedCall::Log::kRefusals},
                         access.CheckAdmin(caller));
        if (status.ok()) FillStatus(response);
        return status;
      });
}

absl::Status AdminService::Create(const Caller& caller, const rpc::CreateVolumeRequest& request,
                                  rpc::Volume* response) const {
  const AccessControl& access = *environment_.access;
  const absl::StatusOr<Durability> durability = ToDurability(request.durability());
  if (!durability.ok()) return durability.status();
  if (absl::Status status = access.CheckMayMake(caller, request.size_bytes()); !status.ok()) {
    return status;
  }
  return access.Veil(caller, request.name(),
                     FillVolume(access, caller,
                                access.catalog().Create(request.name(), request.size_bytes(),
                                                        *durability, caller.identity),
                                response));
}

absl::Status AdminService::Snapshot(const Caller& caller, const rpc::SnapshotVolumeRequest& request,
                                    rpc::Volume* response) const {
  const AccessControl& access = *environment_.access;
  const absl::StatusOr<std::shared_ptr<Volume>> volume =
      access.Find(caller, request.volume(), VolumeRole::kWriter);
  if (!volume.ok()) return volume.status();
  return access.Veil(caller, request.snapshot(),
                     FillVolume(access, caller,
                                access.catalog().Snapshot(request.volume(), request.snapshot(),
                                                          caller.identity, (*volume)->info().id),
                                response));
}

absl::Status AdminService::Clone(const Caller& caller, const rpc::CloneVolumeRequest& request,
                                 rpc::Volume* response) const {
  const AccessControl& access = *environment_.access;
  const absl::StatusOr<std::shared_ptr<Volume>> snapshot =
      access.Find(caller, request.snapshot(), VolumeRole::kReader);
  if (!snapshot.ok()) return snapshot.status();
  const VolumeInfo info = (*snapshot)->info();
  if (absl::Status status = access.CheckMayMake(caller, info.size_bytes); !status.ok()) {
    return status;
  }
  return access.Veil(caller, request.volume(),
                     FillVolume(access, caller,
                                access.catalog().Clone(request.snapshot(), request.volume(),
                                                       caller.identity, info.id),
                                response));
}

absl::Status AdminService::Delete(const Caller& caller,
                                  const rpc::DeleteVolumeRequest& request) const {
  const AccessControl& access = *environment_.access;
  const absl::StatusOr<std::shared_ptr<Volume>> volume =
      access.Find(caller, request.name(), VolumeRole::kOwner);
  if (!volume.ok()) return volume.status();
  return access.catalog().Delete(request.name(), (*volume)->info().id);
}

absl::Status AdminService::ClearWorkingSet(const Caller& caller,
                                           const rpc::ClearWorkingSetRequest& request) const {
  const AccessControl& access = *environment_.access;
  const absl::StatusOr<std::shared_ptr<Volume>> volume =
      access.Find(caller, request.name(), VolumeRole::kWriter);
  if (!volume.ok()) return volume.status();
  return access.catalog().ClearWorkingSet(request.name(), (*volume)->info().id);
}

absl::Status AdminService::SetRole(const Caller& caller, const rpc::SetVolumeRoleRequest& request,
                                   rpc::Volume* response) const {
  const AccessControl& access = *environment_.access;
  const absl::StatusOr<VolumeRole> role = ToVolumeRole(request.role());
  if (!role.ok()) return role.status();
  const absl::StatusOr<std::shared_ptr<Volume>> volume =
      access.Find(caller, request.name(), VolumeRole::kOwner);
  if (!volume.ok()) return volume.status();
  return FillVolume(
      access, caller,
      access.catalog().SetRole(request.name(), request.identity(), *role, (*volume)->info().id),
      response);
}

absl::Status AdminService::List(const Caller& caller, rpc::ListVolumesResponse* response) const {
  const AccessControl& access = *environment_.access;
  for (const VolumeInfo& info : access.catalog().List()) {
    if (access.RoleOf(caller, info) < VolumeRole::kReader) continue;
    absl::Status status = FillVolume(access, caller, info, response->add_volumes());
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status AdminService::Stat(const Caller& caller, const rpc::StatVolumeRequest& request,
                                rpc::Volume* response) const {
  const AccessControl& access = *environment_.access;
  const absl::StatusOr<std::shared_ptr<Volume>> volume =
      access.Find(caller, request.name(), VolumeRole::kReader);
  if (!volume.ok()) return volume.status();
  return FillVolume(access, caller, (*volume)->info(), response);
}

absl::Status AdminService::Trim(const Caller& caller, const rpc::TrimVolumeRequest& request,
                                rpc::Volume* response) const {
  const AccessControl& access = *environment_.access;
  const absl::StatusOr<std::shared_ptr<Volume>> volume =
      access.Find(caller, request.name(), VolumeRole::kWriter);
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
  return FillVolume(access, caller, (*volume)->info(), response);
}

void AdminService::FillStatus(rpc::ServerStatus* response) const {
  PageStore& store = environment_.access->catalog().store();
  const StoreStats stats = store.Stats();
  const ServerCounters& counters = *environment_.counters;
  response->set_version(FAULTLINE_VERSION);
  response->set_store(environment_.store);
  SetTimestamp(environment_.started, response->mutable_started());
  response->set_volumes(static_cast<uint32_t>(environment_.access->catalog().List().size()));
  response->set_stored_bytes(stats.stored_bytes);
  response->set_free_bytes(stats.free_bytes);
  response->set_fetch_streams(counters.fetch_streams.value());
  response->set_write_streams(counters.write_streams.value());
  response->set_pages_in_flight(environment_.window->pages_in_flight());
  response->set_pages_fetched_total(counters.pages_fetched.value());
  response->set_pages_written_total(counters.pages_written.value());
  response->set_requests_failed_total(counters.requests_failed.value());
  response->set_read_only(store.read_only());
  response->set_calls_refused_total(counters.calls_refused.value());
  response->set_handshakes_failed_total(counters.handshakes_failed.value());
}

}  // namespace faultline
