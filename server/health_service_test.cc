// SPDX-License-Identifier: Apache-2.0
//
// Health as clients see it, on the wire: gRPC's own messages are not among ours.
#include "server/health_service.h"

#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "server/test_server.h"

namespace faultline {
namespace {

// HealthCheckRequests.
constexpr absl::string_view kWholeServer("\x0a\x00", 2);
constexpr absl::string_view kNobody("\x0a\x06nobody", 8);
// A further HealthCheckResponse.
constexpr absl::string_view kServiceUnknownResponse("\x08\x03", 2);

// One call of a method of the health service. Not thread-safe.
class HealthClient {
 public:
  HealthClient(const std::string& address, const std::string& method)
      : channel_(grpc::CreateChannel(address, grpc::InsecureChannelCredentials())),
        stub_(channel_),
        context_(NewContext()),
        call_(stub_.PrepareCall(context_.get(), "/grpc.health.v1.Health/" + method, &queue_)) {
    call_->StartCall(nullptr);
    Next();
  }
  ~HealthClient() {
    context_->TryCancel();
    queue_.Shutdown();
    while (Next()) {
    }
  }

  void Send(absl::string_view request) {
    const grpc::Slice slice(request.data(), request.size());
    call_->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), nullptr);
    Next();
  }

  // The next answer, or "end" where the stream has ended.
  std::string Receive() {
    grpc::ByteBuffer answer;
    call_->Read(&answer, nullptr);
    if (!Next()) return "end";
    std::vector<grpc::Slice> slices;
    EXPECT_TRUE(answer.Dump(&slices).ok());
    std::string bytes;
    for (const grpc::Slice& slice : slices) bytes.append(slice.begin(), slice.end());
    return bytes;
  }

  absl::Status Finish() {
    grpc::Status status;
    call_->Finish(&status, nullptr);
    Next();
    return ToStatus(status);
  }

 private:
  bool Next() {
    void* tag;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  grpc::CompletionQueue queue_;
  const std::shared_ptr<grpc::Channel> channel_;
  grpc::GenericStub stub_;
  const std::unique_ptr<grpc::ClientContext> context_;
  const std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

class HealthServiceTest : public testing::Test {
 protected:
  void SetUp() override {
    ServerOptions options;
    options.listen = {"unix:" + directory_.File("server")};
    auto catalog = VolumeCatalog::Open(NewMemoryPageStore());
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    auto server = Server::Start(options, *std::move(catalog));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  const std::string& address() const { return server_->addresses().front(); }

  TemporaryDirectory directory_;
  std::unique_ptr<Server> server_;
};

TEST_F(HealthServiceTest, TheServerIsAskedForByTheEmptyName) {
  for (const absl::string_view request : {absl::string_view(), kWholeServer}) {
    HealthClient client(address(), "Check");
    client.Send(request);
    EXPECT_EQ(client.Receive(), kServingResponse);
    EXPECT_EQ(client.Finish(), absl::OkStatus());
  }
}

TEST_F(HealthServiceTest, AnUnknownServiceIsNotFound) {
  HealthClient client(address(), "Check");
  client.Send(kNobody);
  EXPECT_EQ(client.Receive(), "end");
  EXPECT_STATUS(client.Finish(), absl::StatusCode::kNotFound, "unknown service");
}

TEST_F(HealthServiceTest, WhoWatchesAnUnknownServiceIsToldSoAndWaits) {
  HealthClient client(address(), "Watch");
  client.Send(kNobody);
  EXPECT_EQ(client.Receive(), kServiceUnknownResponse);
  server_->Shutdown(absl::InfiniteDuration()).IgnoreError();
  EXPECT_EQ(client.Receive(), "end");
}

TEST_F(HealthServiceTest, WhoWatchesIsToldOfTheDrainAndEndsWithTheServer) {
  HealthClient first(address(), "Watch");
  HealthClient second(address(), "Watch");
  for (HealthClient* client : {&first, &second}) {
    client->Send(kWholeServer);
    EXPECT_EQ(client->Receive(), kServingResponse);
  }
  std::thread shutdown([this] { server_->Shutdown(absl::InfiniteDuration()).IgnoreError(); });
  for (HealthClient* client : {&first, &second}) {
    EXPECT_EQ(client->Receive(), kNotServingResponse);
    EXPECT_EQ(client->Receive(), "end");
  }
  shutdown.join();
}

TEST_F(HealthServiceTest, CallsThatAreCancelledLeaveNothingBehind) {
  for (int i = 0; i < 50; ++i) {
    HealthClient without_request(address(), "Check");
    HealthClient watch(address(), "Watch");
    watch.Send(kWholeServer);
    if (i % 2 == 0) {
      EXPECT_EQ(watch.Receive(), kServingResponse);
    }
  }
  // Ends only when every call has.
  EXPECT_EQ(server_->Shutdown(absl::ZeroDuration()), absl::OkStatus());
}

}  // namespace
}  // namespace faultline
