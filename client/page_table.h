// SPDX-License-Identifier: Apache-2.0
//
// PageTable: what the agent knows of each volume page of one address space. One byte for each page,
// and memory only for chunks of 4096 pages in which some differ.
#ifndef FAULTLINE_CLIENT_PAGE_TABLE_H_
#define FAULTLINE_CLIENT_PAGE_TABLE_H_

#include <absl/status/statusor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "client/journal/far_journal.h"
#include "client/journal/taken_pages.h"
#include "proto/mutex.h"
#include "proto/page.h"

namespace faultline {

// The kernel's page table is the truth: every fault ends in an ioctl whatever is written here. What
// is written here decides what that ioctl fills with.
enum class PageState : uint8_t {
  kAbsent = 0,  // its content is at the source
  kPresent,     // filled; where it faults again, it was discarded since: zero
  kZero,      // discarded by the target: reads as zero, whatever the source holds; or not touched,
              // and a hole there
  kPoisoned,  // could not be had: access gets SIGBUS
  // Of far memory only (evict/local_memory.h):
  kEvicting,  // being taken out of memory, or not
  kStaged,    // taken out, and kept by the agent
};
inline constexpr int kPageStates = 6;
using PageStateCounts = std::array<uint64_t, kPageStates>;

// Whether a page in this state is fetched when it faults; the others are filled with what is here:
// zeros, or what is staged.
constexpr bool IsFetched(PageState state) {
  return state == PageState::kAbsent || state == PageState::kPoisoned;
}

// The legal changes of state; everything else is a bug:
//   absent -> present (filled), zero (discarded, a hole), poisoned
//   present -> present (filled by someone else before), zero
//   zero -> present (filled with zeros), zero, poisoned
//   poisoned -> present (a late fill heals it), zero, poisoned
//   present -> evicting -> present, zero, staged; staged -> present, zero, absent
bool IsLegalChange(PageState from, PageState to);

// What is filled of shared memory is there for a parent and its forked children at once, and can be
// taken away without an event (fallocate, which punches a hole) or with one that only another of
// them is told. So whoever fills holds the lock of the block that the pages are in from before it
// looks at their state until it has changed that; and whoever reads events and applies them holds
// all. Without, a fill that has looked at the state of a page, and is preempted then, would bring
// back what was touched, written and punched meanwhile. Taken before the map-changing lock.
class SharedFillLocks {
 public:
  // Holds the lock of the block that `page` is in, where `locks` is not null.
  class Block {
   public:
    Block(SharedFillLocks* locks, PageIndex page);
    ~Block();
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;

    // So many pages, `page` the first, are covered.
    PageCount pages() const { return pages_; }

   private:
    Mutex* const lock_;
    const PageCount pages_;
  };

  // Holds all of `locks`, where that is not null.
  class All {
   public:
    explicit All(SharedFillLocks* locks);
    ~All();
    All(const All&) = delete;
    All& operator=(const All&) = delete;

   private:
    SharedFillLocks* const locks_;
  };

 private:
  static constexpr uint64_t kBlock = 64;  // pages, aligned
  std::array<Mutex, 16> locks_;
};

// Thread-safe. Get is lock-free, and so is Set but for the first change of a chunk, and the first
// after a Clone().
//
// States are read and changed while the map-changing lock of the address space is held on either
// side, and Clone() while it is held exclusively; range() and CountOf() need no lock. Pages of
// shared memory belong to parent and child together after a fork, so their state is one for all
// clones; the others are copied when one of the clones first changes a page near them.
class PageTable {
 public:
  // For the volume pages of `range`; `shared` are those of shared memory (ascending, disjoint,
  // within `range`). RESOURCE_EXHAUSTED where there is no address space for it.
  //
  // Where `taken` is not null, the page at `range.first` is its first: pages that become present or
  // zero are noted there too, and those that are noted already are taken for present. A clone's
  // pages are not noted, but for those of shared memory.
  static absl::StatusOr<std::unique_ptr<PageTable>> Create(
      PageRange range, std::vector<PageRange> shared, std::shared_ptr<TakenPages> taken = nullptr);
  ~PageTable();
  PageTable(const PageTable&) = delete;
  PageTable& operator=(const PageTable&) = delete;

  // Notes in `far`, too, from here on, which pages have become present, zero or the source's alone.
  // A clone's pages are not noted. To be called before anybody else has the table.
  void KeepIn(std::shared_ptr<FarJournal> far);

  // The table of a forked child, with every page in the state that it has here. Takes time by the
  // number of chunks in use (16 MiB of memory each), not by the number of pages.
  // RESOURCE_EXHAUSTED as Create.
  absl::StatusOr<std::unique_ptr<PageTable>> Clone();

  // REQUIRES of all: the page is in range().
  PageState Get(PageIndex page) const;
  // A change that is not legal leaves the page as it is, and returns false.
  bool Set(PageIndex page, PageState state);
  // Set(), where the page is in state `from`; false where it is in another.
  bool Exchange(PageIndex page, PageState from, PageState to);
  // Set() for each of `pages`, much faster; pages whose change is not legal stay as they are.
  void SetAll(PageRange pages, PageState state);
  // To be held from before pages from `first` on, all in one range of shared memory or outside of
  // them, are filled with the source's content until they are set present.
  TakenPages::FillNote NoteFill(PageIndex first);
  // The pages from the front of `pages` that are in the same state as the first, in number: at
  // least 1, also where another thread changes the first meanwhile. Fast over chunks that were
  // never changed. REQUIRES: `pages` is not empty.
  PageCount RunOfSameState(PageRange pages) const;

  // Null where no range is shared; otherwise one for all clones.
  SharedFillLocks* fill_locks() const;

  // Adds to `*counts` how many of `pages` are in each state; together they are all of them. Where
  // pages differ near each other, only every `stride`-th group of eight is looked at, for all; 1 is
  // exact. At most 512 such groups to 4096 pages: some 2 us. REQUIRES: `stride` > 0.
  void AddStates(PageRange pages, uint64_t stride, PageStateCounts* counts) const;

  PageRange range() const { return range_; }
  // Pages of shared memory count in every clone. Not for kAbsent.
  PageCount CountOf(PageState state) const;

 private:
  class Directory;

  PageTable(PageRange range, std::vector<PageRange> shared_ranges, std::unique_ptr<Directory> own,
            std::shared_ptr<Directory> shared);

  // The front of `pages` that is in one directory, and that directory.
  struct Part {
    Directory* directory;
    PageRange pages;
  };
  Part FirstPart(PageRange pages) const;
  // Where in its directory a page is.
  uint64_t Slot(PageIndex page) const { return (page - range_.first).raw(); }

  const PageRange range_;
  const std::vector<PageRange> shared_ranges_;
  const std::unique_ptr<Directory> own_;
  const std::shared_ptr<Directory> shared_;  // with all clones; null where no range is shared
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_PAGE_TABLE_H_
