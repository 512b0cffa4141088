// SPDX-License-Identifier: Apache-2.0
#include "storage/volume_access.h"

#include <absl/strings/ascii.h>
#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>

#include <algorithm>

namespace faultline {
namespace {

constexpr size_t kMaxIdentityBytes = 128;

bool IsIdentityCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
         absl::string_view("._:/@+-").find(c) != absl::string_view::npos;
}

}  // namespace

absl::string_view VolumeRoleName(VolumeRole role) {
  switch (role) {
    case VolumeRole::kNone:
      return "none";
    case VolumeRole::kReader:
      return "reader";
    case VolumeRole::kWriter:
      return "writer";
    case VolumeRole::kOwner:
      return "owner";
  }
  return "unknown";
}

VolumeRole VolumeAccess::RoleOf(absl::string_view identity) const {
  if (identity.empty()) return VolumeRole::kNone;
  if (identity == owner) return VolumeRole::kOwner;
  const auto grant = grants.find(identity);
  return grant == grants.end() ? VolumeRole::kNone : grant->second;
}

absl::Status VolumeAccess::SetRole(absl::string_view identity, VolumeRole role) {
  if (absl::Status status = CheckIdentity(identity); !status.ok()) return status;
  if (identity == owner) {
    if (role == VolumeRole::kOwner) return absl::OkStatus();
    owner.clear();
  }
  if (role == VolumeRole::kNone) {
    if (const auto grant = grants.find(identity); grant != grants.end()) grants.erase(grant);
    return absl::OkStatus();
  }
  if (grants.size() >= kMaxVolumeGrants && !grants.contains(identity)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "it has ", grants.size(), " grants already, the most that are kept; revoke some"));
  }
  grants[std::string(identity)] = role;
  return absl::OkStatus();
}

absl::Status CheckIdentity(absl::string_view identity) {
  if (!identity.empty() && identity.size() <= kMaxIdentityBytes &&
      std::all_of(identity.begin(), identity.end(), IsIdentityCharacter)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", absl::CEscape(identity.substr(0, kMaxIdentityBytes)),
                   "\" is no identity of a client; allowed are 1 to ", kMaxIdentityBytes,
                   " letters, digits and ._:/@+-"));
}

}  // namespace faultline
