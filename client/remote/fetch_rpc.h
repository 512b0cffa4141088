// SPDX-License-Identifier: Apache-2.0
//
// FetchRpc: what travels on a lane that fetches pages, and how a response becomes FetchedRuns.
#ifndef FAULTLINE_CLIENT_REMOTE_FETCH_RPC_H_
#define FAULTLINE_CLIENT_REMOTE_FETCH_RPC_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <absl/types/span.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "client/remote/call_queue.h"
#include "client/remote/fetch_response.h"
#include "client/source/page_source.h"
#include "client/timers.h"
#include "proto/pager.grpc.pb.h"

namespace faultline {

struct FetchRpc {
  using Request = rpc::FetchRequest;
  // An rpc::FetchResponse as gRPC received it, so that its pages are not copied out of it.
  using Response = grpc::ByteBuffer;
  using Stub = grpc::TemplatedGenericStub<Request, Response>;

  struct Call {
    uint64_t volume_id;
    PageRange range;
    absl::Time deadline;
    PageSource::FetchDone done;
    std::shared_ptr<FetchStages> stages = nullptr;  // where its stages are noted, if they are
    SteadyClock::time_point asked = {};             // if they are
    bool alone = false;  // must not share a request: it did, and that failed

    void End(absl::Status status) { std::move(done)(std::move(status)); }
  };

  struct Received {
    Response message;
    // The bytes of the message, in gRPC's own memory. The first part holds all but pages, nearly
    // always; otherwise all of them are put together in `joined`.
    std::vector<grpc::Slice> parts;
    std::string joined;
    FetchResponseView view;    // of the first part, or of `joined`
    size_t first_further = 0;  // where the pages of `view` go on in `parts`
    std::vector<std::byte> decoded;
    std::vector<FetchedRun> runs;
  };

  // Pages that several calls may have together in one request. Large enough that the cost of a
  // message is small beside that of its pages, small enough not to delay the first one much.
  static constexpr uint64_t kCombinedPages = 64;

  static std::unique_ptr<grpc::ClientAsyncReaderWriter<Request, Response>> Start(
      Stub* stub, grpc::ClientContext* context, grpc::CompletionQueue* queue, void* tag);
  static size_t Combine(const CallQueue<Call>& waiting, bool* grows);
  static void Fill(absl::Span<const Call> calls, uint64_t id, Request* request);

  // Sets received->view. DATA_LOSS where the message is not a FetchResponse.
  static absl::StatusOr<uint64_t> Parse(Received* received);
  // Gives gRPC's memory back; what `view` pointed at is gone.
  static void Release(Received* received);

  // Hands out pages only after they were found to be those asked for and undamaged. A call that
  // shared its request and failed for good is sent again, alone: the fault may be another's.
  static void Deliver(Received* received, absl::Span<Call> calls, std::vector<Call>* again);

 private:
  static void NoteStages(const FetchResponseView& response, const Call& call);
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_FETCH_RPC_H_
