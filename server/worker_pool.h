// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_SERVER_WORKER_POOL_H_
#define FAULTLINE_SERVER_WORKER_POOL_H_

#include <absl/functional/any_invocable.h>
#include <absl/strings/string_view.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "proto/mutex.h"
#include "proto/urgency.h"
#include "server/fair_queue.h"

namespace faultline {

// A few threads for work that may block (fsync, large reads), so that no thread of gRPC does. Of
// clients with tasks that wait, each gets its share of the threads. Thread-safe.
class WorkerPool {
 public:
  using Task = absl::AnyInvocable<void()>;

  struct Options {
    size_t threads;  // at least 1
    size_t max_queued;
    size_t max_queued_of_client;
    Urgency urgency = Urgency::kBulk;
  };

  // `name`, of at most 15 characters, is that of the threads.
  WorkerPool(absl::string_view name, const Options& options);
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;
  // Runs what is queued, then ends the threads. Nothing may be submitted any more, except by tasks.
  ~WorkerPool();

  // Queues `task`, of `cost` in units that are the same for all; those of a client start in the
  // order of submission. Never blocks. False, with `task` dropped unrun, where as many tasks wait
  // already as may.
  [[nodiscard]] bool Submit(ClientId client, uint64_t cost, Task task);

 private:
  void Run();

  const std::string name_;
  const Options options_;

  Mutex mu_;
  CondVar changed_;
  FairQueue<Task> queue_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;

  // Last, so that the threads find everything above in place. Changed in the constructor and the
  // destructor only.
  std::vector<std::thread> threads_;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_WORKER_POOL_H_
