// SPDX-License-Identifier: Apache-2.0
#include "client/bench/limited_link.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "client/bench/link_schedule.h"
#include "client/unique_fd.h"

namespace faultline::bench {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Nanos = LinkSchedule::Nanos;

constexpr uint64_t kGigabit = 125'000'000;  // bytes per second
constexpr Nanos kNoBurst{0};
constexpr Nanos kStart = seconds(100);

TEST(LinkSchedule, BytesComeOneAfterTheOtherAndThenTheDelay) {
  LinkSchedule link(kGigabit, milliseconds(5), kNoBurst);
  // 125 bytes take a microsecond.
  EXPECT_EQ(link.Arrival(kStart, 125), kStart + microseconds(1) + milliseconds(5));
  EXPECT_EQ(link.Arrival(kStart, 250), kStart + microseconds(3) + milliseconds(5));
}

TEST(LinkSchedule, TheSpeedIsExactOverTimeWhateverThePieces) {
  // A byte takes 8 / 3 us and a third of a nanosecond is left over.
  LinkSchedule link(375'000, Nanos(0), kNoBurst);
  Nanos last(0);
  for (int i = 0; i < 375'000; ++i) last = link.Arrival(kStart, 1);
  EXPECT_EQ(last, kStart + seconds(1));
}

TEST(LinkSchedule, AnIdleLinkStartsAnew) {
  LinkSchedule link(kGigabit, Nanos(0), kNoBurst);
  link.Arrival(kStart, 125);
  EXPECT_EQ(link.Arrival(kStart + seconds(1), 125), kStart + seconds(1) + microseconds(1));
}

TEST(LinkSchedule, ALateCallerMakesUpForTheBurstAndNoMore) {
  LinkSchedule link(kGigabit, Nanos(0), microseconds(10));
  link.Arrival(kStart, 125);
  const Nanos later = kStart + seconds(1);
  // What fits into 10 us is there at once, what follows is not.
  EXPECT_EQ(link.Arrival(later, 1250), later);
  EXPECT_EQ(link.Arrival(later, 125), later + microseconds(1));
}

TEST(LinkSchedule, BacklogIsWhatIsStillToBeSent) {
  LinkSchedule link(kGigabit, milliseconds(5), kNoBurst);
  EXPECT_EQ(link.Backlog(kStart), Nanos(0));
  link.Arrival(kStart, 1250);
  EXPECT_EQ(link.Backlog(kStart), microseconds(10));
  EXPECT_EQ(link.Backlog(kStart + microseconds(4)), microseconds(6));
  EXPECT_EQ(link.Backlog(kStart + seconds(1)), Nanos(0));
}

TEST(LinkSchedule, WithoutALimitThereIsOnlyTheDelay) {
  LinkSchedule link(0, milliseconds(5), kNoBurst);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(link.Arrival(kStart, 1 << 30), kStart + milliseconds(5));
    EXPECT_EQ(link.Backlog(kStart), Nanos(0));
  }
}

TEST(LinkRate, IsReadInBitsAndToldAsItWasWritten) {
  for (const auto& [text, bytes] : {std::pair<const char*, uint64_t>{"1gbit", kGigabit},
                                    {"100mbit", 12'500'000},
                                    {"2500kbit", 312'500}}) {
    EXPECT_EQ(*ParseLinkRate(text), bytes);
    EXPECT_EQ(DescribeLink({.bytes_per_second = bytes, .delay = {}}), text);
  }
  for (const char* text : {"", "1", "gbit", "0mbit", "1.5gbit", "-1gbit", "1GiB", "1001gbit"}) {
    EXPECT_EQ(ParseLinkRate(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_EQ(DescribeLink({.bytes_per_second = kGigabit, .delay = absl::Milliseconds(5)}),
            "1gbit, 5ms one way");
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
