// SPDX-License-Identifier: Apache-2.0
#include "client/vm/migration_channel.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <string>
#include <thread>
#include <utility>

namespace faultline {
namespace {

constexpr absl::Duration kLong = absl::Minutes(5);
constexpr absl::Duration kShort = absl::Milliseconds(60);

absl::Status NoSignal() { return absl::OkStatus(); }

class MigrationChannelTest : public testing::Test {
 protected:
  MigrationChannelTest() : MigrationChannelTest(Pair()) {}

  UniqueFd raw_;  // the other end, for what the protocol does not have
  MigrationChannel ours_;

 private:
  static std::pair<int, int> Pair() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    return {ends[0], ends[1]};
  }
  explicit MigrationChannelTest(std::pair<int, int> ends)
      : raw_(ends.first), ours_(UniqueFd(ends.second)) {}
};

TEST_F(MigrationChannelTest, CarriesMessagesAndBytesInTheirOrder) {
  MigrationChannel theirs(std::move(raw_));
  ASSERT_TRUE(theirs.Send({{"type", "state"}, {"bytes", 5}}).ok());
  ASSERT_TRUE(theirs.SendBytes("a\n{b\n").ok());
  ASSERT_TRUE(theirs.Send({{"type", "run"}}).ok());
  auto message = ours_.Receive("state", kLong, NoSignal);
  ASSERT_TRUE(message.ok()) << message.status();
  auto bytes = ours_.ReceiveBytes((*message)["bytes"], kLong, NoSignal);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(*bytes, "a\n{b\n");
  EXPECT_TRUE(ours_.Receive("run", kLong, NoSignal).ok());
}

TEST_F(MigrationChannelTest, TellsWhyTheOtherEndFailed) {
  MigrationChannel theirs(std::move(raw_));
  ASSERT_TRUE(theirs.Send({{"type", "failed"}, {"message", "no such machine"}}).ok());
  const absl::Status status = ours_.Receive("ready", kLong, NoSignal).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "the other end says: no such machine");
}

TEST_F(MigrationChannelTest, TellsAnEndFromSilenceAndFromASignal) {
  EXPECT_EQ(ours_.ReceiveAny(kShort, NoSignal).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ours_.ReceiveAny(kLong, [] { return absl::CancelledError("signal"); }).status().code(),
            absl::StatusCode::kCancelled);
  raw_.reset();
  EXPECT_EQ(ours_.ReceiveAny(kLong, NoSignal).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ours_.Send({{"type", "ready"}}).code(), absl::StatusCode::kUnavailable);
}

TEST_F(MigrationChannelTest, RefusesWhatIsNoneOfIt) {
  for (const std::string& text : {std::string("GET / HTTP/1.1\n"), std::string("[1]\n"),
                                  std::string("{}\n"), std::string(100'000, 'x')}) {
    ASSERT_EQ(send(raw_.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
    EXPECT_EQ(ours_.ReceiveAny(kLong, NoSignal).status().code(),
              absl::StatusCode::kFailedPrecondition);
  }
}

TEST(Migration, ConnectsOverTcpAtAnyPort) {
  std::thread other;
  auto accepted = AcceptMigration("127.0.0.1:0", NoSignal, [&](const std::string& address) {
    other = std::thread([address] {
      auto channel = ConnectMigration(address);
      ASSERT_TRUE(channel.ok()) << channel.status();
      EXPECT_TRUE(channel->Send({{"type", "hello"}}).ok());
    });
  });
  ASSERT_TRUE(accepted.ok()) << accepted.status();
  EXPECT_TRUE(accepted->Receive("hello", kLong, NoSignal).ok());
  other.join();
}

TEST(Migration, NamesTheAddressWhereNobodyListens) {
  const absl::Status status = ConnectMigration("127.0.0.1:1").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("vm offer --listen=127.0.0.1:1"), absl::string_view::npos);
  for (const char* address : {"", ":1", "host", "host:", "unix:"}) {
    EXPECT_EQ(ConnectMigration(address).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(Migration, PagesAreOnTheHostThatWasConnectedTo) {
  EXPECT_EQ(PagesAddress(":1234", "10.0.0.1:7500"), "10.0.0.1:1234");
  EXPECT_EQ(PagesAddress("unix:/run/x", "unix:/run/y"), "unix:/run/x");
  EXPECT_EQ(PagesAddress("10.1.0.1:99", "10.0.0.1:7500"), "10.1.0.1:99");
}

}  // namespace
}  // namespace faultline
