// SPDX-License-Identifier: Apache-2.0
#include "client/vm/migration_channel.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>
#include <absl/time/clock.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

namespace faultline {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxLineBytes = size_t{64} << 10;
constexpr absl::Duration kLookInterval = absl::Milliseconds(50);
constexpr timeval kSendTimeout = {60, 0};
// So that a host that is gone is noticed: after 10 s of silence, 3 probes of 5 s.
constexpr int kKeepIdleSeconds = 10, kKeepProbeSeconds = 5, kKeepProbes = 3;
constexpr unsigned kUserTimeoutMs = 1000 * (kKeepIdleSeconds + kKeepProbes * kKeepProbeSeconds);

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

absl::StatusOr<SocketAddress> Resolve(const std::string& address) {
  SocketAddress resolved;
  absl::string_view text = address;
  if (absl::ConsumePrefix(&text, "unix:")) {
    auto* const name = reinterpret_cast<sockaddr_un*>(&resolved.storage);
    name->sun_family = AF_UNIX;
    if (text.empty() || text.size() >= sizeof name->sun_path) {
      return absl::InvalidArgumentError(absl::StrCat("\"", address, "\" is no path of a socket"));
    }
    memcpy(name->sun_path, text.data(), text.size());
    resolved.size = sizeof *name;
    return resolved;
  }
  const size_t colon = address.rfind(':');
  if (colon == address.npos || colon == 0 || colon + 1 == address.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", address, "\" is no address; it is host:port or unix:path"));
  }
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found);
  if (error != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", address, "\" is no address: ", gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(found, &freeaddrinfo);
  memcpy(&resolved.storage, found->ai_addr, found->ai_addrlen);
  resolved.size = found->ai_addrlen;
  return resolved;
}

// For both ends, once connected.
void Configure(int socket) {
  setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &kSendTimeout, sizeof kSendTimeout);
  const int on = 1;
  setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &kKeepIdleSeconds, sizeof(int));
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &kKeepProbeSeconds, sizeof(int));
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &kKeepProbes, sizeof(int));
  // While something that was sent is not acknowledged, there are no probes.
  setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &kUserTimeoutMs, sizeof(unsigned));
}

// `address` with the port that was found for port 0.
std::string Bound(int listener, const std::string& address) {
  sockaddr_storage name{};
  socklen_t size = sizeof name;
  if (absl::StartsWith(address, "unix:") ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&name), &size) != 0) {
    return address;
  }
  const in_port_t port = name.ss_family == AF_INET6
                             ? reinterpret_cast<const sockaddr_in6*>(&name)->sin6_port
                             : reinterpret_cast<const sockaddr_in*>(&name)->sin_port;
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", ntohs(port));
}

absl::Status Gone() {
  return absl::UnavailableError("the other end of the migration is gone, and does not say why");
}

absl::Status Broken(int error) {
  return absl::AbortedError(
      absl::StrCat("the connection to the other end of the migration broke: ", strerror(error)));
}

}  // namespace

absl::Status MigrationChannel::Send(const ordered_json& message) {
  return SendBytes(message.dump(-1, ' ', true, ordered_json::error_handler_t::replace) + "\n");
}

absl::Status MigrationChannel::SendBytes(absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EPIPE) return Gone();
    if (n < 0) return Broken(errno == EAGAIN ? ETIMEDOUT : errno);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::StatusOr<ordered_json> MigrationChannel::Receive(absl::string_view type,
                                                       absl::Duration timeout,
                                                       CheckFunction check) {
  absl::StatusOr<ordered_json> message = ReceiveAny(timeout, check);
  if (!message.ok() || (*message)["type"] == std::string(type)) return message;
  const ordered_json reason = message->value("message", ordered_json());
  return absl::FailedPreconditionError(
      (*message)["type"] == "failed" && reason.is_string()
          ? absl::StrCat("the other end says: ", reason.get<std::string>())
          : absl::StrCat("the other end does not say \"", type, "\" when it should"));
}

absl::StatusOr<ordered_json> MigrationChannel::ReceiveAny(absl::Duration timeout,
                                                          CheckFunction check) {
  const absl::Time deadline = absl::Now() + timeout;
  size_t end;
  while ((end = received_.find('\n')) == received_.npos) {
    if (received_.size() > kMaxLineBytes) {
      return absl::FailedPreconditionError("the other end is no faultline vm");
    }
    if (absl::Status status = Read(deadline, check); !status.ok()) return status;
  }
  ordered_json message =
      ordered_json::parse(received_.begin(), received_.begin() + static_cast<ptrdiff_t>(end),
                          nullptr, /*allow_exceptions=*/false);
  received_.erase(0, end + 1);
  if (!message.is_object() || !message.contains("type")) {
    return absl::FailedPreconditionError("the other end is no faultline vm");
  }
  return message;
}

absl::StatusOr<std::string> MigrationChannel::ReceiveBytes(uint64_t count, absl::Duration timeout,
                                                           CheckFunction check) {
  const absl::Time deadline = absl::Now() + timeout;
  while (received_.size() < count) {
    if (absl::Status status = Read(deadline, check); !status.ok()) return status;
  }
  std::string bytes = received_.substr(0, count);
  received_.erase(0, count);
  return bytes;
}

absl::Status MigrationChannel::Read(absl::Time deadline, CheckFunction check) {
  while (true) {
    char bytes[65536];
    const ssize_t n = recv(socket_.get(), bytes, sizeof bytes, MSG_DONTWAIT);
    if (n > 0) {
      received_.append(bytes, static_cast<size_t>(n));
      return absl::OkStatus();
    }
    if (n == 0) return Gone();
    if (errno != EAGAIN && errno != EINTR) return Broken(errno);
    if (absl::Status status = check(); !status.ok()) return status;
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError("the other end of the migration does not answer");
    }
    pollfd readable{socket_.get(), POLLIN, 0};
    poll(&readable, 1, static_cast<int>(absl::ToInt64Milliseconds(kLookInterval)));
  }
}

void MigrationChannel::Repeat(const ordered_json& message) {
  received_.insert(0, message.dump() + "\n");
}

void MigrationChannel::Abandon() {
  // With a reset, and not with an end of what was sent.
  const linger now = {1, 0};
  setsockopt(socket_.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  socket_.reset();
}

absl::StatusOr<MigrationListener> MigrationListener::Listen(const std::string& address) {
  MigrationListener listener;
  const absl::StatusOr<SocketAddress> resolved = Resolve(address);
  if (!resolved.ok()) return resolved.status();
  if (absl::string_view path = address; absl::ConsumePrefix(&path, "unix:")) {
    absl::StatusOr<ListeningSocket> by_path = ListeningSocket::Open(std::string(path), 0600);
    if (!by_path.ok()) return by_path.status();
    listener.by_path_ = std::make_unique<ListeningSocket>(*std::move(by_path));
    listener.address_ = address;
    return listener;
  }
  listener.socket_.reset(
      socket(resolved->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  setsockopt(listener.socket_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener.socket_.get(), resolved->get(), resolved->size) != 0 ||
      listen(listener.socket_.get(), 1) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot listen on ", address));
  }
  listener.address_ = Bound(listener.socket_.get(), address);
  return listener;
}

absl::StatusOr<MigrationChannel> MigrationListener::Accept(absl::Duration timeout,
                                                           CheckFunction check) {
  const int listening = by_path_ != nullptr ? by_path_->fd() : socket_.get();
  const absl::Time deadline = absl::Now() + timeout;
  while (true) {
    UniqueFd accepted(accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
    if (accepted) {
      Configure(accepted.get());
      return MigrationChannel(std::move(accepted));
    }
    if (absl::Status status = check(); !status.ok()) return status;
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return absl::DeadlineExceededError("nobody connects");
    pollfd readable{listening, POLLIN, 0};
    poll(&readable, 1, static_cast<int>(absl::ToInt64Milliseconds(std::min(left, kLookInterval))));
  }
}

absl::StatusOr<MigrationChannel> ConnectMigration(const std::string& address,
                                                  absl::Duration timeout) {
  const absl::StatusOr<SocketAddress> resolved = Resolve(address);
  if (!resolved.ok()) return resolved.status();
  UniqueFd connected(socket(resolved->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // Bounds connect(); replaced by Configure().
  const timeval bound = absl::ToTimeval(timeout);
  setsockopt(connected.get(), SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof bound);
  if (connect(connected.get(), resolved->get(), resolved->size) != 0) {
    const bool nobody = errno == ECONNREFUSED || errno == ENOENT;
    return absl::Status(
        nobody ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kUnavailable,
        absl::StrCat("nobody offers a machine at ", address, " (",
                     errno == EINPROGRESS ? "no answer in time" : strerror(errno),
                     "); faultline vm offer --listen=", address, " does, once"));
  }
  Configure(connected.get());
  return MigrationChannel(std::move(connected));
}

std::string PagesToldAddress(const std::string& pages, const std::string& listen) {
  const auto host = [](absl::string_view address) { return address.substr(0, address.rfind(':')); };
  if (absl::StartsWith(pages, "unix:")) return pages;
  const absl::string_view at = host(pages);
  if (at != host(listen) && at != "0.0.0.0" && at != "[::]") return pages;
  return pages.substr(pages.rfind(':'));
}

std::string PagesAddress(const std::string& told, const std::string& from) {
  if (told.empty() || told[0] != ':') return told;
  return absl::StrCat(from.substr(0, from.rfind(':')), told);
}

}  // namespace faultline
