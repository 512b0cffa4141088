// SPDX-License-Identifier: Apache-2.0
//
// Filler: puts bytes into the target's memory, and is the only place that knows what the errors of
// the fill ioctls mean:
//
//   EAGAIN, some progress   go on behind it; the true error shows itself there
//   EAGAIN, no progress     an event is unread, or its writer has not run: try again later
//   EEXIST                  the page is there already: wake who waits for it, never write again
//   ENOENT                  not registered, or the run crosses a VMA's end: go on page by page;
//                           a single page has been unmapped: drop it, wake who waits for it;
//                           unless an event is unread: then it may have moved, try again later
//   EFAULT                  beyond the end of shared memory: wake, the kernel gives SIGBUS
//   ENOMEM, ENOSPC          the target's cgroup or file system is full: try again later
//   ESRCH                   the target has exited or exec'ed
//   anything else           a bug of ours or a kernel without the operation: reported, not retried
//
// (mm/userfaultfd.c, read at 6.11 and 7.x, and tried on 6.18.)
#ifndef FAULTLINE_CLIENT_FAULT_FILLER_H_
#define FAULTLINE_CLIENT_FAULT_FILLER_H_

#include <cstddef>
#include <optional>

#include "client/fault/paged_memory.h"
#include "proto/page.h"

namespace faultline {

// One fill holds the lock of its VMA, and threads of the target that map or unmap wait for it: 256
// KiB take 0.1 to 0.3 ms.
inline constexpr PageCount kMaxFillChunk{64};

enum class FillEnd {
  kDone,        // every page was filled, or is no longer there to be filled
  kTryAgain,    // not now
  kTargetGone,  // never
  kFailed,      // never; FillReport::error says why
  kAtSource,    // FillLocal() only: the next page has to be fetched
};

struct FillReport {
  FillEnd end = FillEnd::kDone;
  PageCount done;  // pages from the front that need nothing more
  int error = 0;   // errno; for kTryAgain, 0 means that the address space is changing
};

// Thread-safe: any number of threads may fill at a time. Takes the shared side of the map-changing
// lock for each chunk, and looks up where the pages are under it ("locate_at_fill"); the caller
// must not hold it.
//
// What a page is filled with is decided at that moment, too, by its state in the page table:
//   absent            the bytes that were fetched
//   zero              zeros, as the target has discarded it since ("discard_means_zero"), or as it
//   is
//                     a hole at the source
//   staged            what was taken out of the memory ("steal")
//   evicting          not at all: the Evictor looks at who waits once it is done
//   present           zeros: it was filled and yet faults, so it was discarded since. Its REMOVE
//                     may have been read before the memory was gone, and a fault in between filled
//                     ("present_means_zero")
// Pages that are not absent are touched for a fault that waits for them only, never ahead of one;
// but where far memory is touched page after page, more and more of the zeros behind a fault are
// filled with it: memory that grows would cost a fault for each page.
class Filler {
 public:
  // `memory` is borrowed.
  explicit Filler(PagedMemory* memory) : memory_(memory) {}

  // Fills `pages`, wherever they are mapped now, with `bytes` (pages.size_bytes() of them) that the
  // source has, or with zeros where that is null. Of far memory, holding a token of its grace.
  // Faults that wait for them are counted as of class `fetched_for`, unless they are of another by
  // what was found here.
  FillReport Fill(PageRange pages, const std::byte* bytes,
                  FaultClass fetched_for = FaultClass::kDemand);

  // Fills those of `pages` that a fault waits for, and that need not be fetched.
  FillReport FillLocal(PageRange pages);

  // The source has only zeros there: where a page was not filled yet, it is filled with those once
  // a fault waits for it, and never fetched. Pages that are not mapped do no harm.
  void NoteHole(PageRange pages);

  // Makes access to those of `pages` that are not filled end in SIGBUS. kFailed with EINVAL where
  // the kernel cannot (before 6.6).
  FillReport Poison(PageRange pages);

  // Memory that is in no region: what a mapping has grown by, or what MREMAP_DONTUNMAP has left
  // behind. Fills the page at `address` with zeros, unless it is in a region by now: then returns
  // its page in `*page`, and does nothing.
  FillReport FillStray(uint64_t address, std::optional<PageIndex>* page);

 private:
  enum class Op { kCopy, kZero, kLocal, kPoison };
  struct Step;

  FillReport Run(PageRange pages, const std::byte* bytes, Op op,
                 FaultClass fetched_for = FaultClass::kDemand);
  // One ioctl at the front of `pages`. Sets how far it got.
  FillEnd DoStep(PageRange pages, const std::byte* bytes, Op op, Step* step);
  FillResult Call(Op op, AddressRange range, const std::byte* bytes, uffdio_copy* copy);
  // How many pages behind `page` may be filled with zeros, if it and they are zero, before they are
  // touched: as many as lie filled before it, at most kMaxFillChunk with itself.
  PageCount ZerosAhead(PageIndex page) const
      ABSL_SHARED_LOCKS_REQUIRED(memory_->space.map_changing_lock());
  // Notes in the page table and the counters what was filled, which was in state `before`.
  void Commit(PageRange filled, Op op, PageState before, const std::byte* bytes, bool waited_for);
  // What `result` means for what follows the pages it has filled. `page` is the first of those, if
  // it is in a region.
  FillEnd Judge(FillResult result, AddressRange range, std::optional<PageIndex> page, Step* step)
      ABSL_SHARED_LOCKS_REQUIRED(memory_->space.map_changing_lock());
  void WakePage(uint64_t address);
  // Does for who waits for `pages` at other addresses what was done at those that were filled.
  void ServeAliases(PageRange pages, Op op)
      ABSL_SHARED_LOCKS_REQUIRED(memory_->space.map_changing_lock());

  PagedMemory* const memory_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_FILLER_H_
