// SPDX-License-Identifier: Apache-2.0
#include "client/attach/peer_process.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <optional>
#include <utility>

namespace faultline {
namespace {

// Linux 6.5: the peer's pidfd, which unlike its number cannot have come to mean another process.
constexpr int kSoPeerPidfd = 77;

constexpr uid_t kRoot = 0;

// The number in the line "NAME:\tN" of a file of /proc; nothing where there is no such line.
std::optional<int64_t> ProcNumber(const std::string& path, absl::string_view name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    absl::string_view rest = line;
    int64_t number;
    if (absl::ConsumePrefix(&rest, name) && absl::ConsumePrefix(&rest, ":") &&
        absl::SimpleAtoi(rest, &number)) {
      return number;
    }
  }
  return std::nullopt;
}

// Whether every user of the machine has an id of its own here. Within a user namespace the kernel
// shows all users that are not mapped as one and the same.
bool TellsUsersApart() {
  std::ifstream file("/proc/self/uid_map");
  uint64_t inside = 1, outside = 1, count = 0;
  return file >> inside >> outside >> count && inside == 0 && count == UINT32_MAX;
}

absl::Status CheckSpeaksFor(const PeerProcess& peer, const PeerProcess& target) {
  if (peer.user == kRoot) return absl::OkStatus();
  uid_t real, effective, saved;
  std::ifstream file(absl::StrCat("/proc/", target.pid, "/status"));
  for (std::string line; std::getline(file, line);) {
    if (sscanf(line.c_str(), "Uid: %u %u %u", &real, &effective, &saved) != 3) continue;
    const bool same = real == peer.user && effective == peer.user && saved == peer.user;
    if (same && TellsUsersApart()) return absl::OkStatus();
    break;
  }
  return absl::PermissionDeniedError(
      absl::StrCat("user ", peer.user, " may not hand over the memory of ", target.Name(),
                   ", which is not theirs; do it as root or as the user that it runs as"));
}

// Of the peer: `group`, its effective one, and those that it has beside (SO_PEERGROUPS,
// Linux 4.13).
std::vector<gid_t> GroupsOf(int connected_socket, gid_t group) {
  std::vector<gid_t> groups(16);
  while (true) {
    socklen_t size = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
    const int error =
        getsockopt(connected_socket, SOL_SOCKET, SO_PEERGROUPS, groups.data(), &size) == 0 ? 0
                                                                                           : errno;
    if (error == ERANGE && size > groups.size() * sizeof(gid_t)) {
      groups.resize(size / sizeof(gid_t));
      continue;
    }
    groups.resize(error == 0 ? size / sizeof(gid_t) : 0);
    groups.push_back(group);
    return groups;
  }
}

}  // namespace

absl::StatusOr<PeerProcess> PeerProcess::Duplicate() const {
  PeerProcess copy;
  copy.pid = pid;
  copy.user = user;
  copy.groups = groups;
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
    peer.user = credentials.uid;
    peer.groups = GroupsOf(connected_socket, credentials.gid);
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

absl::StatusOr<PeerProcess> HandoverTarget(const PeerProcess& peer, UniqueFd pidfd) {
  PeerProcess target;
  // Documentation/filesystems/proc.rst: 0 for another PID namespace, -1 once the process is reaped.
  const std::optional<int64_t> pid =
      ProcNumber(absl::StrCat("/proc/self/fdinfo/", pidfd.get()), "Pid");
  if (!pid) return absl::InvalidArgumentError("the descriptor that \"pidfd\" names is no pidfd");
  target.pidfd = std::move(pidfd);
  if (*pid == 0) {
    return absl::FailedPreconditionError(
        "the process whose memory is handed over is in another PID namespace; let the agent share "
        "it");
  }
  target.pid = static_cast<pid_t>(std::max<int64_t>(*pid, 0));
  if (*pid > 0 && ProcNumber(absl::StrCat("/proc/", *pid, "/status"), "Tgid") != pid) {
    return absl::InvalidArgumentError("the descriptor that \"pidfd\" names is of a mere thread");
  }
  const absl::Status status = CheckSpeaksFor(peer, target);
  // Asked last: as long as it has not ended, its number could not mean another process above.
  if (*pid < 0 || target.HasEnded()) {
    return absl::FailedPreconditionError("the process whose memory is handed over has ended");
  }
  if (!status.ok()) return status;
  return target;
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
