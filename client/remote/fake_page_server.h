// SPDX-License-Identifier: Apache-2.0
//
// FakePageServer: a page server in this process that can do what a real one cannot: hold answers
// back, damage them, answer out of order, and go away in the middle of a stream.
#ifndef FAULTLINE_CLIENT_REMOTE_FAKE_PAGE_SERVER_H_
#define FAULTLINE_CLIENT_REMOTE_FAKE_PAGE_SERVER_H_

#include <absl/strings/str_cat.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "proto/mutex.h"
#include "proto/page_batch.h"
#include "proto/pager.grpc.pb.h"

namespace faultline {

// What several fake servers share: the volume's writer, and what was written. Thread-safe.
class FakeVolume {
 public:
  explicit FakeVolume(uint64_t identity = 1) : identity_(identity) {}

  uint64_t identity() const { return identity_; }

  // As VolumeCatalog::TakeEpoch(); 0: refused.
  uint64_t Open(const rpc::OpenVolumeRequest& request) {
    MutexLock lock(mu_);
    if (request.from_epoch() != 0) {
      const bool was_given = epoch_ == request.from_epoch() + 1;
      if (writer_ != request.writer() || (epoch_ != request.from_epoch() && !was_given)) return 0;
      if (was_given) return epoch_;
    }
    writer_ = request.writer();
    return ++epoch_;
  }
  // Whether the write's epoch is that of the writer.
  bool Apply(const rpc::WriteRequest& request) {
    MutexLock lock(mu_);
    if (request.epoch() != epoch_) return false;
    applied_.push_back(request);
    return true;
  }
  std::vector<rpc::WriteRequest> applied() {
    MutexLock lock(mu_);
    return applied_;
  }

 private:
  const uint64_t identity_;
  Mutex mu_;
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t writer_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<rpc::WriteRequest> applied_ ABSL_GUARDED_BY(mu_);
};

// Has one volume, "disk", of id 7. Thread-safe.
class FakePageServer final : public rpc::PageService::Service {
 public:
  static constexpr uint64_t kVolumeId = 7;
  static constexpr uint64_t kPages = 4096;
  static constexpr uint32_t kMaxPagesPerRequest = 256;

  // The content of `page`: every fourth is zero, the others are random bytes of their own.
  static std::string Content(uint64_t page) {
    std::string bytes(kPageSize, '\0');
    if (page % 4 == 3) return bytes;
    std::mt19937_64 random(page);
    for (size_t i = 0; i < kPageSize; i += 8) {
      const uint64_t word = random();
      memcpy(&bytes[i], &word, sizeof word);
    }
    return bytes;
  }

  explicit FakePageServer(std::string address,
                          std::shared_ptr<FakeVolume> volume = std::make_shared<FakeVolume>())
      : address_(std::move(address)), volume_(std::move(volume)) {
    Start();
  }
  ~FakePageServer() override { Stop(); }

  void Start() {
    {
      MutexLock lock(mu_);
      stopping_ = false;
    }
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
    builder.SetMaxReceiveMessageSize(-1);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }

  // Breaks every stream, and leaves nobody listening.
  void Stop() {
    if (server_ == nullptr) return;
    {
      MutexLock lock(mu_);
      stopping_ = true;
      changed_.SignalAll();
    }
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
    server_.reset();
  }

  // From now on answers are held back, until `count` are; those then go out in reverse order.
  void AnswerInReverse(size_t count) {
    MutexLock lock(mu_);
    reverse_ = count;
  }
  // Takes requests and answers none, until Resume().
  void Stall() {
    MutexLock lock(mu_);
    stalled_ = true;
  }
  void Resume() {
    MutexLock lock(mu_);
    stalled_ = false;
    changed_.SignalAll();
  }
  // Applied to every answer before it is sent; null for none.
  void Alter(std::function<void(rpc::FetchResponse*)> alter) {
    MutexLock lock(mu_);
    alter_ = std::move(alter);
  }
  // Returns once `count` fetch requests have come in since the start.
  void WaitForRequests(size_t count) {
    MutexLock lock(mu_);
    while (requests_.size() < count) changed_.Wait(mu_);
  }

  std::vector<rpc::FetchRequest> requests() {
    MutexLock lock(mu_);
    return requests_;
  }
  std::vector<rpc::WriteRequest> writes() {
    MutexLock lock(mu_);
    return writes_;
  }
  // Returns once `count` write requests have come in since the start.
  void WaitForWrites(size_t count) {
    MutexLock lock(mu_);
    while (writes_.size() < count) changed_.Wait(mu_);
  }

  grpc::Status OpenVolume(grpc::ServerContext*, const rpc::OpenVolumeRequest* request,
                          rpc::OpenVolumeResponse* response) override {
    if (request->volume() != "disk") {
      return {grpc::StatusCode::NOT_FOUND,
              absl::StrCat("there is no volume \"", request->volume(), "\"")};
    }
    response->set_volume_id(kVolumeId);
    response->set_size_bytes(kPages * kPageSize - 100);
    response->set_max_pages_per_request(kMaxPagesPerRequest);
    response->set_identity(volume_->identity());
    if (request->access() != rpc::OpenVolumeRequest::WRITE) return grpc::Status::OK;
    if (request->from_epoch() != 0 && request->identity() != volume_->identity()) {
      return {grpc::StatusCode::NOT_FOUND, "the volume is another one here"};
    }
    response->set_epoch(volume_->Open(*request));
    if (response->epoch() != 0) return grpc::Status::OK;
    return {grpc::StatusCode::FAILED_PRECONDITION, "another writer has opened the volume"};
  }

  using FetchStream = grpc::ServerReaderWriter<rpc::FetchResponse, rpc::FetchRequest>;
  grpc::Status Fetch(grpc::ServerContext*, FetchStream* stream) override {
    std::vector<rpc::FetchResponse> held;
    rpc::FetchRequest request;
    while (stream->Read(&request)) {
      std::function<void(rpc::FetchResponse*)> alter;
      size_t hold = 0;
      {
        MutexLock lock(mu_);
        requests_.push_back(request);
        changed_.SignalAll();
        while (stalled_ && !stopping_) changed_.Wait(mu_);
        if (stopping_) break;
        alter = alter_;
        hold = reverse_;
      }
      held.push_back(Answer(request));
      if (alter != nullptr) alter(&held.back());
      if (held.size() < hold) continue;
      std::reverse(held.begin(), held.end());
      for (const rpc::FetchResponse& response : held) stream->Write(response);
      held.clear();
    }
    return grpc::Status::OK;
  }

  using WriteStream = grpc::ServerReaderWriter<rpc::WriteResponse, rpc::WriteRequest>;
  grpc::Status Write(grpc::ServerContext*, WriteStream* stream) override {
    rpc::WriteRequest request;
    while (stream->Read(&request)) {
      rpc::WriteResponse response;
      response.set_request_id(request.request_id());
      {
        MutexLock lock(mu_);
        writes_.push_back(request);
        changed_.SignalAll();
        while (stalled_ && !stopping_) changed_.Wait(mu_);
        if (stopping_) break;
      }
      if (!volume_->Apply(request)) {
        response.set_code(static_cast<int>(absl::StatusCode::kFailedPrecondition));
        response.set_message("another writer has opened the volume");
      }
      stream->Write(response);
    }
    return grpc::Status::OK;
  }

 private:
  static rpc::FetchResponse Answer(const rpc::FetchRequest& request) {
    rpc::FetchResponse response;
    response.set_request_id(request.request_id());
    const absl::StatusOr<PageCount> count =
        CountPages(request.runs(), PageCount(kPages), PageCount(kMaxPagesPerRequest));
    if (!count.ok()) {
      response.set_code(static_cast<int>(count.status().code()));
      response.set_message(std::string(count.status().message()));
      return response;
    }
    PageBatchBuilder builder(response.mutable_batch());
    for (const rpc::PageRun& run : request.runs()) {
      for (uint64_t i = 0; i < run.count(); ++i) {
        const uint64_t page = run.first() + i;
        const std::string bytes = Content(page);
        builder.Encode(PageIndex(page),
                       PageBytes(reinterpret_cast<const std::byte*>(bytes.data()), kPageSize),
                       page % 4 == 1 ? Codec::kLz4 : Codec::kRaw);
      }
    }
    return response;
  }

  const std::string address_;
  const std::shared_ptr<FakeVolume> volume_;
  std::unique_ptr<grpc::Server> server_;
  Mutex mu_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool stalled_ ABSL_GUARDED_BY(mu_) = false;
  size_t reverse_ ABSL_GUARDED_BY(mu_) = 1;
  std::function<void(rpc::FetchResponse*)> alter_ ABSL_GUARDED_BY(mu_);
  std::vector<rpc::FetchRequest> requests_ ABSL_GUARDED_BY(mu_);
  std::vector<rpc::WriteRequest> writes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_FAKE_PAGE_SERVER_H_
