// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_ATTACH_VOLUME_PERMISSIONS_H_
#define FAULTLINE_CLIENT_ATTACH_VOLUME_PERMISSIONS_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "client/attach/peer_process.h"

namespace faultline {

// Which volumes those may have who may connect to the handover socket, by the user and the groups
// that they were of when they connected, as the kernel tells. Without a rule: all of them. With
// rules, what none of them allows is refused, also to root and to the agent's own user.
//
// Not changed after it was made, and then thread-safe.
class VolumePermissions {
 public:
  // Of rules "user:WHO=VOLUMES" or "group:WHO=VOLUMES": WHO is a name, which is looked up now, or a
  // number; VOLUMES are names with commas between, of which one that ends in '*' stands for all
  // that begin so. INVALID_ARGUMENT, naming the rule, where it is of another form or of nobody.
  static absl::StatusOr<VolumePermissions> Parse(const std::vector<std::string>& rules);

  bool Allows(const PeerProcess& peer, absl::string_view volume) const;
  // PERMISSION_DENIED unless it is allowed: in the same words whether there is such a volume or
  // not.
  absl::Status Check(const PeerProcess& peer, absl::string_view volume) const;

 private:
  struct Rule {
    bool of_group;
    id_t who;
    std::vector<std::string> volumes;
  };

  std::vector<Rule> rules_;
};

// Whose the handover socket is. None: as it comes.
struct SocketOwner {
  std::optional<uid_t> user;
  std::optional<gid_t> group;
};

// "USER", "USER:GROUP" or ":GROUP", by name or number. INVALID_ARGUMENT where there is none.
absl::StatusOr<SocketOwner> ParseSocketOwner(absl::string_view text);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACH_VOLUME_PERMISSIONS_H_
