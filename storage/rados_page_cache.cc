// SPDX-License-Identifier: Apache-2.0
#include "storage/rados_page_cache.h"

#include <utility>

namespace faultline {
namespace {

using Cache = rocksdb::Cache;

// A page that the layer does not hold is cached as an empty one.
struct Key {
  Key(uint64_t layer, PageIndex page) : parts{layer, page.raw()} {}
  operator rocksdb::Slice() const {  // NOLINT: as where it is used
    return {reinterpret_cast<const char*>(parts), sizeof parts};
  }
  uint64_t parts[2];
};

void DeletePage(const rocksdb::Slice&, void* value) { delete static_cast<std::string*>(value); }

}  // namespace

void RadosPageCache::Pages::Release() {
  for (const auto& [page, handle] : found_) cache_->Release(handle);
  found_.clear();
}

absl::Status RadosPageCache::Pages::Visit(PageStore::Visitor visit) const {
  for (const auto& [page, handle] : found_) {
    const auto& encoded = *static_cast<const std::string*>(cache_->Value(handle));
    if (encoded.empty()) continue;
    if (absl::Status status = visit(page, encoded); !status.ok()) return status;
  }
  return absl::OkStatus();
}

RadosPageCache::RadosPageCache(uint64_t bytes) : cache_(rocksdb::NewLRUCache(bytes)) {}

bool RadosPageCache::Find(uint64_t layer, PageRange range, Pages* pages, uint64_t* ticket) {
  pages->cache_ = cache_.get();
  Slot& slot = SlotOf(layer, ExtentOf(range.first));
  bool all = false;
  {
    MutexLock lock(slot.mu);
    *ticket = slot.writes;
    all = slot.writers == 0;
    for (PageIndex page = range.first; all && page < range.end(); ++page) {
      Cache::Handle* const handle = cache_->Lookup(Key(layer, page));
      all = handle != nullptr;
      if (all) pages->found_.emplace_back(page, handle);
    }
  }
  if (all) {
    hits_.fetch_add(range.count.raw(), std::memory_order_relaxed);
  } else {
    pages->Release();
  }
  return all;
}

void RadosPageCache::Add(uint64_t layer, PageRange range, uint64_t ticket, Read read) {
  misses_.fetch_add(range.count.raw(), std::memory_order_relaxed);
  Slot& slot = SlotOf(layer, ExtentOf(range.first));
  MutexLock lock(slot.mu);
  if (slot.writers > 0 || slot.writes != ticket) return;
  auto next = read.begin();
  for (PageIndex page = range.first; page < range.end(); ++page) {
    const bool there = next != read.end() && next->first == page;
    Insert(layer, page, there ? std::move((next++)->second) : std::string());
  }
}

void RadosPageCache::Insert(uint64_t layer, PageIndex page, std::string encoded) {
  auto* const value = new std::string(std::move(encoded));
  // Never fails, as the limit is none that is strict; and deletes what it does not keep.
  cache_->Insert(Key(layer, page), value, sizeof(*value) + value->capacity(), &DeletePage)
      .PermitUncheckedError();
}

RadosPageCache::Write::Write(RadosPageCache* cache, uint64_t layer, ExtentIndex extent,
                             const ExtentChange& change)
    : cache_(cache), layer_(layer), extent_(extent), change_(change) {
  Slot& slot = cache_->SlotOf(layer, extent);
  MutexLock lock(slot.mu);
  ++slot.writers;
  ++slot.writes;
  for (const PageRange& range : change.deletes) {
    const PageRange pages = range.Intersect(PagesOf(extent));
    for (PageIndex page = pages.first; page < pages.end(); ++page) {
      cache_->cache_->Erase(Key(layer, page));
    }
  }
  for (const PageWrites::Put* put : change.puts) cache_->cache_->Erase(Key(layer, put->page));
}

RadosPageCache::Write::~Write() {
  Slot& slot = cache_->SlotOf(layer_, extent_);
  MutexLock lock(slot.mu);
  --slot.writers;
  ++slot.writes;
  if (!done_) return;
  for (const PageWrites::Put* put : change_.puts) {
    cache_->Insert(layer_, put->page, std::string(put->encoded));
  }
}

}  // namespace faultline
