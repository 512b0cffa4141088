// SPDX-License-Identifier: Apache-2.0
//
// WriteRpc: what travels on the lane that writes pages.
#ifndef FAULTLINE_CLIENT_REMOTE_WRITE_RPC_H_
#define FAULTLINE_CLIENT_REMOTE_WRITE_RPC_H_

#include <absl/functional/any_invocable.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <absl/types/span.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <utility>
#include <vector>

#include "client/remote/call_queue.h"
#include "client/remote/rpc_status.h"
#include "client/remote/write_message.h"
#include "proto/pager.grpc.pb.h"

namespace faultline {

struct WriteRpc {
  // An rpc::WriteRequest in its wire form.
  using Request = grpc::ByteBuffer;
  using Response = rpc::WriteResponse;
  using Stub = grpc::TemplatedGenericStub<Request, Response>;

  struct Call {
    WriteMessage message;
    absl::Time deadline;
    absl::AnyInvocable<void(absl::Status)> done;

    void End(absl::Status status) { std::move(done)(std::move(status)); }
  };

  struct Received {
    Response message;
  };

  static auto Start(Stub* stub, grpc::ClientContext* context, grpc::CompletionQueue* queue,
                    void* tag) {
    auto rpc = stub->PrepareCall(context, "/faultline.rpc.PageService/Write", queue);
    rpc->StartCall(tag);
    return rpc;
  }
  static size_t Combine(const CallQueue<Call>&, bool* grows) {
    *grows = false;
    return 1;
  }
  static void Fill(absl::Span<Call> calls, uint64_t id, Request* request) {
    *request = calls.front().message.Finish(id);
    calls.front().message = {};
  }
  static absl::StatusOr<uint64_t> Parse(Received* received) {
    return received->message.request_id();
  }
  static void Release(Received*) {}
  static void Deliver(Received* received, absl::Span<Call> calls, std::vector<Call>*) {
    if (calls.front().done == nullptr) return;
    calls.front().End(ResponseStatus(received->message.code(), received->message.message()));
  }
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_WRITE_RPC_H_
