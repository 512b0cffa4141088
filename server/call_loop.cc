// SPDX-License-Identifier: Apache-2.0
#include "server/call_loop.h"

#include <grpc/support/time.h>
#include <pthread.h>

namespace faultline {
namespace {

// So many turns may be taken before the queue is looked at again, which is a system call: a lone
// client does not wait for it.
constexpr uint64_t kTurnsAtOnce = 1;

// The loop that this thread is of.
thread_local const CallLoop* loop_of_thread = nullptr;

}  // namespace

CallLoop::User::User(CallLoop* loop) : loop_(loop) {
  MutexLock lock(loop_->mu_);
  ++loop_->users_;
}

CallLoop::User::~User() {
  MutexLock lock(loop_->mu_);
  if (--loop_->users_ == 0) loop_->changed_.SignalAll();
}

void CallLoop::Start() {
  thread_ = std::thread([this] { Run(); });
  pthread_setname_np(thread_.native_handle(), "call-loop");
}

void CallLoop::Stop() {
  if (queue_ == nullptr) return;
  {
    MutexLock lock(mu_);
    while (users_ > 0) changed_.Wait(mu_);
  }
  queue_->Shutdown();
  // A queue must be empty when it is destroyed, also one that was never started.
  if (thread_.joinable()) {
    thread_.join();
  } else {
    Run();
  }
  queue_.reset();
}

void CallLoop::TakeTurn(ClientId client, uint64_t cost, Turn* turn) {
  if (turns_.empty() && turns_at_once_ < kTurnsAtOnce) {
    ++turns_at_once_;
    turn->OnTurn();
  } else {
    turns_.Push(client, cost, turn);
  }
}

bool CallLoop::Next(void** tag, bool* ok) {
  while (turns_at_once_ > 0 || !turns_.empty()) {
    // gRPC looks at its connections only when it has no event at hand.
    const auto status = queue_->AsyncNext(tag, ok, gpr_inf_past(GPR_CLOCK_MONOTONIC));
    if (status != grpc::CompletionQueue::TIMEOUT) return status == grpc::CompletionQueue::GOT_EVENT;
    turns_at_once_ = 0;
    if (!turns_.empty()) turns_.Pop()->OnTurn();
  }
  return queue_->Next(tag, ok);
}

bool CallLoop::IsCurrent() const { return loop_of_thread == this; }

void CallLoop::Run() {
  loop_of_thread = this;
  void* tag;
  bool ok = false;
  while (Next(&tag, &ok)) static_cast<Event*>(tag)->OnEvent(ok);
  loop_of_thread = nullptr;
}

}  // namespace faultline
