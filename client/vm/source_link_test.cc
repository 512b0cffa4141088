// SPDX-License-Identifier: Apache-2.0
#include "client/vm/source_link.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <utility>

#include "client/vm/vm_testing.h"

namespace faultline {
namespace {

using nlohmann::ordered_json;

// The source's end of the connections, scripted by the test.
class SourceLinkTest : public testing::Test {
 protected:
  SourceLinkTest() : listener_(*MigrationListener::Listen("127.0.0.1:0")) {
    link_.emplace(*ConnectMigration(listener_.address(), kLong), listener_.address());
    link_->Know("ram", "offer-1");
    source_.emplace(*listener_.Accept(kLong, NoSignal));
  }

  // The next message on the connection; its type is `type`.
  ordered_json Hear(const std::string& type) {
    auto message = source_->Receive(type, kLong, NoSignal);
    EXPECT_TRUE(message.ok()) << message.status();
    return message.value_or(ordered_json());
  }
  void Break() { source_->Abandon(); }
  // Takes the next connection, and returns what it begins with.
  ordered_json AcceptAgain() {
    auto channel = listener_.Accept(kLong, NoSignal);
    EXPECT_TRUE(channel.ok()) << channel.status();
    source_.emplace(*std::move(channel));
    return Hear("again");
  }

  MigrationListener listener_;
  std::optional<SourceLink> link_;
  std::optional<MigrationChannel> source_;
};

TEST_F(SourceLinkTest, HearsTheWordToRun) {
  std::thread source([&] {
    Hear("loaded");
    EXPECT_TRUE(source_->Send({{"type", "run"}}).ok());
  });
  EXPECT_TRUE(link_->AwaitRun(kLong, NoSignal).ok());
  source.join();
}

TEST_F(SourceLinkTest, AsksAgainForTheWordThatABrokenConnectionMayHaveSwallowed) {
  std::thread source([&] {
    Hear("loaded");
    Break();
    const ordered_json again = AcceptAgain();
    EXPECT_EQ(again["volume"], "ram");
    EXPECT_EQ(again["offer"], "offer-1");
    EXPECT_EQ(again["state"], "loaded");
    EXPECT_TRUE(source_->Send({{"type", "run"}}).ok());
  });
  EXPECT_TRUE(link_->AwaitRun(kLong, NoSignal).ok());
  source.join();
}

TEST_F(SourceLinkTest, DoesNotRunWhatTheSourceHasTakenBack) {
  std::thread source([&] {
    Hear("loaded");
    Break();
    AcceptAgain();
    EXPECT_TRUE(source_->Send({{"type", "failed"}, {"message", "goes on here"}}).ok());
  });
  EXPECT_EQ(link_->AwaitRun(kLong, NoSignal).message(), "the other end says: goes on here");
  source.join();
}

TEST_F(SourceLinkTest, DoesNotRunWhereTheSourceIsNotThereAnyMore) {
  const std::string address = listener_.address();
  std::thread source([&] {
    Hear("loaded");
    listener_ = *MigrationListener::Listen("127.0.0.1:0");
    Break();
  });
  EXPECT_TRUE(absl::IsFailedPrecondition(link_->AwaitRun(kLong, NoSignal)));
  source.join();
}

TEST_F(SourceLinkTest, DoesNotRunWithoutTheWordInTime) {
  EXPECT_FALSE(link_->AwaitRun(absl::Milliseconds(50), NoSignal).ok());
}

TEST_F(SourceLinkTest, TellsTheLastStateOnceTheSourceIsBack) {
  link_->Say("running");
  Hear("running");
  Break();
  std::thread source([&] {
    EXPECT_EQ(AcceptAgain()["state"], "complete");
    EXPECT_TRUE(source_->Send({{"type", "run"}}).ok());
    EXPECT_TRUE(source_->Send({{"type", "released"}}).ok());
  });
  link_->Say("complete");
  const absl::Time begin = absl::Now();
  link_->Finish(kLong, NoSignal);
  EXPECT_LT(absl::Now() - begin, kLong);
  source.join();
}

}  // namespace
}  // namespace faultline
