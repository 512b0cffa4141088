// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_REMOTE_STALL_GUARD_H_
#define FAULTLINE_CLIENT_REMOTE_STALL_GUARD_H_

#include <absl/time/time.h>
#include <grpcpp/client_context.h>
#include <pthread.h>

#include <chrono>
#include <thread>

#include "proto/mutex.h"

namespace faultline {

// Cancels a streaming call that has not moved for `timeout`: a deadline for a call whose length
// nobody knows. Thread-safe.
class StallGuard {
 public:
  // `context` is borrowed and must outlive the guard.
  StallGuard(grpc::ClientContext* context, absl::Duration timeout)
      : context_(context),
        timeout_(absl::ToChronoNanoseconds(timeout)),
        deadline_(std::chrono::steady_clock::now() + timeout_),
        thread_([this] { Watch(); }) {
    pthread_setname_np(thread_.native_handle(), "fl-stall");
  }
  ~StallGuard() {
    {
      MutexLock lock(mu_);
      ended_ = true;
      changed_.SignalAll();
    }
    thread_.join();
  }
  StallGuard(const StallGuard&) = delete;
  StallGuard& operator=(const StallGuard&) = delete;

  void Moved() {
    MutexLock lock(mu_);
    deadline_ = std::chrono::steady_clock::now() + timeout_;
  }

  // Whether it has cancelled the call.
  bool stalled() const {
    MutexLock lock(mu_);
    return stalled_;
  }

 private:
  void Watch() {
    MutexLock lock(mu_);
    while (!ended_ && !stalled_) {
      if (std::chrono::steady_clock::now() >= deadline_) {
        stalled_ = true;
        context_->TryCancel();
      } else {
        changed_.WaitUntil(mu_, deadline_);
      }
    }
  }

  grpc::ClientContext* const context_;
  const std::chrono::nanoseconds timeout_;
  mutable Mutex mu_;
  CondVar changed_;
  std::chrono::steady_clock::time_point deadline_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool stalled_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: uses what stands above
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_STALL_GUARD_H_
