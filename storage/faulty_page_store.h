// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_STORAGE_FAULTY_PAGE_STORE_H_
#define FAULTLINE_STORAGE_FAULTY_PAGE_STORE_H_

#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "proto/mutex.h"
#include "storage/page_store.h"

namespace faultline {

// A store around another one that fails on purpose, for tests. What fails is drawn from the seed,
// so that one thread doing the same again meets the same failures. Thread-safe.
class FaultyPageStore final : public PageStore {
 public:
  struct Faults {
    uint64_t seed = 1;
    // Chances, from 0 to 1.
    double read_error = 0;   // of a Read() to say UNAVAILABLE before its first page
    double write_error = 0;  // of a change to say UNAVAILABLE and do nothing
    double corruption = 0;   // of a page that is handed out to have one flipped bit
  };

  FaultyPageStore(std::unique_ptr<PageStore> store, const Faults& faults)
      : store_(std::move(store)), faults_(faults), random_(faults.seed) {}

  // From here on every change, but the removal of layers and metadata, says RESOURCE_EXHAUSTED.
  void set_disk_full(bool full) { disk_full_ = full; }

  absl::Status Read(LayerId layer, PageRange range, Visitor visit) override {
    if (Draw(faults_.read_error)) return absl::UnavailableError("injected read error");
    return store_->Read(layer, range, [&](PageIndex page, absl::string_view encoded) {
      if (!Draw(faults_.corruption)) return visit(page, encoded);
      std::string damaged(encoded);
      const uint64_t bit = DrawBelow(damaged.size() * 8);
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
      return visit(page, damaged);
    });
  }

  absl::Status Write(LayerId layer, const PageWrites& writes, Durability durability) override {
    if (absl::Status status = ChangeError(); !status.ok()) return status;
    return store_->Write(layer, writes, durability);
  }

  absl::Status Sync() override {
    if (absl::Status status = ChangeError(); !status.ok()) return status;
    return store_->Sync();
  }

  absl::StatusOr<std::unique_ptr<BulkLoad>> StartBulkLoad(LayerId layer) override {
    if (absl::Status status = ChangeError(); !status.ok()) return status;
    auto load = store_->StartBulkLoad(layer);
    if (!load.ok()) return load.status();
    return std::make_unique<FaultyBulkLoad>(this, *std::move(load));
  }

  absl::Status DeleteLayer(LayerId layer) override {
    if (Draw(faults_.write_error)) return absl::UnavailableError("injected write error");
    return store_->DeleteLayer(layer);
  }

  absl::StatusOr<uint64_t> StoredBytes(LayerId layer) override {
    return store_->StoredBytes(layer);
  }

  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadMeta() override {
    if (Draw(faults_.read_error)) return absl::UnavailableError("injected read error");
    return store_->ReadMeta();
  }

  absl::Status WriteMeta(std::span<const MetaChange> changes) override {
    bool only_removals = true;
    for (const MetaChange& change : changes) only_removals &= !change.value.has_value();
    if (!only_removals && disk_full_) return DiskFull();
    if (Draw(faults_.write_error)) return absl::UnavailableError("injected write error");
    return store_->WriteMeta(changes);
  }

  StoreStats Stats() override { return store_->Stats(); }
  bool read_only() const override { return store_->read_only(); }
  std::optional<RawImage> raw_image() const override { return store_->raw_image(); }

 private:
  class FaultyBulkLoad final : public BulkLoad {
   public:
    FaultyBulkLoad(FaultyPageStore* store, std::unique_ptr<BulkLoad> load)
        : store_(store), load_(std::move(load)) {}
    absl::Status Put(PageIndex page, absl::string_view encoded) override {
      if (absl::Status status = store_->ChangeError(); !status.ok()) return status;
      return load_->Put(page, encoded);
    }
    absl::Status Commit() override {
      if (absl::Status status = store_->ChangeError(); !status.ok()) return status;
      return load_->Commit();
    }

   private:
    FaultyPageStore* const store_;
    const std::unique_ptr<BulkLoad> load_;
  };

  static absl::Status DiskFull() {
    return absl::ResourceExhaustedError("the disk is full (injected); free some space");
  }

  absl::Status ChangeError() {
    if (disk_full_) return DiskFull();
    if (Draw(faults_.write_error)) return absl::UnavailableError("injected write error");
    return absl::OkStatus();
  }

  bool Draw(double chance) {
    if (chance <= 0) return false;
    MutexLock lock(mu_);
    return std::uniform_real_distribution<double>(0, 1)(random_) < chance;
  }

  uint64_t DrawBelow(uint64_t end) {
    MutexLock lock(mu_);
    return std::uniform_int_distribution<uint64_t>(0, end - 1)(random_);
  }

  const std::unique_ptr<PageStore> store_;
  const Faults faults_;
  std::atomic<bool> disk_full_ = false;
  Mutex mu_;
  std::mt19937_64 random_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_FAULTY_PAGE_STORE_H_
