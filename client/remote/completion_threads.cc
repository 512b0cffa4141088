// SPDX-License-Identifier: Apache-2.0
#include "client/remote/completion_threads.h"

#include <absl/strings/str_cat.h>
#include <grpcpp/impl/codegen/completion_queue_tag.h>
#include <pthread.h>

#include <string>

namespace faultline {

CompletionThreads::CompletionThreads(int threads) {
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this] { Serve(); });
    pthread_setname_np(threads_.back().native_handle(), absl::StrCat("fl-receive-", i).c_str());
  }
}

void CompletionThreads::Stop() {
  if (threads_.empty()) return;
  queue_.Shutdown();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
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
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) static_cast<Completion*>(tag)->Complete(ok);
}

}  // namespace faultline
