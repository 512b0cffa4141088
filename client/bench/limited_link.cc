// SPDX-License-Identifier: Apache-2.0
#include "client/bench/limited_link.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "client/source/link_schedule.h"
#include "client/unique_fd.h"
#include "proto/units.h"

namespace faultline::bench {
namespace {

using Nanos = LinkSchedule::Nanos;

// What a link may make up for when its thread is woken late: of the order of a scheduler's tick.
constexpr Nanos kBurst = std::chrono::milliseconds(1);
// What waits in front of the link. As long as there is something, the link is never idle; more
// would only stand in the way of other connections.
constexpr Nanos kQueue = std::chrono::milliseconds(2);
// So much of one connection is taken at a time: little, so that the others have their turn soon,
// but not less than what the link sends in a quarter of a millisecond, at high speeds.
constexpr size_t kChunkBytesMin = 16 << 10, kChunkBytesMax = 128 << 10;
constexpr uint64_t kChunksPerSecond = 4000;
// Of what is on its way or waits for a receiver that does not read, in one direction of one
// connection, beyond what the speed puts on the way within the delay. Without a limit of the speed:
// what a few milliseconds of loopback bring.
constexpr size_t kMaxHeldBytes = 4 << 20;
constexpr size_t kMaxHeldBytesWithoutLimit = 64 << 20;

Nanos Now() {
  return std::chrono::duration_cast<Nanos>(std::chrono::steady_clock::now().time_since_epoch());
}

absl::StatusOr<sockaddr_in> ParseAddress(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  uint32_t port = 0;
  if (parts.size() != 2 || inet_pton(AF_INET, parts[0].c_str(), &address.sin_addr) != 1 ||
      !absl::SimpleAtoi(parts[1], &port) || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("a link goes to a host:port with a numeric IPv4 host, not to ", text));
  }
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

size_t MaxHeldBytes(const LinkOptions& options) {
  if (options.bytes_per_second == 0) return kMaxHeldBytesWithoutLimit;
  const double on_the_way =
      static_cast<double>(options.bytes_per_second) * absl::ToDoubleSeconds(options.delay);
  return kMaxHeldBytes + static_cast<size_t>(on_the_way);
}

size_t ChunkBytes(const LinkOptions& options) {
  if (options.bytes_per_second == 0) return kChunkBytesMax;
  return std::clamp<size_t>(options.bytes_per_second / kChunksPerSecond, kChunkBytesMin,
                            kChunkBytesMax);
}

// One direction of one connection.
struct Pipe {
  struct Chunk {
    Nanos due;
    std::string bytes;
  };
  int from = -1, to = -1;  // borrowed from the connection
  LinkSchedule* link = nullptr;
  std::deque<Chunk> chunks;
  size_t held_bytes = 0;
  size_t first_sent = 0;       // bytes of the first chunk that are written
  bool receiver_full = false;  // the last write would have blocked
  bool ended = false;          // nothing more comes in
  bool shut = false;           // nothing more goes out
};

struct Connection {
  UniqueFd near, far;
  Pipe there, back;
  bool broken = false;
};

class ProxyLink : public LimitedLink {
 public:
  ProxyLink(UniqueFd listener, UniqueFd stop, uint16_t port, sockaddr_in target,
            const LinkOptions& options)
      : listener_(std::move(listener)),
        stop_(std::move(stop)),
        port_(port),
        target_(target),
        there_(options.bytes_per_second, absl::ToChronoNanoseconds(options.delay), kBurst),
        back_(options.bytes_per_second, absl::ToChronoNanoseconds(options.delay), kBurst),
        max_held_bytes_(MaxHeldBytes(options)),
        buffer_(ChunkBytes(options), '\0'),
        thread_([this] { Run(); }) {}
  ~ProxyLink() override {
    eventfd_write(stop_.get(), 1);
    thread_.join();
  }

  uint16_t port() const override { return port_; }

 private:
  void Run();
  void Accept();
  // Writes what is due.
  void Deliver(Pipe& pipe, Connection& connection, Nanos now);
  // Takes one chunk from the sender, where the link has room for it.
  void Take(Pipe& pipe, Connection& connection, Nanos now);
  bool HasRoom(const Pipe& pipe, Nanos now) const {
    return !pipe.ended && pipe.held_bytes < max_held_bytes_ && pipe.link->Backlog(now) < kQueue;
  }
  // Until something is due, a socket is ready, or it is time to stop: then false.
  bool Wait(Nanos now);

  const UniqueFd listener_, stop_;
  const uint16_t port_;
  const sockaddr_in target_;
  // The rest belongs to the thread.
  LinkSchedule there_, back_;
  const size_t max_held_bytes_;
  std::string buffer_;  // what is received next
  std::deque<std::unique_ptr<Connection>> connections_;
  std::vector<pollfd> polled_;
  std::thread thread_;  // last: uses what stands above
};

void ProxyLink::Run() {
  // The default of 50 us would make short delays long.
  prctl(PR_SET_TIMERSLACK, 1);
  do {
    const Nanos now = Now();
    Accept();
    for (const auto& connection : connections_) {
      for (Pipe* pipe : {&connection->there, &connection->back}) {
        Deliver(*pipe, *connection, now);
        Take(*pipe, *connection, now);
      }
    }
    std::erase_if(connections_, [](const auto& connection) {
      return connection->broken || (connection->there.shut && connection->back.shut);
    });
    // Who was first is last the next time.
    if (!connections_.empty()) {
      connections_.push_back(std::move(connections_.front()));
      connections_.pop_front();
    }
  } while (Wait(Now()));
}

void ProxyLink::Accept() {
  UniqueFd near(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!near) return;
  UniqueFd far(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // On loopback: at once, or refused, and then so is the peer.
  if (connect(far.get(), reinterpret_cast<const sockaddr*>(&target_), sizeof target_) != 0) return;
  fcntl(far.get(), F_SETFL, O_NONBLOCK);
  const int one = 1;
  for (const int fd : {near.get(), far.get()}) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  }
  auto connection = std::make_unique<Connection>();
  connection->there.from = connection->back.to = near.get();
  connection->there.to = connection->back.from = far.get();
  connection->there.link = &there_;
  connection->back.link = &back_;
  connection->near = std::move(near);
  connection->far = std::move(far);
  connections_.push_back(std::move(connection));
}

void ProxyLink::Deliver(Pipe& pipe, Connection& connection, Nanos now) {
  pipe.receiver_full = false;
  while (!pipe.chunks.empty() && pipe.chunks.front().due <= now) {
    const std::string& bytes = pipe.chunks.front().bytes;
    const ssize_t n = send(pipe.to, bytes.data() + pipe.first_sent, bytes.size() - pipe.first_sent,
                           MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      pipe.receiver_full = errno == EAGAIN;
      connection.broken |= errno != EAGAIN && errno != EINTR;
      return;
    }
    pipe.first_sent += static_cast<size_t>(n);
    if (pipe.first_sent < bytes.size()) continue;
    pipe.held_bytes -= bytes.size();
    pipe.first_sent = 0;
    pipe.chunks.pop_front();
  }
  if (pipe.ended && pipe.chunks.empty() && !pipe.shut) {
    shutdown(pipe.to, SHUT_WR);
    pipe.shut = true;
  }
}

void ProxyLink::Take(Pipe& pipe, Connection& connection, Nanos now) {
  if (!HasRoom(pipe, now)) return;
  const ssize_t n = recv(pipe.from, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
  if (n > 0) {
    const auto bytes = static_cast<size_t>(n);
    pipe.held_bytes += bytes;
    pipe.chunks.push_back({pipe.link->Arrival(now, bytes), buffer_.substr(0, bytes)});
  } else if (n == 0) {
    pipe.ended = true;
  } else if (errno != EAGAIN && errno != EINTR) {
    connection.broken = true;
  }
}

bool ProxyLink::Wait(Nanos now) {
  polled_.assign({{stop_.get(), POLLIN, 0}, {listener_.get(), POLLIN, 0}});
  Nanos wake = Nanos::max();
  for (const auto& connection : connections_) {
    for (const Pipe* pipe : {&connection->there, &connection->back}) {
      if (pipe->receiver_full) {
        polled_.push_back({pipe->to, POLLOUT, 0});
      } else if (!pipe->chunks.empty()) {
        wake = std::min(wake, pipe->chunks.front().due);
      } else if (pipe->ended && !pipe->shut) {
        wake = now;
      }
      if (HasRoom(*pipe, now)) {
        polled_.push_back({pipe->from, POLLIN, 0});
      } else if (!pipe->ended && pipe->held_bytes < max_held_bytes_) {
        wake = std::min(wake, now + pipe->link->Backlog(now) - kQueue / 2);
      }
    }
  }
  timespec timeout{};
  if (wake != Nanos::max()) {
    const Nanos left = std::max(wake - now, Nanos(0));
    timeout.tv_sec = left / std::chrono::seconds(1);
    timeout.tv_nsec = (left % std::chrono::seconds(1)).count();
  }
  ppoll(polled_.data(), polled_.size(), wake == Nanos::max() ? nullptr : &timeout, nullptr);
  return (polled_[0].revents & POLLIN) == 0;
}

}  // namespace

std::string DescribeLink(const LinkOptions& options) {
  std::string text;
  if (options.bytes_per_second > 0) text = FormatBitRate(options.bytes_per_second);
  if (options.delay > absl::ZeroDuration()) {
    absl::StrAppend(&text, text.empty() ? "" : ", ", absl::FormatDuration(options.delay),
                    " one way");
  }
  return text;
}

absl::StatusOr<std::unique_ptr<LimitedLink>> LimitedLink::Start(const std::string& target,
                                                                const LinkOptions& options) {
  absl::StatusOr<sockaddr_in> target_address = ParseAddress(target);
  if (!target_address.ok()) return target_address.status();
  UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  UniqueFd stop(eventfd(0, EFD_CLOEXEC));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* raw = reinterpret_cast<sockaddr*>(&address);
  if (!stop || bind(listener.get(), raw, size) != 0 || listen(listener.get(), SOMAXCONN) != 0 ||
      getsockname(listener.get(), raw, &size) != 0) {
    return absl::ErrnoToStatus(errno, "cannot listen on loopback for a limited link");
  }
  return std::make_unique<ProxyLink>(std::move(listener), std::move(stop), ntohs(address.sin_port),
                                     *target_address, options);
}

}  // namespace faultline::bench
