// SPDX-License-Identifier: Apache-2.0
//
// VolumeCatalog: all volumes and snapshots of one PageStore: made, found, snapshotted, cloned,
// imported and deleted here. Start here to read storage/.
//
// What is written to the store's metadata, and in which order, so that a crash at any moment leaves
// either the old state or the new one:
//   "volume/NAME"  the record of a volume or snapshot; a change of it is one durable WriteMeta()
//   "layer/ID"     written with or before the first record that names the layer, removed after its
//                  pages are gone
//   "next"         the next id for a volume or a layer
// A layer that has a "layer/" key but is named by no record is garbage of a crash: Open() deletes
// it.
//
// Where the store is shared (PageStore::shared()), several catalogs in several processes have it
// open. Then each change begins with a look at the metadata, is conditional on its being as it was
// found, and is tried again where another process was first. What changes a volume's layers or its
// epoch is done by the volume's owner; who becomes that changes the metadata's version, so that
// what the owner before was about to write fails. Whoever looks a volume up by its name sees what
// was changed before; of roles every process learns within kRefreshEvery.
// A layer that is being filled and that no record names yet has the time of its making for a value;
// it counts as garbage after kPendingFor, and then whoever fills it cannot put it to use.
//
// A record also names the layer of the volume's working set (working_set_layer.h), where there is
// one. A snapshot or clone names the same layer at first; whoever then adds to its set gets a layer
// of its own.
#ifndef FAULTLINE_STORAGE_VOLUME_CATALOG_H_
#define FAULTLINE_STORAGE_VOLUME_CATALOG_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "proto/mutex.h"
#include "proto/working_set.h"
#include "storage/catalog_meta.h"
#include "storage/page_store.h"
#include "storage/volume.h"

namespace faultline {

// A longer chain of layers would make every read of an absent page slow; a snapshot or clone that
// would exceed it is refused.
inline constexpr size_t kMaxLayers = 256;
// From so many layers on, a snapshot first puts those together that the volume alone has, as the
// snapshots between them were deleted.
inline constexpr size_t kFoldLayers = 64;

// See above, of a store that is shared.
inline constexpr auto kRefreshEvery = std::chrono::seconds(1);
inline constexpr absl::Duration kPendingFor = absl::Hours(24);

// Thread-safe.
class VolumeCatalog final : private VolumeRecords {
 public:
  // An import under way: a layer is loaded aside and becomes the volume's content in Commit().
  // Destroyed before that, it leaves the volume as it was. Not thread-safe. Must not outlive the
  // catalog.
  class Import {
   public:
    virtual ~Import() = default;
    // Pages in ascending order, each verified by the caller. OUT_OF_RANGE beyond the size given at
    // the start; INVALID_ARGUMENT out of order.
    virtual absl::Status Put(PageIndex page, absl::string_view encoded) = 0;
    // Makes the content durable, and the volume's. Fences its writer, if it has one. Call at most
    // once, last. Fails, and changes nothing, where the volume was made, deleted or, without
    // `replace`, filled with pages since the start.
    virtual absl::StatusOr<VolumeInfo> Commit() = 0;
  };

  struct ImportOptions {
    uint64_t size_bytes = 0;
    Durability durability = Durability::kSync;  // of a volume that is made by the import
    bool replace = false;                       // allows for a volume that already holds pages
    std::string owner{};                        // of a volume that is made by the import
    // The volume that is meant: its id, or 0 for one that is not there yet; none: whichever has the
    // name.
    std::optional<uint64_t> only_id{};
  };

  // Reads the catalog of `store`, which it takes, and clears away what a crash left. DATA_LOSS
  // where the metadata is damaged.
  static absl::StatusOr<std::unique_ptr<VolumeCatalog>> Open(std::unique_ptr<PageStore> store);
  ~VolumeCatalog() override;

  // All of these: NOT_FOUND and ALREADY_EXISTS for names, INVALID_ARGUMENT for a bad name or size,
  // FAILED_PRECONDITION for a change to a read-only store and for what the kind of volume does not
  // allow; the message names the volume. Durable on OK. A volume that is imported into must be at
  // least as large as the content, and without `replace` hold no pages.
  //
  // `owner` owns what is made, see volume_access.h. `only_id`, where it is not 0, is the id of the
  // volume that is meant: NOT_FOUND where the name has come to another one since it was looked up.
  absl::StatusOr<VolumeInfo> Create(absl::string_view name, uint64_t size_bytes,
                                    Durability durability, absl::string_view owner = {});
  std::vector<VolumeInfo> List();  // ordered by name
  absl::StatusOr<std::shared_ptr<Volume>> Find(absl::string_view name);
  absl::StatusOr<std::shared_ptr<Volume>> FindById(uint64_t id);
  absl::StatusOr<VolumeInfo> Snapshot(absl::string_view volume, absl::string_view snapshot,
                                      absl::string_view owner = {}, uint64_t only_id = 0);
  absl::StatusOr<VolumeInfo> Clone(absl::string_view snapshot, absl::string_view volume,
                                   absl::string_view owner = {}, uint64_t only_id = 0);
  // Readers and writers get NOT_FOUND from here on. Frees the space that no other volume shares.
  absl::Status Delete(absl::string_view name, uint64_t only_id = 0);
  absl::StatusOr<std::unique_ptr<Import>> StartImport(absl::string_view name,
                                                      const ImportOptions& options);

  // Makes the caller the one writer of `name`: the epoch in the result is larger than any before,
  // and every write with an older one is refused from here on. FAILED_PRECONDITION for a writer who
  // goes on and is not the last one; who asks again gets the same epoch, see pager.proto.
  absl::StatusOr<VolumeInfo> TakeEpoch(absl::string_view name, uint64_t only_id = 0,
                                       const EpochClaim& claim = {});

  // Not 0. What `info` is of is the same volume, by whatever server, where this is the same.
  uint64_t IdentityOf(const VolumeInfo& info) const {
    return VolumeIdentity(info, /*has_record=*/!store_->raw_image().has_value());
  }

  // Gives `identity` this role with the volume, or none; as VolumeAccess::SetRole().
  absl::StatusOr<VolumeInfo> SetRole(absl::string_view name, absl::string_view identity,
                                     VolumeRole role, uint64_t only_id = 0);
  // Larger after every change of a role: whoever remembers one asks again when this has changed.
  uint64_t access_version() const { return access_version_.load(std::memory_order_acquire); }

  // The volume's working set: the pages that faults of earlier runs have asked for. Empty where
  // none was recorded; or where what is stored is damaged, which is logged once. One that is
  // cleared meanwhile may be given in part. NOT_FOUND; FAILED_PRECONDITION for a volume that is too
  // large to have one.
  absl::StatusOr<WorkingSet> GetWorkingSet(uint64_t volume_id);
  // Adds `pages` to it, behind those that it has, all of them or none; returns how many it has
  // then. A snapshot has a working set like any volume: that does not change its content.
  // INVALID_ARGUMENT where `pages` are of a volume of another size; RESOURCE_EXHAUSTED where it
  // would have more than kMaxPageSetRuns.
  absl::StatusOr<PageCount> MergeWorkingSet(uint64_t volume_id, const WorkingSet& pages);
  absl::Status ClearWorkingSet(absl::string_view name, uint64_t only_id = 0);

  // What the volume's layers take together, in bytes, without its working set; approximate.
  absl::StatusOr<uint64_t> StoredBytes(const VolumeInfo& info) const;
  // The same of all that `owner` owns; what volumes share counts once.
  absl::StatusOr<uint64_t> StoredBytesOf(absl::string_view owner);

  PageStore& store() { return *store_; }

 private:
  class ImportIntoLayer;

  explicit VolumeCatalog(std::unique_ptr<PageStore> store);

  // All that the metadata says.
  struct Content {
    std::map<uint64_t, VolumeInfo> volumes;  // by id
    std::map<LayerId, std::string> layers;   // and the value of each one's key
    std::map<LayerId, int> users;
    uint64_t next_id = 1;
  };
  absl::StatusOr<Content> ReadContent();
  static absl::Status CheckContent(const Content& content);
  absl::Status Load() ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  void Adopt(const Content& content) ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  // `layers` are all that have a key, and its value.
  void AdoptGarbage(const std::map<LayerId, std::string>& layers)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  void AdoptVolume(Volume* volume, const VolumeInfo& info)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  // Loads anew what others have changed.
  absl::Status Refresh() ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  // The same for who only looks.
  absl::Status RefreshToLook() ABSL_LOCKS_EXCLUDED(change_mu_);
  // Whether everything is as the metadata says, so that nothing need be loaded.
  absl::StatusOr<bool> IsFresh();
  void RefreshLoop();
  // Has this process own `volume`, with its record as it is from here on.
  absl::Status OwnVolume(Volume& volume) ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  // Has this process, which owns the volume of the record `before`, own these layers of it. It is
  // the owner no more where that fails.
  absl::Status KeepOwning(const VolumeInfo& before, std::span<const LayerId> layers);
  bool Owns(const Volume& volume);
  // Tells the store which layers of `info` do not change.
  void NoteLayers(const VolumeInfo& info);
  absl::Status Own(Volume& volume, uint64_t epoch) override;
  absl::StatusOr<bool> IsCurrent(const Volume& volume, const std::vector<LayerId>& layers) override;
  bool AreKnownToBeCurrent() override;

  // Calls `change` until no other process was first.
  template <typename Change>
  static auto Retry(Change change) {
    for (int attempt = 1;; ++attempt) {
      auto result = change();
      if (!absl::IsAborted(StatusOf(result))) return result;
      if (attempt == kChangeAttempts) {
        return decltype(result)(absl::UnavailableError(
            "other servers change the catalog of the store all the time; try again"));
      }
    }
  }
  static const absl::Status& StatusOf(const absl::Status& status) { return status; }
  template <typename T>
  static const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
    return result.status();
  }
  static constexpr int kChangeAttempts = 100;

  // Each of these is one attempt: ABORTED where another process has changed the metadata meanwhile.
  absl::StatusOr<VolumeInfo> TryCreate(const VolumeInfo& wanted);
  absl::StatusOr<VolumeInfo> TrySnapshot(absl::string_view volume, absl::string_view snapshot,
                                         absl::string_view owner, uint64_t only_id);
  absl::StatusOr<VolumeInfo> TryClone(absl::string_view snapshot, absl::string_view volume,
                                      absl::string_view owner, uint64_t only_id);
  absl::Status TryDelete(absl::string_view name, uint64_t only_id);
  absl::StatusOr<VolumeInfo> TryTakeEpoch(absl::string_view name, uint64_t only_id,
                                          const EpochClaim& claim);
  absl::StatusOr<VolumeInfo> TrySetRole(absl::string_view name, absl::string_view identity,
                                        VolumeRole role, uint64_t only_id);
  absl::StatusOr<std::unique_ptr<Import>> TryStartImport(absl::string_view name,
                                                         const ImportOptions& options);
  absl::StatusOr<VolumeInfo> TryCommitImport(const ImportIntoLayer& import);
  absl::StatusOr<VolumeInfo> ReplaceContent(const ImportIntoLayer& import, Volume& target)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  absl::StatusOr<PageCount> TryMergeWorkingSet(uint64_t volume_id, const WorkingSet& pages);
  absl::Status TryClearWorkingSet(absl::string_view name, uint64_t only_id);

  void ServeRawImage(const RawImage& image) ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);

  // For a change, as it is stored now; NOT_FOUND for any other volume than that with this id,
  // unless it is 0.
  absl::StatusOr<std::shared_ptr<Volume>> FindOnly(absl::string_view name, uint64_t only_id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  // As Find() and FindById(), of those that are known.
  absl::StatusOr<std::shared_ptr<Volume>> FindKnown(absl::string_view name) const;
  absl::StatusOr<std::shared_ptr<Volume>> FindKnownById(uint64_t id) const;
  absl::Status CheckChange(absl::string_view name) const;
  absl::Status CheckNameIsFree(absl::string_view name) const;
  uint64_t NewId() ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_) { return next_id_++; }
  // Of a layer that no record names yet.
  MetaChange PendingChange(LayerId layer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  MetaChange NextIdChange() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);

  // Makes a volume whose record is durable known, and forgets one.
  void Add(const VolumeInfo& info) ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  void Remove(const VolumeInfo& info) ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  // Counts `layers` as used by one record less. Those that none uses any more become garbage.
  void Release(const std::vector<LayerId>& layers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  // Puts layers of `volume` that no other record names, and that do not change any more, into those
  // below them where the same is true of these. Reads and writes go on meanwhile.
  absl::Status FoldLayers(Volume* volume) ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  // All pages of `from`, of a volume of `size`, to `to`; not durable yet.
  absl::Status CopyPages(LayerId from, LayerId to, PageCount size);
  absl::Status DeleteGarbage(LayerId layer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  // The same until no other process is first with a change; it may have deleted that itself.
  absl::Status DeleteGarbageOrFindItGone(LayerId layer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  // Deletes all garbage that can be deleted now; what cannot is tried again with the next change.
  void CollectGarbage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);

  absl::Status CheckWorkingSetChange(const VolumeInfo& info) const;
  // None where there is none, or it is damaged.
  absl::StatusOr<std::optional<WorkingSet>> FindWorkingSet(const VolumeInfo& info) const;
  // Puts `set` into a new layer, and has the volume's record name that.
  absl::Status StoreWorkingSetAside(Volume* volume, const WorkingSet& set)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);
  // Writes down that `layer`, or none, holds the volume's working set, and drops the one before.
  absl::Status SwitchWorkingSet(Volume* volume, LayerId layer)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mu_);

  static absl::Status CheckImportTarget(const Volume& target, const ImportOptions& options)
      ABSL_SHARED_LOCKS_REQUIRED(target.mu_);

  const std::unique_ptr<PageStore> store_;
  std::atomic<uint64_t> access_version_{0};

  // Lock order: change_mu_ > the mu_ of a volume > mu_. change_mu_ makes one change at a time and
  // is held while the store works; mu_ never is, so nobody who looks a volume up waits for a disk.
  Mutex change_mu_;
  std::map<LayerId, int> layer_users_ ABSL_GUARDED_BY(change_mu_);  // records that name the layer
  std::set<LayerId> garbage_ ABSL_GUARDED_BY(change_mu_);  // to be deleted; no record names it
  std::set<LayerId> pending_ ABSL_GUARDED_BY(change_mu_);  // of a shared store; see above
  uint64_t next_id_ ABSL_GUARDED_BY(change_mu_) = 1;
  // Odd from when the metadata is read until all of it is known; for ever where that fails.
  std::atomic<uint64_t> loads_ = 1;

  mutable Mutex mu_;
  std::map<std::string, std::shared_ptr<Volume>, std::less<>> volumes_ ABSL_GUARDED_BY(mu_);
  std::map<uint64_t, std::shared_ptr<Volume>> by_id_ ABSL_GUARDED_BY(mu_);
  mutable std::set<LayerId> damage_logged_ ABSL_GUARDED_BY(mu_);  // of layers of working sets

  Mutex stop_mu_;
  CondVar stop_changed_;
  bool stopping_ ABSL_GUARDED_BY(stop_mu_) = false;
  std::thread refresh_thread_;  // of a shared store; last: it uses all of the above
};

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_VOLUME_CATALOG_H_
