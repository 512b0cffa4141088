// SPDX-License-Identifier: Apache-2.0
#include "server/worker_pool.h"

#include <pthread.h>

#include <utility>

namespace faultline {

WorkerPool::WorkerPool(absl::string_view name, const Options& options)
    : name_(name), options_(options) {
  threads_.reserve(options.threads);
  for (size_t i = 0; i < options.threads; ++i) threads_.emplace_back([this] { Run(); });
}

WorkerPool::~WorkerPool() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  changed_.SignalAll();
  for (std::thread& thread : threads_) thread.join();
}

bool WorkerPool::Submit(ClientId client, uint64_t cost, Task task) {
  {
    MutexLock lock(mu_);
    if (queue_.size() >= options_.max_queued ||
        queue_.size_of(client) >= options_.max_queued_of_client) {
      return false;
    }
    queue_.Push(client, cost, std::move(task));
  }
  changed_.Signal();
  return true;
}

void WorkerPool::Run() {
  pthread_setname_np(pthread_self(), name_.c_str());
  SetUrgency(options_.urgency);
  while (true) {
    Task task;
    {
      MutexLock lock(mu_);
      while (queue_.empty() && !stopping_) changed_.Wait(mu_);
      if (queue_.empty()) return;
      task = queue_.Pop();
    }
    task();
  }
}

}  // namespace faultline
