// SPDX-License-Identifier: Apache-2.0
//
// Volume: a named, sparse, fixed-size array of pages, kept as a stack of layers in a PageStore.
//
//   Read     looks for each page in the layers, newest first; a page that none holds is zero
//   Write    goes to the top layer
//   Trim     deletes from the top layer, and shadows with a zero page what a lower layer holds
//   snapshot freezes the top layer under a name and puts an empty one on top: no copy, O(1)
//   clone    a new volume whose lower layers are a snapshot's
//
// Volumes are made, found and removed through a VolumeCatalog (volume_catalog.h).
#ifndef FAULTLINE_STORAGE_VOLUME_H_
#define FAULTLINE_STORAGE_VOLUME_H_

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <atomic>
#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "proto/mutex.h"
#include "proto/page.h"
#include "storage/page_store.h"
#include "storage/volume_access.h"

namespace faultline {

// Pages of one write, in the order of the pages, no page twice.
struct VolumeWrites {
  struct Page {
    PageIndex page;
    absl::string_view encoded;  // verified; must stay alive during the call
  };
  std::vector<Page> pages;
  std::vector<PageRange> trims;
};

// Who writes: the epoch that has made it the volume's one writer, and its generation within that.
struct VolumeWriter {
  uint64_t epoch = 0;
  uint64_t generation = 0;

  friend constexpr auto operator<=>(const VolumeWriter&, const VolumeWriter&) = default;
};

// Who asks for an epoch.
struct EpochClaim {
  uint64_t writer = 0;      // what the writer calls itself; 0 where it does not
  uint64_t from_epoch = 0;  // not 0: the last epoch of this writer, who goes on
};

// What is known of a volume at one moment.
struct VolumeInfo {
  enum class Kind : uint8_t { kVolume = 0, kSnapshot = 1 };
  std::string name;
  uint64_t id = 0;  // never used again after the volume was deleted
  Kind kind = Kind::kVolume;
  uint64_t size_bytes = 0;      // not necessarily whole pages
  std::vector<LayerId> layers;  // newest first; a writable volume's first one is its own
  std::string parent;           // for a clone the snapshot, for a snapshot the volume
  uint64_t epoch = 0;           // of the last writer; 0 if there never was one
  uint64_t writer = 0;          // what that one calls itself; 0 where it does not
  Durability durability = Durability::kSync;
  absl::Time created;
  LayerId working_set;  // the layer that holds it, shared with others that have the same; or none
  VolumeAccess access;

  PageCount size() const { return PageCount::CoveringBytes(size_bytes); }
};

// What the users of a volume have had of it since this process knows it. For people and graphs:
// nothing is decided by it.
struct VolumeTraffic {
  std::atomic<uint64_t> pages_fetched = 0;
  std::atomic<uint64_t> pages_written = 0;  // trimmed ones included
};

class Volume;

// What a volume asks of the catalog that keeps its record, where other processes may change that
// (PageStore::shared()). Thread-safe.
class VolumeRecords {
 public:
  virtual ~VolumeRecords() = default;
  // Makes this process the owner of `volume`, and its record that of now; unless `epoch` is not 0,
  // and the volume's is another one. NOT_FOUND where it was deleted.
  virtual absl::Status Own(Volume& volume, uint64_t epoch) = 0;
  // Whether `layers` are those of `volume`, by the record as it is stored. Where they are not, the
  // volume has the new ones after this.
  virtual absl::StatusOr<bool> IsCurrent(const Volume& volume,
                                         const std::vector<LayerId>& layers) = 0;
  // Whether all records are known to be those of now, without a question to other machines.
  virtual bool AreKnownToBeCurrent() = 0;
};

// Several processes may serve a volume out of one store (PageStore::shared()): one at a time owns
// it, and changes it; whichever is asked to change it becomes the owner. A read through any of them
// sees all that was acknowledged by any of them before it began. It reads piece by piece, and hands
// a piece out once it is known that the layers that it came from are those of the volume still:
// each page is then of a moment during the read, and whole, but not all need be of the same one.
//
// Thread-safe. A Volume may outlive its deletion; every call then says NOT_FOUND.
class Volume {
 public:
  using DataVisitor = absl::FunctionRef<absl::Status(PageIndex, absl::string_view encoded)>;
  using ZeroVisitor = absl::FunctionRef<absl::Status(PageRange)>;

  // Made by VolumeCatalog. `store` and `records` are borrowed and must outlive the volume.
  Volume(PageStore* store, VolumeRecords* records, VolumeInfo info);
  Volume(const Volume&) = delete;
  Volume& operator=(const Volume&) = delete;

  // A copy: it does not change afterwards.
  VolumeInfo info() const;

  // What `identity` may do with the volume, now.
  VolumeRole RoleOf(absl::string_view identity) const;

  // Hands out every page of `range` once, ascending: to `data` in its encoded form (valid only
  // during the call, not verified, never a page of zeros), or to `zero` in runs. All of it is of
  // one moment with regard to Write, Trim, snapshot and import. Neither visitor may call the
  // volume. OUT_OF_RANGE for pages that the volume does not have; else the errors of PageStore, and
  // those of the visitors.
  absl::Status Read(PageRange range, DataVisitor data, ZeroVisitor zero);

  // As Read(), but never waits for other machines, or for who waits for them: false, and neither
  // visitor was called, where that would be needed or `range` cannot be read.
  bool ReadAtHand(PageRange range, DataVisitor data, ZeroVisitor zero);

  // How many pages from `first` on are known to be zero, up to `most`; 0 where that is not at hand.
  PageCount ZerosFrom(PageIndex first, PageCount most);

  // Applies all of `writes` or nothing; durable by the volume's policy on OK.
  // FAILED_PRECONDITION: the epoch is not that of the volume's writer (it was fenced), or the
  // volume is a snapshot. OUT_OF_RANGE for pages that the volume does not have. ABORTED: a write of
  // a higher generation was begun before this one. The first write of a generation waits until
  // those of lower ones have ended.
  absl::Status Write(const VolumeWriter& writer, const VolumeWrites& writes);

  // Makes `range` read as zero. As Write, but on the word of an operator and not of the writer, and
  // piece by piece, ascending, where it is larger than 256 MiB and there are layers to shadow: what
  // fails then may have been done in part, and doing it again does no harm.
  absl::Status Trim(PageRange range);

  // Counted by whoever serves the volume.
  VolumeTraffic& traffic() { return traffic_; }

 private:
  friend class VolumeCatalog;

  absl::Status CheckExists() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  absl::Status CheckWritable() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // Whether any page reads as other than zero.
  absl::StatusOr<bool> HoldsPages() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // Adds the zero pages that must be stored so that `range` of the top layer shadows the others.
  absl::Status AddShadows(PageRange range, std::vector<PageIndex>* pages) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // Writes `changes` to the top layer, with the shadows that its deletes need.
  absl::Status Apply(PageWrites* changes) ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // The same, unless a newer generation has begun.
  absl::Status ApplyInTurn(const VolumeWriter& writer, PageWrites* changes)
      ABSL_SHARED_LOCKS_REQUIRED(mu_) ABSL_LOCKS_EXCLUDED(turn_mu_);

  // One piece of a read, out of a store that others change, too.
  struct Part {
    PageRange range;
    std::string encoded;  // empty: zeros
  };
  absl::Status ReadShared(PageRange piece, DataVisitor data, ZeroVisitor zero);
  // Reads `piece` in one go, and sets `known` where its layers were the volume's meanwhile.
  enum class From : uint8_t { kAnywhere, kAtHand };
  absl::Status ReadParts(PageRange piece, From from, std::vector<Part>* parts, bool* known)
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  PageCount ZerosAtHand(PageIndex first, PageCount most) ABSL_SHARED_LOCKS_REQUIRED(mu_);
  static absl::Status HandOut(const std::vector<Part>& parts, DataVisitor data, ZeroVisitor zero);
  absl::Status CheckWriter(const VolumeWriter& writer) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // Calls `change` with mu_ held shared while this process is the owner, and has it become that.
  absl::Status AsOwner(uint64_t epoch, absl::FunctionRef<absl::Status()> change)
      ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status WriteAsOwner(const VolumeWriter& writer, const VolumeWrites& writes)
      ABSL_SHARED_LOCKS_REQUIRED(mu_) ABSL_LOCKS_EXCLUDED(turn_mu_);
  absl::Status TrimAsOwner(PageRange range) ABSL_SHARED_LOCKS_REQUIRED(mu_);

  PageStore* const store_;
  VolumeRecords* const records_;
  VolumeTraffic traffic_;

  // Held shared by everything that reads or writes pages, exclusively by what changes the layers or
  // the epoch: so a snapshot has all of a write or nothing, and after a new epoch was given out no
  // write of an older one is still under way.
  mutable SharedMutex mu_;
  VolumeInfo info_ ABSL_GUARDED_BY(mu_);
  bool deleted_ ABSL_GUARDED_BY(mu_) = false;

  // After mu_. Held shared while a write is applied, exclusively by what lets a new generation
  // begin; by itself, so that reads do not wait for that.
  SharedMutex turn_mu_;
  VolumeWriter newest_ ABSL_GUARDED_BY(turn_mu_);  // that has begun a write
};

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_VOLUME_H_
