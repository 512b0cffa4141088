// SPDX-License-Identifier: Apache-2.0
//
// How a VolumeCatalog writes itself down in its store's metadata: the keys, and the record of a
// volume. What is written when, and why, is told in volume_catalog.h.
#ifndef FAULTLINE_STORAGE_CATALOG_META_H_
#define FAULTLINE_STORAGE_CATALOG_META_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>
#include <vector>

#include "storage/page_store.h"
#include "storage/volume.h"

namespace faultline {

inline constexpr absl::string_view kVolumePrefix = "volume/";
inline constexpr absl::string_view kLayerPrefix = "layer/";
inline constexpr absl::string_view kNextKey = "next";

std::string VolumeKey(absl::string_view name);
std::string LayerKey(LayerId layer);

// Sets the key of a layer.
MetaChange LayerChange(LayerId layer);
// Sets the record of the volume that `info` names.
MetaChange RecordChange(const VolumeInfo& info);

// Reads the record of the volume `name`. DATA_LOSS where it is none, or makes no sense.
absl::StatusOr<VolumeInfo> ParseRecord(absl::string_view name, absl::string_view bytes);

// See VolumeCatalog::IdentityOf(). What has no record has no birth that its servers agree on.
uint64_t VolumeIdentity(const VolumeInfo& info, bool has_record);

// Whether the writer that the record names may go on, where `claim` says that one does:
// FAILED_PRECONDITION where it is another. Where an answer to it was lost, the volume's epoch is
// one beyond claim.from_epoch: it was given out, and nobody has it.
absl::Status CheckClaim(const VolumeInfo& info, const EpochClaim& claim);

// All layers that the record of `info` names.
std::vector<LayerId> LayersOf(const VolumeInfo& info);

absl::Status CheckSize(absl::string_view name, uint64_t size_bytes);
absl::Status NameIsTaken(absl::string_view name);

// The DATA_LOSS of a key; `what` completes the sentence that starts with it.
absl::Status DamagedMeta(absl::string_view key, absl::string_view what);

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_CATALOG_META_H_
