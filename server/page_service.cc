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

namespace faultline {
namespace {

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

class FetchOfPages final : public StreamRequest {
 public:
  FetchOfPages(rpc::FetchRequest request, std::shared_ptr<Volume> volume, uint64_t pages,
               ServerCounters* counters)
      : StreamRequest(pages, pages <= kMaxInlinePages ? RequestLane::kDemand : RequestLane::kBulk),
        request_(std::move(request)),
        volume_(std::move(volume)),
        counters_(counters) {}

  absl::Status Answer(grpc::ByteBuffer* answer) override {
    FetchAnswer pages_found{PageCount(pages())};
    const Clock::time_point begun = Clock::now();
    for (const rpc::PageRun& run : request_.runs()) {
      const PageRange range{PageIndex(run.first()), PageCount(run.count())};
      const absl::Status status = volume_->Read(
          range,
          [&pages_found](PageIndex page, absl::string_view encoded) {
            if (IsEncodedZeroPage(encoded)) {
              pages_found.AddZero(PageRange::Single(page));
            } else {
              pages_found.Add(page, encoded);
            }
            return absl::OkStatus();
          },
          [&pages_found](PageRange zero) {
            pages_found.AddZero(zero);
            return absl::OkStatus();
          });
      if (!status.ok()) return Refuse(status, answer);
    }
    counters_->pages_fetched.Add(pages_found.page_count().raw());
    // Who asks for one page goes by itself from there; who asks for more goes on behind them.
    if (pages() > 1 && pages_found.ends_in_zeros()) {
      const rpc::PageRun& last = *request_.runs().rbegin();
      const PageIndex end = PageIndex(last.first()) + PageCount(last.count());
      pages_found.NoteZerosBeyond(volume_->ZerosFrom(end, kMaxZerosBeyond));
    }
    const Clock::time_point read = Clock::now();
    pages_found.Finish(request_.request_id(), read - came_, read - begun, answer);
    return absl::OkStatus();
  }

  absl::Status Refuse(const absl::Status& status, grpc::ByteBuffer* answer) override {
    counters_->requests_failed.Add(1);
    rpc::FetchResponse response;
    response.set_request_id(request_.request_id());
    SetError(status, &response);
    return SerializeMessage(response, answer);
  }

 private:
  using Clock = std::chrono::steady_clock;

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

  void OnOpen() override {
    (new FetchStream(service_, environment_))->AwaitCall();
    is_open_ = true;
    environment_.counters->fetch_streams.Add(1);
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

  // A volume is remembered even when it was deleted: it says so itself.
  absl::StatusOr<std::shared_ptr<Volume>> FindVolume(uint64_t id) {
    for (const auto& [known_id, volume] : volumes_) {
      if (known_id == id) return volume;
    }
    absl::StatusOr<std::shared_ptr<Volume>> volume = environment_.catalog->FindById(id);
    if (!volume.ok()) return volume;
    if (volumes_.size() == kMaxRememberedVolumes) volumes_.clear();
    volumes_.emplace_back(id, *volume);
    return volume;
  }

  PageService* const service_;
  const PageService::Environment& environment_;
  bool is_open_ = false;
  // Used by Parse() only.
  std::vector<std::pair<uint64_t, std::shared_ptr<Volume>>> volumes_;
};

// INVALID_ARGUMENT where a page stands twice among the pages and trims, which must be ascending.
absl::Status CheckDisjoint(const VolumeWrites& writes) {
  const auto twice = [](PageIndex page) {
    return absl::InvalidArgumentError(
        absl::StrCat("page ", page.raw(), " stands twice in one write"));
  };
  PageIndex pages_end;
  PageIndex trims_end;
  auto trim = writes.trims.begin();
  const auto check_trims_before = [&](PageIndex end) {
    for (; trim != writes.trims.end() && trim->first < end; ++trim) {
      if (trim->first < trims_end) return twice(trim->first);
      if (trim->first < pages_end) return twice(trim->first);
      trims_end = trim->end();
    }
    return absl::OkStatus();
  };
  for (const VolumeWrites::Page& page : writes.pages) {
    if (page.page < pages_end) return twice(page.page);
    if (absl::Status status = check_trims_before(page.page + PageCount(1)); !status.ok()) {
      return status;
    }
    if (page.page < trims_end) return twice(page.page);
    pages_end = page.page + PageCount(1);
  }
  return check_trims_before(PageIndex(kMaxVolumePages));
}

class WriteOfPages final : public StreamRequest {
 public:
  WriteOfPages(grpc::ByteBuffer* message, uint64_t pages, const PageService::Environment& service)
      : StreamRequest(pages, RequestLane::kBulk), service_(service) {
    message_.Swap(message);
  }

  absl::Status Answer(grpc::ByteBuffer* answer) override {
    if (absl::Status status = ParseOnce(); !status.ok()) return status;
    if (absl::Status status = Apply(); !status.ok()) return Refuse(status, answer);
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
    absl::StatusOr<std::shared_ptr<Volume>> volume =
        service_.catalog->FindById(request_.volume_id());
    if (!volume.ok()) return volume.status();
    const absl::StatusOr<PageCount> pages =
        CountPagesOf(request_.batch().runs(), **volume, service_.max_pages_per_request);
    if (!pages.ok()) return pages.status();
    VolumeWrites writes;
    if (absl::Status status = Collect(&writes); !status.ok()) {
      return absl::Status(status.code(), absl::StrCat("volume \"", (*volume)->info().name, "\": ",
                                                      status.message(), "; nothing was written"));
    }
    const VolumeWriter writer{request_.epoch(), request_.generation()};
    if (absl::Status status = (*volume)->Write(writer, writes); !status.ok()) return status;
    service_.counters->pages_written.Add(pages->raw());
    return absl::OkStatus();
  }

  // Verifies every page before the first one is stored.
  absl::Status Collect(VolumeWrites* writes) const {
    const absl::Status status = ForEachPage(
        request_.batch(),
        [writes](PageIndex page, absl::string_view encoded) {
          if (absl::Status verified = VerifyPage(page, encoded); !verified.ok()) return verified;
          if (IsEncodedZeroPage(encoded)) {
            writes->trims.push_back(PageRange::Single(page));
          } else {
            writes->pages.push_back({page, encoded});
          }
          return absl::OkStatus();
        },
        [writes](PageRange zero) {
          writes->trims.push_back(zero);
          return absl::OkStatus();
        });
    if (!status.ok()) return status;
    const auto by_page = [](const auto& a, const auto& b) { return a.page < b.page; };
    const auto by_first = [](const PageRange& a, const PageRange& b) { return a.first < b.first; };
    std::sort(writes->pages.begin(), writes->pages.end(), by_page);
    std::sort(writes->trims.begin(), writes->trims.end(), by_first);
    return CheckDisjoint(*writes);
  }

  const PageService::Environment& service_;
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

  void OnOpen() override {
    (new WriteStream(service_, environment_))->AwaitCall();
    is_open_ = true;
    environment_.counters->write_streams.Add(1);
  }

  absl::StatusOr<std::unique_ptr<StreamRequest>> Parse(grpc::ByteBuffer* message) override {
    // Parsed by a worker: it copies every page. What counts here is the memory.
    const uint64_t pages = PageCount::CoveringBytes(message->Length()).raw();
    const uint64_t limit = environment_.streams.window->bulk_limit();
    return std::make_unique<WriteOfPages>(message, std::clamp(pages, uint64_t{1}, limit),
                                          environment_);
  }

  PageService* const service_;
  const PageService::Environment& environment_;
  bool is_open_ = false;
};

absl::Status Open(VolumeCatalog& catalog, const rpc::OpenVolumeRequest& request,
                  rpc::OpenVolumeResponse* response) {
  VolumeInfo info;
  if (request.access() == rpc::OpenVolumeRequest::WRITE) {
    absl::StatusOr<VolumeInfo> taken = catalog.TakeEpoch(request.volume());
    if (!taken.ok()) return taken.status();
    info = *std::move(taken);
    response->set_epoch(info.epoch);
  } else if (request.access() == rpc::OpenVolumeRequest::READ) {
    absl::StatusOr<std::shared_ptr<Volume>> volume = catalog.Find(request.volume());
    if (!volume.ok()) return volume.status();
    info = (*volume)->info();
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        "volume \"", request.volume(), "\": unknown access ", static_cast<int>(request.access())));
  }
  response->set_volume_id(info.id);
  response->set_size_bytes(info.size_bytes);
  return absl::OkStatus();
}

}  // namespace

void PageService::Serve() {
  const UnaryEnvironment unary{environment_.streams.loop, environment_.control_workers,
                               environment_.streams.calls};
  ServeUnary<PageService, rpc::OpenVolumeRequest, rpc::OpenVolumeResponse>(
      unary, this, &PageService::RequestOpenVolume,
      // A new epoch is synced to the disk.
      [this](const rpc::OpenVolumeRequest& request, rpc::OpenVolumeResponse* response) {
        response->set_max_pages_per_request(
            static_cast<uint32_t>(environment_.max_pages_per_request));
        return Open(*environment_.catalog, request, response);
      });
  ServeUnary<PageService, rpc::GetWorkingSetRequest, rpc::GetWorkingSetResponse>(
      unary, this, &PageService::RequestGetWorkingSet,
      [this](const rpc::GetWorkingSetRequest& request, rpc::GetWorkingSetResponse* response) {
        return faultline::GetWorkingSet(*environment_.catalog, request, response);
      });
  ServeUnary<PageService, rpc::MergeWorkingSetRequest, rpc::MergeWorkingSetResponse>(
      unary, this, &PageService::RequestMergeWorkingSet,
      [this](const rpc::MergeWorkingSetRequest& request, rpc::MergeWorkingSetResponse* response) {
        return faultline::MergeWorkingSet(*environment_.catalog, request, response);
      });
  (new FetchStream(this, environment_))->AwaitCall();
  (new WriteStream(this, environment_))->AwaitCall();
}

}  // namespace faultline
