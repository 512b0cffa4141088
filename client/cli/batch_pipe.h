// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CLI_BATCH_PIPE_H_
#define FAULTLINE_CLIENT_CLI_BATCH_PIPE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <deque>
#include <thread>
#include <vector>

#include "client/cli/image_reader.h"
#include "proto/mutex.h"
#include "proto/pager.pb.h"

namespace faultline {

// Reads and encodes an image on a thread of its own, a few batches ahead of whoever sends them.
// Next() belongs to one thread.
class BatchPipe {
 public:
  // `reader` is borrowed, and used by the pipe's thread until destruction.
  explicit BatchPipe(ImageReader* reader);
  ~BatchPipe();
  BatchPipe(const BatchPipe&) = delete;
  BatchPipe& operator=(const BatchPipe&) = delete;

  // As ImageReader::Next(). What `*batch` held is used again: no memory is allocated for long.
  absl::StatusOr<bool> Next(rpc::PageBatch* batch);

 private:
  void Fill();

  ImageReader* const reader_;
  Mutex mu_;
  CondVar changed_;
  std::deque<rpc::PageBatch> ready_ ABSL_GUARDED_BY(mu_);
  std::vector<rpc::PageBatch> used_ ABSL_GUARDED_BY(mu_);
  absl::StatusOr<bool> end_ ABSL_GUARDED_BY(mu_) = true;  // false or an error: nothing follows
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: uses what stands above
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_CLI_BATCH_PIPE_H_
