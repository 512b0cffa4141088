// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_ATTACH_PEER_PROCESS_H_
#define FAULTLINE_CLIENT_ATTACH_PEER_PROCESS_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <sys/types.h>

#include <string>

#include "client/unique_fd.h"

namespace faultline {

// The process that connected to a Unix socket.
struct PeerProcess {
  pid_t pid = 0;   // 0 where it is in a PID namespace that this process cannot see into
  UniqueFd pidfd;  // readable when the process has ended

  absl::StatusOr<PeerProcess> Duplicate() const;
  bool HasEnded() const;
  // "process 123 (qemu-system-x86)".
  std::string Name() const;
};

// FAILED_PRECONDITION, saying what to do, where the peer cannot be watched.
absl::StatusOr<PeerProcess> PeerOf(int connected_socket);

// Sends SIGKILL.
absl::Status KillPeer(const PeerProcess& peer);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACH_PEER_PROCESS_H_
