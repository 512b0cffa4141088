// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_SERVER_ASYNC_CALL_H_
#define FAULTLINE_SERVER_ASYNC_CALL_H_

#include <grpcpp/server_context.h>

#include <atomic>

#include "server/call_loop.h"

namespace faultline {

// One call that is served from a CallLoop: first it waits for a client to call; then its subclass
// starts operations, and one that ends it. Owns itself. Operations may be started by any thread;
// the On...() are called by the loop's.
class AsyncCall {
 public:
  explicit AsyncCall(CallLoop* loop) : loop_(loop) {}
  AsyncCall(const AsyncCall&) = delete;
  AsyncCall& operator=(const AsyncCall&) = delete;

  // Waits for a call. Where none comes any more, because the server shuts down, `this` is deleted.
  // Call once, right after construction.
  void AwaitCall() {
    context_.AsyncNotifyWhenDone(&ended_);
    AskForCall(&came_);
  }

 protected:
  // The event of an operation of `Call`, a subclass: `kThen` is called when that has ended.
  template <typename Call, void (Call::*kThen)(bool ok)>
  class Then final : public CallLoop::Event {
   public:
    explicit Then(Call* call) : call_(call) {}
    void OnEvent(bool ok) override {
      AsyncCall* const call = call_;
      (call_->*kThen)(ok);
      call->Release();
    }

   private:
    Call* const call_;
  };

  virtual ~AsyncCall() = default;

  CallLoop* loop() const { return loop_.loop(); }
  grpc::ServerCompletionQueue* queue() const { return loop_.queue(); }
  grpc::ServerContext* context() { return &context_; }

  // To be called before each operation but the one that ends the call, which must be started once,
  // however the call ends.
  void Hold() { events_.fetch_add(1, std::memory_order_relaxed); }

  // Asks gRPC for a call of the method that this serves.
  virtual void AskForCall(CallLoop::Event* event) = 0;
  // A client has called.
  virtual void OnCall() = 0;
  // The client has cancelled or has gone: operations fail. The call is still to be ended.
  virtual void OnCancel() {}
  // The call has ended and nothing is under way. Has to delete `this`.
  virtual void OnDone() = 0;

 private:
  class Came final : public CallLoop::Event {
   public:
    explicit Came(AsyncCall* call) : call_(call) {}
    void OnEvent(bool ok) override {
      if (!ok) {
        delete call_;  // nothing else comes: without a call there is no end of one
        return;
      }
      call_->OnCall();
      call_->Release();
    }

   private:
    AsyncCall* const call_;
  };

  void Ended(bool) {
    if (context_.IsCancelled()) OnCancel();
  }

  void Release() {
    if (events_.fetch_sub(1, std::memory_order_acq_rel) == 1) OnDone();
  }

  const CallLoop::User loop_;  // first, so that it goes last
  grpc::ServerContext context_;
  Came came_{this};
  Then<AsyncCall, &AsyncCall::Ended> ended_{this};
  // Events that are still to come: the call, its end, that of the operation that ends it, and those
  // of Hold().
  std::atomic<int> events_{3};
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_ASYNC_CALL_H_
