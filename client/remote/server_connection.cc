// SPDX-License-Identifier: Apache-2.0
#include "client/remote/server_connection.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>

#include <algorithm>
#include <utility>

#include "client/remote/remote_page_sink.h"
#include "client/remote/rpc_status.h"
#include "proto/working_set_message.h"

namespace faultline {
namespace {

// Of demand fetches: faults that come while so many are under way travel together. Fewer would make
// a fault wait for a round trip where the source could have answered at once; with more, each has a
// message of its own, which costs both ends more than its page.
constexpr size_t kDemandRequestsInFlight = 8;
// Of the pieces of a drain or a replay. What beside faults is under way at a time is fewer; the
// pages of a replay, which lie apart, would cost five times as much each in a message of its own.
constexpr size_t kSmallBulkRequestsInFlight = 4;

// Fetches through lanes of a connection, which it borrows. Holds no state of its own, so it may
// be destroyed while fetches are under way.
class RemotePageSource final : public PageSource {
 public:
  struct Lanes {
    RequestLane<FetchRpc>* demand;
    RequestLane<FetchRpc>* prefetch;
    RequestLane<FetchRpc>* bulk;
    std::atomic<uint64_t>* fetches;
  };

  RemotePageSource(const Lanes& lanes, const rpc::OpenVolumeResponse& volume,
                   std::shared_ptr<FetchStages> stages)
      : lanes_(lanes),
        volume_id_(volume.volume_id()),
        size_(PageCount::CoveringBytes(volume.size_bytes())),
        max_fetch_(volume.max_pages_per_request()),
        stages_(std::move(stages)) {}

  void Fetch(PageRange range, FetchLane lane, absl::Time deadline, FetchDone done) override {
    const bool noted = lane == FetchLane::kDemand;
    lanes_.fetches->fetch_add(1, std::memory_order_relaxed);
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
        return lanes_.demand;
      case FetchLane::kPrefetch:
        return lanes_.prefetch;
      case FetchLane::kBulk:
        break;
    }
    return lanes_.bulk;
  }

  const Lanes lanes_;
  const uint64_t volume_id_;
  const PageCount size_;
  const PageCount max_fetch_;
  // Shared with the fetches under way, which may end after it.
  const std::shared_ptr<FetchStages> stages_;
};

ChannelUse UseOf(ServerConnection::Use use) {
  return use == ServerConnection::Use::kOnly ? ChannelUse::kOnly : ChannelUse::kOneOfSeveral;
}

ChannelUse BulkUseOf(ServerConnection::Use use) {
  return use == ServerConnection::Use::kOnly ? ChannelUse::kOnly : ChannelUse::kWatched;
}

}  // namespace

ServerConnection::ServerConnection(const std::string& address, const ServerTls& tls, Use use,
                                   const PageServerOptions& options, CompletionThreads* threads)
    : ServerConnection(address, ChannelMaker(address, tls), use, options, threads) {}

ServerConnection::ServerConnection(const std::string& address, const ChannelMaker& channels,
                                   Use use, const PageServerOptions& options,
                                   CompletionThreads* threads)
    : address_(address),
      write_codec_(options.write_codec),
      bulk_channel_(channels.New(BulkUseOf(use))),
      demand_(threads, channels.New(UseOf(use)),
              {.address = address,
               .window = std::min(options.max_requests_in_flight, kDemandRequestsInFlight),
               .deliver_on = DeliverOn::kReceiver}),
      prefetch_(threads, channels.New(UseOf(use)),
                {.address = address, .window = options.max_requests_in_flight}),
      bulk_(threads, bulk_channel_,
            {.address = address,
             .window = options.max_requests_in_flight,
             .small_window = kSmallBulkRequestsInFlight}),
      write_(threads, channels.New(UseOf(use)),
             {.address = address, .window = options.max_requests_in_flight}) {}

void ServerConnection::Shutdown() {
  demand_.Shutdown();
  prefetch_.Shutdown();
  bulk_.Shutdown();
  write_.Shutdown();
}

std::shared_ptr<PageSource> ServerConnection::NewSource(const rpc::OpenVolumeResponse& volume,
                                                        std::shared_ptr<FetchStages> stages) {
  return std::make_shared<RemotePageSource>(
      RemotePageSource::Lanes{&demand_, &prefetch_, &bulk_, &fetches_}, volume, std::move(stages));
}

std::shared_ptr<PageSink> ServerConnection::NewSink(const rpc::OpenVolumeResponse& volume) {
  return NewRemotePageSink(&write_, volume, write_codec_);
}

absl::StatusOr<rpc::OpenVolumeResponse> ServerConnection::Open(
    const rpc::OpenVolumeRequest& request, Wait wait, absl::Time deadline) {
  rpc::OpenVolumeResponse response;
  if (absl::Status status = Call(&Stub::OpenVolume, request, wait, deadline, &response);
      !status.ok()) {
    return status;
  }
  if (response.max_pages_per_request() == 0) {
    return absl::InternalError(
        absl::StrCat("page server ", address_, " allows for no page per request"));
  }
  return response;
}

absl::StatusOr<rpc::OpenVolumeResponse> ServerConnection::OpenForReading(absl::string_view volume,
                                                                         Wait wait,
                                                                         absl::Time deadline) {
  rpc::OpenVolumeRequest request;
  request.set_volume(std::string(volume));
  request.set_access(rpc::OpenVolumeRequest::READ);
  return Open(request, wait, deadline);
}

absl::StatusOr<WorkingSet> ServerConnection::GetWorkingSet(absl::string_view volume, Wait wait,
                                                           absl::Time deadline) {
  const absl::StatusOr<rpc::OpenVolumeResponse> opened = OpenForReading(volume, wait, deadline);
  if (!opened.ok()) return opened.status();
  rpc::GetWorkingSetRequest request;
  request.set_volume_id(opened->volume_id());
  rpc::GetWorkingSetResponse response;
  if (absl::Status status = Call(&Stub::GetWorkingSet, request, wait, deadline, &response);
      !status.ok()) {
    return WorkingSetError(status);
  }
  absl::StatusOr<WorkingSet> pages =
      DecodeWorkingSet(PageCount::CoveringBytes(opened->size_bytes()), response.pages());
  if (pages.ok()) return pages;
  return absl::InternalError(absl::StrCat("page server ", address_, " gave no working set of \"",
                                          volume, "\": ", pages.status().message()));
}

absl::Status ServerConnection::MergeWorkingSet(absl::string_view volume, const WorkingSet& pages,
                                               Wait wait, absl::Time deadline) {
  rpc::MergeWorkingSetRequest request;
  if (absl::Status status = EncodeWorkingSet(pages, request.mutable_pages()); !status.ok()) {
    return status;
  }
  const absl::StatusOr<rpc::OpenVolumeResponse> opened = OpenForReading(volume, wait, deadline);
  if (!opened.ok()) return opened.status();
  if (PageCount::CoveringBytes(opened->size_bytes()) != pages.pages().volume_size()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "volume \"", volume, "\" now has ", opened->size_bytes(), " bytes, the working set is of ",
        pages.pages().volume_size().raw(), " pages; it was not kept"));
  }
  request.set_volume_id(opened->volume_id());
  rpc::MergeWorkingSetResponse response;
  return WorkingSetError(Call(&Stub::MergeWorkingSet, request, wait, deadline, &response));
}

bool ServerConnection::WaitForConnected(absl::Duration patience) {
  const grpc_connectivity_state state = State();
  if (state == GRPC_CHANNEL_READY || state == GRPC_CHANNEL_TRANSIENT_FAILURE) {
    return state == GRPC_CHANNEL_READY;
  }
  return bulk_channel_->WaitForConnected(absl::ToChronoTime(absl::Now() + patience));
}

// Makes a unary call, and where it waits for a connection, again while nobody answers: that does
// not cover one that breaks under the call. None of the calls does harm when it is made twice: the
// epoch of a second opening only fences the first, which nobody has seen, and sets are merged.
template <typename Request, typename Response>
absl::Status ServerConnection::Call(Method<Request, Response> method, const Request& request,
                                    Wait wait, absl::Time deadline, Response* response) {
  const bool waits = wait == Wait::kForConnection;
  const auto call_once = [&] {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(deadline));
    context.set_wait_for_ready(waits);
    return (rpc::PageService::NewStub(bulk_channel_).get()->*method)(&context, request, response);
  };
  grpc::Status status = call_once();
  for (absl::Duration backoff = kFirstBackoff;
       waits && status.error_code() == grpc::StatusCode::UNAVAILABLE &&
       absl::Now() + backoff < deadline;
       backoff = std::min(backoff * 2, kLastBackoff)) {
    absl::SleepFor(backoff);
    status = call_once();
  }
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return CallError(grpc::Status(grpc::StatusCode::UNAVAILABLE, "no answer by the deadline"),
                     address_);
  }
  return status.ok() ? absl::OkStatus() : CallError(status, address_);
}

absl::Status ServerConnection::WorkingSetError(absl::Status status) const {
  if (!absl::IsUnimplemented(status)) return status;
  return absl::UnimplementedError(
      absl::StrCat("page server ", address_,
                   " keeps no working sets: it is of an older version; update faultline-server"));
}

}  // namespace faultline
