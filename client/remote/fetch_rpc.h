// SPDX-License-Identifier: Apache-2.0
//
// FetchRpc: what travels on a lane that fetches pages, and how a response becomes FetchedRuns.
#ifndef FAULTLINE_CLIENT_REMOTE_FETCH_RPC_H_
#define FAULTLINE_CLIENT_REMOTE_FETCH_RPC_H_

#include <absl/status/status.h>
#include <absl/time/time.h>
#include <absl/types/span.h>
#include <grpcpp/completion_queue.h>

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "client/remote/call_queue.h"
#include "client/source/page_source.h"
#include "proto/pager.grpc.pb.h"

namespace faultline {

struct FetchRpc {
  using Request = rpc::FetchRequest;
  using Response = rpc::FetchResponse;

  struct Call {
    uint64_t volume_id;
    PageRange range;
    absl::Time deadline;
    PageSource::FetchDone done;
    bool alone = false;  // must not share a request: it did, and that failed

    void End(absl::Status status) { std::move(done)(std::move(status)); }
  };

  struct Received {
    Response message;
    std::vector<std::byte> decoded;
    std::vector<FetchedRun> runs;
  };

  // Pages that several calls may have together in one request. Large enough that the cost of a
  // message is small beside that of its pages, small enough not to delay the first one much.
  static constexpr uint64_t kCombinedPages = 64;

  static auto Start(rpc::PageService::Stub* stub, grpc::ClientContext* context,
                    grpc::CompletionQueue* queue, void* tag) {
    return stub->AsyncFetch(context, queue, tag);
  }
  static size_t Combine(const CallQueue<Call>& waiting);
  static void Fill(absl::Span<const Call> calls, uint64_t id, Request* request);

  // Hands out pages only after they were found to be those asked for and undamaged. A call that
  // shared its request and failed for good is sent again, alone: the fault may be another's.
  static void Deliver(Received* received, absl::Span<Call> calls, std::vector<Call>* again);
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_FETCH_RPC_H_
