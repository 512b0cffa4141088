// SPDX-License-Identifier: Apache-2.0
#include "client/bench/limited_link.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "client/unique_fd.h"

namespace faultline::bench {
namespace {

constexpr uint64_t kGigabit = 125'000'000;  // bytes per second

TEST(LinkOptions, AreDescribedAsTheyWereWritten) {
  EXPECT_EQ(DescribeLink({.bytes_per_second = kGigabit, .delay = absl::Milliseconds(5)}),
            "1gbit, 5ms one way");
  EXPECT_EQ(DescribeLink({.bytes_per_second = 312'500, .delay = {}}), "2500kbit");
  EXPECT_EQ(DescribeLink({.bytes_per_second = 0, .delay = absl::Milliseconds(5)}), "5ms one way");
}

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

UniqueFd ConnectTo(const LimitedLink& link) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM, 0));
  const sockaddr_in address = Loopback(link.port());
  EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  return fd;
}

// A listening socket of loopback; what comes in is sent back, until the sender has ended.
class EchoServer {
 public:
  EchoServer() : listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = Loopback(0);
    socklen_t size = sizeof address;
    auto* raw = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(listener_.get(), raw, size), 0);
    EXPECT_EQ(listen(listener_.get(), 1), 0);
    EXPECT_EQ(getsockname(listener_.get(), raw, &size), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] {
      const UniqueFd peer(accept(listener_.get(), nullptr, nullptr));
      char bytes[4096];
      for (ssize_t n; (n = read(peer.get(), bytes, sizeof bytes)) > 0;) {
        for (ssize_t put = 0, m; put < n; put += m) {
          if ((m = write(peer.get(), bytes + put, static_cast<size_t>(n - put))) <= 0) return;
        }
      }
    });
  }
  ~EchoServer() { thread_.join(); }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  UniqueFd listener_;
  uint16_t port_ = 0;
  std::thread thread_;
};

TEST(LimitedLink, EveryByteArrivesInOrderAndTheEndToo) {
  EchoServer server;
  auto link = LimitedLink::Start(server.address(),
                                 {.bytes_per_second = kGigabit, .delay = absl::Microseconds(100)});
  ASSERT_TRUE(link.ok()) << link.status();
  const UniqueFd fd = ConnectTo(**link);
  std::string sent(1 << 20, '\0');
  for (size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * 31 >> 8);
  std::thread writer([&] {
    EXPECT_EQ(send(fd.get(), sent.data(), sent.size(), 0), static_cast<ssize_t>(sent.size()));
    shutdown(fd.get(), SHUT_WR);
  });
  std::string received;
  char bytes[4096];
  for (ssize_t n; (n = read(fd.get(), bytes, sizeof bytes)) > 0;) {
    received.append(bytes, static_cast<size_t>(n));
  }
  writer.join();
  EXPECT_TRUE(received == sent) << received.size() << " bytes";
}

TEST(LimitedLink, AConnectionIsClosedWhereNobodyListens) {
  // Bound, and so nobody else's; but it does not listen.
  const UniqueFd reserved(socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address = Loopback(0);
  socklen_t size = sizeof address;
  ASSERT_EQ(bind(reserved.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(getsockname(reserved.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  auto link =
      LimitedLink::Start("127.0.0.1:" + std::to_string(ntohs(address.sin_port)), LinkOptions());
  ASSERT_TRUE(link.ok()) << link.status();
  const UniqueFd fd = ConnectTo(**link);
  char c;
  EXPECT_LE(read(fd.get(), &c, 1), 0);
}

TEST(LimitedLink, OnlyANumericAddressIsATarget) {
  for (const char* target : {"", "localhost:1", "127.0.0.1", "unix:/x", "127.0.0.1:99999"}) {
    EXPECT_EQ(LimitedLink::Start(target, {}).status().code(), absl::StatusCode::kInvalidArgument)
        << target;
  }
}

}  // namespace
}  // namespace faultline::bench
