// SPDX-License-Identifier: Apache-2.0
#include "client/page_table.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <errno.h>
#include <sys/mman.h>

namespace faultline {

bool IsLegalChange(PageState from, PageState to) {
  switch (to) {
    case PageState::kAbsent:
      return from == PageState::kAbsent;
    case PageState::kPresent:
    case PageState::kZero:
      return true;
    case PageState::kPoisoned:
      return from != PageState::kPresent;
  }
  return false;
}

absl::StatusOr<std::unique_ptr<PageTable>> PageTable::Create(PageRange range) {
  void* cells = mmap(nullptr, range.count.raw(), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (cells == MAP_FAILED) {
    return absl::ResourceExhaustedError(absl::StrCat("no address space for the page table of ",
                                                     range.count.raw(), " pages: errno ", errno));
  }
  // Huge pages would make the first touched byte cost 2 MiB.
  madvise(cells, range.count.raw(), MADV_NOHUGEPAGE);
  return std::unique_ptr<PageTable>(new PageTable(range, static_cast<Cell*>(cells)));
}

PageTable::~PageTable() { munmap(cells_, range_.count.raw()); }

PageState PageTable::Get(PageIndex page) const {
  return cell(page).load(std::memory_order_relaxed);
}

bool PageTable::Set(PageIndex page, PageState state) {
  PageState old = Get(page);
  do {
    if (!IsLegalChange(old, state)) return false;
    if (old == state) return true;
  } while (!cell(page).compare_exchange_weak(old, state, std::memory_order_relaxed));
  counts_[static_cast<size_t>(old)].fetch_sub(1, std::memory_order_relaxed);
  counts_[static_cast<size_t>(state)].fetch_add(1, std::memory_order_relaxed);
  return true;
}

PageCount PageTable::RunOfSameState(PageRange pages) const {
  const PageState state = Get(pages.first);
  PageIndex page = pages.first;
  while (page < pages.end() && Get(page) == state) ++page;
  return page - pages.first;
}

PageCount PageTable::CountOf(PageState state) const {
  return PageCount(counts_[static_cast<size_t>(state)].load(std::memory_order_relaxed));
}

}  // namespace faultline
