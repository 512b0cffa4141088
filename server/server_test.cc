// SPDX-License-Identifier: Apache-2.0
#include "server/server.h"

#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "server/test_server.h"

namespace faultline {
namespace {

absl::StatusOr<std::unique_ptr<Server>> StartAt(std::vector<std::string> listen,
                                                ServerOptions options = {}) {
  options.listen = std::move(listen);
  auto catalog = VolumeCatalog::Open(NewMemoryPageStore());
  if (!catalog.ok()) return catalog.status();
  return Server::Start(options, *std::move(catalog));
}

// A socket that listens at a unix path, or used to.
class UnixListener {
 public:
  explicit UnixListener(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(fd_, 1), 0);
  }
  ~UnixListener() { Die(); }
  // Closes the socket and leaves its file.
  void Die() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

// One raw call of a unary or streaming method with one answer: enough for health and reflection,
// whose messages are not among ours.
absl::StatusOr<std::string> CallRaw(const std::shared_ptr<grpc::Channel>& channel,
                                    const std::string& method, const std::string& request) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  auto context = NewContext();
  auto stream = stub.PrepareCall(context.get(), method, &queue);
  const auto next = [&queue] {
    void* tag;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  stream->StartCall(nullptr);
  next();
  const grpc::Slice slice(request);
  stream->Write(grpc::ByteBuffer(&slice, 1), nullptr);
  next();
  stream->WritesDone(nullptr);
  next();
  grpc::ByteBuffer answer;
  stream->Read(&answer, nullptr);
  const bool answered = next();
  grpc::Status status;
  stream->Finish(&status, nullptr);
  next();
  queue.Shutdown();
  while (next()) {
  }
  if (!status.ok()) return ToStatus(status);
  if (!answered) return absl::InternalError("no answer");
  std::vector<grpc::Slice> slices;
  answer.Dump(&slices);
  std::string bytes;
  for (const grpc::Slice& part : slices) {
    bytes.append(reinterpret_cast<const char*>(part.begin()), part.size());
  }
  return bytes;
}

absl::StatusOr<std::string> AskHealth(const std::shared_ptr<grpc::Channel>& channel) {
  return CallRaw(channel, "/grpc.health.v1.Health/Check", "");
}

TEST(ServerListen, EveryAddressServesAndPortZeroIsReplacedByTheTrueOne) {
  TemporaryDirectory directory;
  auto server = StartAt(
      {"127.0.0.1:0", "unix:" + directory.File("a"), "127.0.0.1:0", "unix:" + directory.File("b")});
  ASSERT_TRUE(server.ok()) << server.status();
  const std::vector<std::string>& addresses = (*server)->addresses();
  ASSERT_EQ(addresses.size(), 4u);
  EXPECT_EQ(std::set<std::string>(addresses.begin(), addresses.end()).size(), 4u);
  EXPECT_EQ(addresses[1], "unix:" + directory.File("a"));
  int volumes = 0;
  for (const std::string& address : addresses) {
    EXPECT_NE(address, "127.0.0.1:0");
    TestClient client(address);
    EXPECT_TRUE(client.Create("v" + std::to_string(volumes), kPageSize).ok()) << address;
    EXPECT_EQ(client.Status().volumes(), static_cast<uint32_t>(++volumes));
  }
}

TEST(ServerListen, APortInUseIsNamedWithWhatToDo) {
  auto first = StartAt({"127.0.0.1:0"});
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string& address = (*first)->addresses().front();
  const absl::Status status = StartAt({"127.0.0.1:0", address}).status();
  EXPECT_EQ(status, absl::AlreadyExistsError(
                        "cannot listen on " + address +
                        ": Address already in use; another program listens there: stop it or "
                        "choose another address"));
  // The first server is not disturbed.
  EXPECT_EQ(TestClient(address).Status().volumes(), 0u);
}

TEST(ServerListen, TheSocketFileOfADeadServerIsReplaced) {
  TemporaryDirectory directory;
  const std::string path = directory.File("socket");
  UnixListener(path).Die();
  ASSERT_EQ(access(path.c_str(), F_OK), 0);
  auto server = StartAt({"unix:" + path});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(TestClient("unix:" + path).Status().volumes(), 0u);
}

TEST(ServerListen, TheSocketFileOfALiveServerIsLeftAlone) {
  TemporaryDirectory directory;
  const std::string address = "unix:" + directory.File("socket");
  auto first = StartAt({address});
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_STATUS(StartAt({address}).status(), absl::StatusCode::kAlreadyExists,
                "cannot listen on " + address + ": Address already in use");
  EXPECT_EQ(TestClient(address).Status().volumes(), 0u);
}

TEST(ServerListen, AFileThatIsNoSocketIsLeftAlone) {
  TemporaryDirectory directory;
  const std::string path = directory.File("notes");
  std::ofstream(path) << "important";
  EXPECT_STATUS(StartAt({"unix:" + path}).status(), absl::StatusCode::kAlreadyExists,
                "the file exists and is no socket; remove it or choose another path");
  std::string content;
  std::ifstream(path) >> content;
  EXPECT_EQ(content, "important");
}

TEST(ServerListen, AddressesThatCannotWorkAreExplained) {
  TemporaryDirectory directory;
  const struct {
    std::string address;
    absl::StatusCode code;
    const char* text;
  } cases[] = {
      {"7400", absl::StatusCode::kInvalidArgument, "write host:port"},
      {"127.0.0.1:", absl::StatusCode::kInvalidArgument, "write host:port"},
      {":7400", absl::StatusCode::kInvalidArgument, "write host:port"},
      {"127.0.0.1:65536", absl::StatusCode::kInvalidArgument, "write host:port"},
      {"::1:7400", absl::StatusCode::kInvalidArgument, "write host:port"},
      {"unix:", absl::StatusCode::kInvalidArgument, "1 to 107 bytes"},
      {"unix:/" + std::string(200, 'x'), absl::StatusCode::kInvalidArgument, "1 to 107 bytes"},
      {"unix:" + directory.File("no/such/socket"), absl::StatusCode::kUnavailable,
       "No such file or directory; create the directory first"},
      {"192.0.2.1:0", absl::StatusCode::kUnavailable,
       "Cannot assign requested address; no network interface of this machine has that address"},
      {"host.invalid:1", absl::StatusCode::kInvalidArgument, "host \"host.invalid\""},
  };
  for (const auto& c : cases) {
    ServerOptions options;
    options.allow_plaintext = true;
    const absl::Status status = StartAt({c.address}, options).status();
    EXPECT_STATUS(status, c.code, c.text);
    EXPECT_STATUS(status, c.code, c.address);
  }
}

TEST(ServerOptions, OptionsThatDoNotFitTogetherAreRefused) {
  const auto error = [](ServerOptions options) {
    return StartAt({"127.0.0.1:0"}, std::move(options)).status();
  };
  ServerOptions no_pages;
  no_pages.max_pages_per_request = 0;
  EXPECT_STATUS(error(no_pages), absl::StatusCode::kInvalidArgument, "--max-pages-per-request");
  ServerOptions small_messages;
  small_messages.max_message_bytes = 4 << 20;
  EXPECT_STATUS(error(small_messages), absl::StatusCode::kInvalidArgument,
                "--max-message-bytes is 4194304; it must be below 2GiB and, for "
                "--max-pages-per-request=1024, at least");
  ServerOptions small_window;
  small_window.max_pages_in_flight = 2047;
  EXPECT_STATUS(error(small_window), absl::StatusCode::kInvalidArgument,
                "--max-pages-in-flight is 2047; it must be at least 2048");
  ServerOptions no_streams;
  no_streams.max_streams = 0;
  EXPECT_STATUS(error(no_streams), absl::StatusCode::kInvalidArgument, "--max-streams");
  EXPECT_STATUS(StartAt({}).status(), absl::StatusCode::kInvalidArgument, "--listen");
}

using ServerRunTest = ServerTest;

TEST_F(ServerRunTest, HealthIsServing) {
  StartServer();
  EXPECT_EQ(AskHealth(client_->channel()).value_or("no answer"), kServingResponse);
}

TEST_F(ServerRunTest, ReflectionNamesTheServices) {
  StartServer();
  // ServerReflectionRequest{list_services: ""}.
  const auto answer =
      CallRaw(client_->channel(), "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
              std::string("\x3a\x00", 2));
  ASSERT_TRUE(answer.ok()) << answer.status();
  for (const char* service :
       {"faultline.rpc.PageService", "faultline.rpc.AdminService", "grpc.health.v1.Health"}) {
    EXPECT_NE(answer->find(service), std::string::npos) << service;
  }
}

TEST_F(ServerRunTest, ADrainAnswersWhatIsRunningAndEndsTheStreams) {
  StartGatedServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  gate_.Close();
  auto writer = client_->NewWriteStream();
  auto idle = client_->NewFetchStream();
  ASSERT_TRUE(idle->Call(FetchOf(1, volume.volume_id(), 0, 1)).ok());
  for (uint64_t i = 0; i < 3; ++i) {
    ASSERT_TRUE(writer->Send(WriteOf(i, volume, BatchOf(i * 10, 10, 1))));
  }
  gate_.WaitForThreads(3);
  absl::Status drained;
  std::thread drain([this, &drained] { drained = server_->Shutdown(absl::Minutes(1)); });
  // The idle stream ends as soon as the drain has begun; health still answers then.
  rpc::FetchResponse fetched;
  EXPECT_FALSE(idle->Receive(&fetched));
  EXPECT_STATUS(idle->Finish(), absl::StatusCode::kUnavailable,
                "the server is shutting down; connect again");
  EXPECT_EQ(AskHealth(client_->channel()).value_or("no answer"), kNotServingResponse);
  EXPECT_STATUS(client_->Stat("v").status(), absl::StatusCode::kUnavailable, "shutting down");
  auto late = client_->NewFetchStream();
  EXPECT_FALSE(late->Receive(&fetched));
  EXPECT_STATUS(late->Finish(), absl::StatusCode::kUnavailable, "shutting down");
  gate_.Open();
  std::set<uint64_t> answered;
  rpc::WriteResponse written;
  while (writer->Receive(&written)) {
    EXPECT_EQ(written.code(), 0) << written.message();
    answered.insert(written.request_id());
  }
  EXPECT_EQ(answered, (std::set<uint64_t>{0, 1, 2}));
  EXPECT_STATUS(writer->Finish(), absl::StatusCode::kUnavailable, "shutting down");
  drain.join();
  EXPECT_TRUE(drained.ok()) << drained;
}

TEST_F(ServerRunTest, WhatOutlastsTheDrainIsCancelled) {
  StartGatedServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  gate_.Close();
  auto writer = client_->NewWriteStream();
  ASSERT_TRUE(writer->Send(WriteOf(1, volume, BatchOf(0, 10, 1))));
  gate_.WaitForThreads(1);
  absl::Status drained;
  std::thread drain([this, &drained] { drained = server_->Shutdown(absl::ZeroDuration()); });
  rpc::WriteResponse written;
  EXPECT_FALSE(writer->Receive(&written));
  EXPECT_FALSE(writer->Finish().ok());
  gate_.Open();
  drain.join();
  EXPECT_TRUE(drained.ok()) << drained;
}

TEST_F(ServerRunTest, ASecondShutdownDoesNothing) {
  StartServer();
  EXPECT_TRUE(server_->Shutdown(absl::Seconds(10)).ok());
  EXPECT_TRUE(server_->Shutdown(absl::Seconds(10)).ok());
}

TEST_F(ServerRunTest, DestructionEndsRunningStreams) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  auto stream = client_->NewFetchStream();
  ASSERT_TRUE(stream->Call(FetchOf(1, volume.volume_id(), 0, 1)).ok());
  server_.reset();
  rpc::FetchResponse response;
  EXPECT_FALSE(stream->Receive(&response));
  EXPECT_EQ(stream->Finish().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace faultline
