// SPDX-License-Identifier: Apache-2.0
#include "server/health_service.h"

#include <absl/strings/string_view.h>
#include <grpcpp/impl/codegen/rpc_service_method.h>

#include <string>
#include <vector>

#include "server/byte_stream.h"

namespace faultline {
namespace {

// Both are served as streams of raw messages: on the wire there is no difference.
enum Method : int { kCheck = 0, kWatch = 1 };
constexpr const char* kMethodNames[] = {"/grpc.health.v1.Health/Check",
                                        "/grpc.health.v1.Health/Watch"};

// The values of HealthCheckResponse.status, which is all that the message has.
enum Answer : char { kNone = 0, kServing = 1, kNotServing = 2, kServiceUnknown = 3 };

grpc::ByteBuffer Message(Answer answer) {
  const char bytes[] = {0x08, answer};  // field 1, a varint
  const grpc::Slice slice(bytes, sizeof bytes);
  return grpc::ByteBuffer(&slice, 1);
}

// Whether `request`, a HealthCheckRequest, asks for the service with the empty name.
bool AsksForServer(const grpc::ByteBuffer& request) {
  std::vector<grpc::Slice> slices;
  if (!request.Dump(&slices).ok()) return false;
  std::string bytes;
  for (const grpc::Slice& slice : slices) bytes.append(slice.begin(), slice.end());
  constexpr absl::string_view kEmptyName("\x0a\x00", 2);  // field 1, a string
  return bytes.empty() || bytes == kEmptyName;
}

}  // namespace

class HealthService::HealthCall final : public ByteStream {
 public:
  HealthCall(HealthService* service, Method method, CallLoop* loop)
      : ByteStream(loop), service_(service), method_(method) {}

  void Tell(Answer answer) {
    MutexLock lock(mu_);
    latest_ = answer;
    Advance();
  }

 private:
  void AskForCall(CallLoop::Event* event) override {
    service_->RequestAsyncBidiStreaming(method_, context(), rpc(), queue(), queue(), event);
  }

  void OnCall() override {
    (new HealthCall(service_, method_, loop()))->AwaitCall();
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    const bool is_known = ok && AsksForServer(request_);
    {
      MutexLock lock(mu_);
      is_busy_ = false;
      if (!ok) {
        End(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "the call came without a request"));
      } else if (!is_known && method_ == kCheck) {
        End(grpc::Status(grpc::StatusCode::NOT_FOUND, "unknown service"));
      } else if (!is_known) {
        latest_ = kServiceUnknown;
      }
      Advance();
    }
    if (is_known) service_->Add(this);
  }

  void OnWriteDone(bool ok) override {
    MutexLock lock(mu_);
    is_busy_ = false;
    if (!ok) End(grpc::Status::CANCELLED);
    if (method_ == kCheck) End(grpc::Status::OK);
    Advance();
  }

  void OnCancel() override {
    MutexLock lock(mu_);
    End(grpc::Status::CANCELLED);
    Advance();
  }

  void OnDone() override {
    service_->Remove(this);
    delete this;
  }

  // The first call decides.
  void End(grpc::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (is_ending_) return;
    is_ending_ = true;
    status_ = std::move(status);
  }

  // Does what is to be done next, where nothing is under way.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (is_busy_) return;
    if (is_ending_) {
      is_busy_ = true;
      Finish(status_);
    } else if (sent_ != latest_) {
      is_busy_ = true;
      sent_ = latest_;
      answer_ = Message(sent_);
      StartWrite(answer_);
    }
  }

  HealthService* const service_;
  const Method method_;
  // Belong to the one read and the one write that may be under way.
  grpc::ByteBuffer request_;
  grpc::ByteBuffer answer_;

  Mutex mu_;
  bool is_busy_ ABSL_GUARDED_BY(mu_) = true;  // at first the request is being read
  bool is_ending_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mu_);
  Answer latest_ ABSL_GUARDED_BY(mu_) = kNone;
  Answer sent_ ABSL_GUARDED_BY(mu_) = kNone;
};

HealthService::HealthService() {
  for (const Method method : {kCheck, kWatch}) {
    AddMethod(new grpc::internal::RpcServiceMethod(
        kMethodNames[method], grpc::internal::RpcMethod::BIDI_STREAMING, nullptr));
    MarkMethodRaw(method);
  }
}

void HealthService::Serve(CallLoop* loop) {
  for (const Method method : {kCheck, kWatch}) {
    (new HealthCall(this, method, loop))->AwaitCall();
  }
}

void HealthService::Set(State state) {
  MutexLock lock(mu_);
  state_ = state;
  for (HealthCall* call : calls_) {
    call->Tell(state == State::kServing ? kServing : kNotServing);
  }
}

void HealthService::Add(HealthCall* call) {
  MutexLock lock(mu_);
  calls_.insert(call);
  call->Tell(state_ == State::kServing ? kServing : kNotServing);
}

void HealthService::Remove(HealthCall* call) {
  MutexLock lock(mu_);
  calls_.erase(call);
}

}  // namespace faultline
