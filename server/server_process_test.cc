// SPDX-License-Identifier: Apache-2.0
//
// The program itself: flags, signals, messages.
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <memory>
#include <string>

#include "server/test_client.h"
#include "server/test_process.h"

namespace faultline {
namespace {

class ServerProcessTest : public testing::Test {
 protected:
  std::string socket() const { return "unix:" + directory_.File("socket"); }

  TemporaryDirectory directory_;
};

// "127.0.0.1:PORT" out of the line that the program logs when it is ready.
std::string AddressIn(const std::string& line) {
  const std::string before = "listening on ";
  const size_t begin = line.find(before) + before.size();
  return line.substr(begin, line.find_first_of(",;", begin) - begin);
}

TEST_F(ServerProcessTest, SaysInOneLineWhereItListensAndWhatItServes) {
  ServerProcess server({"--store=memory:", "--listen=127.0.0.1:0", "--listen", socket()});
  const std::string line = server.WaitForLine("listening on");
  EXPECT_NE(line.find(", " + socket() + "; store memory:; version 0.1.0"), std::string::npos)
      << line;
  const std::string address = AddressIn(line);
  EXPECT_EQ(address.find("127.0.0.1:"), 0u) << line;
  EXPECT_EQ(TestClient(address).Status().store(), "memory:");
  EXPECT_EQ(TestClient(socket()).Status().store(), "memory:");
}

TEST_F(ServerProcessTest, SigtermAndSigintDrainAndExitWithZero) {
  for (const int signal_number : {SIGTERM, SIGINT}) {
    ServerProcess server({"--store=rocksdb:" + directory_.File("store"), "--listen", socket()});
    ASSERT_NE(server.WaitForLine("listening on"), "") << server.output();
    TestClient client(socket());
    auto stream = client.NewFetchStream();
    // An answer, if only an error, so that the stream is known to be there.
    EXPECT_EQ(stream->Call(FetchOf(1, 1000, 0, 1)).status().code(), absl::StatusCode::kNotFound);
    server.Signal(signal_number);
    rpc::FetchResponse response;
    EXPECT_FALSE(stream->Receive(&response));
    EXPECT_STATUS(stream->Finish(), absl::StatusCode::kUnavailable, "shutting down");
    EXPECT_EQ(server.Wait(), 0) << server.output();
    EXPECT_NE(server.output().find("drained; everything is durable"), std::string::npos)
        << server.output();
  }
}

// An import that does not go on keeps a drain waiting.
class ServerDrainTest : public ServerProcessTest {
 protected:
  void Start(const std::string& drain_timeout) {
    server_ = std::make_unique<ServerProcess>(std::vector<std::string>{
        "--store=memory:", "--listen=" + socket(), "--drain-timeout=" + drain_timeout});
    ASSERT_NE(server_->WaitForLine("listening on"), "") << server_->output();
    client_ = std::make_unique<TestClient>(socket());
    context_ = NewContext();
    import_ = client_->admin().ImportVolume(context_.get(), &response_);
    rpc::ImportVolumeRequest begin;
    begin.mutable_begin()->set_name("v");
    begin.mutable_begin()->set_size_bytes(kPageSize);
    ASSERT_TRUE(import_->Write(begin));
    // Calls of one connection begin in their order.
    EXPECT_EQ(client_->Status().volumes(), 0u);
  }

  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<TestClient> client_;
  std::unique_ptr<grpc::ClientContext> context_;
  rpc::Volume response_;
  std::unique_ptr<grpc::ClientWriter<rpc::ImportVolumeRequest>> import_;
};

TEST_F(ServerDrainTest, ADrainEndsAtItsTimeout) {
  Start("50ms");
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->Wait(), 0) << server_->output();
  EXPECT_FALSE(import_->Finish().ok());
}

TEST_F(ServerDrainTest, ASecondSignalEndsADrainAtOnce) {
  Start("1h");
  server_->Signal(SIGTERM);
  ASSERT_NE(server_->WaitForLine("got Terminated; draining for at most 1h"), "")
      << server_->output();
  server_->Signal(SIGINT);
  EXPECT_EQ(server_->Wait(), 3) << server_->output();
  EXPECT_NE(server_->output().find("got Interrupt while draining; exiting"), std::string::npos)
      << server_->output();
  EXPECT_FALSE(import_->Finish().ok());
}

TEST_F(ServerProcessTest, FlagsAreTakenFromFileAndEnvironmentAndTheCommandLineWins) {
  const std::string config = directory_.File("server.toml");
  std::ofstream(config) << "listen = [\"" << socket() << "\", \"127.0.0.1:0\"]\n"
                        << "store = \"rocksdb:/nonexistent/by-file\"\n"
                        << "store-memory = \"16MiB\"\n"
                        << "max-pages-per-request = 99\n";
  ServerProcess server({"--config", config, "--store=memory:"},
                       {"FAULTLINE_SERVER_MAX_PAGES_IN_FLIGHT=100"});
  // 100 pages in flight are too few for 99 in one request: so both were read.
  EXPECT_EQ(server.Wait(), 1);
  EXPECT_NE(server.output().find("--max-pages-in-flight is 100; it must be at least 198"),
            std::string::npos)
      << server.output();

  ServerProcess working({"--config", config, "--store=memory:"},
                        {"FAULTLINE_SERVER_MAX_PAGES_IN_FLIGHT=200"});
  const std::string line = working.WaitForLine("listening on");
  EXPECT_NE(line.find("listening on " + socket() + ", 127.0.0.1:"), std::string::npos)
      << working.output();
  TestClient client(socket());
  ASSERT_TRUE(client.Create("v", kPageSize).ok());
  EXPECT_EQ(client.Open("v", rpc::OpenVolumeRequest::READ)->max_pages_per_request(), 99u);
}

TEST_F(ServerProcessTest, WrongFlagsAreExplained) {
  const std::string bad_config = directory_.File("bad.toml");
  std::ofstream(bad_config) << "stor = \"memory:\"\n";
  const struct {
    std::vector<std::string> flags;
    const char* text;
  } cases[] = {
      {{"--store-memory=lots"}, "\"lots\" is no size"},
      {{"--sync-interval=5"}, "\"5\" is no duration"},
      {{"--log-level=loud"}, "write debug, info, warning or error"},
      {{"--max-streams=many"}, "--max-streams"},
      {{"--colour"}, "--colour"},
      {{"--config", bad_config}, "a key that is no flag: INI was not able to parse stor"},
      {{"--config", directory_.File("missing.toml")}, "missing.toml"},
      {{"--store=tape:", "--listen=127.0.0.1:0"}, "tape:"},
      {{"--store=memory:", "--listen=nowhere"}, "\"nowhere\" is no address to listen on"},
  };
  for (const auto& c : cases) {
    ServerProcess server(c.flags);
    const int status = server.Wait();
    EXPECT_GT(status, 0) << c.text;
    EXPECT_LT(status, 128) << c.text;
    EXPECT_NE(server.output().find(c.text), std::string::npos) << server.output();
  }
}

TEST_F(ServerProcessTest, HelpNamesEveryFlagWithUnitAndDefault) {
  ServerProcess server({"--help"});
  EXPECT_EQ(server.Wait(), 0);
  for (const char* text : {"--listen",
                           "127.0.0.1:7400",
                           "--store ",
                           "rocksdb:/var/lib/faultline",
                           "--store-memory",
                           "256MiB",
                           "--sync-interval",
                           "1s",
                           "--drain-timeout",
                           "10s",
                           "--max-message-bytes",
                           "16MiB",
                           "--max-streams",
                           "--max-pages-in-flight",
                           "32768",
                           "--max-pages-per-request",
                           "1024",
                           "--log-level",
                           "--config",
                           "FAULTLINE_SERVER_STORE",
                           "--version"}) {
    EXPECT_NE(server.output().find(text), std::string::npos) << text << "\n" << server.output();
  }
  ServerProcess version({"--version"});
  EXPECT_EQ(version.Wait(), 0);
  EXPECT_EQ(version.output(), "faultline-server 0.1.0\n");
}

TEST_F(ServerProcessTest, APortOrStoreInUseEndsTheProgramWithTheReason) {
  const std::string store = "--store=rocksdb:" + directory_.File("store");
  ServerProcess first({store, "--listen=127.0.0.1:0"});
  const std::string address = AddressIn(first.WaitForLine("listening on"));
  ServerProcess same_port({"--store=memory:", "--listen=" + address});
  EXPECT_EQ(same_port.Wait(), 1);
  EXPECT_NE(same_port.output().find("cannot start: cannot listen on " + address +
                                    ": Address already in use; another program listens there: "
                                    "stop it or choose another address"),
            std::string::npos)
      << same_port.output();
  ServerProcess same_store({store, "--listen=127.0.0.1:0"});
  EXPECT_EQ(same_store.Wait(), 1);
  EXPECT_NE(same_store.output().find(directory_.File("store")), std::string::npos)
      << same_store.output();
  EXPECT_EQ(TestClient(address).Status().volumes(), 0u);
}

}  // namespace
}  // namespace faultline
