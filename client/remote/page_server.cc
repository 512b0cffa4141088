// SPDX-License-Identifier: Apache-2.0
#include "client/remote/page_server.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <grpcpp/client_context.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "client/remote/channel.h"
#include "client/remote/completion_threads.h"
#include "client/remote/fetch_rpc.h"
#include "client/remote/remote_page_sink.h"
#include "client/remote/request_lane.h"
#include "client/remote/rpc_status.h"
#include "client/remote/write_rpc.h"

namespace faultline {
namespace {

// Of demand fetches: faults that come while so many are under way travel together. Fewer would make
// a fault wait for a round trip where the source could have answered at once; with more, each has a
// message of its own, which costs both ends more than its page.
constexpr size_t kDemandRequestsInFlight = 8;

// Fetches through lanes of the PageServer, which it borrows. Holds no state of its own, so it may
// be destroyed while fetches are under way.
class RemotePageSource final : public PageSource {
 public:
  RemotePageSource(RequestLane<FetchRpc>* demand, RequestLane<FetchRpc>* prefetch,
                   RequestLane<FetchRpc>* bulk, const rpc::OpenVolumeResponse& volume)
      : demand_(demand),
        prefetch_(prefetch),
        bulk_(bulk),
        volume_id_(volume.volume_id()),
        size_(PageCount::CoveringBytes(volume.size_bytes())),
        max_fetch_(volume.max_pages_per_request()) {}

  void Fetch(PageRange range, FetchLane lane, absl::Time deadline, FetchDone done) override {
    const bool noted = lane == FetchLane::kDemand;
    Through(lane)->Submit({volume_id_, range, deadline, std::move(done), noted ? stages_ : nullptr,
                           noted ? SteadyClock::now() : SteadyClock::time_point()});
  }

  PageCount size() const override { return size_; }
  PageCount max_fetch() const override { return max_fetch_; }
  const FetchStages* stages() const override { return stages_.get(); }

 private:
  RequestLane<FetchRpc>* Through(FetchLane lane) const {
    switch (lane) {
      case FetchLane::kDemand:
        return demand_;
      case FetchLane::kPrefetch:
        return prefetch_;
      case FetchLane::kBulk:
        break;
    }
    return bulk_;
  }

  RequestLane<FetchRpc>* const demand_;
  RequestLane<FetchRpc>* const prefetch_;
  RequestLane<FetchRpc>* const bulk_;
  const uint64_t volume_id_;
  const PageCount size_;
  const PageCount max_fetch_;
  // Shared with the fetches under way, which may end after it.
  const std::shared_ptr<FetchStages> stages_ = std::make_shared<FetchStages>();
};

class GrpcPageServer final : public PageServer {
 public:
  explicit GrpcPageServer(const PageServerOptions& options)
      : address_(options.address),
        write_codec_(options.write_codec),
        bulk_channel_(NewChannel(address_)),
        threads_(options.threads),
        demand_(&threads_, NewChannel(address_),
                {address_, std::min(options.max_requests_in_flight, kDemandRequestsInFlight),
                 DeliverOn::kReceiver}),
        prefetch_(&threads_, NewChannel(address_),
                  {address_, options.max_requests_in_flight, DeliverOn::kWorker}),
        bulk_(&threads_, bulk_channel_,
              {address_, options.max_requests_in_flight, DeliverOn::kWorker}),
        write_(&threads_, NewChannel(address_),
               {address_, options.max_requests_in_flight, DeliverOn::kWorker}) {}

  ~GrpcPageServer() override {
    demand_.Shutdown();
    prefetch_.Shutdown();
    bulk_.Shutdown();
    write_.Shutdown();
    threads_.Stop();
  }

  absl::StatusOr<std::shared_ptr<PageSource>> OpenVolume(absl::string_view volume,
                                                         absl::Time deadline) override {
    absl::StatusOr<rpc::OpenVolumeResponse> opened =
        Open(volume, rpc::OpenVolumeRequest::READ, deadline);
    if (!opened.ok()) return opened.status();
    return NewSource(*opened);
  }

  absl::StatusOr<VolumeIo> OpenVolumeIo(absl::string_view volume, absl::Time deadline) override {
    absl::StatusOr<rpc::OpenVolumeResponse> opened =
        Open(volume, rpc::OpenVolumeRequest::WRITE, deadline);
    if (!opened.ok()) return opened.status();
    return VolumeIo{NewSource(*opened), NewRemotePageSink(&write_, *opened, write_codec_)};
  }

  absl::StatusOr<PageSet> GetWorkingSet(absl::string_view volume, absl::Time deadline) override {
    const absl::StatusOr<rpc::OpenVolumeResponse> opened =
        Open(volume, rpc::OpenVolumeRequest::READ, deadline);
    if (!opened.ok()) return opened.status();
    rpc::GetWorkingSetRequest request;
    request.set_volume_id(opened->volume_id());
    rpc::GetWorkingSetResponse response;
    if (absl::Status status = Call(&Stub::GetWorkingSet, request, deadline, &response);
        !status.ok()) {
      return WorkingSetError(status);
    }
    const auto& runs = response.pages().runs();
    absl::StatusOr<PageSet> pages =
        PageSet::DecodeRuns(PageCount::CoveringBytes(opened->size_bytes()),
                            std::span(runs.data(), static_cast<size_t>(runs.size())));
    if (pages.ok()) return pages;
    return absl::InternalError(absl::StrCat("page server ", address_, " gave no working set of \"",
                                            volume, "\": ", pages.status().message()));
  }

  absl::Status MergeWorkingSet(absl::string_view volume, const PageSet& pages,
                               absl::Time deadline) override {
    const absl::StatusOr<std::vector<uint64_t>> numbers = pages.EncodeRuns();
    if (!numbers.ok()) return numbers.status();
    const absl::StatusOr<rpc::OpenVolumeResponse> opened =
        Open(volume, rpc::OpenVolumeRequest::READ, deadline);
    if (!opened.ok()) return opened.status();
    if (PageCount::CoveringBytes(opened->size_bytes()) != pages.volume_size()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "volume \"", volume, "\" now has ", opened->size_bytes(),
          " bytes, the working set is of ", pages.volume_size().raw(), " pages; it was not kept"));
    }
    rpc::MergeWorkingSetRequest request;
    request.set_volume_id(opened->volume_id());
    request.mutable_pages()->mutable_runs()->Add(numbers->begin(), numbers->end());
    rpc::MergeWorkingSetResponse response;
    return WorkingSetError(Call(&Stub::MergeWorkingSet, request, deadline, &response));
  }

  Pollable* pollable() override { return &threads_; }

 private:
  using Stub = rpc::PageService::Stub;
  template <typename Request, typename Response>
  using Method = grpc::Status (Stub::*)(grpc::ClientContext*, const Request&, Response*);

  std::shared_ptr<PageSource> NewSource(const rpc::OpenVolumeResponse& volume) {
    return std::make_shared<RemotePageSource>(&demand_, &prefetch_, &bulk_, volume);
  }

  absl::StatusOr<rpc::OpenVolumeResponse> Open(absl::string_view volume,
                                               rpc::OpenVolumeRequest::Access access,
                                               absl::Time deadline) {
    rpc::OpenVolumeRequest request;
    request.set_volume(std::string(volume));
    request.set_access(access);
    rpc::OpenVolumeResponse response;
    if (absl::Status status = Call(&Stub::OpenVolume, request, deadline, &response); !status.ok()) {
      return status;
    }
    if (response.max_pages_per_request() == 0) {
      return absl::InternalError(
          absl::StrCat("page server ", address_, " allows for no page per request"));
    }
    return response;
  }

  // Makes a unary call, and again while nobody answers: waiting for the connection does not cover
  // one that breaks under the call. None of the calls does harm when it is made twice: the epoch of
  // a second opening only fences the first, which nobody has seen, and sets are merged.
  template <typename Request, typename Response>
  absl::Status Call(Method<Request, Response> method, const Request& request, absl::Time deadline,
                    Response* response) {
    grpc::Status status = CallOnce(method, request, deadline, response);
    for (absl::Duration backoff = kFirstBackoff;
         status.error_code() == grpc::StatusCode::UNAVAILABLE && absl::Now() + backoff < deadline;
         backoff = std::min(backoff * 2, kLastBackoff)) {
      absl::SleepFor(backoff);
      status = CallOnce(method, request, deadline, response);
    }
    if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
      return CallError(grpc::Status(grpc::StatusCode::UNAVAILABLE, "no answer by the deadline"),
                       address_);
    }
    return status.ok() ? absl::OkStatus() : CallError(status, address_);
  }

  template <typename Request, typename Response>
  grpc::Status CallOnce(Method<Request, Response> method, const Request& request,
                        absl::Time deadline, Response* response) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(deadline));
    context.set_wait_for_ready(true);
    return (rpc::PageService::NewStub(bulk_channel_).get()->*method)(&context, request, response);
  }

  absl::Status WorkingSetError(absl::Status status) const {
    if (!absl::IsUnimplemented(status)) return status;
    return absl::UnimplementedError(
        absl::StrCat("page server ", address_,
                     " keeps no working sets: it is of an older version; update faultline-server"));
  }

  // Constant after construction, or with a synchronisation of their own. The threads are stopped
  // before the lanes are destroyed.
  const std::string address_;
  const Codec write_codec_;
  const std::shared_ptr<grpc::Channel> bulk_channel_;
  CompletionThreads threads_;
  RequestLane<FetchRpc> demand_;
  RequestLane<FetchRpc> prefetch_;
  RequestLane<FetchRpc> bulk_;
  RequestLane<WriteRpc> write_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PageServer>> PageServer::Create(const PageServerOptions& options) {
  if (absl::Status status = CheckServerAddress(options.address); !status.ok()) return status;
  if (options.threads < 1 || options.max_requests_in_flight < 1) {
    return absl::InvalidArgumentError(
        "a page server connection needs at least one thread and one request in flight");
  }
  return std::make_unique<GrpcPageServer>(options);
}

}  // namespace faultline
