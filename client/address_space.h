// SPDX-License-Identifier: Apache-2.0
//
// AddressSpace: all regions of one uffd, that is, which volume page is behind which address of the
// target, now. Pages are known by their place in the volume; addresses only map to them, so that a
// page that is on its way lands where its memory has moved to.
#ifndef FAULTLINE_CLIENT_ADDRESS_SPACE_H_
#define FAULTLINE_CLIENT_ADDRESS_SPACE_H_

#include <absl/functional/function_ref.h>

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "client/attachment.h"
#include "client/uffd/uffd.h"
#include "proto/mutex.h"
#include "proto/page.h"

namespace faultline {

// Guarded by its map-changing lock, which has the role that map_changing_lock has in the kernel
// (fs/userfaultfd.c): a fill holds it shared from looking an address up until its ioctl has
// returned; the reader of events holds it exclusively across read() *and* the change of the map.
// An event that is still unread keeps the kernel from filling, so no fill ever acts on an address
// that has changed its meaning. (Taking the lock only after read() measured 4 to 28 % stale pages.)
class AddressSpace {
 public:
  explicit AddressSpace(const std::vector<Mapping>& mappings);
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;

  SharedMutex& map_changing_lock() ABSL_LOCK_RETURNED(lock_) { return lock_; }

  // The volume page at `address`, if that is in a region.
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

  // What events do to the map.
  // Drops whatever is in `range`; regions that reach out of it are cut.
  void Unmap(AddressRange range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  // Moves what is in [from, from + length) to `to`; drops what was there.
  void Remap(uint64_t from, uint64_t to, uint64_t length) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);

  // Address ranges of all regions, ascending.
  std::vector<AddressRange> Ranges() const ABSL_SHARED_LOCKS_REQUIRED(lock_);
  size_t region_count() const ABSL_SHARED_LOCKS_REQUIRED(lock_) { return by_address_.size(); }

 private:
  using Region = Part;

  // The piece of `region` at [start, end).
  static Region Cut(const Region& region, uint64_t start, uint64_t end);
  void Insert(const Region& region) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);
  // Removes what is in `range` and returns it.
  std::vector<Region> Extract(AddressRange range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_);

  mutable SharedMutex lock_;
  // The same regions twice: by start address, and by first volume page.
  std::map<uint64_t, Region> by_address_ ABSL_GUARDED_BY(lock_);
  std::map<PageIndex, Region> by_page_ ABSL_GUARDED_BY(lock_);
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ADDRESS_SPACE_H_
