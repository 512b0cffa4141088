// SPDX-License-Identifier: Apache-2.0
//
// CallLoop: the one thread that waits for gRPC and takes on what has come.
//
// All threads of a process that wait for gRPC share one epoll set. The one that waits there hands
// its place on each time that something comes, and what has ended is told to another. With a second
// such thread, be it for another service, a demand fetch costs about six context switches instead
// of one and twice the processor time (gRPC 1.51; its callback API has at least two). So every
// method of the server is of gRPC's asynchronous kind and is served from this one queue; what may
// block or takes long is for a WorkerPool. (Reflection, which is synchronous, does no harm: beside
// a queue like this one gRPC lets its threads wait without polling.)
//
// What one client asks for must not hold up another's, so the short work that the thread does by
// itself is done in turns (TakeTurn): after each, whatever has come meanwhile is looked at, and the
// client that has had least is next.
#ifndef FAULTLINE_SERVER_CALL_LOOP_H_
#define FAULTLINE_SERVER_CALL_LOOP_H_

#include <grpcpp/completion_queue.h>

#include <cstdint>
#include <memory>
#include <thread>
#include <utility>

#include "proto/mutex.h"
#include "server/fair_queue.h"

namespace faultline {

// Thread-safe, but for Start() and Stop().
class CallLoop {
 public:
  // What an operation is started with, as its tag.
  class Event {
   public:
    virtual ~Event() = default;
    // The operation has ended; `ok` as gRPC says for its kind. Called on the thread of the loop.
    // Must not block.
    virtual void OnEvent(bool ok) = 0;
  };

  // Held by whatever may start operations of the queue; the loop does not stop before it is gone.
  class User {
   public:
    explicit User(CallLoop* loop);
    ~User();
    User(const User&) = delete;
    User& operator=(const User&) = delete;

    CallLoop* loop() const { return loop_; }
    grpc::ServerCompletionQueue* queue() const { return loop_->queue_.get(); }

   private:
    CallLoop* const loop_;
  };

  // Work for the thread of the loop. Must not block.
  class Turn {
   public:
    virtual ~Turn() = default;
    virtual void OnTurn() = 0;
  };

  CallLoop() = default;
  CallLoop(const CallLoop&) = delete;
  CallLoop& operator=(const CallLoop&) = delete;
  // Stops.
  ~CallLoop() { Stop(); }

  // REQUIRES: `queue` is of a server that is not built yet. Call once, first.
  void Adopt(std::unique_ptr<grpc::ServerCompletionQueue> queue) { queue_ = std::move(queue); }
  // REQUIRES: Adopt() was called.
  void Start();
  // Does nothing where there is nothing to stop. Returns when all users have gone and all events
  // have been delivered. REQUIRES: the server of the queue is shut down or was never built.
  void Stop();

  // Calls `turn`, at once or when it is the turn of `client`; `cost` is in units that are the same
  // for all. A User must be held until then. REQUIRES: IsCurrent().
  void TakeTurn(ClientId client, uint64_t cost, Turn* turn);
  // Whether this is the thread of the loop.
  bool IsCurrent() const;

 private:
  void Run();
  // The next event, where there is any or no turn to be taken; false: there will be no more.
  bool Next(void** tag, bool* ok);

  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::thread thread_;

  // Of the thread of the loop.
  FairQueue<Turn*> turns_;
  uint64_t turns_at_once_ = 0;  // since the last look at what has come

  Mutex mu_;
  CondVar changed_;
  uint64_t users_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_CALL_LOOP_H_
