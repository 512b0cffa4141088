// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_PROTO_VOLUME_NAME_H_
#define FAULTLINE_PROTO_VOLUME_NAME_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include <cstddef>

namespace faultline {

inline constexpr size_t kMaxVolumeNameBytes = 128;

// INVALID_ARGUMENT, saying what is allowed, unless `name` is 1 to 128 bytes of letters, digits,
// '.', '_' and '-', not starting with '.' or '-'. Thread-safe.
absl::Status CheckVolumeName(absl::string_view name);

}  // namespace faultline

#endif  // FAULTLINE_PROTO_VOLUME_NAME_H_
