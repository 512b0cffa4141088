// SPDX-License-Identifier: Apache-2.0
//
// VolumeAccess: who may do what with one volume. It is kept with the volume's record; whoever
// serves the volume enforces it.
#ifndef FAULTLINE_STORAGE_VOLUME_ACCESS_H_
#define FAULTLINE_STORAGE_VOLUME_ACCESS_H_

#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

namespace faultline {

// Each may do what those before it may. The numbers are stored.
enum class VolumeRole : uint8_t {
  kNone = 0,
  kReader = 1,  // reads pages, what is known of the volume and its working set; clones a snapshot
  kWriter = 2,  // changes pages and the working set, and makes snapshots
  kOwner = 3,   // deletes the volume, and grants roles
};

// "none", "reader", "writer" or "owner".
absl::string_view VolumeRoleName(VolumeRole role);

// Of one volume.
inline constexpr size_t kMaxVolumeGrants = 256;

struct VolumeAccess {
  std::string owner;  // who has made the volume; empty: nobody who was known
  std::map<std::string, VolumeRole, std::less<>> grants;  // none of kNone

  VolumeRole RoleOf(absl::string_view identity) const;

  // Gives `identity` exactly this role. The owner who takes less is the owner no more.
  // RESOURCE_EXHAUSTED beyond kMaxVolumeGrants.
  absl::Status SetRole(absl::string_view identity, VolumeRole role);

  friend bool operator==(const VolumeAccess&, const VolumeAccess&) = default;
};

// INVALID_ARGUMENT, saying what is allowed, unless `identity` can be the name of a client: 1 to 128
// letters, digits and any of "._:/@+-". One that begins with '@' is of no certificate.
absl::Status CheckIdentity(absl::string_view identity);

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_VOLUME_ACCESS_H_
