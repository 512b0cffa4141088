// SPDX-License-Identifier: Apache-2.0
//
// What the catalog knows of a volume, as the messages of the control plane say it.
#ifndef FAULTLINE_SERVER_VOLUME_MESSAGE_H_
#define FAULTLINE_SERVER_VOLUME_MESSAGE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include "proto/admin.pb.h"
#include "server/access_control.h"
#include "storage/volume_catalog.h"

namespace faultline {

void SetTimestamp(absl::Time time, google::protobuf::Timestamp* timestamp);

// INVALID_ARGUMENT for a value that this program does not know.
absl::StatusOr<Durability> ToDurability(rpc::Durability durability);

// Likewise.
absl::StatusOr<VolumeRole> ToVolumeRole(rpc::VolumeRole role);

// Fills `*message` with what `caller` may know, also with the size of the volume's layers, which
// the catalog looks up. Passes on the error where `info` is one.
absl::Status FillVolume(const AccessControl& access, const Caller& caller,
                        const absl::StatusOr<VolumeInfo>& info, rpc::Volume* message);

}  // namespace faultline

#endif  // FAULTLINE_SERVER_VOLUME_MESSAGE_H_
