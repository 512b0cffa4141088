// SPDX-License-Identifier: Apache-2.0
//
// RadosPageCache: pages, encoded, that this process has read from the pool or written to it, up to
// a number of bytes. What a layer holds is cached under the number of the RadosLayer through which
// it was read: whoever forgets that object, as it may be true no more, has forgotten the pages too.
// Whether that is so is not known here (rados_lease.h).
#ifndef FAULTLINE_STORAGE_RADOS_PAGE_CACHE_H_
#define FAULTLINE_STORAGE_RADOS_PAGE_CACHE_H_

#include <absl/status/status.h>
#include <rocksdb/cache.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "proto/mutex.h"
#include "storage/page_store.h"
#include "storage/rados_layer.h"
#include "storage/rados_write.h"

namespace faultline {

// Thread-safe.
class RadosPageCache {
 public:
  // What was cached of a call's pages, ascending. They stay until this goes; before the cache does.
  class Pages {
   public:
    Pages() = default;
    ~Pages() { Release(); }
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;

    // Calls `visit` for each page that is held.
    absl::Status Visit(PageStore::Visitor visit) const;

   private:
    friend class RadosPageCache;
    void Release();

    rocksdb::Cache* cache_ = nullptr;
    std::vector<std::pair<PageIndex, rocksdb::Cache::Handle*>> found_;
  };

  // What is done to one extent's pages while this lives is not cached; nor what others read of it,
  // as it may be older. REQUIRES: the extent's lock is held.
  class Write {
   public:
    Write(RadosPageCache* cache, uint64_t layer, ExtentIndex extent, const ExtentChange& change);
    ~Write();
    Write(const Write&) = delete;
    Write& operator=(const Write&) = delete;
    // It was done: what was put is cached from here on.
    void Commit() { done_ = true; }

   private:
    RadosPageCache* const cache_;
    const uint64_t layer_;
    const ExtentIndex extent_;
    const ExtentChange& change_;
    bool done_ = false;
  };

  explicit RadosPageCache(uint64_t bytes);

  // Sets `pages`, which is empty, where all of `range`, which is in one extent, is cached, as it
  // was at one moment of this call. Else sets `ticket`: what is read from the pool from here on may
  // be added by that.
  bool Find(uint64_t layer, PageRange range, Pages* pages, uint64_t* ticket);
  // What was read of `range` since, missed: each page that is there, ascending. Nothing is added
  // where the extent was written meanwhile.
  using Read = std::vector<std::pair<PageIndex, std::string>>;
  void Add(uint64_t layer, PageRange range, uint64_t ticket, Read read);

  uint64_t hits() const { return hits_.load(std::memory_order_relaxed); }      // pages
  uint64_t misses() const { return misses_.load(std::memory_order_relaxed); }  // pages
  uint64_t bytes() const { return cache_->GetUsage(); }

 private:
  // Of neighbouring extents; never held while the pool is asked.
  struct Slot {
    Mutex mu;
    uint64_t writers ABSL_GUARDED_BY(mu) = 0;
    uint64_t writes ABSL_GUARDED_BY(mu) = 0;  // that ever began, and those that ended
  };

  Slot& SlotOf(uint64_t layer, ExtentIndex extent) {
    return slots_[ExtentLocks::IndexOf(layer, extent)];
  }
  void Insert(uint64_t layer, PageIndex page, std::string encoded);

  const std::shared_ptr<rocksdb::Cache> cache_;
  std::array<Slot, ExtentLocks::kLocks> slots_;
  std::atomic<uint64_t> hits_ = 0, misses_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_RADOS_PAGE_CACHE_H_
