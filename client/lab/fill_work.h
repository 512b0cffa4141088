// SPDX-License-Identifier: Apache-2.0
//
// FillWork: memory that can be filled again and again by one of the operations, with a share of it
// for each thread.
#ifndef FAULTLINE_CLIENT_LAB_FILL_WORK_H_
#define FAULTLINE_CLIENT_LAB_FILL_WORK_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "client/lab/lab_uffd.h"
#include "client/uffd/uffd.h"
#include "client/unique_fd.h"

namespace faultline {

struct FillWorkOptions {
  FillOp op = FillOp::kCopy;
  uint64_t chunk_bytes = 4096;
  size_t threads = 1;
  // To be filled, all threads together; rounded down to what gives each the same number of chunks,
  // at least one.
  uint64_t memory_bytes = 0;
  // At the end of the VMA that is filled, for a Churner.
  uint64_t tail_bytes = 0;
  // Further features of UFFDIO_API.
  uint64_t features = 0;
};

// FillNext may be called by one thread for each share at the same time; the rest is not
// thread-safe.
class FillWork {
 public:
  static absl::StatusOr<std::unique_ptr<FillWork>> Create(const FillWorkOptions& options);

  int fd() const { return uffd_.fd(); }
  // The one VMA that is registered and filled, the tail included.
  AddressRange vma() const { return target_.range(); }

  // Makes everything ready for fills again. Raises an event where those are asked for, so somebody
  // has to read it.
  absl::Status Reset();

  // The next ioctl of a thread: of one chunk, or of what was left of it. Moves on by what was done.
  FillResult FillNext(size_t thread);
  // Whether the share of the thread is used up, until the next Reset. Never for MOVE, which goes
  // back, and WRITEPROTECT, which takes off what it has put on.
  bool IsExhausted(size_t thread) const;

 private:
  // Apart, so that no two threads write to one cache line.
  struct alignas(64) Share {
    uint64_t begin = 0, end = 0, next = 0;  // offsets
    bool back = false;                      // of a MOVE; of a WRITEPROTECT, taking it off
  };
  FillWork(const FillWorkOptions& options, LabUffd uffd);
  absl::Status MapAndRegister();

  const FillWorkOptions options_;
  std::vector<Share> shares_;
  uint64_t fill_bytes_ = 0;
  std::vector<std::byte> bytes_;  // that COPY copies
  UniqueFd memfd_;                // of CONTINUE
  Mapping other_;                 // where MOVE takes pages from
  Mapping target_;
  LabUffd uffd_;  // closed before the memory is unmapped, so that this raises no event
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LAB_FILL_WORK_H_
