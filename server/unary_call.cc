// SPDX-License-Identifier: Apache-2.0
#include "server/unary_call.h"

#include <utility>

#include "server/rpc_status.h"

namespace faultline {
namespace {

// Owned by gRPC from the moment it is returned to it; deletes itself at the end.
class UnaryCall final : public grpc::ServerUnaryReactor, private CallSet::Call {
 public:
  explicit UnaryCall(CallSet* calls) : calls_(calls) {}

  void Start(WorkerPool* workers, absl::AnyInvocable<absl::Status()> work) {
    if (!calls_->Add(this)) {
      Finish(ToRpcStatus(DrainingError()));
    } else if (!workers->Submit(
                   [this, work = std::move(work)]() mutable { Finish(ToRpcStatus(work())); })) {
      Finish(ToRpcStatus(TooManyCallsError()));
    }
  }

 private:
  void OnDone() override {
    calls_->Remove(this);
    delete this;
  }

  CallSet* const calls_;
};

}  // namespace

absl::Status DrainingError() {
  return absl::UnavailableError("the server is shutting down; connect again");
}

absl::Status TooManyCallsError() {
  return absl::ResourceExhaustedError("too many calls wait in the server; try again");
}

grpc::ServerUnaryReactor* RunUnary(WorkerPool* workers, CallSet* calls,
                                   absl::AnyInvocable<absl::Status()> work) {
  auto* call = new UnaryCall(calls);
  call->Start(workers, std::move(work));
  return call;
}

}  // namespace faultline
