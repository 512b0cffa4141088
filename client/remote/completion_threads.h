// SPDX-License-Identifier: Apache-2.0
//
// CompletionThreads: the one completion queue of a PageServer and the threads that serve it.
//
// One queue for all lanes, because gRPC lets one thread of the process poll at a time: the threads
// of a second queue would hand that role to and fro with those of the first.
#ifndef FAULTLINE_CLIENT_REMOTE_COMPLETION_THREADS_H_
#define FAULTLINE_CLIENT_REMOTE_COMPLETION_THREADS_H_

#include <grpc/grpc.h>
#include <grpcpp/completion_queue.h>

#include <optional>
#include <thread>
#include <vector>

namespace faultline {

// What the queue reports: every tag that is given to gRPC is one of these. Must stay alive until it
// was called.
class Completion {
 public:
  virtual void Complete(bool ok) = 0;

 protected:
  ~Completion() = default;
};

// Thread-safe.
class CompletionThreads {
 public:
  struct Event {
    Completion* completion;
    bool ok;
  };

  explicit CompletionThreads(int threads);
  ~CompletionThreads() { Stop(); }
  CompletionThreads(const CompletionThreads&) = delete;
  CompletionThreads& operator=(const CompletionThreads&) = delete;

  // Completes what is under way and ends the threads. Nothing may be started any more.
  void Stop();

  grpc::CompletionQueue* queue() { return &queue_; }

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

 private:
  std::optional<Event> TakeCached();
  void Serve();

  grpc::CompletionQueue queue_;
  std::vector<std::thread> threads_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_COMPLETION_THREADS_H_
