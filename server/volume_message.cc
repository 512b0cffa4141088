// SPDX-License-Identifier: Apache-2.0
#include "server/volume_message.h"

#include <absl/strings/str_cat.h>

namespace faultline {
namespace {

static_assert(static_cast<int>(Durability::kSync) == rpc::DURABILITY_SYNC);
static_assert(static_cast<int>(Durability::kInterval) == rpc::DURABILITY_INTERVAL);
static_assert(static_cast<int>(Durability::kNone) == rpc::DURABILITY_NONE);
static_assert(static_cast<int>(VolumeInfo::Kind::kVolume) == rpc::Volume::VOLUME);
static_assert(static_cast<int>(VolumeInfo::Kind::kSnapshot) == rpc::Volume::SNAPSHOT);
static_assert(static_cast<int>(VolumeRole::kNone) == rpc::VOLUME_ROLE_NONE);
static_assert(static_cast<int>(VolumeRole::kReader) == rpc::VOLUME_ROLE_READER);
static_assert(static_cast<int>(VolumeRole::kWriter) == rpc::VOLUME_ROLE_WRITER);
static_assert(static_cast<int>(VolumeRole::kOwner) == rpc::VOLUME_ROLE_OWNER);

}  // namespace

void SetTimestamp(absl::Time time, google::protobuf::Timestamp* timestamp) {
  const int64_t nanos = absl::ToUnixNanos(time);
  constexpr int64_t kNanosPerSecond = 1'000'000'000;
  timestamp->set_seconds(nanos / kNanosPerSecond);
  timestamp->set_nanos(static_cast<int32_t>(nanos % kNanosPerSecond));
}

absl::StatusOr<Durability> ToDurability(rpc::Durability durability) {
  if (!rpc::Durability_IsValid(durability)) {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown durability ", static_cast<int>(durability)));
  }
  return static_cast<Durability>(durability);
}

absl::StatusOr<VolumeRole> ToVolumeRole(rpc::VolumeRole role) {
  if (!rpc::VolumeRole_IsValid(role)) {
    return absl::InvalidArgumentError(absl::StrCat("unknown role ", static_cast<int>(role)));
  }
  return static_cast<VolumeRole>(role);
}

absl::Status FillVolume(const AccessControl& access, const Caller& caller,
                        const absl::StatusOr<VolumeInfo>& info, rpc::Volume* message) {
  if (!info.ok()) return info.status();
  absl::StatusOr<uint64_t> stored_bytes = access.catalog().StoredBytes(*info);
  if (!stored_bytes.ok()) return stored_bytes.status();
  message->set_name(info->name);
  message->set_id(info->id);
  message->set_kind(static_cast<rpc::Volume::Kind>(info->kind));
  message->set_size_bytes(info->size_bytes);
  message->set_stored_bytes(*stored_bytes);
  message->set_layers(static_cast<uint32_t>(info->layers.size()));
  if (caller.unrestricted || access.Find(caller, info->parent, VolumeRole::kReader).ok()) {
    message->set_parent(info->parent);
  }
  message->set_owner(info->access.owner);
  if (access.RoleOf(caller, *info) == VolumeRole::kOwner) {
    for (const auto& [identity, role] : info->access.grants) {
      rpc::VolumeGrant* const grant = message->add_grants();
      grant->set_identity(identity);
      grant->set_role(static_cast<rpc::VolumeRole>(role));
    }
  }
  message->set_epoch(info->epoch);
  message->set_durability(static_cast<rpc::Durability>(info->durability));
  SetTimestamp(info->created, message->mutable_created());
  return absl::OkStatus();
}

}  // namespace faultline
