// SPDX-License-Identifier: Apache-2.0
#include "server/call_loop.h"

#include <pthread.h>

namespace faultline {

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

void CallLoop::Run() {
  void* tag;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) static_cast<Event*>(tag)->OnEvent(ok);
}

}  // namespace faultline
