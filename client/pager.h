// SPDX-License-Identifier: Apache-2.0
//
// Pager: serves the page faults of any number of attached processes. START HERE to read client/.
//
// The way of a fault:
//   kernel -> FaultReader   drains one uffd: events first change the AddressSpace, then the faults
//   of
//                           the batch are resolved against it
//          -> AddressSpace  which region, which volume page, in which state
//          -> FaultQueue    one entry for each volume page; later faults join it
//          -> Fetcher       asks the PageSource; back-off, deadline, and the fault's one end
//          -> PageSource    bytes, on whatever thread they arrive
//          -> Filler        the ioctl, and the only place that knows what its errors mean
//          -> kernel        wakes the thread that faulted
//
// Threads: `readers` event loops, each the one reader of its uffds, which never wait for a page;
// the source's own threads, which fill; one timer thread, which tries again what has to be. Lock
// order: the map-changing lock of an attachment > its page table > its fault queue.
#ifndef FAULTLINE_CLIENT_PAGER_H_
#define FAULTLINE_CLIENT_PAGER_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <memory>
#include <vector>

#include "client/attachment.h"

namespace faultline {

struct PagerOptions {
  int readers = 1;  // event loop threads, at least 1
};

// Thread-safe.
class Pager {
 public:
  static absl::StatusOr<std::unique_ptr<Pager>> Create(const PagerOptions& options);

  virtual ~Pager() = default;

  // Serves the faults of `request.mappings` from here on. The attachment ends by itself when the
  // process does. INVALID_ARGUMENT, saying what is wrong, for a descriptor that is no userfaultfd
  // or for bad mappings; FAILED_PRECONDITION where UFFDIO_API or UFFDIO_REGISTER fails. On error
  // the target's memory is as it was, and its descriptor is closed.
  virtual absl::StatusOr<AttachmentId> Attach(AttachRequest request) = 0;

  // Ends an attachment whose process goes on. Pages that were never filled are poisoned first, so
  // that none of them turns into zeros (before Linux 6.6, or where that fails, the process is
  // killed if such pages are left). NOT_FOUND where there is none of that id (any more).
  virtual absl::Status Detach(AttachmentId id) = 0;

  virtual std::vector<AttachmentStats> Attachments() const = 0;  // ordered by id

  // Ends every attachment: poisons what is not filled, or under FaultPolicy::kKill kills the target
  // where anything is not. The Pager can only be destroyed after that; destruction does it too.
  virtual void Stop() = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_PAGER_H_
