// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_STORAGE_FORWARDING_PAGE_STORE_H_
#define FAULTLINE_STORAGE_FORWARDING_PAGE_STORE_H_

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "storage/page_store.h"

namespace faultline {

// Passes everything on to another store: as it is, one store for several owners after each other;
// as a base, a decorator that only has to say what it changes. For tests. Thread-safe as the store.
class ForwardingPageStore : public PageStore {
 public:
  explicit ForwardingPageStore(std::shared_ptr<PageStore> store) : store_(std::move(store)) {}

  absl::Status Read(LayerId layer, PageRange range, Visitor visit) override {
    return store_->Read(layer, range, visit);
  }
  absl::Status Write(LayerId layer, const PageWrites& writes, Durability durability) override {
    return store_->Write(layer, writes, durability);
  }
  absl::Status Sync() override { return store_->Sync(); }
  absl::StatusOr<std::unique_ptr<BulkLoad>> StartBulkLoad(LayerId layer) override {
    return store_->StartBulkLoad(layer);
  }
  absl::Status DeleteLayer(LayerId layer) override { return store_->DeleteLayer(layer); }
  absl::StatusOr<uint64_t> StoredBytes(LayerId layer) override {
    return store_->StoredBytes(layer);
  }
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadMeta() override {
    return store_->ReadMeta();
  }
  absl::Status WriteMeta(std::span<const MetaChange> changes) override {
    return store_->WriteMeta(changes);
  }
  bool shared() const override { return store_->shared(); }
  absl::StatusOr<bool> MetaIsCurrent() override { return store_->MetaIsCurrent(); }
  bool MetaIsKnownToBeCurrent() override { return store_->MetaIsKnownToBeCurrent(); }
  absl::StatusOr<std::optional<std::string>> ReadMetaKey(absl::string_view key) override {
    return store_->ReadMetaKey(key);
  }
  absl::Status Own(uint64_t volume, std::span<const LayerId> layers) override {
    return store_->Own(volume, layers);
  }
  uint64_t Ownership(LayerId layer) override { return store_->Ownership(layer); }
  void Disown(uint64_t volume) override { store_->Disown(volume); }
  void ForgetVolume(uint64_t volume) override { store_->ForgetVolume(volume); }
  void NoteLayers(std::span<const LayerId> layers, bool frozen) override {
    store_->NoteLayers(layers, frozen);
  }
  StoreStats Stats() override { return store_->Stats(); }
  bool read_only() const override { return store_->read_only(); }
  std::optional<RawImage> raw_image() const override { return store_->raw_image(); }

 private:
  const std::shared_ptr<PageStore> store_;
};

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_FORWARDING_PAGE_STORE_H_
