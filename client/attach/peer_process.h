// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_ATTACH_PEER_PROCESS_H_
#define FAULTLINE_CLIENT_ATTACH_PEER_PROCESS_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "client/unique_fd.h"

namespace faultline {

// A process that connected to a Unix socket, or that such a one speaks for.
struct PeerProcess {
  pid_t pid = 0;  // 0 where it is in a PID namespace that this process cannot see into
  // Its effective user, and its groups, when it connected; not told of one that is spoken for.
  uid_t user = -1;
  std::vector<gid_t> groups;
  UniqueFd pidfd;  // readable when the process has ended

  absl::StatusOr<PeerProcess> Duplicate() const;
  bool HasEnded() const;
  // "process 123 (qemu-system-x86)".
  std::string Name() const;
};

// FAILED_PRECONDITION, saying what to do, where the peer cannot be watched.
absl::StatusOr<PeerProcess> PeerOf(int connected_socket);

// The process of `pidfd`, for which `peer` hands over memory. PERMISSION_DENIED unless `peer` is
// root, or `pidfd`'s process runs as the user that `peer` is, by its real, effective and saved user
// ids alike: a peer who could not kill the process must not get this process to do it.
// INVALID_ARGUMENT where `pidfd` is none; FAILED_PRECONDITION where its process has ended or is in
// a PID namespace that this process cannot see into.
absl::StatusOr<PeerProcess> HandoverTarget(const PeerProcess& peer, UniqueFd pidfd);

// Sends SIGKILL.
absl::Status KillPeer(const PeerProcess& peer);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACH_PEER_PROCESS_H_
