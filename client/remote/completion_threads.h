// SPDX-License-Identifier: Apache-2.0
//
// CompletionThreads: the one completion queue of a PageServer, the one thread that serves it, and
// those that do what takes longer.
//
// One queue for all lanes and one thread for it, because gRPC lets one thread of the process poll
// at a time: others would hand that role to and fro, which costs a wake-up each time.
#ifndef FAULTLINE_CLIENT_REMOTE_COMPLETION_THREADS_H_
#define FAULTLINE_CLIENT_REMOTE_COMPLETION_THREADS_H_

#include <absl/functional/any_invocable.h>
#include <grpc/grpc.h>
#include <grpcpp/alarm.h>
#include <grpcpp/completion_queue.h>

#include <atomic>
#include <deque>
#include <optional>
#include <thread>
#include <vector>

#include "client/pollable.h"
#include "proto/mutex.h"

namespace faultline {

// What the queue reports: every tag that is given to gRPC is one of these. Must stay alive until it
// was called.
class Completion {
 public:
  virtual void Complete(bool ok) = 0;

 protected:
  ~Completion() = default;
};

// Thread-safe. As a Pollable: does the queue's work on the thread that polls.
class CompletionThreads final : public Pollable {
 public:
  using Task = absl::AnyInvocable<void()>;
  struct Event {
    Completion* completion;
    bool ok;
  };

  // `workers`, at least 1, run what Submit() is given.
  explicit CompletionThreads(int workers);
  ~CompletionThreads() { Stop(); }
  CompletionThreads(const CompletionThreads&) = delete;
  CompletionThreads& operator=(const CompletionThreads&) = delete;

  // Completes what is under way, runs what was submitted, and ends the threads. Nothing may be
  // started any more, and nobody may be polling.
  void Stop();

  grpc::CompletionQueue* queue() { return &queue_; }

  // Runs `task` on a thread that may take its time. Tasks start in the order of submission.
  void Submit(Task task);

  // Runs `start`, which starts an operation on queue(). If one completes before `start` returns, as
  // sending a small message mostly does, it is returned here for the caller to complete, and no
  // thread is woken up for it. Measured for a lone fetch over loopback: 3.1 to 3.8 context switches
  // of the client where that happens, 5.8 where it does not.
  template <typename Start>
  std::optional<Event> StartHere(Start&& start) {
    grpc_completion_queue_thread_local_cache_init(queue_.cq());
    start();
    return TakeCached();
  }

  bool Begin() override;
  bool Poll() override;
  void End() override;

 private:
  // Wakes the serving thread up, so that it lets somebody else poll.
  struct Nudge final : Completion {
    explicit Nudge(CompletionThreads* owner) : threads(owner) {}
    void Complete(bool ok) override;
    CompletionThreads* const threads;
  };

  std::optional<Event> TakeCached();
  void Serve();
  void Work();

  grpc::CompletionQueue queue_;

  Mutex mu_;
  CondVar changed_;
  bool borrowed_ ABSL_GUARDED_BY(mu_) = false;  // somebody else polls, or is about to
  bool nudged_ ABSL_GUARDED_BY(mu_) = false;    // the alarm is under way
  std::atomic<bool> let_go_ = false;            // the serving thread does not poll
  grpc::Alarm alarm_;
  Nudge nudge_{this};

  Mutex tasks_mu_;
  CondVar submitted_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(tasks_mu_);
  bool stopping_ ABSL_GUARDED_BY(tasks_mu_) = false;

  std::thread server_;
  std::vector<std::thread> workers_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_COMPLETION_THREADS_H_
