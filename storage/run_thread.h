// SPDX-License-Identifier: Apache-2.0
//
// RunThread: a thread that runs what others ask for, one after the other, while they wait. For what
// starts threads of its own: those are as urgent as this one, not as whoever asks (urgency.h).
#ifndef FAULTLINE_STORAGE_RUN_THREAD_H_
#define FAULTLINE_STORAGE_RUN_THREAD_H_

#include <absl/functional/function_ref.h>
#include <pthread.h>

#include <deque>
#include <thread>

#include "proto/mutex.h"

namespace faultline {

// Thread-safe. As urgent as the thread that makes it.
class RunThread {
 public:
  explicit RunThread(const char* name) : thread_([this] { Loop(); }) {
    pthread_setname_np(thread_.native_handle(), name);
  }
  ~RunThread() {
    {
      MutexLock lock(mu_);
      stopping_ = true;
      changed_.SignalAll();
    }
    thread_.join();
  }
  RunThread(const RunThread&) = delete;
  RunThread& operator=(const RunThread&) = delete;

  // Returns when `work` has.
  void Run(absl::FunctionRef<void()> work) {
    Job job{work};
    MutexLock lock(mu_);
    jobs_.push_back(&job);
    changed_.SignalAll();
    while (!job.done) changed_.Wait(mu_);
  }

 private:
  struct Job {
    absl::FunctionRef<void()> work;
    bool done = false;
  };

  void Loop() {
    MutexLock lock(mu_);
    while (!stopping_) {
      if (jobs_.empty()) {
        changed_.Wait(mu_);
        continue;
      }
      Job* const job = jobs_.front();
      jobs_.pop_front();
      mu_.Unlock();
      job->work();
      mu_.Lock();
      job->done = true;
      changed_.SignalAll();
    }
  }

  Mutex mu_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<Job*> jobs_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_RUN_THREAD_H_
