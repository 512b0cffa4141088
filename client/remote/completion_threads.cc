// SPDX-License-Identifier: Apache-2.0
#include "client/remote/completion_threads.h"

#include <absl/strings/str_cat.h>
#include <grpc/support/time.h>
#include <grpcpp/impl/codegen/completion_queue_tag.h>
#include <pthread.h>

#include <string>
#include <utility>

#include "proto/urgency.h"

namespace faultline {

CompletionThreads::CompletionThreads(int workers) {
  server_ = std::thread([this] { Serve(); });
  pthread_setname_np(server_.native_handle(), "fl-receive");
  for (int i = 0; i < workers; ++i) {
    workers_.emplace_back([this] { Work(); });
    pthread_setname_np(workers_.back().native_handle(), absl::StrCat("fl-fill-", i).c_str());
  }
}

void CompletionThreads::Stop() {
  if (workers_.empty()) return;
  queue_.Shutdown();
  server_.join();
  {
    MutexLock lock(tasks_mu_);
    stopping_ = true;
    submitted_.SignalAll();
  }
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void CompletionThreads::Submit(Task task) {
  MutexLock lock(tasks_mu_);
  tasks_.push_back(std::move(task));
  submitted_.Signal();
}

void CompletionThreads::Work() {
  SetUrgency(Urgency::kBulk);
  for (;;) {
    Task task;
    {
      MutexLock lock(tasks_mu_);
      while (tasks_.empty() && !stopping_) submitted_.Wait(tasks_mu_);
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

bool CompletionThreads::Begin() {
  MutexLock lock(mu_);
  if (borrowed_) return false;
  borrowed_ = true;
  if (!std::exchange(nudged_, true)) {
    alarm_.Set(&queue_, gpr_inf_past(GPR_CLOCK_MONOTONIC), &nudge_);
  }
  return true;
}

void CompletionThreads::Nudge::Complete(bool) {
  MutexLock lock(threads->mu_);
  threads->nudged_ = false;
}

bool CompletionThreads::Poll() {
  // As long as the serving thread polls, gRPC would let nobody else.
  if (!let_go_.load(std::memory_order_acquire)) return false;
  void* tag = nullptr;
  bool ok = false;
  if (queue_.AsyncNext(&tag, &ok, gpr_inf_past(GPR_CLOCK_MONOTONIC)) !=
      grpc::CompletionQueue::GOT_EVENT) {
    return false;
  }
  static_cast<Completion*>(tag)->Complete(ok);
  return true;
}

void CompletionThreads::End() {
  MutexLock lock(mu_);
  borrowed_ = false;
  changed_.SignalAll();
}

std::optional<CompletionThreads::Event> CompletionThreads::TakeCached() {
  void* tag = nullptr;
  int success = 0;
  if (!grpc_completion_queue_thread_local_cache_flush(queue_.cq(), &tag, &success)) {
    return std::nullopt;
  }
  // As CompletionQueue::Next does with what it takes from the queue.
  bool ok = success != 0;
  if (!static_cast<grpc::internal::CompletionQueueTag*>(tag)->FinalizeResult(&tag, &ok)) {
    return std::nullopt;
  }
  return Event{static_cast<Completion*>(tag), ok};
}

void CompletionThreads::Serve() {
  SetUrgency(Urgency::kMixed);
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
    static_cast<Completion*>(tag)->Complete(ok);
    MutexLock lock(mu_);
    if (!borrowed_) continue;
    let_go_.store(true, std::memory_order_release);
    while (borrowed_) changed_.Wait(mu_);
    let_go_.store(false, std::memory_order_relaxed);
  }
}

}  // namespace faultline
