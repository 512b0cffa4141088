// SPDX-License-Identifier: Apache-2.0
#include "client/cli/batch_pipe.h"

#include <pthread.h>

#include <utility>

namespace faultline {
namespace {

constexpr size_t kBatchesAhead = 4;

}  // namespace

BatchPipe::BatchPipe(ImageReader* reader) : reader_(reader), thread_([this] { Fill(); }) {
  pthread_setname_np(thread_.native_handle(), "fl-read");
}

BatchPipe::~BatchPipe() {
  {
    MutexLock lock(mu_);
    stop_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

absl::StatusOr<bool> BatchPipe::Next(rpc::PageBatch* batch) {
  MutexLock lock(mu_);
  while (ready_.empty() && end_.ok() && *end_) changed_.Wait(mu_);
  if (ready_.empty()) return end_;
  batch->Swap(&ready_.front());
  used_.push_back(std::move(ready_.front()));
  ready_.pop_front();
  changed_.SignalAll();
  return true;
}

void BatchPipe::Fill() {
  absl::StatusOr<bool> more = true;
  while (more.ok() && *more) {
    rpc::PageBatch batch;
    {
      MutexLock lock(mu_);
      while (ready_.size() >= kBatchesAhead && !stop_) changed_.Wait(mu_);
      if (stop_) return;
      if (!used_.empty()) {
        batch = std::move(used_.back());
        used_.pop_back();
      }
    }
    more = reader_->Next(&batch);
    MutexLock lock(mu_);
    if (more.ok() && *more) ready_.push_back(std::move(batch));
    end_ = more;
    changed_.SignalAll();
  }
}

}  // namespace faultline
