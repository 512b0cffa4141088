// SPDX-License-Identifier: Apache-2.0
//
// Pager: serves the page faults of any number of attached processes. START HERE to read client/.
//
// The way of a fault:
//   kernel -> FaultReader   drains one uffd: events first change the AddressSpace, then the faults
//                           are resolved against it
//          -> AddressSpace  which region, which volume page; and PageTable: in which state
//          -> FaultQueue    one entry for each volume page; later faults join it
//          -> Fetcher       asks the PageSource; back-off, deadline, and the fault's one end
//          -> PageSource    bytes, on whatever thread they arrive
//          -> Filler        the ioctl, and the only place that knows what its errors mean
//          -> kernel        wakes the thread that faulted
// Beside it, for each attachment (LiveAttachment): a Drainer fetches what is left behind the
// faults; fills that meet a changing address space wait in its Parking.
//
// Threads: `readers` event loops, each the one reader of its uffds, which never wait for a page;
// the source's own threads, which fill; `retry_threads`, which try again what has to be. Where
// fills do not exclude events in the kernel (before 6.9), all of an attachment's work is done on
// its event loop instead. Lock order: the map-changing lock of an attachment > its page table > its
// fault queue.
//
// What keeps every byte right while the target changes its memory is said in address_space.h and
// filler.h; model/monitor.pml checks it.
#ifndef FAULTLINE_CLIENT_PAGER_H_
#define FAULTLINE_CLIENT_PAGER_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <memory>
#include <string>
#include <vector>

#include "client/attachment.h"
#include "client/attachment_metrics.h"
#include "client/event_ring.h"
#include "client/evict/far_command.h"
#include "client/journal/journal.h"
#include "client/memory_map.h"
#include "client/pollable.h"

namespace faultline {

// Who fills an attachment's memory.
enum class FillMode {
  kAuto,      // what the kernel allows, by a probe at run time: parallel from 6.9 on
  kParallel,  // any number of threads at a time, beside the one that reads events
  kSerial,    // that one thread only, and one fetch at a time: for kernels whose fills and events
              // exclude each other by nothing but mmap_lock
};

// Parses "auto", "parallel" or "serial".
absl::StatusOr<FillMode> ParseFillMode(absl::string_view name);

struct PagerOptions {
  int readers = 1;        // event loop threads, at least 1
  int retry_threads = 2;  // that try parked fills again, at least 1
  FillMode fill_mode = FillMode::kAuto;
  // How long a reader spins, while faults follow each other closely, before it sleeps; zero: never.
  absl::Duration spin = absl::Microseconds(100);
  // Borrowed; where attachments are noted, so that they survive this process. Null: they do not.
  Journal* journal = nullptr;
  // Where each attachment writes what happens to its pages, into a file of its number
  // (TraceWriter); empty: nowhere.
  std::string trace_directory = {};
  Pollable* pollable = nullptr;  // borrowed: what a reader that spins polls besides, the source
};

struct AdoptRequest {
  std::unique_ptr<AttachmentJournal> journal;
  UniqueFd pidfd;  // of its process
  std::shared_ptr<PageSource> source;
  std::shared_ptr<WorkingSetRecorder> recorder;  // null: nothing is recorded
  std::unique_ptr<FarMemory> far;                // of the record that the journal has; or null
};

// Thread-safe.
class Pager {
 public:
  static absl::StatusOr<std::unique_ptr<Pager>> Create(PagerOptions options);

  virtual ~Pager() = default;

  // Serves the faults of `request.mappings` from here on. The attachment ends by itself when the
  // process does. INVALID_ARGUMENT, saying what is wrong, for a descriptor that is no userfaultfd
  // or for bad mappings; FAILED_PRECONDITION where UFFDIO_API or UFFDIO_REGISTER fails. On error
  // the target's memory is as it was, and its descriptor is closed.
  virtual absl::StatusOr<AttachmentId> Attach(AttachRequest request) = 0;

  // Serves on where another agent was killed. NOT_FOUND where the process has no copy of the
  // userfaultfd (any more): its memory is no longer served, and what was not filled reads as zeros.
  // Other errors as of Attach(), and DATA_LOSS for a journal that is damaged.
  virtual absl::StatusOr<AttachmentId> Adopt(AdoptRequest request) = 0;

  // Ends an attachment whose process goes on. Pages that were never filled are poisoned first, so
  // that none of them turns into zeros (before Linux 6.6, or where that fails, the process is
  // killed if such pages are left). NOT_FOUND where there is none of that id (any more).
  virtual absl::Status Detach(AttachmentId id) = 0;

  // Has attachment `id`, of far memory, carry out `command`. NOT_FOUND where there is none of that
  // id, FAILED_PRECONDITION where its memory is not far, OUT_OF_RANGE for pages that it has not;
  // what else may become of it is said with the commands.
  virtual void Perform(AttachmentId id, FarCommand command, FarDone done) = 0;

  virtual std::vector<AttachmentStats> Attachments() const = 0;  // ordered by id

  // The same to be exported: no total of what has ended and what has not, together, is ever less
  // than in an earlier one. Costs some 20 us an attachment, and its faults next to nothing.
  virtual PagerMetrics Metrics() const = 0;

  // What the memory of attachment `id` looks like, and the last events that it has had behind
  // `sequence`, for people. NOT_FOUND where there is none of that id (any more).
  virtual absl::StatusOr<MemoryMap> Map(AttachmentId id, const MapView& view) const = 0;
  virtual absl::StatusOr<std::vector<MemoryEvent>> Events(AttachmentId id,
                                                          uint64_t sequence) const = 0;

  // Ends every attachment: poisons what is not filled, or under FaultPolicy::kKill kills the target
  // where anything is not. The Pager can only be destroyed after that; destruction does it too.
  virtual void Stop() = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_PAGER_H_
