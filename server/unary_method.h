// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_SERVER_UNARY_METHOD_H_
#define FAULTLINE_SERVER_UNARY_METHOD_H_

#include <absl/status/status.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/async_unary_call.h>

#include <functional>
#include <memory>
#include <utility>

#include "server/access_control.h"
#include "server/call_loop.h"
#include "server/call_set.h"
#include "server/rpc_status.h"
#include "server/unary_call.h"
#include "server/worker_pool.h"

namespace faultline {

// What unary methods are served with. All borrowed; they outlive every call.
struct UnaryEnvironment {
  CallLoop* loop;
  WorkerPool* workers;
  CallSet* calls;
  const AccessControl* access;
};

// One call of a unary method: waits for a client to call, then has a worker answer it. While it is
// under way it is in `calls`. Owns itself.
template <typename Request, typename Response>
class UnaryMethodCall final : private CallLoop::Event, private CallSet::Call {
 public:
  using Responder = grpc::ServerAsyncResponseWriter<Response>;
  struct Method {
    UnaryEnvironment environment;
    std::function<void(grpc::ServerContext*, Request*, Responder*,
                       grpc::ServerCompletionQueue* queue, void* tag)>
        ask;
    std::function<absl::Status(const Caller&, const Request&, Response*)> work;
  };

  static void Await(std::shared_ptr<const Method> method) {
    auto* call = new UnaryMethodCall(std::move(method));
    call->method_->ask(&call->context_, &call->request_, &call->responder_, call->loop_.queue(),
                       static_cast<CallLoop::Event*>(call));
  }

 private:
  explicit UnaryMethodCall(std::shared_ptr<const Method> method)
      : loop_(method->environment.loop), method_(std::move(method)) {}

  void OnEvent(bool ok) override {
    if (has_come_ || !ok) {
      method_->environment.calls->Remove(this);
      delete this;
      return;
    }
    has_come_ = true;
    Await(method_);
    caller_ = method_->environment.access->CallerOf(context_);
    if (!method_->environment.calls->Add(this)) {
      Refuse(DrainingError());
    } else if (!method_->environment.workers->Submit(caller_.account->id(), /*cost=*/1,
                                                     [this] { Answer(); })) {
      Refuse(TooManyCallsError());
    }
  }

  void Answer() {
    Response response;
    if (absl::Status status = method_->work(caller_, request_, &response); !status.ok()) {
      Refuse(status);
    } else {
      responder_.Finish(response, grpc::Status::OK, static_cast<CallLoop::Event*>(this));
    }
  }

  void Refuse(const absl::Status& status) {
    responder_.FinishWithError(ToRpcStatus(status), static_cast<CallLoop::Event*>(this));
  }

  const CallLoop::User loop_;  // first, so that it goes last
  const std::shared_ptr<const Method> method_;
  grpc::ServerContext context_;
  Caller caller_;
  Request request_;
  Responder responder_{&context_};
  bool has_come_ = false;
};

// Answers the calls of a unary method for as long as the server takes any, each with the status of
// `work`, which runs on the workers and so may block. `ask` is the service's Request...().
template <typename Service, typename Request, typename Response>
void ServeUnary(const UnaryEnvironment& environment, Service* service,
                void (Service::*ask)(grpc::ServerContext*, Request*,
                                     grpc::ServerAsyncResponseWriter<Response>*,
                                     grpc::CompletionQueue*, grpc::ServerCompletionQueue*, void*),
                std::function<absl::Status(const Caller&, const Request&, Response*)> work) {
  using Call = UnaryMethodCall<Request, Response>;
  Call::Await(std::make_shared<const typename Call::Method>(
      typename Call::Method{environment,
                            [service, ask](grpc::ServerContext* context, Request* request,
                                           typename Call::Responder* responder,
                                           grpc::ServerCompletionQueue* queue, void* tag) {
                              (service->*ask)(context, request, responder, queue, queue, tag);
                            },
                            std::move(work)}));
}

}  // namespace faultline

#endif  // FAULTLINE_SERVER_UNARY_METHOD_H_
