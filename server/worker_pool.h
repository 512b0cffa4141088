// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_SERVER_WORKER_POOL_H_
#define FAULTLINE_SERVER_WORKER_POOL_H_

#include <absl/functional/any_invocable.h>
#include <absl/strings/string_view.h>

#include <cstddef>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "proto/mutex.h"

namespace faultline {

// A few threads for work that may block (fsync, large reads), so that no thread of gRPC does.
// Thread-safe.
class WorkerPool {
 public:
  using Task = absl::AnyInvocable<void()>;

  // `name`, of at most 15 characters, is that of the threads. REQUIRES: threads > 0.
  WorkerPool(absl::string_view name, size_t threads, size_t max_queued);
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;
  // Runs what is queued, then ends the threads. Nothing may be submitted any more, except by tasks.
  ~WorkerPool();

  // Queues `task`; tasks start in the order of submission. Never blocks. False, with `task` dropped
  // unrun, where max_queued tasks wait already.
  [[nodiscard]] bool Submit(Task task);

 private:
  void Run();

  const std::string name_;
  const size_t max_queued_;

  Mutex mu_;
  CondVar changed_;
  std::deque<Task> queue_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;

  // Last, so that the threads find everything above in place. Changed in the constructor and the
  // destructor only.
  std::vector<std::thread> threads_;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_WORKER_POOL_H_
