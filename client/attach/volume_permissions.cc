// SPDX-License-Identifier: Apache-2.0
#include "client/attach/volume_permissions.h"

#include <absl/strings/escaping.h>
#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <absl/strings/strip.h>
#include <grp.h>
#include <pwd.h>

#include <algorithm>
#include <utility>

#include "proto/volume_name.h"

namespace faultline {
namespace {

std::optional<id_t> IdOf(const std::string& who, bool of_group) {
  uint32_t number;
  // All ones is nobody's: chown() takes it for "as it is".
  if (absl::SimpleAtoi(who, &number)) {
    return number == UINT32_MAX ? std::nullopt : std::optional<id_t>(number);
  }
  if (of_group) {
    const group* const found = getgrnam(who.c_str());
    return found == nullptr ? std::nullopt : std::optional<id_t>(found->gr_gid);
  }
  const passwd* const found = getpwnam(who.c_str());
  return found == nullptr ? std::nullopt : std::optional<id_t>(found->pw_uid);
}

absl::Status NoSuch(const std::string& who, bool of_group) {
  return absl::InvalidArgumentError(
      absl::StrCat("there is no ", of_group ? "group" : "user", " \"", who, "\" on this machine"));
}

// A volume's name, or what such begin with and '*'.
absl::Status CheckPattern(absl::string_view pattern) {
  if (absl::ConsumeSuffix(&pattern, "*") && pattern.empty()) return absl::OkStatus();
  return CheckVolumeName(pattern);
}

bool Matches(absl::string_view pattern, absl::string_view volume) {
  if (absl::ConsumeSuffix(&pattern, "*")) return absl::StartsWith(volume, pattern);
  return pattern == volume;
}

}  // namespace

absl::StatusOr<VolumePermissions> VolumePermissions::Parse(const std::vector<std::string>& rules) {
  VolumePermissions permissions;
  for (const std::string& text : rules) {
    const auto refuse = [&text](absl::string_view why) {
      return absl::InvalidArgumentError(absl::StrCat("rule \"", text, "\": ", why));
    };
    const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
    absl::string_view who = parts.first;
    Rule rule{.of_group = absl::ConsumePrefix(&who, "group:"), .who = 0, .volumes = {}};
    if ((!rule.of_group && !absl::ConsumePrefix(&who, "user:")) || parts.second.empty()) {
      return refuse("write user:WHO=VOLUME,... or group:WHO=VOLUME,...");
    }
    const std::optional<id_t> id = IdOf(std::string(who), rule.of_group);
    if (!id) return refuse(NoSuch(std::string(who), rule.of_group).message());
    rule.who = *id;
    rule.volumes = absl::StrSplit(parts.second, ',');
    for (const std::string& pattern : rule.volumes) {
      if (absl::Status status = CheckPattern(pattern); !status.ok())
        return refuse(status.message());
    }
    permissions.rules_.push_back(std::move(rule));
  }
  return permissions;
}

bool VolumePermissions::Allows(const PeerProcess& peer, absl::string_view volume) const {
  if (rules_.empty()) return true;
  return std::any_of(rules_.begin(), rules_.end(), [&](const Rule& rule) {
    const bool theirs = rule.of_group ? std::find(peer.groups.begin(), peer.groups.end(),
                                                  rule.who) != peer.groups.end()
                                      : rule.who == peer.user;
    return theirs && std::any_of(rule.volumes.begin(), rule.volumes.end(),
                                 [volume](const auto& one) { return Matches(one, volume); });
  });
}

absl::Status VolumePermissions::Check(const PeerProcess& peer, absl::string_view volume) const {
  if (Allows(peer, volume)) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("user ", peer.user, " may not have volume \"",
                   absl::CEscape(volume.substr(0, kMaxVolumeNameBytes)),
                   "\" here; who may is said by the agent's --allow"));
}

absl::StatusOr<SocketOwner> ParseSocketOwner(absl::string_view text) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits(':', 1));
  SocketOwner owner;
  if (!parts.first.empty() && !(owner.user = IdOf(parts.first, false))) {
    return NoSuch(parts.first, false);
  }
  if (!parts.second.empty() && !(owner.group = IdOf(parts.second, true))) {
    return NoSuch(parts.second, true);
  }
  if (owner.user || owner.group) return owner;
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is nobody; write USER, USER:GROUP or :GROUP"));
}

}  // namespace faultline
