// SPDX-License-Identifier: Apache-2.0
#include "client/attach/peer_process.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstring>

namespace faultline {
namespace {

// Linux 6.5: the peer's pidfd, which unlike its number cannot have come to mean another process.
constexpr int kSoPeerPidfd = 77;

}  // namespace

absl::StatusOr<PeerProcess> PeerProcess::Duplicate() const {
  PeerProcess copy;
  copy.pid = pid;
  copy.pidfd.reset(fcntl(pidfd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.pidfd) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot duplicate the pidfd of ", Name(), ": ", strerror(errno)));
  }
  return copy;
}

bool PeerProcess::HasEnded() const {
  pollfd state{pidfd.get(), POLLIN, 0};
  return poll(&state, 1, 0) > 0 && (state.revents & POLLIN) != 0;
}

std::string PeerProcess::Name() const {
  if (pid == 0) return "a process of another PID namespace";
  char command[64] = "";
  const UniqueFd file(open(absl::StrCat("/proc/", pid, "/comm").c_str(), O_RDONLY | O_CLOEXEC));
  const ssize_t n = file ? read(file.get(), command, sizeof command - 1) : 0;
  std::string name = absl::StrCat("process ", pid);
  if (n > 1) {
    for (ssize_t i = 0; i < n; ++i) {
      if (command[i] < ' ' || command[i] > '~') command[i] = '?';
    }
    absl::StrAppend(&name, " (", absl::string_view(command, static_cast<size_t>(n - 1)), ")");
  }
  return name;
}

absl::StatusOr<PeerProcess> PeerOf(int connected_socket) {
  PeerProcess peer;
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (getsockopt(connected_socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0) {
    peer.pid = credentials.pid;
  }
  int pidfd = -1;
  size = sizeof pidfd;
  if (getsockopt(connected_socket, SOL_SOCKET, kSoPeerPidfd, &pidfd, &size) == 0) {
    peer.pidfd.reset(pidfd);
    fcntl(pidfd, F_SETFD, FD_CLOEXEC);
    return peer;
  }
  if (peer.pid == 0) {
    return absl::FailedPreconditionError(
        "cannot watch the peer: it is in another PID namespace, and this kernel has no "
        "SO_PEERPIDFD (Linux 6.5); let the agent share the peer's PID namespace");
  }
  peer.pidfd.reset(static_cast<int>(syscall(SYS_pidfd_open, peer.pid, 0)));
  if (!peer.pidfd) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot watch ", peer.Name(), ": pidfd_open: ", strerror(errno)));
  }
  return peer;
}

absl::Status KillPeer(const PeerProcess& peer) {
  if (syscall(SYS_pidfd_send_signal, peer.pidfd.get(), SIGKILL, nullptr, 0) == 0 ||
      errno == ESRCH) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("cannot kill ", peer.Name(), ": ", strerror(errno)));
}

}  // namespace faultline
