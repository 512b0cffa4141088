// SPDX-License-Identifier: Apache-2.0
//
// RadosLayer: which extents a layer has. Known in memory, so that nobody asks the pool for what is
// not there, and kept in the object "l.LAYER".
#ifndef FAULTLINE_STORAGE_RADOS_LAYER_H_
#define FAULTLINE_STORAGE_RADOS_LAYER_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proto/mutex.h"
#include "storage/page_store.h"
#include "storage/rados_client.h"
#include "storage/rados_extent.h"

namespace faultline {

std::string LayerObject(LayerId layer);

// A sparse set of extents.
class ExtentSet {
 public:
  static constexpr uint64_t kBlockExtents = 4096;  // the pages of 1 GiB
  using Block = std::array<uint64_t, kBlockExtents / 64>;

  bool Has(ExtentIndex extent) const;
  void Add(ExtentIndex extent);
  void Remove(ExtentIndex extent);
  void Add(const ExtentSet& other);
  uint64_t count() const { return count_; }
  // Those from `first` to `last`, both included, ascending, and at most so many.
  std::vector<ExtentIndex> Find(ExtentIndex first, ExtentIndex last, size_t most) const;
  std::vector<ExtentIndex> All() const { return Find(0, ~ExtentIndex{0}, ~size_t{0}); }

  // The form in which a block is stored; empty where it holds no extent.
  std::string Encode(uint64_t block) const;
  // False where `stored` is none.
  bool Decode(uint64_t block, absl::string_view stored);
  std::vector<uint64_t> Blocks() const;

 private:
  std::map<uint64_t, Block> blocks_;
  uint64_t count_ = 0;
};

// What is stored of a layer.
struct StoredLayer {
  bool exists = false;  // the object
  ExtentSet extents;
  ExtentSet loading;  // that a bulk load may have written, which was not committed
};
absl::StatusOr<StoredLayer> ReadStoredLayer(RadosClient* client, LayerId layer);

// Adds to `op` that `blocks` of `extents` are stored so.
enum class ExtentUse : uint8_t { kHeld, kLoading };
void StoreBlocks(const ExtentSet& extents, const std::vector<uint64_t>& blocks, ExtentUse use,
                 librados::ObjectWriteOperation* op);
// Adds to `op` that none is loading any more.
void ForgetLoading(const ExtentSet& loading, librados::ObjectWriteOperation* op);

// Thread-safe.
class RadosLayer {
 public:
  RadosLayer(RadosClient* client, LayerId id, StoredLayer stored);
  RadosLayer(const RadosLayer&) = delete;
  RadosLayer& operator=(const RadosLayer&) = delete;

  LayerId id() const { return id_; }
  // That no other object of this class has had in this process.
  uint64_t number() const { return number_; }
  bool Has(ExtentIndex extent) const;
  uint64_t count() const;
  // As ExtentSet.
  std::vector<ExtentIndex> Find(ExtentIndex first, ExtentIndex last, size_t most) const;

  // Adds and removes extents; durable, and seen by others, on OK. Calls of several threads at the
  // same time are stored together. REQUIRES: no two of them are about the same extent.
  absl::Status Change(const std::vector<ExtentIndex>& added,
                      const std::vector<ExtentIndex>& removed);
  // Has the layer, which is empty, hold what was loaded.
  absl::Status CommitLoad(const ExtentSet& loaded, const ExtentSet& marked);

  // About what the pages take, from a sample of the extents; it is taken again where the layer was
  // written since the last one.
  absl::StatusOr<uint64_t> StoredBytes();
  // The same without asking the pool.
  uint64_t KnownBytes() const;
  void NoteWrite() { writes_.fetch_add(1, std::memory_order_relaxed); }

 private:
  struct Batch {
    std::vector<ExtentIndex> added, removed;
    bool done = false;
    absl::Status status;
  };

  absl::Status Store(const Batch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  RadosClient* const client_;
  const LayerId id_;
  const uint64_t number_;
  std::atomic<uint64_t> writes_ = 0;

  mutable Mutex mu_;
  CondVar stored_;
  ExtentSet extents_ ABSL_GUARDED_BY(mu_);
  bool exists_ ABSL_GUARDED_BY(mu_);
  bool storing_ ABSL_GUARDED_BY(mu_) = false;
  std::shared_ptr<Batch> next_ ABSL_GUARDED_BY(mu_);  // what is to be stored when that has ended
  // Of an extent, by the last sample; how many writes there had been.
  uint64_t extent_bytes_ ABSL_GUARDED_BY(mu_) = kExtentPages * kPageSize;
  uint64_t sampled_writes_ ABSL_GUARDED_BY(mu_) = ~uint64_t{0};
};

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_RADOS_LAYER_H_
