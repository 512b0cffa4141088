// SPDX-License-Identifier: Apache-2.0
//
// PageStore: where a page server keeps its pages. A flat, batched map from {layer, page} to an
// encoded page, and a small map of metadata beside it. What a volume is, and how layers stack, is
// none of its business: see volume.h.
//
// Stores: "rocksdb:DIR" (the default), "memory:" (lost at exit), "file:PATH" (a raw image, served
// in place, read-only), "rados:POOL[/NAMESPACE]" (in a Ceph cluster, where it was built with that).
#ifndef FAULTLINE_STORAGE_PAGE_STORE_H_
#define FAULTLINE_STORAGE_PAGE_STORE_H_

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "proto/page.h"

namespace faultline {

// A layer of some volume. Never used again after it was deleted.
class LayerId {
 public:
  constexpr LayerId() = default;
  constexpr explicit LayerId(uint64_t id) : id_(id) {}
  constexpr uint64_t raw() const { return id_; }
  friend constexpr auto operator<=>(LayerId, LayerId) = default;

 private:
  uint64_t id_ = 0;
};

// When a write is acknowledged; see Durability in admin.proto.
enum class Durability : uint8_t { kSync = 0, kInterval = 1, kNone = 2 };

// Changes to one layer, applied as a whole or not at all. (In rados: that holds for the pages of
// one extent; of others some may be applied where the call fails or its process ends. What reads
// them meanwhile sees all or nothing there, too.)
struct PageWrites {
  struct Put {
    PageIndex page;
    absl::string_view encoded;  // must stay alive during the call
  };
  std::vector<Put> puts;           // no page twice
  std::vector<PageRange> deletes;  // applied before the puts
};

// One change of metadata: set, or with no value removed.
struct MetaChange {
  std::string key;
  std::optional<std::string> value;
};

// Builds a whole layer at once, past the write path. Not thread-safe. Destroyed before Commit(), it
// leaves nothing behind.
class BulkLoad {
 public:
  virtual ~BulkLoad() = default;
  // REQUIRES: pages come in ascending order. RESOURCE_EXHAUSTED where the disk is full; then only
  // destruction may follow.
  virtual absl::Status Put(PageIndex page, absl::string_view encoded) = 0;
  // Makes everything durable and visible at once. Call at most once, last.
  virtual absl::Status Commit() = 0;
};

struct StoreStats {
  uint64_t stored_bytes = 0;  // approximate
  // Of its file system, what is free and what there is; 0 where that means nothing.
  uint64_t free_bytes = 0, capacity_bytes = 0;
  // Pages that were found in, and missed by, the store's own cache of what is elsewhere, and what
  // that takes; 0 where the store has none.
  uint64_t cache_hits = 0, cache_misses = 0, cache_bytes = 0;
};

// A raw image that a store consists of, for a store that is one (file:).
struct RawImage {
  std::string name;         // for the volume that serves it
  uint64_t size_bytes = 0;  // not necessarily whole pages
  LayerId layer;
};

// Thread-safe: any method may be called from any thread.
//
// Errors of all methods: RESOURCE_EXHAUSTED where the disk is full (nothing of the call is applied;
// reads go on, and later writes succeed once there is room again), DATA_LOSS where stored bytes are
// damaged, FAILED_PRECONDITION for a change to a read-only store, UNAVAILABLE for any other failure
// of the device.
class PageStore {
 public:
  // `encoded` stays valid only during the call.
  using Visitor = absl::FunctionRef<absl::Status(PageIndex, absl::string_view encoded)>;

  virtual ~PageStore() = default;

  // Calls `visit` for each page of `range` that `layer` holds, ascending; pages that it does not
  // hold are passed over. Stops at the first status that is not OK, and returns it. What is handed
  // out is not verified here, but where the store itself notices damage it says DATA_LOSS. One call
  // sees every Write() whole or not at all. `visit` may read the store, but not change it.
  virtual absl::Status Read(LayerId layer, PageRange range, Visitor visit) = 0;

  // As Read(); but UNAVAILABLE, perhaps after some calls of `visit`, where something would have to
  // be asked for that is on other machines.
  virtual absl::Status ReadAtHand(LayerId layer, PageRange range, Visitor visit) {
    return Read(layer, range, visit);
  }

  // Applies `writes` to `layer`; on OK they are as durable as asked for.
  virtual absl::Status Write(LayerId layer, const PageWrites& writes, Durability durability) = 0;

  // Makes every earlier write durable, whatever it asked for.
  virtual absl::Status Sync() = 0;

  // REQUIRES: `layer` holds nothing, and nobody else writes it until the load has ended.
  virtual absl::StatusOr<std::unique_ptr<BulkLoad>> StartBulkLoad(LayerId layer) = 0;

  // Removes every page of `layer` and frees its space, some of it possibly a little later. Doing so
  // again does no harm.
  virtual absl::Status DeleteLayer(LayerId layer) = 0;

  // What `layer` takes, in bytes; approximate, but 0 only for an empty layer.
  virtual absl::StatusOr<uint64_t> StoredBytes(LayerId layer) = 0;

  // All metadata, ordered by key.
  virtual absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadMeta() = 0;
  // Applies all changes at once; durable on OK.
  virtual absl::Status WriteMeta(std::span<const MetaChange> changes) = 0;

  // Of a store that several processes may have open at the same time: where shared() is true,
  // - WriteMeta() fails with ABORTED, and changes nothing, where another process has changed the
  //   metadata since this one last read or wrote all of it. MetaIsCurrent() says whether one has.
  // - pages of a layer that changes are written by its owner alone, and Read() and Write() of a
  //   layer that this process has lost fail with ABORTED: it is owned no more, and the metadata is
  //   to be read again. Of a layer that nobody owns, one process alone may write to it.
  virtual bool shared() const { return false; }
  virtual absl::StatusOr<bool> MetaIsCurrent() { return true; }
  // The same as far as that is known without a question to other machines; else false.
  virtual bool MetaIsKnownToBeCurrent() { return true; }
  // The value of one key as it is now; none where there is no such key.
  virtual absl::StatusOr<std::optional<std::string>> ReadMetaKey(absl::string_view /*key*/) {
    return absl::UnimplementedError("the store is not shared");
  }
  // Makes this process the owner of the volume with this id, whoever was that before: none of that
  // one's writes is applied from here on. `layers` are those that it owns with it, the same ones or
  // others each time.
  virtual absl::Status Own(uint64_t /*volume*/, std::span<const LayerId> /*layers*/) {
    return absl::OkStatus();
  }
  // 0 where this process does not own the layer, else a number that is another one each time that
  // it has become the owner.
  virtual uint64_t Ownership(LayerId) { return 1; }
  // Gives a volume up, so that who owns it next need not fence this process.
  virtual void Disown(uint64_t /*volume*/) {}
  // The same of one that was deleted: nothing is kept for its next owner.
  virtual void ForgetVolume(uint64_t /*volume*/) {}
  // Says that these do not change any more, or not any more than they did: what was known of them
  // is forgotten, and what is read now may be remembered where it is `frozen`.
  virtual void NoteLayers(std::span<const LayerId> /*layers*/, bool /*frozen*/) {}

  virtual StoreStats Stats() = 0;
  virtual bool read_only() const { return false; }
  virtual std::optional<RawImage> raw_image() const { return std::nullopt; }
};

struct PageStoreOptions {
  // Memory that a store may use for caching and for writes that are under way, in bytes.
  uint64_t memory_bytes = uint64_t{256} << 20;
  // How often Durability::kInterval writes are made durable.
  absl::Duration sync_interval = absl::Seconds(1);
  // Of the cluster that rados: is in, and as whom (client.USER) to open it.
  std::string rados_conf = "/etc/ceph/ceph.conf";
  std::string rados_user = "admin";
};

// Opens "rocksdb:DIR", "memory:", "file:PATH" or "rados:POOL[/NAMESPACE]". INVALID_ARGUMENT for any
// other form; UNIMPLEMENTED for rados: where this was built without it; NOT_FOUND,
// PERMISSION_DENIED or FAILED_PRECONDITION (in use by another process), naming the path, where it
// cannot be opened.
absl::StatusOr<std::unique_ptr<PageStore>> OpenPageStore(absl::string_view spec,
                                                         const PageStoreOptions& options);

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_PAGE_STORE_H_
