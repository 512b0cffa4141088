// SPDX-License-Identifier: Apache-2.0
#include "server/listener.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>
#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <memory>

#include "proto/host_port.h"

namespace faultline {
namespace {

constexpr absl::string_view kUnixPrefix = "unix:";

class Socket {
 public:
  explicit Socket(int domain) : fd_(socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int fd() const { return fd_; }

 private:
  const int fd_;
};

sockaddr_un UnixAddress(absl::string_view path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  memcpy(address.sun_path, path.data(), path.size());
  return address;
}

// What to do about `error`, from socket(), bind() or listen().
absl::string_view Advice(int error) {
  switch (error) {
    case EADDRINUSE:
      return "; another program listens there: stop it or choose another address";
    case EADDRNOTAVAIL:
      return "; no network interface of this machine has that address";
    case EACCES:
    case EPERM:
      return "; choose a port above 1023 or a directory that this user may write to";
    case ENOENT:
    case ENOTDIR:
      return "; create the directory first";
    case EROFS:
      return "; choose a directory on a writable file system";
    default:
      return "";
  }
}

absl::Status LookUpError(absl::string_view address, const absl::Status& status) {
  return absl::InvalidArgumentError(
      absl::StrCat("cannot listen on ", address, ": ", status.message()));
}

absl::Status ListenError(absl::string_view address, int error) {
  const absl::StatusCode code = error == EADDRINUSE ? absl::StatusCode::kAlreadyExists
                                : error == EACCES || error == EPERM
                                    ? absl::StatusCode::kPermissionDenied
                                    : absl::StatusCode::kUnavailable;
  return absl::Status(
      code, absl::StrCat("cannot listen on ", address, ": ", strerror(error), Advice(error)));
}

// The error of binding to and listening at an address, or 0.
int TryToListen(int domain, const sockaddr* address, socklen_t size) {
  const Socket socket(domain);
  if (socket.fd() < 0) return errno;
  // As gRPC does: a port whose last connections still linger can be bound.
  const int on = 1;
  if (domain != AF_UNIX && setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) {
    return errno;
  }
  if (bind(socket.fd(), address, size) != 0) return errno;
  return listen(socket.fd(), 1) != 0 ? errno : 0;
}

absl::Status ExplainUnixFailure(absl::string_view address, absl::string_view path) {
  const sockaddr_un target = UnixAddress(path);
  const int error = TryToListen(AF_UNIX, reinterpret_cast<const sockaddr*>(&target), sizeof target);
  if (error == 0) {
    unlink(target.sun_path);
    return absl::UnavailableError(
        absl::StrCat("could not listen on ", address, ", but it is free now; try again"));
  }
  return ListenError(address, error);
}

}  // namespace

absl::Status CheckListenAddress(absl::string_view address) {
  absl::string_view path = address;
  if (absl::ConsumePrefix(&path, kUnixPrefix)) {
    if (path.empty() || path.size() >= sizeof(sockaddr_un::sun_path)) {
      return absl::InvalidArgumentError(
          absl::StrCat("cannot listen on ", address, ": a unix socket's path has 1 to ",
                       sizeof(sockaddr_un::sun_path) - 1, " bytes; choose a shorter one"));
    }
    return absl::OkStatus();
  }
  if (SplitHostPort(address)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("\"", address,
                   "\" is no address to listen on; write host:port (127.0.0.1:7400, [::1]:7400, "
                   "port 0 for a free one) or unix:path"));
}

bool IsUnixAddress(absl::string_view address) { return absl::StartsWith(address, kUnixPrefix); }

absl::Status CheckOnlyThisHost(absl::string_view address) {
  if (IsUnixAddress(address)) return absl::OkStatus();
  const std::optional<HostPort> parts = SplitHostPort(address);
  if (!parts) return absl::OkStatus();
  const absl::StatusOr<Addresses> addresses = AddressesOf(*parts);
  if (!addresses.ok()) return LookUpError(address, addresses.status());
  for (const addrinfo* one = addresses->get(); one != nullptr; one = one->ai_next) {
    if (IsLoopback(one->ai_addr)) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "will not listen on ", address,
        " without TLS: other hosts could read and write every volume; give --tls-cert, "
        "--tls-key and --tls-client-ca, or --allow-plaintext where the network may be "
        "trusted"));
  }
  return absl::OkStatus();
}

absl::Status PrepareListenAddress(absl::string_view address) {
  absl::string_view path = address;
  if (!absl::ConsumePrefix(&path, kUnixPrefix)) return absl::OkStatus();
  const sockaddr_un target = UnixAddress(path);
  struct stat file;
  if (lstat(target.sun_path, &file) != 0) return absl::OkStatus();
  if (!S_ISSOCK(file.st_mode)) {
    return absl::AlreadyExistsError(absl::StrCat("cannot listen on ", address,
                                                 ": the file exists and is no socket; remove it or "
                                                 "choose another path"));
  }
  const Socket probe(AF_UNIX);
  if (probe.fd() < 0) return ListenError(address, errno);
  if (connect(probe.fd(), reinterpret_cast<const sockaddr*>(&target), sizeof target) == 0 ||
      errno == EAGAIN) {
    return ListenError(address, EADDRINUSE);
  }
  if (errno != ECONNREFUSED) return ListenError(address, errno);
  // Nobody listens: the server that made it is dead.
  if (unlink(target.sun_path) != 0 && errno != ENOENT) return ListenError(address, errno);
  return absl::OkStatus();
}

absl::Status ExplainListenFailure(absl::string_view address) {
  absl::string_view path = address;
  if (absl::ConsumePrefix(&path, kUnixPrefix)) return ExplainUnixFailure(address, path);
  const std::optional<HostPort> parts = SplitHostPort(address);
  if (!parts) return CheckListenAddress(address);
  const absl::StatusOr<Addresses> addresses = AddressesOf(*parts);
  if (!addresses.ok()) return LookUpError(address, addresses.status());
  for (const addrinfo* one = addresses->get(); one != nullptr; one = one->ai_next) {
    if (const int error = TryToListen(one->ai_family, one->ai_addr, one->ai_addrlen); error != 0) {
      return ListenError(address, error);
    }
  }
  return absl::UnavailableError(
      absl::StrCat("could not listen on ", address, ", but it is free now; try again"));
}

std::string WithPort(absl::string_view address, int port) {
  if (absl::StartsWith(address, kUnixPrefix)) return std::string(address);
  return absl::StrCat(address.substr(0, address.rfind(':') + 1), port);
}

}  // namespace faultline
