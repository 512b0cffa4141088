// SPDX-License-Identifier: Apache-2.0
//
// What the catalog knows of a volume, as the messages of the control plane say it.
#ifndef FAULTLINE_SERVER_VOLUME_MESSAGE_H_
#define FAULTLINE_SERVER_VOLUME_MESSAGE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "proto/admin.pb.h"
#include "storage/volume_catalog.h"

namespace faultline {

void SetTimestamp(absl::Time time, google::protobuf::Timestamp* timestamp);

// INVALID_ARGUMENT for a value that this program does not know.
absl::StatusOr<Durability> ToDurability(rpc::Durability durability);

// Fills `*message`, also with the size of the volume's layers, which `catalog` looks up. Passes on
// the error where `info` is one.
absl::Status FillVolume(const VolumeCatalog& catalog, const absl::StatusOr<VolumeInfo>& info,
                        rpc::Volume* message);

}  // namespace faultline

#endif  // FAULTLINE_SERVER_VOLUME_MESSAGE_H_
