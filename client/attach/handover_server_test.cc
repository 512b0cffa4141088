// SPDX-License-Identifier: Apache-2.0
#include "client/attach/handover_server.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <atomic>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/attach/fake_pager.h"
#include "client/attach/test_peer.h"
#include "proto/log.h"
#include "proto/mutex.h"

namespace faultline {
namespace {

// Has a size and no pages: nothing here fetches.
class SizedSource : public PageSource {
 public:
  explicit SizedSource(PageCount size) : size_(size) {}
  void Fetch(PageRange, FetchLane, absl::Time, FetchDone done) override {
    done(absl::UnimplementedError("no pages here"));
  }
  PageCount size() const override { return size_; }
  PageCount max_fetch() const override { return PageCount(1); }

 private:
  const PageCount size_;
};

// The volume "vm" of 100 pages, behind a server that tests take down and up. Thread-safe.
class FakeServer {
 public:
  absl::StatusOr<std::shared_ptr<PageSource>> Open(absl::string_view volume) {
    MutexLock lock(mu_);
    ++tries_;
    changed_.SignalAll();
    while (held_) changed_.Wait(mu_);
    if (down_) return absl::UnavailableError("nobody answers at 127.0.0.1:1");
    if (volume != "vm") return absl::NotFoundError(absl::StrCat("no volume named ", volume));
    return std::make_shared<SizedSource>(PageCount(100));
  }
  void SetDown(bool down) {
    MutexLock lock(mu_);
    down_ = down;
  }
  void SetHeld(bool held) {
    MutexLock lock(mu_);
    held_ = held;
    changed_.SignalAll();
  }
  void WaitForTries(int count) {
    MutexLock lock(mu_);
    while (tries_ < count) changed_.Wait(mu_);
  }

 private:
  Mutex mu_;
  CondVar changed_;
  bool down_ ABSL_GUARDED_BY(mu_) = false;
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  int tries_ ABSL_GUARDED_BY(mu_) = 0;
};

// The reasons for which peers were to be ended; ends none. Thread-safe.
class FakeExecutioner {
 public:
  absl::Status End(const PeerProcess& peer) {
    MutexLock lock(mu_);
    ended_.push_back(peer.pid);
    changed_.SignalAll();
    return absl::OkStatus();
  }
  void WaitForOne() {
    MutexLock lock(mu_);
    while (ended_.empty()) changed_.Wait(mu_);
    EXPECT_EQ(ended_.front(), getpid());
    ended_.pop_front();
  }
  size_t count() {
    MutexLock lock(mu_);
    return ended_.size();
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::deque<pid_t> ended_ ABSL_GUARDED_BY(mu_);
};

class HandoverServerTest : public testing::Test {
 protected:
  HandoverServerTest() {
    std::string name = absl::StrCat(testing::TempDir(), "/handoverXXXXXX");
    folder_ = mkdtemp(name.data());
    options_.socket_path = absl::StrCat(folder_, "/s");
    options_.handover_timeout = absl::Minutes(10);
    options_.workers.volume = "vm";
    options_.workers.first_backoff = absl::Milliseconds(1);
    options_.workers.max_backoff = absl::Milliseconds(4);
    options_.workers.end_peer = [this](const PeerProcess& peer) { return executioner_.End(peer); };
    uffd_ = OpenTestUffd();
  }
  ~HandoverServerTest() override {
    server_.reset();
    std::filesystem::remove_all(folder_);
  }

  void SetUp() override {
    if (!uffd_) GTEST_SKIP() << "this process may not have a userfaultfd";
  }

  void Start() {
    auto server = HandoverServer::Start(
        options_, &pager_,
        [this](absl::string_view volume, absl::Time) { return page_server_.Open(volume); });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  void Allow(const std::vector<std::string>& rules) {
    auto permissions = VolumePermissions::Parse(rules);
    ASSERT_TRUE(permissions.ok()) << permissions.status();
    options_.workers.permissions = *std::move(permissions);
  }

  TestPeer Connect() { return TestPeer(options_.socket_path); }

  static std::string MappingText(uint64_t address = 0x10000, uint64_t size = 8192,
                                 uint64_t offset = 0, absl::string_view more = "") {
    return absl::StrCat("{\"base_host_virt_addr\":", address, ",\"size\":", size,
                        ",\"offset\":", offset, more, "}");
  }
  static std::string Ours(absl::string_view mappings, absl::string_view volume = "vm") {
    return absl::StrCat("{\"volume\":\"", volume, "\",\"mappings\":[", mappings, "]}");
  }
  static std::string Error(absl::string_view message) {
    return absl::StrCat("{\"message\":\"", message, "\",\"status\":\"error\"}");
  }

  // Sends `text` with a userfaultfd and returns the answer.
  std::string Ask(const std::string& text) {
    TestPeer peer = Connect();
    peer.Send(text, {uffd_.get()});
    return peer.ReadLine();
  }

  std::string folder_;
  HandoverServerOptions options_;
  FakePager pager_;
  FakeServer page_server_;
  FakeExecutioner executioner_;
  UniqueFd uffd_;
  std::unique_ptr<HandoverServer> server_;
};

TEST_F(HandoverServerTest, AttachesAndAnswersWithTheAttachment) {
  Start();
  TestPeer peer = Connect();
  peer.Send(Ours(MappingText(0x10000, 8192, 4096)), {uffd_.get()});
  EXPECT_EQ(peer.ReadLine(), R"({"attachment":1,"status":"ok"})");
  const std::vector<AttachmentStats> all = pager_.Attachments();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].pid, getpid());
  EXPECT_EQ(all[0].volume, "vm");
  const std::vector<Mapping> mappings = pager_.MappingsOf(1);
  ASSERT_EQ(mappings.size(), 1u);
  EXPECT_EQ(mappings[0].address, 0x10000u);
  EXPECT_EQ(mappings[0].size, 8192u);
  EXPECT_EQ(mappings[0].offset, 4096u);
}

TEST_F(HandoverServerTest, WhatARequestSaysGoesBeforeTheAgentsFlags) {
  options_.workers.attachment.drain = true;
  options_.workers.attachment.shared_discard = SharedDiscard::kKeep;
  Start();
  const std::string mappings = absl::StrCat("\"mappings\":[", MappingText(), "]}");
  EXPECT_EQ(Ask(R"({"volume":"vm",)" + mappings), R"({"attachment":1,"status":"ok"})");
  EXPECT_TRUE(pager_.OptionsOf(1).drain);
  EXPECT_EQ(pager_.OptionsOf(1).shared_discard, SharedDiscard::kKeep);
  EXPECT_EQ(pager_.OptionsOf(1).policy, FaultPolicy::kPoison);
  EXPECT_EQ(Ask(R"({"volume":"vm","drain":false,"shared_discard":"zero",)"
                R"("fault_policy":"kill","fault_deadline_ms":1500,)" +
                mappings),
            R"({"attachment":2,"status":"ok"})");
  EXPECT_FALSE(pager_.OptionsOf(2).drain);
  EXPECT_EQ(pager_.OptionsOf(2).shared_discard, SharedDiscard::kZero);
  EXPECT_EQ(pager_.OptionsOf(2).policy, FaultPolicy::kKill);
  EXPECT_EQ(pager_.OptionsOf(2).fault_deadline, absl::Milliseconds(1500));
}

TEST_F(HandoverServerTest, DetachEndsTheAttachmentAndTheConnection) {
  Start();
  TestPeer peer = Connect();
  peer.Send(Ours(MappingText()), {uffd_.get()});
  EXPECT_EQ(peer.ReadLine(), R"({"attachment":1,"status":"ok"})");
  peer.Send(R"({"detach":true})");
  EXPECT_EQ(peer.ReadLine(), R"({"status":"ok"})");
  EXPECT_EQ(peer.ReadLine(), "");
  EXPECT_TRUE(pager_.Attachments().empty());
}

TEST_F(HandoverServerTest, DetachWithoutAnAttachmentIsAnError) {
  Start();
  EXPECT_EQ(Ask(R"({"detach":true})"), Error("this connection has no attachment to detach"));
}

TEST_F(HandoverServerTest, DetachOfAnAttachmentThatHasEndedIsAnError) {
  Start();
  TestPeer peer = Connect();
  peer.Send(Ours(MappingText()), {uffd_.get()});
  ASSERT_EQ(peer.ReadLine(), R"({"attachment":1,"status":"ok"})");
  ASSERT_TRUE(pager_.Detach(1).ok());
  peer.Send(R"({"detach":true})");
  EXPECT_EQ(peer.ReadLine(), Error("no attachment 1"));
}

TEST_F(HandoverServerTest, ConnectionThatEndsLeavesItsAttachment) {
  Start();
  {
    TestPeer peer = Connect();
    peer.Send(Ours(MappingText()), {uffd_.get()});
    peer.FinishSending();
    EXPECT_EQ(peer.ReadToEnd(), "{\"attachment\":1,\"status\":\"ok\"}\n");
  }
  EXPECT_EQ(pager_.Attachments().size(), 1u);
}

TEST_F(HandoverServerTest, QueriesAreAnswered) {
  Start();
  TestPeer peer = Connect();
  // All at once: each is answered, in order.
  peer.Send(R"({"query":"volume","volume":"vm"}{"query":"attachments"})");
  EXPECT_EQ(peer.ReadLine(), R"({"size":409600,"status":"ok"})");
  EXPECT_EQ(peer.ReadLine(), R"({"attachments":[],"status":"ok"})");
  peer.Send(R"({"query":"volume","volume":"other"})");
  EXPECT_EQ(peer.ReadLine(), Error("no volume named other"));
  // An error that is not of the connection leaves it open.
  peer.Send(Ours(MappingText()), {uffd_.get()});
  EXPECT_EQ(peer.ReadLine(), R"({"attachment":1,"status":"ok"})");
  peer.Send(R"({"query":"attachments"})");
  EXPECT_TRUE(absl::StartsWith(peer.ReadLine(), R"({"attachments":[{)"));
}

TEST_F(HandoverServerTest, RefusesBadHandoversSayingWhatIsWrong) {
  Start();
  const std::string m = MappingText();
  EXPECT_EQ(Ask(Ours(m, "other")), Error("no volume named other"));
  EXPECT_TRUE(absl::StrContains(Ask(Ours(m, "a/b")), "cannot be the name of a volume"));
  EXPECT_TRUE(absl::StrContains(Ask(Ours(m, "")), "cannot be the name of a volume"));
  EXPECT_TRUE(
      absl::StrContains(Ask(Ours(m, std::string(10'000, 'n'))), "cannot be the name of a volume"));
  EXPECT_TRUE(absl::StrContains(Ask(Ours(MappingText(0x10000, 4096, 0, ",\"page_size\":2097152"))),
                                "serves pages of 4096 bytes only"));
  EXPECT_EQ(Ask("{\"volume\":}"),
            Error("not JSON: parse error at line 1, column 11: syntax error while parsing value - "
                  "unexpected '}'; expected '[', '{', or a literal"));
  EXPECT_EQ(Ask("hello"), Error("a request is a JSON object or array; something else came"));
  EXPECT_TRUE(absl::StrContains(Ask("{\"volume\":\"" + std::string(kMaxHandoverBytes, 'x')),
                                "a request has more than 1048576 bytes"));
  EXPECT_TRUE(pager_.Attachments().empty());
  EXPECT_EQ(executioner_.count(), 0u) << "a peer that takes answers is not killed";
}

// What the Pager says of mappings reaches the peer.
// The page server is not even asked.
TEST_F(HandoverServerTest, AVolumeThatThePeerMayNotHaveIsRefusedAndCounted) {
  Allow({absl::StrCat("user:", geteuid(), "=vm"), "user:12345=other"});
  options_.workers.volume = "other";
  Start();
  EXPECT_EQ(Ask(Ours(MappingText())), R"({"attachment":1,"status":"ok"})");
  page_server_.SetHeld(true);
  for (const std::string& text :
       {Ours(MappingText(), "other"), std::string(R"({"query":"volume","volume":"other"})"),
        absl::StrCat(R"({"volume":"vm","mode":"far","far":{"from_snapshot":"other"},"mappings":[)",
                     MappingText(0x10000, 8192, 0, R"(,"memfd":0)"), "]}"),
        std::string(R"({"far_command":"checkpoint","attachment":1,"snapshot":"other"})")}) {
    EXPECT_TRUE(absl::StrContains(Ask(text), "may not have volume \\\"other\\\" here")) << text;
  }
  TestPeer firecracker = Connect();
  firecracker.Send(absl::StrCat("[", MappingText(), "]"), {uffd_.get()});
  executioner_.WaitForOne();
  EXPECT_EQ(server_->refused(), 5u);
  page_server_.SetHeld(false);
}

TEST_F(HandoverServerTest, AttachmentsOfVolumesThatThePeerMayNotHaveAreNotShown) {
  Allow({absl::StrCat("group:", getegid(), "=vm")});
  Start();
  EXPECT_EQ(Ask(Ours(MappingText())), R"({"attachment":1,"status":"ok"})");
  AttachRequest foreign;
  foreign.volume = "closed";
  foreign.uffd.reset(fcntl(uffd_.get(), F_DUPFD_CLOEXEC, 0));
  foreign.mappings = pager_.MappingsOf(1);
  foreign.source = std::make_shared<SizedSource>(PageCount(100));
  ASSERT_TRUE(pager_.Attach(std::move(foreign)).ok());
  const std::string shown = Ask(R"({"query":"attachments"})");
  EXPECT_TRUE(absl::StrContains(shown, R"("volume":"vm")")) << shown;
  EXPECT_FALSE(absl::StrContains(shown, "closed")) << shown;
}

TEST_F(HandoverServerTest, RefusesBadMappingsSayingWhatIsWrong) {
  Start();
  const std::vector<std::pair<std::string, std::vector<Mapping>>> cases = {
      {MappingText(0x10000, 4096, 409600), {{0x10000, 4096, 409600}}},
      {MappingText(0x10000, 413696, 0), {{0x10000, 413696, 0}}},
      {MappingText(0x10001, 4096, 0), {{0x10001, 4096, 0}}},
      {MappingText(0x10000, 100, 0), {{0x10000, 100, 0}}},
      {MappingText(0x10000, 4096, 7), {{0x10000, 4096, 7}}},
      {MappingText(0x10000, 0, 0), {{0x10000, 0, 0}}},
      {MappingText(0x10000, 8192, 0) + "," + MappingText(0x11000, 8192, 8192),
       {{0x10000, 8192, 0}, {0x11000, 8192, 8192}}},
      {MappingText(0xfffffffffffff000, 8192, 0), {{0xfffffffffffff000, 8192, 0}}},
  };
  for (const auto& [text, mappings] : cases) {
    const absl::Status expected = CheckMappings(mappings, PageCount(100));
    ASSERT_FALSE(expected.ok()) << text;
    EXPECT_EQ(Ask(Ours(text)), Error(expected.message()));
  }
}

TEST_F(HandoverServerTest, RefusesDescriptorsThatDoNotFit) {
  Start();
  const std::string m = MappingText();
  {
    TestPeer peer = Connect();
    peer.Send(Ours(m));
    EXPECT_EQ(peer.ReadLine(),
              Error("no descriptor came with the handover; send the userfaultfd by SCM_RIGHTS"));
  }
  {
    TestPeer peer = Connect();
    peer.Send(Ours(m), {uffd_.get(), 0});
    EXPECT_EQ(peer.ReadLine(), Error("1 descriptors came after the userfaultfd, but the request "
                                     "names 0; send no others"));
  }
  {
    TestPeer peer = Connect();
    peer.Send(Ours(MappingText(0x10000, 4096, 0, ",\"memfd\":0")), {uffd_.get()});
    EXPECT_EQ(peer.ReadLine(),
              Error("0 descriptors came after the userfaultfd, but the request names 1; send one "
                    "for each \\\"memfd\\\" and \\\"pidfd\\\""));
  }
  {
    TestPeer peer = Connect();
    peer.Send(Ours(m), {peer.fd()});
    EXPECT_TRUE(absl::StrContains(peer.ReadLine(), "the descriptor is no userfaultfd: socket:"));
  }
  // More descriptors than anybody needs neither stay open nor break anything.
  TestPeer peer = Connect();
  peer.Send(Ours(m), std::vector<int>(200, uffd_.get()));
  EXPECT_TRUE(absl::StrContains(peer.ReadLine(), "15 descriptors came after the userfaultfd"));
}

TEST_F(HandoverServerTest, MemfdsMayFollowTheUserfaultfd) {
  Start();
  const UniqueFd memfd(static_cast<int>(syscall(SYS_memfd_create, "test", 1)));
  TestPeer peer = Connect();
  peer.Send(Ours(MappingText(0x10000, 4096, 0, ",\"memfd\":0")), {uffd_.get(), memfd.get()});
  EXPECT_EQ(peer.ReadLine(), R"({"attachment":1,"status":"ok"})");
}

// Whom a peer may speak for is peer_process_test.cc's matter.
TEST_F(HandoverServerTest, AnotherProcessMayBeHandedOver) {
  Start();
  const pid_t target = fork();
  if (target == 0) {
    while (true) pause();
  }
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, target, 0)));
  const std::string text = R"({"volume":"vm","pidfd":0,"mappings":[)" + MappingText() + "]}";
  TestPeer peer = Connect();
  peer.Send(text, {uffd_.get(), pidfd.get()});
  EXPECT_EQ(peer.ReadLine(), R"({"attachment":1,"status":"ok"})");
  EXPECT_EQ(pager_.Attachments().at(0).pid, target);
  ASSERT_EQ(kill(target, SIGKILL), 0);
  ASSERT_EQ(waitpid(target, nullptr, 0), target);
  TestPeer late = Connect();
  late.Send(text, {uffd_.get(), pidfd.get()});
  EXPECT_EQ(late.ReadLine(), Error("the process whose memory is handed over has ended"));
  EXPECT_EQ(executioner_.count(), 0u);
}

// The descriptor comes with either part, so both orders are covered at every position.
TEST_F(HandoverServerTest, TextMayBeCutAnywhere) {
  Start();
  const std::string text = Ours(MappingText());
  TestPeer last = Connect();
  for (size_t cut = 1; cut < text.size(); ++cut) {
    TestPeer peer = Connect();
    const std::vector<int> none;
    const std::vector<int> uffd = {uffd_.get()};
    peer.Send(text.substr(0, cut), cut % 2 == 0 ? uffd : none);
    peer.Send(text.substr(cut), cut % 2 == 0 ? none : uffd);
    ASSERT_EQ(peer.ReadLine(), absl::StrCat(R"({"attachment":)", cut, R"(,"status":"ok"})"))
        << "cut at " << cut;
  }
}

TEST_F(HandoverServerTest, TwoTextsInOneReadAreTwoRequests) {
  Start();
  TestPeer peer = Connect();
  peer.Send(Ours(MappingText()) + R"({"detach":true})", {uffd_.get()});
  EXPECT_EQ(peer.ReadToEnd(), "{\"attachment\":1,\"status\":\"ok\"}\n{\"status\":\"ok\"}\n");
  EXPECT_TRUE(pager_.Attachments().empty());
}

TEST_F(HandoverServerTest, SecondHandoverOnOneConnectionIsRefused) {
  Start();
  TestPeer peer = Connect();
  peer.Send(Ours(MappingText()), {uffd_.get()});
  EXPECT_EQ(peer.ReadLine(), R"({"attachment":1,"status":"ok"})");
  peer.Send(Ours(MappingText()), {uffd_.get()});
  EXPECT_EQ(peer.ReadLine(),
            Error("this connection has attachment 1; use another connection for a second"));
}

TEST_F(HandoverServerTest, FarMemoryIsRefusedWhereNoVolumeCanBeWritten) {
  Start();
  TestPeer peer = Connect();
  peer.Send(R"({"volume":"vm","mode":"far","register":true,"far":{"helper":{"command":0,"start":0,)"
            R"("size":0,"staging":0,"staging_size":0}}})",
            {uffd_.get(), uffd_.get()});
  EXPECT_TRUE(absl::StrContains(peer.ReadLine(), "this agent serves no far memory"));
}

TEST_F(HandoverServerTest, SilentPeerIsDroppedWithALogLine) {
  options_.handover_timeout = absl::Milliseconds(20);
  InitLog("test", LogLevel::kInfo);
  testing::internal::CaptureStderr();
  Start();
  TestPeer peer = Connect();
  EXPECT_EQ(peer.ReadToEnd(), "");
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(absl::StrContains(log, "connected and said nothing for 20ms; connection dropped"))
      << log;
  EXPECT_TRUE(absl::StrContains(log, absl::StrCat("process ", getpid()))) << log;
}

TEST_F(HandoverServerTest, PeerThatStopsInTheMiddleOfARequestIsDropped) {
  options_.handover_timeout = absl::Milliseconds(20);
  Start();
  TestPeer peer = Connect();
  peer.Send("{\"vol");
  EXPECT_EQ(peer.ReadToEnd(),
            Error("only a part of a request, 5 bytes, had come after 20ms") + "\n");
}

TEST_F(HandoverServerTest, AttachedPeerMayStaySilent) {
  options_.handover_timeout = absl::Milliseconds(20);
  Start();
  TestPeer attached = Connect();
  attached.Send(Ours(MappingText()), {uffd_.get()});
  EXPECT_EQ(attached.ReadLine(), R"({"attachment":1,"status":"ok"})");
  // Two others, one after the other, are dropped for their silence meanwhile.
  for (int i = 0; i < 2; ++i) EXPECT_EQ(Connect().ReadToEnd(), "");
  attached.Send(R"({"detach":true})");
  EXPECT_EQ(attached.ReadLine(), R"({"status":"ok"})");
}

TEST_F(HandoverServerTest, PeersThatCloseAtOnceLeaveNothingBehind) {
  options_.max_connections = 4;
  Start();
  for (int i = 0; i < 100; ++i) {
    TestPeer peer = Connect();
    if (i % 3 == 1) peer.Send("{");
    if (i % 3 == 2) peer.Send("{\"volume\":", {uffd_.get()});
  }
  EXPECT_EQ(Ask(Ours(MappingText())), R"({"attachment":1,"status":"ok"})");
}

TEST_F(HandoverServerTest, ManyPeersAtOnceAreAllServed) {
  // Fewer connections than peers: some wait in the queue of the socket.
  options_.max_connections = 16;
  Start();
  std::atomic<int> served = 0;
  std::vector<std::thread> peers;
  for (int i = 0; i < 100; ++i) {
    peers.emplace_back([this, &served] {
      TestPeer peer = Connect();
      peer.Send(R"({"query":"volume","volume":"vm"})");
      if (peer.ReadLine() != R"({"size":409600,"status":"ok"})") return;
      peer.Send(Ours(MappingText()), {uffd_.get()});
      if (!absl::StartsWith(peer.ReadLine(), R"({"attachment":)")) return;
      peer.Send(R"({"detach":true})");
      if (peer.ReadToEnd() == "{\"status\":\"ok\"}\n") ++served;
    });
  }
  for (std::thread& peer : peers) peer.join();
  EXPECT_EQ(served, 100);
  EXPECT_TRUE(pager_.Attachments().empty());
}

TEST_F(HandoverServerTest, MoreAttachmentsThanAllowedAreRefused) {
  options_.workers.max_attachments = 1;
  Start();
  EXPECT_EQ(Ask(Ours(MappingText())), R"({"attachment":1,"status":"ok"})");
  EXPECT_EQ(Ask(Ours(MappingText())),
            Error("this agent serves 1 attachments at most; raise --max-attachments"));
}

TEST_F(HandoverServerTest, ServerThatIsDownForATimeIsTriedAgain) {
  page_server_.SetDown(true);
  Start();
  TestPeer peer = Connect();
  peer.Send(Ours(MappingText()), {uffd_.get()});
  page_server_.WaitForTries(3);
  page_server_.SetDown(false);
  EXPECT_EQ(peer.ReadLine(), R"({"attachment":1,"status":"ok"})");
}

TEST_F(HandoverServerTest, ServerThatStaysDownIsAnErrorOfTheHandover) {
  options_.workers.open_timeout = absl::Milliseconds(20);
  page_server_.SetDown(true);
  Start();
  EXPECT_EQ(Ask(Ours(MappingText())), Error("nobody answers at 127.0.0.1:1"));
}

// A slow opening holds up nobody but those that wait for a worker.
TEST_F(HandoverServerTest, OneSlowOpeningDoesNotStopOthers) {
  Start();
  page_server_.SetHeld(true);
  TestPeer slow = Connect();
  slow.Send(Ours(MappingText()), {uffd_.get()});
  page_server_.WaitForTries(1);
  EXPECT_EQ(Ask(R"({"query":"attachments"})"), R"({"attachments":[],"status":"ok"})");
  page_server_.SetHeld(false);
  EXPECT_EQ(slow.ReadLine(), R"({"attachment":1,"status":"ok"})");
}

TEST_F(HandoverServerTest, FirecrackerIsAttachedToTheVolumeOfTheSocketAndNeverAnswered) {
  Start();
  TestPeer peer = Connect();
  // An extra descriptor and unknown fields, as newer versions and forks send them.
  peer.Send(
      absl::StrCat("[", MappingText(0x10000, 8192, 0, ",\"page_size_kib\":4096,\"gpa\":0"), "]"),
      {uffd_.get(), 0});
  pager_.WaitForAttachments(1);
  EXPECT_EQ(pager_.Attachments()[0].volume, "vm");
  peer.FinishSending();
  EXPECT_EQ(peer.ReadToEnd(), "");
  EXPECT_EQ(pager_.Attachments().size(), 1u);
}

TEST_F(HandoverServerTest, FirecrackerMayCloseRightAfterItsHandover) {
  page_server_.SetDown(true);
  Start();
  {
    TestPeer peer = Connect();
    peer.Send("[" + MappingText() + "]", {uffd_.get()});
  }
  page_server_.WaitForTries(3);
  page_server_.SetDown(false);
  pager_.WaitForAttachments(1);
  EXPECT_EQ(executioner_.count(), 0u);
}

TEST_F(HandoverServerTest, FirecrackerIsKilledWhereItsHandoverCannotBeServed) {
  Start();
  const std::string good = MappingText();
  const std::vector<std::string> texts = {
      "[" + MappingText(0x10000, 4096, 409600) + "]",                       // beyond the volume
      "[" + MappingText(0x10000, 4096, 0, ",\"page_size\":2097152") + "]",  // huge pages
      "[" + good + "," + good + "]",                                        // overlap
      "[]",
      "[" + good + ";]",
      "[" + std::string(kMaxHandoverBytes, ' '),
  };
  for (const std::string& text : texts) {
    TestPeer peer = Connect();
    peer.Send(text, {uffd_.get()});
    executioner_.WaitForOne();
    peer.FinishSending();
    EXPECT_EQ(peer.ReadToEnd(), "") << text;
  }
  {
    TestPeer without_descriptor = Connect();
    without_descriptor.Send("[" + good + "]");
    executioner_.WaitForOne();
  }
  {
    TestPeer half = Connect();
    half.Send("[" + good, {uffd_.get()});
    half.FinishSending();
    executioner_.WaitForOne();
  }
  EXPECT_TRUE(pager_.Attachments().empty());
}

TEST_F(HandoverServerTest, FirecrackerIsKilledWhereThePageServerStaysDown) {
  options_.workers.attachment.fault_deadline = absl::Milliseconds(20);
  page_server_.SetDown(true);
  Start();
  TestPeer peer = Connect();
  peer.Send("[" + MappingText() + "]", {uffd_.get()});
  executioner_.WaitForOne();
}

TEST_F(HandoverServerTest, FirecrackerIsKilledWhereTheSocketHasNoVolume) {
  options_.workers.volume = "";
  Start();
  TestPeer peer = Connect();
  peer.Send("[" + MappingText() + "]", {uffd_.get()});
  executioner_.WaitForOne();
}

TEST_F(HandoverServerTest, UnderPolicyWaitFirecrackerIsLeftAlone) {
  options_.workers.attachment.policy = FaultPolicy::kWait;
  options_.workers.attachment.fault_deadline = absl::ZeroDuration();
  options_.workers.volume = "later";
  Start();
  TestPeer bad = Connect();
  bad.Send("[]", {uffd_.get()});
  EXPECT_EQ(bad.ReadToEnd(), "");
  // Not even a volume that does not exist ends the wait: it may be made.
  TestPeer peer = Connect();
  peer.Send("[" + MappingText() + "]", {uffd_.get()});
  page_server_.WaitForTries(4);
  server_.reset();
  EXPECT_EQ(executioner_.count(), 0u);
}

// The real thing: SIGKILL by the pidfd of the peer's socket.
TEST_F(HandoverServerTest, KillsThePeersProcess) {
  options_.workers.end_peer = KillPeer;
  Start();
  const pid_t child = fork();
  if (child == 0) {
    TestPeer peer(options_.socket_path);
    peer.Send("[]", {uffd_.get()});
    while (true) pause();
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
}

// A Firecracker whose page server is down, and that ends before it is back, is forgotten.
TEST_F(HandoverServerTest, ProcessThatEndsDuringItsHandoverIsNotAttached) {
  page_server_.SetHeld(true);
  Start();
  const pid_t child = fork();
  if (child == 0) {
    TestPeer peer(options_.socket_path);
    peer.Send("[" + MappingText() + "]", {uffd_.get()});
    while (true) pause();
  }
  page_server_.WaitForTries(1);
  ASSERT_EQ(kill(child, SIGKILL), 0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  page_server_.SetDown(true);
  page_server_.SetHeld(false);
  // A later handover gets the first attachment, so the dead one had none.
  TestPeer peer = Connect();
  peer.Send(Ours(MappingText()), {uffd_.get()});
  page_server_.WaitForTries(4);
  page_server_.SetDown(false);
  EXPECT_EQ(peer.ReadLine(), R"({"attachment":1,"status":"ok"})");
  EXPECT_EQ(executioner_.count(), 0u);
}

TEST_F(HandoverServerTest, HandoversUnderWayFailWhenTheAgentStops) {
  page_server_.SetDown(true);
  options_.workers.open_timeout = absl::Minutes(10);
  Start();
  TestPeer ours = Connect();
  ours.Send(Ours(MappingText()), {uffd_.get()});
  TestPeer firecracker = Connect();
  firecracker.Send("[" + MappingText() + "]", {uffd_.get()});
  page_server_.WaitForTries(4);
  server_->StopHandovers();
  EXPECT_EQ(ours.ReadLine(), Error("the agent is stopping"));
  executioner_.WaitForOne();
  // Later requests, too.
  ours.Send(R"({"query":"attachments"})");
  EXPECT_EQ(ours.ReadLine(), Error("the agent is stopping"));
}

TEST_F(HandoverServerTest, ConnectionsEndWithTheServer) {
  Start();
  TestPeer peer = Connect();
  peer.Send(Ours(MappingText()), {uffd_.get()});
  EXPECT_EQ(peer.ReadLine(), R"({"attachment":1,"status":"ok"})");
  server_.reset();
  EXPECT_EQ(peer.ReadToEnd(), "");
  EXPECT_FALSE(std::filesystem::exists(options_.socket_path));
}

}  // namespace
}  // namespace faultline
