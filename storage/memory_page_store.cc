// SPDX-License-Identifier: Apache-2.0
#include "storage/memory_page_store.h"

#include <map>
#include <utility>

#include "proto/mutex.h"

namespace faultline {
namespace {

// Shared, so that a reader hands out a page without the lock, whatever becomes of it meanwhile.
using StoredPage = std::shared_ptr<const std::string>;
using Pages = std::map<PageIndex, StoredPage>;

struct Layer {
  Pages pages;
  uint64_t bytes = 0;  // of all encoded pages

  void Put(PageIndex page, StoredPage stored) {
    bytes += stored->size();
    auto [it, inserted] = pages.try_emplace(page, stored);
    if (inserted) return;
    bytes -= it->second->size();
    it->second = std::move(stored);
  }
  void Delete(PageRange range) {
    auto it = pages.lower_bound(range.first);
    while (it != pages.end() && it->first < range.end()) {
      bytes -= it->second->size();
      it = pages.erase(it);
    }
  }
};

StoredPage Copy(absl::string_view encoded) { return std::make_shared<const std::string>(encoded); }

class MemoryPageStore final : public PageStore {
 public:
  absl::Status Read(LayerId layer, PageRange range, Visitor visit) override;
  absl::Status Write(LayerId layer, const PageWrites& writes, Durability durability) override;
  absl::Status Sync() override { return absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<BulkLoad>> StartBulkLoad(LayerId layer) override;
  absl::Status DeleteLayer(LayerId layer) override;
  absl::StatusOr<uint64_t> StoredBytes(LayerId layer) override;
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadMeta() override;
  absl::Status WriteMeta(std::span<const MetaChange> changes) override;
  StoreStats Stats() override;

 private:
  class LayerLoad;

  std::vector<std::pair<PageIndex, StoredPage>> Collect(LayerId layer, PageRange range) const;

  mutable SharedMutex mu_;
  std::map<LayerId, Layer> layers_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, std::string> meta_ ABSL_GUARDED_BY(mu_);
};

class MemoryPageStore::LayerLoad final : public BulkLoad {
 public:
  LayerLoad(MemoryPageStore* store, LayerId layer) : store_(store), layer_(layer) {}

  absl::Status Put(PageIndex page, absl::string_view encoded) override {
    loaded_.Put(page, Copy(encoded));
    return absl::OkStatus();
  }
  absl::Status Commit() override {
    ExclusiveLock lock(store_->mu_);
    store_->layers_[layer_] = std::move(loaded_);
    return absl::OkStatus();
  }

 private:
  MemoryPageStore* const store_;
  const LayerId layer_;
  Layer loaded_;
};

std::vector<std::pair<PageIndex, StoredPage>> MemoryPageStore::Collect(LayerId layer,
                                                                       PageRange range) const {
  std::vector<std::pair<PageIndex, StoredPage>> found;
  SharedLock lock(mu_);
  const auto it = layers_.find(layer);
  if (it == layers_.end()) return found;
  const Pages& pages = it->second.pages;
  for (auto page = pages.lower_bound(range.first); page != pages.end(); ++page) {
    if (page->first >= range.end()) break;
    found.emplace_back(page->first, page->second);
  }
  return found;
}

absl::Status MemoryPageStore::Read(LayerId layer, PageRange range, Visitor visit) {
  for (const auto& [page, stored] : Collect(layer, range)) {
    if (absl::Status status = visit(page, *stored); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status MemoryPageStore::Write(LayerId layer, const PageWrites& writes, Durability) {
  std::vector<StoredPage> copies;
  copies.reserve(writes.puts.size());
  for (const PageWrites::Put& put : writes.puts) copies.push_back(Copy(put.encoded));

  ExclusiveLock lock(mu_);
  Layer& target = layers_[layer];
  for (const PageRange range : writes.deletes) target.Delete(range);
  for (size_t i = 0; i < copies.size(); ++i) {
    target.Put(writes.puts[i].page, std::move(copies[i]));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<BulkLoad>> MemoryPageStore::StartBulkLoad(LayerId layer) {
  return std::make_unique<LayerLoad>(this, layer);
}

absl::Status MemoryPageStore::DeleteLayer(LayerId layer) {
  Layer deleted;  // freed after the lock
  ExclusiveLock lock(mu_);
  if (const auto it = layers_.find(layer); it != layers_.end()) {
    std::swap(deleted, it->second);
    layers_.erase(it);
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> MemoryPageStore::StoredBytes(LayerId layer) {
  SharedLock lock(mu_);
  const auto it = layers_.find(layer);
  return it == layers_.end() ? 0 : it->second.bytes;
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> MemoryPageStore::ReadMeta() {
  SharedLock lock(mu_);
  return std::vector<std::pair<std::string, std::string>>(meta_.begin(), meta_.end());
}

absl::Status MemoryPageStore::WriteMeta(std::span<const MetaChange> changes) {
  ExclusiveLock lock(mu_);
  for (const MetaChange& change : changes) {
    if (change.value.has_value()) {
      meta_[change.key] = *change.value;
    } else {
      meta_.erase(change.key);
    }
  }
  return absl::OkStatus();
}

StoreStats MemoryPageStore::Stats() {
  StoreStats stats;
  SharedLock lock(mu_);
  for (const auto& [id, layer] : layers_) stats.stored_bytes += layer.bytes;
  return stats;
}

}  // namespace

std::unique_ptr<PageStore> NewMemoryPageStore() { return std::make_unique<MemoryPageStore>(); }

}  // namespace faultline
