// SPDX-License-Identifier: Apache-2.0
//
// Timers: what is to be tried again later. An interface, so that tests decide when later is.
#ifndef FAULTLINE_CLIENT_TIMERS_H_
#define FAULTLINE_CLIENT_TIMERS_H_

#include <absl/functional/any_invocable.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "proto/mutex.h"

namespace faultline {

using SteadyClock = std::chrono::steady_clock;

// Thread-safe.
class Timers {
 public:
  using Task = absl::AnyInvocable<void()>;

  virtual ~Timers() = default;
  virtual SteadyClock::time_point Now() const = 0;
  // Runs `task` once, `delay` from now, on a thread of the timers. A task should be short: it holds
  // up those behind it. Tasks that have not run when the timers are destroyed are dropped.
  virtual void After(SteadyClock::duration delay, Task task) = 0;
};

// Some threads, at least 1, on the machine's clock. As many tasks that are due run at the same
// time; each thread takes the one that fell due first.
class ThreadTimers final : public Timers {
 public:
  explicit ThreadTimers(int threads = 1);
  ~ThreadTimers() override;

  SteadyClock::time_point Now() const override { return SteadyClock::now(); }
  void After(SteadyClock::duration delay, Task task) override;

 private:
  void Run();

  Mutex mu_;
  CondVar changed_;
  std::multimap<SteadyClock::time_point, Task> tasks_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;  // last: they use all of the above
};

// For tests: nothing runs until the clock is moved. Tasks run on the caller's thread.
class FakeTimers final : public Timers {
 public:
  SteadyClock::time_point Now() const override {
    MutexLock lock(mu_);
    return now_;
  }
  void After(SteadyClock::duration delay, Task task) override {
    MutexLock lock(mu_);
    tasks_.emplace(now_ + delay, std::move(task));
  }
  // Moves the clock on and runs what falls due, what is added meanwhile included.
  void Advance(SteadyClock::duration by) {
    SteadyClock::time_point until;
    {
      MutexLock lock(mu_);
      until = now_ + by;
    }
    for (;;) {
      Task task;
      {
        MutexLock lock(mu_);
        if (tasks_.empty() || tasks_.begin()->first > until) {
          now_ = until;
          return;
        }
        now_ = std::max(now_, tasks_.begin()->first);
        task = std::move(tasks_.begin()->second);
        tasks_.erase(tasks_.begin());
      }
      task();
    }
  }
  size_t pending() const {
    MutexLock lock(mu_);
    return tasks_.size();
  }

 private:
  mutable Mutex mu_;
  SteadyClock::time_point now_ ABSL_GUARDED_BY(mu_) =
      SteadyClock::time_point(std::chrono::hours(1));
  std::multimap<SteadyClock::time_point, Task> tasks_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_TIMERS_H_
