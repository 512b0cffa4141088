// SPDX-License-Identifier: Apache-2.0
#include "client/attach/handover_socket.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace faultline {
namespace {

// The most descriptors that the kernel passes in one message (SCM_MAX_FD).
constexpr size_t kMaxDescriptorsPerMessage = 253;

absl::Status PathError(absl::StatusCode code, absl::string_view what, const std::string& path) {
  return absl::Status(code, absl::StrCat(what, " ", path, ": ", strerror(errno)));
}

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::StatusOr<UniqueFd> OpenFolder(const std::string& folder) {
  if (mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST) {
    return PathError(absl::StatusCode::kFailedPrecondition, "cannot create the socket's folder",
                     folder);
  }
  UniqueFd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) {
    return PathError(absl::StatusCode::kFailedPrecondition, "cannot open the socket's folder",
                     folder);
  }
  return fd;
}

// Makes room at `path` for a new socket.
absl::Status RemoveStaleSocket(const std::string& path, const sockaddr_un& address) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return PathError(absl::StatusCode::kFailedPrecondition, "cannot look at", path);
  }
  if (!S_ISSOCK(info.st_mode)) {
    return absl::AlreadyExistsError(
        absl::StrCat(path, " exists and is no socket; remove it or choose another path"));
  }
  const UniqueFd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ||
      errno == EAGAIN) {  // its queue of connections is full
    return absl::AlreadyExistsError(
        absl::StrCat("another process listens on ", path, "; stop it or choose another path"));
  }
  if (errno != ECONNREFUSED) {
    return PathError(absl::StatusCode::kFailedPrecondition, "cannot tell who listens on", path);
  }
  if (unlink(path.c_str()) != 0) {
    return PathError(absl::StatusCode::kFailedPrecondition, "cannot remove the stale socket", path);
  }
  return absl::OkStatus();
}

void TakeDescriptors(const msghdr& message, size_t max_descriptors,
                     std::vector<UniqueFd>* descriptors) {
  for (const cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(const_cast<msghdr*>(&message), const_cast<cmsghdr*>(header))) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
      UniqueFd owned(fd);
      if (descriptors->size() < max_descriptors) descriptors->push_back(std::move(owned));
    }
  }
}

}  // namespace

absl::StatusOr<ListeningSocket> ListeningSocket::Open(const std::string& path, mode_t mode,
                                                      const SocketOwner& owner) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return absl::InvalidArgumentError(absl::StrCat("a socket's path has 1 to ",
                                                   sizeof address.sun_path - 1, " bytes, \"", path,
                                                   "\" has ", path.size()));
  }
  memcpy(address.sun_path, path.data(), path.size());
  // Held until this socket listens, so that of two agents that start at once one finds the other.
  absl::StatusOr<UniqueFd> folder = OpenFolder(FolderOf(path));
  if (!folder.ok()) return folder.status();
  if (flock(folder->get(), LOCK_EX) != 0) {
    return PathError(absl::StatusCode::kInternal, "cannot lock the folder of", path);
  }
  if (absl::Status status = RemoveStaleSocket(path, address); !status.ok()) return status;
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // The mode before bind bounds the one that the path is born with, the one after makes it exact:
  // between the two nobody has more permission than `mode` gives, and where the socket is to be
  // another's, nobody but this user.
  const bool another = owner.user || owner.group;
  if (!fd || fchmod(fd.get(), another ? mode & S_IRWXU : mode) != 0 ||
      bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return PathError(absl::StatusCode::kFailedPrecondition, "cannot bind a socket to", path);
  }
  struct stat info;
  constexpr id_t kAsItIs = -1;
  if (another &&
      lchown(path.c_str(), owner.user.value_or(kAsItIs), owner.group.value_or(kAsItIs)) != 0) {
    const absl::Status status =
        PathError(absl::StatusCode::kPermissionDenied,
                  "cannot give the socket to the owner that it is to have,", path);
    unlink(path.c_str());
    return status;
  }
  if (chmod(path.c_str(), mode) != 0 || lstat(path.c_str(), &info) != 0 ||
      listen(fd.get(), SOMAXCONN) != 0) {
    const absl::Status status =
        PathError(absl::StatusCode::kFailedPrecondition, "cannot listen on", path);
    unlink(path.c_str());
    return status;
  }
  return ListeningSocket(std::move(fd), path, info.st_dev, info.st_ino);
}

absl::StatusOr<ListeningSocket> ListeningSocket::TakeOver(const std::vector<int>& sockets,
                                                          const std::string& path) {
  std::vector<UniqueFd> owned;
  for (const int fd : sockets) owned.emplace_back(fd);
  if (owned.size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat("the service manager has passed ", owned.size(),
                                                   " sockets; the agent takes the one at ", path));
  }
  const int fd = owned[0].get();
  sockaddr_un address{};
  socklen_t size = sizeof address;
  int listens = 0;
  socklen_t listens_size = sizeof listens;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0 ||
      address.sun_family != AF_UNIX ||
      getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_size) != 0 || listens != 1) {
    return absl::InvalidArgumentError(
        "the service manager has passed a descriptor that is no listening Unix socket; give the "
        "socket unit a ListenStream= with a path");
  }
  const std::string found(address.sun_path, strnlen(address.sun_path, sizeof address.sun_path));
  if (found != path) {
    return absl::InvalidArgumentError(
        absl::StrCat("the service manager has passed a socket that listens at ", found,
                     ", but --socket is ", path, "; make ListenStream= and --socket the same"));
  }
  if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) {
    return PathError(absl::StatusCode::kInternal, "cannot use the socket passed for", path);
  }
  return ListeningSocket(std::move(owned[0]), "", 0, 0);
}

ListeningSocket::~ListeningSocket() {
  if (!fd_ || path_.empty()) return;
  struct stat info;
  if (lstat(path_.c_str(), &info) == 0 && info.st_dev == device_ && info.st_ino == inode_) {
    unlink(path_.c_str());
  }
}

absl::StatusOr<std::optional<Received>> ReceiveWithDescriptors(int socket, std::span<char> buffer,
                                                               size_t max_descriptors,
                                                               std::vector<UniqueFd>* descriptors) {
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxDescriptorsPerMessage * sizeof(int))];
  iovec bytes{buffer.data(), buffer.size()};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t n;
  do {
    n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (n < 0 && errno == EINTR);
  if (n < 0) {
    if (errno == EAGAIN) return std::optional<Received>();
    return absl::UnavailableError(absl::StrCat("connection broke: ", strerror(errno)));
  }
  TakeDescriptors(message, max_descriptors, descriptors);
  return std::optional<Received>({static_cast<size_t>(n), (message.msg_flags & MSG_CTRUNC) != 0});
}

}  // namespace faultline
