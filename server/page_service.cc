// SPDX-License-Identifier: Apache-2.0
#include "server/page_service.h"

#include <absl/strings/str_cat.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "proto/page_batch.h"
#include "server/fetch_answer.h"
#include "server/unary_method.h"
#include "server/working_set_call.h"
#include "server/write_batch.h"

namespace faultline {
namespace {

using Clock = std::chrono::steady_clock;

// A fetch stream remembers the volumes that it has used; more than this at once are rare.
constexpr size_t kMaxRememberedVolumes = 16;

// A hole is told of so far; it takes long to look through where zeros are stored.
constexpr PageCount kMaxZerosBeyond{uint64_t{1} << 14};

template <typename Message>
absl::Status ParseMessage(grpc::ByteBuffer* buffer, Message* message) {
  const size_t size = buffer->Length();
  if (grpc::SerializationTraits<Message>::Deserialize(buffer, message).ok()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("a message of ", size, " bytes is no ",
                                                 message->GetTypeName(),
                                                 "; client and server may differ in version"));
}

template <typename Message>
absl::Status SerializeMessage(const Message& message, grpc::ByteBuffer* buffer) {
  bool own_buffer = false;
  if (grpc::SerializationTraits<Message>::Serialize(message, buffer, &own_buffer).ok()) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrCat("cannot serialise a ", message.GetTypeName()));
}

template <typename Response>
void SetError(const absl::Status& status, Response* response) {
  response->set_code(status.raw_code());
  response->set_message(status.message().data(), status.message().size());
}

// As CountPages(), with the volume's true size in the message where there is an error.
absl::StatusOr<PageCount> CountPagesOf(const google::protobuf::RepeatedPtrField<rpc::PageRun>& runs,
                                       const Volume& volume, uint64_t max_pages) {
  // Volume checks ranges itself, against the size that it has at that moment; looking at its size
  // here would only cost a copy of its info.
  absl::StatusOr<PageCount> count =
      CountPages(runs, PageCount(kMaxVolumePages), PageCount(max_pages));
  if (count.ok() && count->raw() == 0) {
    count = absl::InvalidArgumentError("a request names no pages");
  }
  if (count.ok()) return count;
  const VolumeInfo info = volume.info();
  absl::Status status = count.status();
  if (absl::IsOutOfRange(status)) {
    status = CountPages(runs, info.size(), PageCount(max_pages)).status();
  }
  return absl::Status(status.code(),
                      absl::StrCat("volume \"", info.name, "\": ", status.message()));
}

PageRange RangeOf(const rpc::PageRun& run) {
  return {PageIndex(run.first()), PageCount(run.count())};
}
auto AddTo(FetchAnswer* found) {
  return [found](PageIndex page, absl::string_view encoded) {
    if (IsEncodedZeroPage(encoded)) {
      found->AddZero(PageRange::Single(page));
    } else {
      found->Add(page, encoded);
    }
    return absl::OkStatus();
  };
}
auto AddZeroTo(FetchAnswer* found) {
  return [found](PageRange zero) {
    found->AddZero(zero);
    return absl::OkStatus();
  };
}

class FetchOfPages final : public StreamRequest {
 public:
  FetchOfPages(rpc::FetchRequest request, std::shared_ptr<Volume> volume, uint64_t pages,
               ServerCounters* counters)
      : StreamRequest(pages, pages <= kMaxInlinePages ? RequestLane::kDemand : RequestLane::kBulk),
        request_(std::move(request)),
        volume_(std::move(volume)),
        counters_(counters) {}

  absl::Status Answer(grpc::ByteBuffer* answer) override {
    FetchAnswer found{PageCount(pages())};
    const Clock::time_point begun = Clock::now();
    for (const rpc::PageRun& run : request_.runs()) {
      const absl::Status status = volume_->Read(RangeOf(run), AddTo(&found), AddZeroTo(&found));
      if (!status.ok()) return Refuse(status, answer);
    }
    return Finish(&found, begun, answer);
  }

  bool AnswerAtHand(grpc::ByteBuffer* answer) override {
    FetchAnswer found{PageCount(pages())};
    const Clock::time_point begun = Clock::now();
    for (const rpc::PageRun& run : request_.runs()) {
      if (!volume_->ReadAtHand(RangeOf(run), AddTo(&found), AddZeroTo(&found))) return false;
    }
    return Finish(&found, begun, answer).ok();
  }

  absl::Status Refuse(const absl::Status& status, grpc::ByteBuffer* answer) override {
    counters_->requests_failed.Add(1);
    rpc::FetchResponse response;
    response.set_request_id(request_.request_id());
    SetError(status, &response);
    return SerializeMessage(response, answer);
  }

 private:
  absl::Status Finish(FetchAnswer* found, Clock::time_point begun, grpc::ByteBuffer* answer) {
    counters_->pages_fetched.Add(found->page_count().raw());
    // Who asks for one page goes by itself from there; who asks for more goes on behind them.
    if (pages() > 1 && found->ends_in_zeros()) {
      const PageIndex end = RangeOf(*request_.runs().rbegin()).end();
      found->NoteZerosBeyond(volume_->ZerosFrom(end, kMaxZerosBeyond));
    }
    const Clock::time_point read = Clock::now();
    counters_->fetches.Record(read - came_);
    counters_->store_reads.Record(read - begun);
    volume_->traffic().pages_fetched.fetch_add(found->page_count().raw(),
                                               std::memory_order_relaxed);
    found->Finish(request_.request_id(), read - came_, read - begun, answer);
    return absl::OkStatus();
  }

  const Clock::time_point came_ = Clock::now();
  const rpc::FetchRequest request_;
  const std::shared_ptr<Volume> volume_;
  ServerCounters* const counters_;
};

// A fetch that is known to be wrong before any page is read.
class FailedFetch final : public StreamRequest {
 public:
  FailedFetch(uint64_t request_id, absl::Status status, ServerCounters* counters)
      : StreamRequest(1, RequestLane::kDemand),
        request_id_(request_id),
        status_(std::move(status)),
        counters_(counters) {}

  absl::Status Answer(grpc::ByteBuffer* answer) override { return Refuse(status_, answer); }

  absl::Status Refuse(const absl::Status& status, grpc::ByteBuffer* answer) override {
    counters_->requests_failed.Add(1);
    rpc::FetchResponse response;
    response.set_request_id(request_id_);
    SetError(status, &response);
    return SerializeMessage(response, answer);
  }

 private:
  const uint64_t request_id_;
  const absl::Status status_;
  ServerCounters* const counters_;
};

class FetchStream final : public PageStream {
 public:
  FetchStream(PageService* service, const PageService::Environment& environment)
      : PageStream(environment.streams), service_(service), environment_(environment) {}

 private:
  ~FetchStream() override {
    if (is_open_) environment_.counters->fetch_streams.Subtract(1);
  }

  void AskForCall(CallLoop::Event* event) override {
    service_->RequestFetch(context(), rpc(), queue(), queue(), event);
  }

  std::shared_ptr<ClientAccount> OnOpen() override {
    (new FetchStream(service_, environment_))->AwaitCall();
    caller_ = environment_.access->CallerOf(*context());
    is_open_ = true;
    environment_.counters->fetch_streams.Add(1);
    return caller_.account;
  }

  absl::StatusOr<std::unique_ptr<StreamRequest>> Parse(grpc::ByteBuffer* message) override {
    rpc::FetchRequest request;
    if (absl::Status status = ParseMessage(message, &request); !status.ok()) return status;
    absl::StatusOr<std::shared_ptr<Volume>> volume = FindVolume(request.volume_id());
    if (!volume.ok()) return Failed(request, volume.status());
    const absl::StatusOr<PageCount> pages =
        CountPagesOf(request.runs(), **volume, environment_.max_pages_per_request);
    if (!pages.ok()) return Failed(request, pages.status());
    return std::make_unique<FetchOfPages>(std::move(request), *std::move(volume), pages->raw(),
                                          environment_.counters);
  }

  std::unique_ptr<StreamRequest> Failed(const rpc::FetchRequest& request, absl::Status status) {
    return std::make_unique<FailedFetch>(request.request_id(), std::move(status),
                                         environment_.counters);
  }

  // A volume is remembered even when it was deleted: it says so itself. That the caller may read it
  // is remembered with it, until somebody's role has changed.
  absl::StatusOr<std::shared_ptr<Volume>> FindVolume(uint64_t id) {
    const AccessControl& access = *environment_.access;
    // Before the roles are looked at, so that a change meanwhile is noticed by the next request.
    const uint64_t version = access.catalog().access_version();
    if (version != access_version_) volumes_.clear();
    access_version_ = version;
    for (const auto& [known_id, volume] : volumes_) {
      if (known_id == id) return volume;
    }
    absl::StatusOr<std::shared_ptr<Volume>> volume =
        access.FindById(caller_, id, VolumeRole::kReader);
    if (!volume.ok()) {
      return access.Audit(caller_, {"Fetch", absl::StrCat("id ", id), AuditedCall::Log::kRefusals},
                          volume.status());
    }
    if (volumes_.size() == kMaxRememberedVolumes) volumes_.clear();
    volumes_.emplace_back(id, *volume);
    return volume;
  }

  PageService* const service_;
  const PageService::Environment& environment_;
  bool is_open_ = false;
  // Used by Parse() only.
  std::vector<std::pair<uint64_t, std::shared_ptr<Volume>>> volumes_;
  uint64_t access_version_ = 0;  // of the roles with which they were found
  Caller caller_;                // constant after OnOpen()
};

class WriteOfPages final : public StreamRequest {
 public:
  // `caller` is borrowed from the stream, which outlives its requests.
  WriteOfPages(grpc::ByteBuffer* message, uint64_t pages, const PageService::Environment& service,
               const Caller* caller)
      : StreamRequest(pages, RequestLane::kBulk), service_(service), caller_(caller) {
    message_.Swap(message);
  }

  absl::Status Answer(grpc::ByteBuffer* answer) override {
    if (absl::Status status = ParseOnce(); !status.ok()) return status;
    if (absl::Status status = Apply(); !status.ok()) return Refuse(status, answer);
    service_.counters->writes.Record(Clock::now() - came_);
    rpc::WriteResponse response;
    response.set_request_id(request_.request_id());
    return SerializeMessage(response, answer);
  }

  absl::Status Refuse(const absl::Status& status, grpc::ByteBuffer* answer) override {
    if (absl::Status parsed = ParseOnce(); !parsed.ok()) return parsed;
    service_.counters->requests_failed.Add(1);
    rpc::WriteResponse response;
    response.set_request_id(request_.request_id());
    SetError(status, &response);
    return SerializeMessage(response, answer);
  }

 private:
  absl::Status ParseOnce() {
    if (parsed_) return absl::OkStatus();
    parsed_ = true;
    return ParseMessage(&message_, &request_);
  }

  absl::Status Apply() {
    const uint64_t id = request_.volume_id();
    const absl::StatusOr<std::shared_ptr<Volume>> volume =
        service_.access->FindById(*caller_, id, VolumeRole::kWriter);
    if (!volume.ok()) {
      return service_.access->Audit(*caller_,
                                    {"Write", absl::StrCat("id ", id), AuditedCall::Log::kRefusals},
                                    volume.status());
    }
    const absl::StatusOr<PageCount> pages =
        CountPagesOf(request_.batch().runs(), **volume, service_.max_pages_per_request);
    if (!pages.ok()) return pages.status();
    VolumeWrites writes;
    if (absl::Status status = CollectWrites(request_.batch(), &writes); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat("volume \"", (*volume)->info().name, "\": ",
                                                      status.message(), "; nothing was written"));
    }
    // Trims are always taken, as they give back.
    if (service_.access->has_quota() && !writes.pages.empty()) {
      const absl::Status status = service_.access->CheckQuota((*volume)->info().access.owner);
      if (!status.ok()) return status;
    }
    const VolumeWriter writer{request_.epoch(), request_.generation()};
    const Clock::time_point begun = Clock::now();
    if (absl::Status status = (*volume)->Write(writer, writes); !status.ok()) return status;
    service_.counters->store_writes.Record(Clock::now() - begun);
    service_.counters->pages_written.Add(pages->raw());
    (*volume)->traffic().pages_written.fetch_add(pages->raw(), std::memory_order_relaxed);
    return absl::OkStatus();
  }

  const Clock::time_point came_ = Clock::now();
  const PageService::Environment& service_;
  const Caller* const caller_;
  grpc::ByteBuffer message_;
  rpc::WriteRequest request_;
  bool parsed_ = false;
};

class WriteStream final : public PageStream {
 public:
  WriteStream(PageService* service, const PageService::Environment& environment)
      : PageStream(environment.streams), service_(service), environment_(environment) {}

 private:
  ~WriteStream() override {
    if (is_open_) environment_.counters->write_streams.Subtract(1);
  }

  void AskForCall(CallLoop::Event* event) override {
    service_->RequestWrite(context(), rpc(), queue(), queue(), event);
  }

  std::shared_ptr<ClientAccount> OnOpen() override {
    (new WriteStream(service_, environment_))->AwaitCall();
    caller_ = environment_.access->CallerOf(*context());
    is_open_ = true;
    environment_.counters->write_streams.Add(1);
    return caller_.account;
  }

  absl::StatusOr<std::unique_ptr<StreamRequest>> Parse(grpc::ByteBuffer* message) override {
    // Parsed by a worker: it copies every page. What counts here is the memory.
    const uint64_t pages = PageCount::CoveringBytes(message->Length()).raw();
    const uint64_t limit = environment_.streams.window->bulk_limit();
    return std::make_unique<WriteOfPages>(message, std::clamp(pages, uint64_t{1}, limit),
                                          environment_, &caller_);
  }

  PageService* const service_;
  const PageService::Environment& environment_;
  bool is_open_ = false;
  Caller caller_;  // constant after OnOpen()
};

absl::Status Open(const AccessControl& access, const Caller& caller,
                  const rpc::OpenVolumeRequest& request, rpc::OpenVolumeResponse* response) {
  VolumeInfo info;
  if (request.access() == rpc::OpenVolumeRequest::WRITE) {
    const absl::StatusOr<std::shared_ptr<Volume>> volume =
        access.Find(caller, request.volume(), VolumeRole::kWriter);
    if (!volume.ok()) return volume.status();
    const VolumeInfo found = (*volume)->info();
    if (request.from_epoch() != 0 && request.identity() != access.catalog().IdentityOf(found)) {
      return absl::NotFoundError(
          absl::StrCat("volume \"", request.volume(), "\" is another one here"));
    }
    absl::StatusOr<VolumeInfo> taken = access.catalog().TakeEpoch(
        request.volume(), found.id, {request.writer(), request.from_epoch()});
    if (!taken.ok()) return taken.status();
    info = *std::move(taken);
    response->set_epoch(info.epoch);
  } else if (request.access() == rpc::OpenVolumeRequest::READ) {
    const absl::StatusOr<std::shared_ptr<Volume>> volume =
        access.Find(caller, request.volume(), VolumeRole::kReader);
    if (!volume.ok()) return volume.status();
    info = (*volume)->info();
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        "volume \"", request.volume(), "\": unknown access ", static_cast<int>(request.access())));
  }
  response->set_volume_id(info.id);
  response->set_size_bytes(info.size_bytes);
  response->set_identity(access.catalog().IdentityOf(info));
  return absl::OkStatus();
}

}  // namespace

void PageService::Serve() {
  const UnaryEnvironment unary{environment_.streams.loop, environment_.control_workers,
                               environment_.streams.calls, environment_.access};
  const AccessControl& access = *environment_.access;
  ServeUnary<PageService, rpc::OpenVolumeRequest, rpc::OpenVolumeResponse>(
      unary, this, &PageService::RequestOpenVolume,
      // A new epoch is synced to the disk.
      [this, &access](const Caller& caller, const auto& request,
                      rpc::OpenVolumeResponse* response) {
        response->set_max_pages_per_request(
            static_cast<uint32_t>(environment_.max_pages_per_request));
        const bool writes = request.access() == rpc::OpenVolumeRequest::WRITE;
        return access.Audit(caller,
                            {writes ? "OpenVolume(write)" : "OpenVolume(read)", request.volume(),
                             writes ? AuditedCall::Log::kAlways : AuditedCall::Log::kRefusals},
                            Open(access, caller, request, response));
      });
  ServeUnary<PageService, rpc::GetWorkingSetRequest, rpc::GetWorkingSetResponse>(
      unary, this, &PageService::RequestGetWorkingSet,
      [&access](const Caller& caller, const auto& request, rpc::GetWorkingSetResponse* response) {
        return access.Audit(caller,
                            {"GetWorkingSet", absl::StrCat("id ", request.volume_id()),
                             AuditedCall::Log::kRefusals},
                            faultline::GetWorkingSet(access, caller, request, response));
      });
  ServeUnary<PageService, rpc::MergeWorkingSetRequest, rpc::MergeWorkingSetResponse>(
      unary, this, &PageService::RequestMergeWorkingSet,
      [&access](const Caller& caller, const auto& request, rpc::MergeWorkingSetResponse* response) {
        return access.Audit(caller,
                            {"MergeWorkingSet", absl::StrCat("id ", request.volume_id()),
                             AuditedCall::Log::kRefusals},
                            faultline::MergeWorkingSet(access, caller, request, response));
      });
  (new FetchStream(this, environment_))->AwaitCall();
  (new WriteStream(this, environment_))->AwaitCall();
}

}  // namespace faultline
