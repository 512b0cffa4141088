// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_JOURNAL_PAGE_BITMAP_H_
#define FAULTLINE_CLIENT_JOURNAL_PAGE_BITMAP_H_

#include <absl/status/statusor.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "client/journal/shared_file.h"

namespace faultline {

// One bit for each page of an attachment, numbered from 0, in a file: set once the page has its
// content from elsewhere than the source (it was filled, or discarded), and never cleared: the
// source's content is never to be put there again. Thread-safe; a store, but no system call.
class PageBitmap {
 public:
  static constexpr size_t FileSize(uint64_t pages) {
    return std::max<size_t>(1, pages / kWordBits + (pages % kWordBits != 0)) * sizeof(uint64_t);
  }

  // Of pages whose file was made with FileSize().
  explicit PageBitmap(SharedFile file) : file_(std::move(file)) {}

  bool Get(uint64_t page) const {
    return (word(page / kWordBits).load(std::memory_order_relaxed) >> page % kWordBits & 1) != 0;
  }

  void Set(uint64_t first, uint64_t count) {
    while (count > 0) {
      const uint64_t from = first % kWordBits;
      const uint64_t here = std::min(count, kWordBits - from);
      const uint64_t mask = ~uint64_t{0} >> (kWordBits - here) << from;
      std::atomic_ref<uint64_t> bits = word(first / kWordBits);
      // Mostly it is there already where the page is filled once more.
      if ((bits.load(std::memory_order_relaxed) & mask) != mask) {
        bits.fetch_or(mask, std::memory_order_relaxed);
      }
      first += here;
      count -= here;
    }
  }

  // Calls `visit(first, count)` with each run of set bits below `pages`.
  template <typename Visit>
  void ForEachRun(uint64_t pages, Visit visit) const {
    for (uint64_t page = 0; page < pages;) {
      if (page % kWordBits == 0 && word(page / kWordBits).load(std::memory_order_relaxed) == 0) {
        page += kWordBits;
        continue;
      }
      const uint64_t first = page;
      while (page < pages && Get(page)) ++page;
      if (page > first) {
        visit(first, page - first);
      } else {
        ++page;
      }
    }
  }

 private:
  static constexpr uint64_t kWordBits = 64;

  std::atomic_ref<uint64_t> word(uint64_t index) const {
    return std::atomic_ref<uint64_t>(reinterpret_cast<uint64_t*>(file_.bytes().data())[index]);
  }

  const SharedFile file_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_JOURNAL_PAGE_BITMAP_H_
