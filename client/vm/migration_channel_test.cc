// SPDX-License-Identifier: Apache-2.0
#include "client/vm/migration_channel.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "client/vm/vm_testing.h"

namespace faultline {
namespace {

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

TEST_F(MigrationChannelTest, RepeatsAMessageBeforeThoseThatCome) {
  MigrationChannel theirs(std::move(raw_));
  ASSERT_TRUE(theirs.Send({{"type", "complete"}}).ok());
  ours_.Repeat({{"type", "running"}});
  EXPECT_TRUE(ours_.Receive("running", kLong, NoSignal).ok());
  EXPECT_TRUE(ours_.Receive("complete", kLong, NoSignal).ok());
}

TEST(Migration, ConnectsOverTcpAtAnyPort) {
  auto listener = MigrationListener::Listen("127.0.0.1:0");
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_EQ(listener->Accept(kShort, NoSignal).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  auto theirs = ConnectMigration(listener->address(), kLong);
  ASSERT_TRUE(theirs.ok()) << theirs.status();
  auto ours = listener->Accept(kLong, NoSignal);
  ASSERT_TRUE(ours.ok()) << ours.status();
  EXPECT_TRUE(theirs->Send({{"type", "hello"}}).ok());
  EXPECT_TRUE(ours->Receive("hello", kLong, NoSignal).ok());
}

// The death of a process ends its connections in order; one that is given up is not to look so.
TEST(Migration, AnAbandonedConnectionIsNotTheEndOfTheOther) {
  auto listener = MigrationListener::Listen("127.0.0.1:0");
  ASSERT_TRUE(listener.ok()) << listener.status();
  for (const bool abandoned : {false, true}) {
    auto theirs = ConnectMigration(listener->address(), kLong);
    ASSERT_TRUE(theirs.ok()) << theirs.status();
    auto ours = listener->Accept(kLong, NoSignal);
    ASSERT_TRUE(ours.ok()) << ours.status();
    if (abandoned) theirs->Abandon();
    theirs = absl::CancelledError();
    EXPECT_EQ(ours->ReceiveAny(kLong, NoSignal).status().code(),
              abandoned ? absl::StatusCode::kAborted : absl::StatusCode::kUnavailable);
  }
}

TEST(Migration, ListensAgainWhereADeadOneHasLeftItsSocket) {
  const std::string address = "unix:" + testing::TempDir() + "migration.sock";
  {
    auto first = MigrationListener::Listen(address);
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_FALSE(MigrationListener::Listen(address).ok());
  }
  auto second = MigrationListener::Listen(address);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->address(), address);
  EXPECT_TRUE(ConnectMigration(address, kLong).ok());
}

TEST(Migration, NamesTheAddressWhereNobodyListens) {
  const absl::Status status = ConnectMigration("127.0.0.1:1", kLong).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("vm offer --listen=127.0.0.1:1"), absl::string_view::npos);
  for (const char* address : {"", ":1", "host", "host:", "unix:"}) {
    EXPECT_EQ(ConnectMigration(address, kLong).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(MigrationListener::Listen(address).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(Migration, PagesAreOnTheHostThatWasConnectedTo) {
  const std::string from = "10.0.0.1:7500";
  for (const auto& [pages, listen, found] :
       std::vector<std::array<const char*, 3>>{{"10.9.9.9:1234", "10.9.9.9:7500", "10.0.0.1:1234"},
                                               {"0.0.0.0:1234", "0.0.0.0:7500", "10.0.0.1:1234"},
                                               {"0.0.0.0:1234", "10.0.0.1:7500", "10.0.0.1:1234"},
                                               {"[::]:1234", "10.0.0.1:7500", "10.0.0.1:1234"},
                                               {"10.1.0.1:99", "10.0.0.1:7500", "10.1.0.1:99"},
                                               {"unix:/run/x", "unix:/run/y", "unix:/run/x"}}) {
    EXPECT_EQ(PagesAddress(PagesToldAddress(pages, listen), from), found);
  }
  EXPECT_EQ(PagesAddress("[fd00::1]:5", "[fd00::2]:7"), "[fd00::1]:5");
}

}  // namespace
}  // namespace faultline
