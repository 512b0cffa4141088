// SPDX-License-Identifier: Apache-2.0
//
// PageTable: what the agent knows of each volume page of one address space. One byte for each page,
// and memory only for those that were touched.
#ifndef FAULTLINE_CLIENT_PAGE_TABLE_H_
#define FAULTLINE_CLIENT_PAGE_TABLE_H_

#include <absl/status/statusor.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "proto/page.h"

namespace faultline {

// The kernel's page table is the truth and this a hint: every fault ends in an ioctl whatever is
// written here. Only kZero and kPoisoned decide what a page is filled with.
enum class PageState : uint8_t {
  kAbsent = 0,  // its content is at the source
  kPresent,     // filled
  kZero,        // discarded by the target: reads as zero, whatever the source holds
  kPoisoned,    // could not be had: access gets SIGBUS
};

// The legal changes of state; everything else is a bug:
//   absent -> present (filled), zero (discarded), poisoned
//   present -> present (filled by someone else before), zero
//   zero -> present (filled with zeros), zero, poisoned
//   poisoned -> present (a late fill heals it), zero, poisoned
bool IsLegalChange(PageState from, PageState to);

// Thread-safe and lock-free. Changes of kAbsent and kPresent to kZero are made under the exclusive
// side of the map-changing lock, fills under its shared side.
class PageTable {
 public:
  // For the volume pages of `range`. RESOURCE_EXHAUSTED where there is no address space for it.
  static absl::StatusOr<std::unique_ptr<PageTable>> Create(PageRange range);
  ~PageTable();
  PageTable(const PageTable&) = delete;
  PageTable& operator=(const PageTable&) = delete;

  // REQUIRES of all: the page is in range().
  PageState Get(PageIndex page) const;
  // A change that is not legal leaves the page as it is, and returns false.
  bool Set(PageIndex page, PageState state);
  // The pages from the front of `pages` that are in the same state as the first, in number.
  PageCount RunOfSameState(PageRange pages) const;

  PageRange range() const { return range_; }
  PageCount CountOf(PageState state) const;  // not for kAbsent

 private:
  using Cell = std::atomic<PageState>;
  static_assert(sizeof(Cell) == 1 && Cell::is_always_lock_free);

  PageTable(PageRange range, Cell* cells) : range_(range), cells_(cells) {}
  Cell& cell(PageIndex page) const { return cells_[(page - range_.first).raw()]; }

  const PageRange range_;
  Cell* const cells_;  // range_.count of them, mapped; fresh memory is kAbsent
  std::atomic<uint64_t> counts_[4] = {};
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_PAGE_TABLE_H_
