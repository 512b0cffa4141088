// SPDX-License-Identifier: Apache-2.0
//
// What the tests of the server share: a plain client of both services, pages whose bytes tell which
// page and which version they are, and a temporary directory.
#ifndef FAULTLINE_SERVER_TEST_CLIENT_H_
#define FAULTLINE_SERVER_TEST_CLIENT_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proto/admin.grpc.pb.h"
#include "proto/page_batch.h"
#include "proto/page_codec.h"
#include "proto/pager.grpc.pb.h"

namespace faultline {

#define EXPECT_STATUS(status, expected_code, text) \
  EXPECT_PRED_FORMAT3(HasCodeAndText, status, expected_code, text)

// A predicate for gtest: `status` has this code, and a message with `text` in it.
testing::AssertionResult HasCodeAndText(const char*, const char*, const char*,
                                        const absl::Status& status, absl::StatusCode code,
                                        absl::string_view text);

using Page = std::array<std::byte, kPageSize>;

// Every 8-byte word names page, version and its own place. Version 0 is a page of zeros.
Page PageOf(uint64_t index, uint64_t version);

// Pages [first, first + count) of one version, encoded.
rpc::PageBatch BatchOf(uint64_t first, uint64_t count, uint64_t version, Codec codec = Codec::kLz4);

absl::Status ToStatus(const grpc::Status& status);

// Decodes and verifies a batch; pages of zeros have their bytes too.
absl::StatusOr<std::map<uint64_t, Page>> PagesOf(const rpc::PageBatch& batch);

// A context whose deadline is so far away that only a hang reaches it.
std::unique_ptr<grpc::ClientContext> NewContext();

// A directory that is removed, with what is in it, at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// One stream. One thread at a time.
template <typename Request, typename Response>
class TestStream {
 public:
  using Stream = grpc::ClientReaderWriter<Request, Response>;
  TestStream(std::unique_ptr<grpc::ClientContext> context, std::unique_ptr<Stream> stream)
      : context_(std::move(context)), stream_(std::move(stream)) {}

  bool Send(const Request& request) { return stream_->Write(request); }
  bool Receive(Response* response) { return stream_->Read(response); }
  void HalfClose() { stream_->WritesDone(); }
  void Cancel() { context_->TryCancel(); }
  // The status that the stream ends with. REQUIRES: no answers are left to be received.
  absl::Status Finish() { return ToStatus(stream_->Finish()); }

  // Sends one request and receives one answer; the answer's code and message as a status.
  absl::StatusOr<Response> Call(const Request& request) {
    Response response;
    if (!Send(request) || !Receive(&response)) {
      return absl::AbortedError("the stream ended: " + Finish().ToString());
    }
    if (response.request_id() != request.request_id()) {
      return absl::InternalError("the answer is to another request");
    }
    if (response.code() != 0) {
      return absl::Status(static_cast<absl::StatusCode>(response.code()), response.message());
    }
    return response;
  }

 private:
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<Stream> stream_;
};

using FetchClient = TestStream<rpc::FetchRequest, rpc::FetchResponse>;
using WriteClient = TestStream<rpc::WriteRequest, rpc::WriteResponse>;

rpc::FetchRequest FetchOf(uint64_t request_id, uint64_t volume_id, uint64_t first, uint64_t count);
rpc::WriteRequest WriteOf(uint64_t request_id, const rpc::OpenVolumeResponse& volume,
                          rpc::PageBatch batch);

// A client of the server at one address. Thread-safe, but for the streams.
class TestClient {
 public:
  // Plaintext, unless there are `credentials`.
  explicit TestClient(const std::string& address,
                      std::shared_ptr<grpc::ChannelCredentials> credentials = nullptr);

  rpc::PageService::Stub& pages() { return *pages_; }
  rpc::AdminService::Stub& admin() { return *admin_; }
  const std::shared_ptr<grpc::Channel>& channel() { return channel_; }

  absl::StatusOr<rpc::Volume> Create(const std::string& name, uint64_t size_bytes,
                                     rpc::Durability durability = rpc::DURABILITY_SYNC);
  absl::StatusOr<rpc::Volume> Stat(const std::string& name);
  absl::StatusOr<rpc::OpenVolumeResponse> Open(const std::string& name,
                                               rpc::OpenVolumeRequest::Access access);
  absl::Status Delete(const std::string& name);
  rpc::ServerStatus Status();
  // Asks for the status again and again until `holds`, for a minute at most.
  bool WaitForStatus(const std::function<bool(const rpc::ServerStatus&)>& holds);

  std::unique_ptr<FetchClient> NewFetchStream();
  std::unique_ptr<WriteClient> NewWriteStream();

  // On streams of their own.
  absl::StatusOr<std::map<uint64_t, Page>> Fetch(uint64_t volume_id, uint64_t first,
                                                 uint64_t count);
  absl::Status Write(const rpc::OpenVolumeResponse& volume, const rpc::PageBatch& batch);

  // Imports `batches` between a Begin and, where `commit`, a Commit.
  absl::StatusOr<rpc::Volume> Import(const rpc::ImportVolumeRequest::Begin& begin,
                                     const std::vector<rpc::PageBatch>& batches,
                                     bool commit = true);
  absl::StatusOr<std::vector<rpc::ExportVolumeResponse>> Export(const std::string& name);

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<rpc::PageService::Stub> pages_;
  std::unique_ptr<rpc::AdminService::Stub> admin_;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_TEST_CLIENT_H_
