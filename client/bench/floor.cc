// SPDX-License-Identifier: Apache-2.0
#include "client/bench/floor.h"

#include <absl/strings/str_cat.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>

#include "client/bench/touch_order.h"
#include "client/uffd/uffd.h"

namespace faultline {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kRequestBytes = 32;
constexpr size_t kStreamWriteBytes = 256 << 10;

bool ReadFull(int fd, char* to, size_t n) {
  while (n > 0) {
    const ssize_t got = read(fd, to, n);
    if (got <= 0) return false;
    to += got;
    n -= static_cast<size_t>(got);
  }
  return true;
}

bool WriteFull(int fd, const char* from, size_t n) {
  while (n > 0) {
    const ssize_t put = write(fd, from, n);
    if (put <= 0) return false;
    from += put;
    n -= static_cast<size_t>(put);
  }
  return true;
}

struct Link {
  std::unique_ptr<bench::LimitedLink> limit;  // only where there is one
  UniqueFd client, server;
};

absl::StatusOr<Link> TcpLoopback(const bench::LinkOptions& options = {}) {
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* raw = reinterpret_cast<sockaddr*>(&address);
  Link link;
  link.client = UniqueFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (bind(listener.get(), raw, size) != 0 || listen(listener.get(), 1) != 0 ||
      getsockname(listener.get(), raw, &size) != 0) {
    return absl::ErrnoToStatus(errno, "TCP loopback");
  }
  if (options.limits()) {
    auto limit =
        bench::LimitedLink::Start(absl::StrCat("127.0.0.1:", ntohs(address.sin_port)), options);
    if (!limit.ok()) return limit.status();
    link.limit = *std::move(limit);
    address.sin_port = htons(link.limit->port());
  }
  if (connect(link.client.get(), raw, size) != 0) {
    return absl::ErrnoToStatus(errno, "TCP loopback");
  }
  link.server = UniqueFd(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const int one = 1;
  for (int fd : {link.client.get(), link.server.get()}) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  }
  return link;
}

void ServePages(int fd) {
  const std::string page(kPageSize, 'p');
  std::array<char, kRequestBytes> request;
  while (ReadFull(fd, request.data(), request.size()) && WriteFull(fd, page.data(), page.size())) {
  }
}

void HandleFaults(Uffd& uffd, int socket_fd, uint64_t faults) {
  std::array<char, kRequestBytes> request{};
  std::array<char, kPageSize> page;
  std::vector<UffdEvent> events;
  for (uint64_t done = 0; done < faults;) {
    pollfd readable{uffd.fd(), POLLIN, 0};
    poll(&readable, 1, -1);
    events.clear();
    if (!uffd.Read(&events).ok()) return;
    for (const UffdEvent& event : events) {
      if (!WriteFull(socket_fd, request.data(), request.size()) ||
          !ReadFull(socket_fd, page.data(), page.size())) {
        return;
      }
      uffd.Copy(std::get<FaultEvent>(event).address,
                {reinterpret_cast<const std::byte*>(page.data()), page.size()});
      ++done;
    }
  }
}

std::vector<double> TouchInOrder(const volatile char* base, const std::vector<uint64_t>& touches) {
  std::vector<double> micros;
  micros.reserve(touches.size());
  for (uint64_t page : touches) {
    const auto start = Clock::now();
    static_cast<void>(base[page * kPageSize]);
    micros.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  return micros;
}

}  // namespace

absl::StatusOr<std::vector<double>> MeasureUffdTcp(PageCount pages,
                                                   const std::vector<uint64_t>& touches) {
  absl::StatusOr<UniqueFd> fd = OpenUffd();
  if (!fd.ok()) return fd.status();
  absl::StatusOr<std::unique_ptr<Uffd>> uffd = AdoptFreshUffd(*std::move(fd), 0);
  if (!uffd.ok()) return uffd.status();
  absl::StatusOr<Link> link = TcpLoopback();
  if (!link.ok()) return link.status();
  void* memory =
      mmap(nullptr, pages.in_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return absl::ErrnoToStatus(errno, "mmap");
  madvise(memory, pages.in_bytes(), MADV_NOHUGEPAGE);
  const AddressRange range{reinterpret_cast<uint64_t>(memory), pages.in_bytes()};
  absl::Status status = (*uffd)->Register(range);
  std::vector<double> micros;
  if (status.ok()) {
    std::thread server([&] { ServePages(link->server.get()); });
    const uint64_t faults = bench::DistinctPages(touches);
    std::thread handler([&] { HandleFaults(**uffd, link->client.get(), faults); });
    micros = TouchInOrder(static_cast<const volatile char*>(memory), touches);
    handler.join();
    shutdown(link->client.get(), SHUT_RDWR);
    server.join();
  }
  munmap(memory, pages.in_bytes());
  if (!status.ok()) return status;
  return micros;
}

absl::StatusOr<double> MeasureTcpStream(uint64_t bytes, const bench::LinkOptions& options) {
  absl::StatusOr<Link> link = TcpLoopback(options);
  if (!link.ok()) return link.status();
  const uint64_t writes = (bytes + kStreamWriteBytes - 1) / kStreamWriteBytes;
  const auto start = Clock::now();
  std::thread writer([&] {
    const std::string chunk(kStreamWriteBytes, 's');
    for (uint64_t i = 0; i < writes; ++i) {
      if (!WriteFull(link->server.get(), chunk.data(), chunk.size())) return;
    }
  });
  std::string chunk(kStreamWriteBytes, '\0');
  bool whole = true;
  for (uint64_t i = 0; i < writes && whole; ++i) {
    whole = ReadFull(link->client.get(), chunk.data(), chunk.size());
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  if (!whole) shutdown(link->client.get(), SHUT_RDWR);
  writer.join();
  if (!whole) return absl::UnavailableError("the connection of tcp_stream broke");
  return static_cast<double>(writes * kStreamWriteBytes) / (1 << 20) / seconds;
}

absl::StatusOr<double> MeasureDiskWrite(const std::string& source, const std::string& directory) {
  const std::string path = directory + "/disk-write";
  const UniqueFd in(open(source.c_str(), O_RDONLY | O_CLOEXEC));
  const UniqueFd out(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!in || !out)
    return absl::ErrnoToStatus(errno, absl::StrCat("copy of ", source, " to ", path));
  std::string block(1 << 20, '\0');
  uint64_t bytes = 0;
  const auto start = Clock::now();
  ssize_t n;
  while ((n = read(in.get(), block.data(), block.size())) > 0) {
    if (!WriteFull(out.get(), block.data(), static_cast<size_t>(n))) break;
    bytes += static_cast<uint64_t>(n);
  }
  const bool written = n == 0 && fsync(out.get()) == 0;
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const int error = errno;
  unlink(path.c_str());
  if (!written) return absl::ErrnoToStatus(error, absl::StrCat("write of ", path));
  return static_cast<double>(bytes) / (1 << 20) / seconds;
}

}  // namespace faultline
