// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVENT_LOOP_H_
#define FAULTLINE_CLIENT_EVENT_LOOP_H_

#include <absl/functional/any_invocable.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>

#include "client/pollable.h"
#include "client/spin_policy.h"
#include "client/unique_fd.h"
#include "proto/mutex.h"

namespace faultline {

// How a loop waits.
struct EventLoopOptions {
  // How long it spins, while its descriptors are hot, before it sleeps; 0: it never spins.
  SteadyClock::duration spin = SteadyClock::duration::zero();
  Pollable* pollable = nullptr;  // borrowed; polled while the loop spins
};

// One thread that waits for descriptors to become readable and calls their handlers, one at a time.
// Thread-safe.
class EventLoop {
 public:
  using Handler = std::function<void()>;
  using Task = absl::AnyInvocable<void()>;

  static absl::StatusOr<std::unique_ptr<EventLoop>> Create(const std::string& thread_name,
                                                           const EventLoopOptions& options = {});
  // No handler runs afterwards.
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Calls `handler` whenever `fd` is readable, or in error. `fd` must stay open until it is
  // removed. The loop keeps a copy of the handler, and what it owns, until the call under way has
  // returned.
  absl::Status Add(int fd, Handler handler);
  // Its handler is not called again, but a call that is under way on the loop's thread may go on.
  void Remove(int fd);
  // Runs `task` on the loop's thread, in the order of the calls.
  void Post(Task task);
  // Waits until what was posted, and the handler under way, has run. Not to be called by either.
  void Flush();
  // What the loop has to know to wait well. For handlers only, on the loop's thread.
  SpinPolicy* spin() { return &spin_; }

 private:
  EventLoop(UniqueFd epoll, UniqueFd wakeup, const EventLoopOptions& options);
  void Run();
  void Wake();
  bool HasTask();
  void RunTask();
  void Dispatch(uint64_t token);
  // Waits for descriptors, if `wait` says so, and calls their handlers; how many there were, or -1
  // where the loop is to stop.
  int HandleReadable(bool wait);
  // One turn of spinning; `busy`: it has done something before.
  void Spin(bool busy);
  // Takes the work of pollable_ over, or gives it back.
  void SetSpinning(bool spinning);

  const UniqueFd epoll_;
  const UniqueFd wakeup_;  // eventfd: readable once something was posted or the loop is to stop
  // Of the loop's thread.
  SpinPolicy spin_;
  Pollable* const pollable_;
  bool spinning_ = false;
  bool polling_ = false;
  Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mu_);
  uint64_t next_token_ ABSL_GUARDED_BY(mu_) = 1;  // 0 is the wakeup
  std::unordered_map<int, uint64_t> tokens_ ABSL_GUARDED_BY(mu_);
  std::unordered_map<uint64_t, std::shared_ptr<Handler>> handlers_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVENT_LOOP_H_
