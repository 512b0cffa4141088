// SPDX-License-Identifier: Apache-2.0
//
// What a write of pages does to the extents of a layer, and the locks that it takes meanwhile.
#ifndef FAULTLINE_STORAGE_RADOS_WRITE_H_
#define FAULTLINE_STORAGE_RADOS_WRITE_H_

#include <absl/status/statusor.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "proto/mutex.h"
#include "storage/page_store.h"
#include "storage/rados_client.h"
#include "storage/rados_extent.h"
#include "storage/rados_layer.h"

namespace faultline {

// Locks of extents, so that a call that reads several sees all of a write or nothing. An operation
// on one extent is atomic by itself. Several extents share a lock.
class ExtentLocks {
 public:
  enum class Side : uint8_t { kShared, kExclusive };

  static constexpr size_t kLocks = 1024;
  using Table = std::array<SharedMutex, kLocks>;

  // Which of so many an extent has. Neighbours have different ones.
  static constexpr size_t IndexOf(uint64_t layer, ExtentIndex extent) {
    return (layer * 40503 + extent) % kLocks;
  }

  // In ascending order, so that nobody waits in a circle.
  template <typename Extents>
  ExtentLocks(Table* table, Side side, LayerId layer,
              const Extents& extents) ABSL_NO_THREAD_SAFETY_ANALYSIS : table_(table),
                                                                       side_(side) {
    for (const ExtentIndex extent : extents) held_.insert(IndexOf(layer.raw(), extent));
    Lock();
  }
  // Those from `first` to `last`, both included.
  ExtentLocks(Table* table, Side side, LayerId layer, ExtentIndex first,
              ExtentIndex last) ABSL_NO_THREAD_SAFETY_ANALYSIS : table_(table),
                                                                 side_(side) {
    for (size_t i = 0; i <= std::min<uint64_t>(last - first, kLocks - 1); ++i) {
      held_.insert(IndexOf(layer.raw(), first + i));
    }
    Lock();
  }
  ~ExtentLocks() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (const size_t i : held_) {
      side_ == Side::kShared ? (*table_)[i].UnlockShared() : (*table_)[i].Unlock();
    }
  }
  ExtentLocks(const ExtentLocks&) = delete;
  ExtentLocks& operator=(const ExtentLocks&) = delete;

 private:
  void Lock() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (const size_t i : held_) {
      side_ == Side::kShared ? (*table_)[i].LockShared() : (*table_)[i].Lock();
    }
  }

  Table* const table_;
  const Side side_;
  std::set<size_t> held_;
};

// What a write does to one extent.
struct ExtentChange {
  std::vector<PageRange> deletes;
  std::vector<const PageWrites::Put*> puts;  // ascending

  bool deletes_all() const {
    return std::any_of(deletes.begin(), deletes.end(),
                       [](PageRange range) { return range.count == PageCount(kExtentPages); });
  }
};
using WritePlan = std::map<ExtentIndex, ExtentChange>;

// Deletes reach the extents that the layer has.
absl::StatusOr<WritePlan> PlanWrite(const RadosLayer& layer, const PageWrites& writes);

// The operation for one extent of the plan; `change` and what it points to must outlive it.
RadosChange ChangeOf(LayerId layer, ExtentIndex extent, const ExtentChange& change, bool is_there);

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_RADOS_WRITE_H_
