// SPDX-License-Identifier: Apache-2.0
#include "storage/catalog_meta.h"

#include <absl/strings/str_cat.h>
#include <xxhash.h>

#include <algorithm>

#include "proto/volume_name.h"
#include "storage/volume_record.pb.h"

namespace faultline {
namespace {

using storage::VolumeRecord;

static_assert(static_cast<int>(Durability::kSync) == VolumeRecord::SYNC);
static_assert(static_cast<int>(Durability::kInterval) == VolumeRecord::INTERVAL);
static_assert(static_cast<int>(Durability::kNone) == VolumeRecord::NONE);
static_assert(static_cast<int>(VolumeInfo::Kind::kVolume) == VolumeRecord::VOLUME);
static_assert(static_cast<int>(VolumeInfo::Kind::kSnapshot) == VolumeRecord::SNAPSHOT);
static_assert(static_cast<int>(VolumeRole::kReader) == VolumeRecord::READER);
static_assert(static_cast<int>(VolumeRole::kWriter) == VolumeRecord::WRITER);
static_assert(static_cast<int>(VolumeRole::kOwner) == VolumeRecord::OWNER);

}  // namespace

std::string VolumeKey(absl::string_view name) { return absl::StrCat(kVolumePrefix, name); }
std::string LayerKey(LayerId layer) { return absl::StrCat(kLayerPrefix, layer.raw()); }

MetaChange LayerChange(LayerId layer) { return {LayerKey(layer), ""}; }

MetaChange RecordChange(const VolumeInfo& info) {
  VolumeRecord record;
  record.set_id(info.id);
  record.set_kind(static_cast<VolumeRecord::Kind>(info.kind));
  record.set_size_bytes(info.size_bytes);
  for (const LayerId layer : info.layers) record.add_layers(layer.raw());
  record.set_parent(info.parent);
  record.set_epoch(info.epoch);
  record.set_durability(static_cast<VolumeRecord::Durability>(info.durability));
  record.set_created_unix_us(absl::ToUnixMicros(info.created));
  record.set_working_set(info.working_set.raw());
  record.set_writer(info.writer);
  record.set_owner(info.access.owner);
  for (const auto& [identity, role] : info.access.grants) {
    VolumeRecord::Grant* const grant = record.add_grants();
    grant->set_identity(identity);
    grant->set_role(static_cast<VolumeRecord::Role>(role));
  }
  return {VolumeKey(info.name), record.SerializeAsString()};
}

uint64_t VolumeIdentity(const VolumeInfo& info, bool has_record) {
  const uint64_t parts[] = {
      info.id, info.size_bytes,
      has_record ? static_cast<uint64_t>(absl::ToUnixMicros(info.created)) : 0};
  return std::max<uint64_t>(XXH3_64bits(parts, sizeof parts), 1);
}

absl::Status CheckClaim(const VolumeInfo& info, const EpochClaim& claim) {
  if (claim.from_epoch == 0) return absl::OkStatus();
  const bool is_last = info.epoch == claim.from_epoch || info.epoch == claim.from_epoch + 1;
  if (is_last && claim.writer != 0 && claim.writer == info.writer) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("volume \"", info.name, "\": another writer has opened it since epoch ",
                   claim.from_epoch, "; its epoch is ", info.epoch));
}

absl::Status DamagedMeta(absl::string_view key, absl::string_view what) {
  return absl::DataLossError(absl::StrCat("the store's metadata is damaged: key \"", key, "\" ",
                                          what, "; restore the store from a copy"));
}

absl::StatusOr<VolumeInfo> ParseRecord(absl::string_view name, absl::string_view bytes) {
  const std::string key = VolumeKey(name);
  VolumeRecord record;
  if (!CheckVolumeName(name).ok()) return DamagedMeta(key, "is not the name of a volume");
  if (!record.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return DamagedMeta(key, "does not hold the record of a volume");
  }
  if (record.id() == 0 || record.layers().empty() || record.size_bytes() == 0 ||
      !VolumeRecord::Kind_IsValid(record.kind()) ||
      !VolumeRecord::Durability_IsValid(record.durability())) {
    return DamagedMeta(key, "holds a record that makes no sense");
  }
  VolumeInfo info;
  info.access.owner = record.owner();
  for (const VolumeRecord::Grant& grant : record.grants()) {
    const auto role = static_cast<VolumeRole>(grant.role());
    if (!VolumeRecord::Role_IsValid(grant.role()) ||
        !info.access.SetRole(grant.identity(), role).ok()) {
      return DamagedMeta(key, "grants something that makes no sense");
    }
  }
  info.name = std::string(name);
  info.id = record.id();
  info.kind = static_cast<VolumeInfo::Kind>(record.kind());
  info.size_bytes = record.size_bytes();
  for (const uint64_t layer : record.layers()) info.layers.emplace_back(layer);
  info.parent = record.parent();
  info.epoch = record.epoch();
  info.writer = record.writer();
  info.durability = static_cast<Durability>(record.durability());
  info.created = absl::FromUnixMicros(record.created_unix_us());
  info.working_set = LayerId(record.working_set());
  return info;
}

// All layers that the record of `info` names.
std::vector<LayerId> LayersOf(const VolumeInfo& info) {
  std::vector<LayerId> layers = info.layers;
  if (info.working_set != LayerId()) layers.push_back(info.working_set);
  return layers;
}

absl::Status CheckSize(absl::string_view name, uint64_t size_bytes) {
  constexpr uint64_t kMaxBytes = PageCount(kMaxVolumePages).in_bytes();
  if (size_bytes > 0 && size_bytes <= kMaxBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("volume \"", name, "\" cannot have a size of ",
                                                 size_bytes, " bytes; allowed are 1 to ",
                                                 kMaxBytes));
}

absl::Status NameIsTaken(absl::string_view name) {
  return absl::AlreadyExistsError(
      absl::StrCat("there already is a volume or snapshot \"", name, "\""));
}

}  // namespace faultline
