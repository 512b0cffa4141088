// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_FAULT_STAGED_PAGES_H_
#define FAULTLINE_CLIENT_FAULT_STAGED_PAGES_H_

#include <absl/container/flat_hash_map.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "proto/page.h"

namespace faultline {

// Of an attachment that prefetches: 4 MiB of memory.
inline constexpr size_t kMaxStagedPages = 1024;

// Pages that were fetched and that wait, in the agent, to be touched. Holds a fixed number; the
// oldest makes room for a new one. Not thread-safe.
class StagedPages {
 public:
  // Takes capacity * kPageSize bytes of memory, as they are first used. REQUIRES: capacity > 0.
  explicit StagedPages(size_t capacity)
      : capacity_(capacity),
        slots_(new Slot[capacity]),
        bytes_(new std::byte[capacity * kPageSize]) {
    slot_of_.reserve(capacity);
  }

  bool Has(PageIndex page) const { return slot_of_.contains(page.raw()); }
  size_t size() const { return slot_of_.size(); }

  std::vector<PageIndex> Pages() const {
    std::vector<PageIndex> pages;
    pages.reserve(slot_of_.size());
    for (const auto& [page, slot] : slot_of_) pages.emplace_back(page);
    return pages;
  }

  // Keeps a copy of `bytes` (kPageSize of them; null: zeros) as `page`, unless that is here
  // already. Returns the page that had to make room, if one had to: nobody has touched it.
  std::optional<PageIndex> Put(PageIndex page, const std::byte* bytes) {
    const size_t at = next_;
    if (!slot_of_.try_emplace(page.raw(), at).second) return std::nullopt;
    next_ = (next_ + 1) % capacity_;
    Slot& slot = slots_[at];
    std::optional<PageIndex> dropped;
    if (slot.used) {
      dropped = slot.page;
      slot_of_.erase(slot.page.raw());
    }
    slot = {page, true, bytes == nullptr};
    if (bytes != nullptr) memcpy(BytesOf(at), bytes, kPageSize);
    return dropped;
  }

  // The content of a page that was here: null for zeros. Valid until the next Put().
  struct Taken {
    const std::byte* bytes;
  };
  // Takes `page` out, if it is here.
  std::optional<Taken> Take(PageIndex page) {
    const auto found = slot_of_.find(page.raw());
    if (found == slot_of_.end()) return std::nullopt;
    const size_t at = found->second;
    slot_of_.erase(found);
    slots_[at].used = false;
    return Taken{slots_[at].zero ? nullptr : BytesOf(at)};
  }

 private:
  struct Slot {
    PageIndex page;
    bool used = false;
    bool zero = false;
  };

  std::byte* BytesOf(size_t slot) { return bytes_.get() + slot * kPageSize; }

  const size_t capacity_;
  const std::unique_ptr<Slot[]> slots_;
  const std::unique_ptr<std::byte[]> bytes_;  // left uninitialised: memory comes as it is used
  absl::flat_hash_map<uint64_t, size_t> slot_of_;
  size_t next_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_STAGED_PAGES_H_
