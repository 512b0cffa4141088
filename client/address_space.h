// SPDX-License-Identifier: Apache-2.0
//
// AddressSpace: all regions of one uffd, that is, which volume page is behind which address of the
// target, now. Pages are known by their place in the volume; addresses only map to them, so that a
// page that is on its way lands where its memory has moved to.
//
// The kernel raises the events of a thread after it has let go of mmap_lock, so the events of two
// threads that change the same addresses one after the other may be read in either order (a moving
// mremap: REMAP, UNMAP of the old range; between the two, or before both, the REMAP of another
// thread onto the old range). Three facts put them in order again:
//
//   - Each change is told: memory leaves an address by a REMAP from there or an UNMAP, exactly one
//     UNMAP for each moving mremap but those with MREMAP_DONTUNMAP.
//   - So where a REMAP arrives at addresses that are still taken, the event by which the older
//     memory left is yet to come, and is about the older. It is set aside, and whatever vacates an
//     address vacates the oldest that is there ("vacate_oldest").
//   - mmap_changing, which holds off all fills, is raised under mmap_lock and falls only after the
//     event was read. A fill that was not held off has seen that nothing is yet to come: what was
//     set aside until then is void ("settle").
//
// (fs/userfaultfd.c and mm/mremap.c, 6.11 to 7.x; a handler that trusts the order of the queue was
// measured to serve 24,902 wrong pages in 3 s.) The words in quotes name rules of
// model/monitor.pml.
#ifndef FAULTLINE_CLIENT_ADDRESS_SPACE_H_
#define FAULTLINE_CLIENT_ADDRESS_SPACE_H_

#include <absl/functional/function_ref.h>
#include <absl/strings/string_view.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "client/attachment.h"
#include "client/uffd/uffd.h"
#include "proto/mutex.h"
#include "proto/page.h"

namespace faultline {

// Guarded by its map-changing lock, which has the role that map_changing_lock has in the kernel
// (fs/userfaultfd.c): a fill holds it shared from looking an address up until its ioctl has
// returned ("locate_at_fill"); the reader of events holds it exclusively across read() *and* the
// change of the map ("lock_across_read"). An event that is still unread keeps the kernel from
// filling, so no fill ever acts on an address that has changed its meaning. (Taking the lock only
// after read() measured 4 to 28 % stale pages.)
class AddressSpace {
 public:
  explicit AddressSpace(const std::vector<Mapping>& mappings);
  // That of a forked child: a copy, to be corrected by MatchFork().
  enum class ForkOf { kParent };
  AddressSpace(ForkOf, const AddressSpace& parent) ABSL_SHARED_LOCKS_REQUIRED(parent.lock_);
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;

  SharedMutex& map_changing_lock() const ABSL_LOCK_RETURNED(lock_) { return lock_; }

  // The volume page at `address`, if that is in a region or an alias.
  std::optional<PageIndex> PageAt(uint64_t address) const ABSL_SHARED_LOCKS_REQUIRED(lock_);

  // Where the first pages of a range are.
  struct Located {
    uint64_t address;
    PageCount count;  // at least 1; so many follow each other in memory, too
  };
  // The longest run from the front of `pages` that is mapped in one piece; none where the first
  // page is not mapped (any more). REQUIRES: `pages` is not empty.
  std::optional<Located> Locate(PageRange pages) const ABSL_SHARED_LOCKS_REQUIRED(lock_);

  // A piece of a region.
  struct Part {
    AddressRange range;
    PageIndex first;
    bool shared;  // as in Mapping

    PageRange pages() const { return {first, PageCount(range.length / kPageSize)}; }
  };
  // Calls `visit` with each part of `range` that is in a region, ascending by address.
  void ForEachPart(AddressRange range, absl::FunctionRef<void(const Part&)> visit) const
      ABSL_SHARED_LOCKS_REQUIRED(lock_);

  // Appends the regions that begin at `address` or behind it, ascending, `most` at most.
  void AppendRegions(uint64_t address, size_t most, std::vector<Part>* regions) const
      ABSL_SHARED_LOCKS_REQUIRED(lock_);

  // The piece of `part` that is within `range`. REQUIRES: they overlap.
  static Part Cut(const Part& part, AddressRange range);

  // Shared memory that was moved may still be mapped where it was (MREMAP_DONTUNMAP): until an
  // UNMAP says otherwise, its old addresses are aliases of the same pages.
  const std::vector<Part>& aliases() const ABSL_SHARED_LOCKS_REQUIRED(lock_) { return aliases_; }

  // The first run of pages at or behind `page` that is in a region; none behind the last.
  std::optional<PageRange> NextPages(PageIndex page) const ABSL_SHARED_LOCKS_REQUIRED(lock_);

  // Memory that the uffd served when it was handed over, but that no mapping named: there is no
  // page for it, and it must not read as zeros.
  void SetUndeclared(std::vector<AddressRange> ranges) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  bool IsUndeclared(uint64_t address) const ABSL_SHARED_LOCKS_REQUIRED(lock_);

  // What events do to the map.
  // The parts of `range` at which the target has registered memory now; all of it where that cannot
  // be told.
  using MappedParts = absl::FunctionRef<std::vector<AddressRange>(AddressRange range)>;
  // Vacates `range`: at each address the oldest that is there is dropped. One case is left in which
  // the events do not tell which memory was meant: something was moved there that nothing older was
  // seen to leave. Then `mapped_parts` decides, and what has memory stays ("ask_kernel"), until
  // something else is moved there: the UNMAP was about it, then ("believe_kept_unmap").
  void Unmap(AddressRange range, MappedParts mapped_parts) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  // Moves what is in [from, from + length) to `to`. Its UNMAP is yet to come. Length 0 tells of a
  // second mapping of shared memory (mremap with an old size of 0), whose length is not known: from
  // then on all memory that is in no region counts as undeclared. Returns whether pages were at
  // `to` of which no event has told yet where they went.
  bool Remap(uint64_t from, uint64_t to, uint64_t length) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  // Drops `range` for good, at all ages.
  void Forget(AddressRange range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);

  // As Uffd::IsRegistered(), of the child's.
  using IsRegistered = absl::FunctionRef<std::optional<bool>(AddressRange range)>;
  // The fork is one more change whose event may be read before or after those of others. So the
  // copy may have memory where the child has none, which had left before the fork, and lack what
  // left only after it. `is_registered` asks the kernel about an address of the child, whose
  // process does not run yet: what has come or gone at the wrong side of the fork is put back or
  // set aside.
  void MatchFork(IsRegistered is_registered) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  // The parent has read a REMAP after the fork: what was set aside from there has moved before it.
  void FollowParent(uint64_t from, uint64_t to, uint64_t length, IsRegistered is_registered)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  // Nothing more is to come of what happened before the fork. Where the parent has ended before all
  // of it was told, memory that is in no region may be some that has moved: it counts as
  // undeclared.
  void EndFork(bool all_told) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  // These are all parts of shared memory that there are, as the kernel has it, and nothing is
  // outstanding of what has happened before.
  void SetShared(const std::vector<Part>& parts) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  // A child waits for this space to be settled.
  void AwaitSettling() ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_) { awaited_ = true; }

  // To be called when the kernel did not hold off a fill: every event was read by then.
  void NoteSettled() const ABSL_SHARED_LOCKS_REQUIRED(lock_);
  // Whether something is set aside until that is known.
  bool unsettled() const ABSL_SHARED_LOCKS_REQUIRED(lock_) {
    return awaited_ || !older_.empty() || !recent_.empty() || !departed_.empty();
  }
  // Drops what was set aside, if NoteSettled() was called since, and returns whether it was. The
  // reader of events calls it first whenever it has taken the lock.
  bool Settle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);

  // UNMAP events that were about older memory than what was at their addresses.
  uint64_t late_unmaps() const { return late_unmaps_.load(std::memory_order_relaxed); }
  // Events that were about one of two ages of memory: the older was taken, but nothing tells.
  uint64_t ambiguous() const { return ambiguous_.load(std::memory_order_relaxed); }

  // All that is known, what is set aside included, as bytes; and an address space from what
  // Encode() has made, replacing all that is known here. False, and nothing is changed, for bytes
  // that it has not made.
  std::string Encode() const ABSL_SHARED_LOCKS_REQUIRED(lock_);
  bool Decode(absl::string_view bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);

  // Makes `range`, where no region is, one: the pages from `first` on, of private memory, are
  // behind it. REQUIRES: the space is settled.
  void Add(AddressRange range, PageIndex first) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);

  // Address ranges of all regions, ascending, and behind them of all aliases.
  std::vector<AddressRange> Ranges() const ABSL_SHARED_LOCKS_REQUIRED(lock_);
  size_t region_count() const ABSL_SHARED_LOCKS_REQUIRED(lock_) { return by_address_.size(); }

 private:
  using Region = Part;

  // Memory that was at its addresses before what is there now, or that has moved away from there:
  // an event that says so is yet to come.
  struct Older {
    AddressRange range;
    // Where in the volume; none where the memory has moved away, or is of no region.
    std::optional<Region> region;
    // It was unmapped, most probably; only if nothing comes here before, a REMAP may say otherwise.
    bool doubted = false;
    // Memory that is in no region, and has not moved away.
    bool empty = false;

    // Whether there is something that can move.
    bool IsMemory() const { return region.has_value() || empty; }
  };

  // The piece of `region` at [start, end).
  static Region Cut(const Region& region, uint64_t start, uint64_t end);
  static Older Cut(const Older& older, AddressRange range);
  // Removes what of `range` is known to be memory of no region, and returns it.
  std::vector<AddressRange> TakeEmpty(AddressRange range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  void DropOutstanding() ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  void DropAliases(AddressRange range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  void MoveAliases(AddressRange from, uint64_t to) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  void Insert(const Region& region) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  // Removes what is in `range` now and returns it.
  std::vector<Region> Extract(AddressRange range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  // Makes what is in `range` now older than whatever comes there. False if there is nothing.
  bool SetAside(AddressRange range, bool doubted = false) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  // Takes each part of `range` that is in something older that `wanted` accepts out of it, calls
  // `taken` with it, and returns what is left of `range`.
  std::vector<AddressRange> TakeOlder(AddressRange range,
                                      absl::FunctionRef<bool(const Older&)> wanted,
                                      absl::FunctionRef<void(const Older&)> taken)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  // Inserts what of `regions` is neither taken by address nor by page.
  void Restore(const std::vector<Region>& regions) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  bool HasPageIn(PageRange pages) const ABSL_SHARED_LOCKS_REQUIRED(lock_);
  bool HasRegionIn(AddressRange range) const ABSL_SHARED_LOCKS_REQUIRED(lock_);

  mutable SharedMutex lock_;
  // The newest regions twice: by start address, and by first volume page.
  std::map<uint64_t, Region> by_address_ ABSL_GUARDED_BY(lock_);
  std::map<PageIndex, Region> by_page_ ABSL_GUARDED_BY(lock_);
  std::vector<Older> older_ ABSL_GUARDED_BY(lock_);  // the oldest first
  // What was moved since the space was last known to be settled, and what was unmapped.
  struct Move {
    uint64_t from;
    AddressRange to;
  };
  std::vector<Move> recent_ ABSL_GUARDED_BY(lock_);
  std::vector<Region> departed_ ABSL_GUARDED_BY(lock_);
  bool awaited_ ABSL_GUARDED_BY(lock_) = false;
  // Parts of what was moved against which an UNMAP was read, but where the kernel had memory.
  std::vector<AddressRange> kept_ ABSL_GUARDED_BY(lock_);
  // Where memory is known to be that is in no region: MREMAP_DONTUNMAP has left it. It reads as
  // zeros, as whatever is not known does, but what comes after it must not be taken for it.
  std::vector<AddressRange> empty_ ABSL_GUARDED_BY(lock_);
  std::vector<Region> aliases_ ABSL_GUARDED_BY(lock_);
  std::vector<AddressRange> undeclared_ ABSL_GUARDED_BY(lock_);
  bool aliased_ ABSL_GUARDED_BY(lock_) = false;
  mutable std::atomic<bool> settled_ = false;
  std::atomic<uint64_t> late_unmaps_ = 0;
  std::atomic<uint64_t> ambiguous_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ADDRESS_SPACE_H_
