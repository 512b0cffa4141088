// SPDX-License-Identifier: Apache-2.0
#include "storage/rados_page_store.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/strip.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "proto/log.h"
#include "proto/mutex.h"
#include "storage/rados_bulk_load.h"
#include "storage/rados_client.h"
#include "storage/rados_extent.h"
#include "storage/rados_layer.h"

namespace faultline {
namespace {

// What one call reads at most before it hands out the first page, and what it sees of one moment:
// more than any Fetch asks for.
constexpr size_t kWindowExtents = 17;

// Of the pool's objects that are deleted at the same time; few, as nobody waits for them.
constexpr size_t kDeletedAtATime = 8;
constexpr auto kRetryEvery = std::chrono::seconds(5);

constexpr uint64_t kMetaAtATime = 1024;
constexpr absl::string_view kMetaPrefix = "m.";
constexpr absl::string_view kDeletingPrefix = "deleting.";

std::string DeletingKey(LayerId layer) {
  return absl::StrFormat("%s%x", kDeletingPrefix, layer.raw());
}

// Locks of extents, so that a call that reads several sees all of a write or nothing. An operation
// on one extent is atomic by itself. Several extents share a lock.
class ExtentLocks {
 public:
  enum class Side : uint8_t { kShared, kExclusive };

  static constexpr size_t kLocks = 1024;
  using Table = std::array<SharedMutex, kLocks>;

  // In ascending order, so that nobody waits in a circle.
  template <typename Extents>
  ExtentLocks(Table* table, Side side, LayerId layer,
              const Extents& extents) ABSL_NO_THREAD_SAFETY_ANALYSIS : table_(table),
                                                                       side_(side) {
    for (const ExtentIndex extent : extents) held_.insert(IndexOf(layer, extent));
    Lock();
  }
  // Those from `first` to `last`, both included.
  ExtentLocks(Table* table, Side side, LayerId layer, ExtentIndex first,
              ExtentIndex last) ABSL_NO_THREAD_SAFETY_ANALYSIS : table_(table),
                                                                 side_(side) {
    for (size_t i = 0; i <= std::min<uint64_t>(last - first, kLocks - 1); ++i) {
      held_.insert(IndexOf(layer, first + i));
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
  // Neighbours have different ones.
  static size_t IndexOf(LayerId layer, ExtentIndex extent) {
    return (layer.raw() * 40503 + extent) % kLocks;
  }
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

absl::StatusOr<WritePlan> PlanWrite(const RadosLayer& layer, const PageWrites& writes) {
  WritePlan plan;
  for (const PageWrites::Put& put : writes.puts) {
    if (absl::Status status = CheckEncodedSize(put.page, put.encoded); !status.ok()) return status;
    plan[ExtentOf(put.page)].puts.push_back(&put);
  }
  for (auto& [extent, change] : plan) {
    std::sort(change.puts.begin(), change.puts.end(),
              [](const auto* a, const auto* b) { return a->page < b->page; });
  }
  for (const PageRange range : writes.deletes) {
    if (range.empty()) continue;
    const ExtentIndex last = ExtentOf(PageIndex(range.end().raw() - 1));
    for (const ExtentIndex extent : layer.Find(ExtentOf(range.first), last, ~size_t{0})) {
      plan[extent].deletes.push_back(range.Intersect(PagesOf(extent)));
    }
  }
  return plan;
}

// The operation for one extent of the plan.
RadosChange ChangeOf(LayerId layer, ExtentIndex extent, const ExtentChange& change, bool is_there) {
  RadosChange result;
  result.object = ExtentObject(layer, extent);
  result.expected = is_there;
  result.frees = change.puts.empty();
  result.absent = change.puts.empty() ? RadosChange::Absent::kLeave : RadosChange::Absent::kMake;
  if (change.puts.empty() && change.deletes_all()) {
    result.fill = [](auto* op) { op->remove(); };
  } else {
    result.fill = [&change](auto* op) {
      for (const PageRange range : change.deletes) ClearPages(range, op);
      PutPages(change.puts, op);
    };
  }
  return result;
}

class RadosPageStore final : public PageStore {
 public:
  static absl::StatusOr<std::unique_ptr<PageStore>> Open(std::unique_ptr<RadosClient> client);
  ~RadosPageStore() override;

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
  explicit RadosPageStore(std::unique_ptr<RadosClient> client) : client_(std::move(client)) {}

  absl::StatusOr<std::shared_ptr<RadosLayer>> FindLayer(LayerId id);
  absl::Status ReadWindow(const RadosLayer& layer, PageRange window, Visitor visit);
  absl::Status ReadExtents(const RadosLayer& layer, PageRange window,
                           std::deque<ExtentRead>* reads);
  // All keys of the store's object that begin with `prefix`, without it.
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadKeys(
      absl::string_view prefix);
  void ReclaimLoop();
  absl::Status Reclaim(LayerId layer);

  const std::unique_ptr<RadosClient> client_;
  ExtentLocks::Table extent_locks_;

  Mutex mu_;
  CondVar wake_;
  std::map<LayerId, std::shared_ptr<RadosLayer>> layers_ ABSL_GUARDED_BY(mu_);
  std::set<LayerId> deleted_ ABSL_GUARDED_BY(mu_);  // whose objects may still be there
  std::vector<LayerId> to_reclaim_ ABSL_GUARDED_BY(mu_);
  std::atomic<bool> stopping_ = false;
  std::thread reclaim_thread_;  // last: it uses all of the above
};

absl::StatusOr<std::unique_ptr<PageStore>> RadosPageStore::Open(
    std::unique_ptr<RadosClient> client) {
  std::unique_ptr<RadosPageStore> store(new RadosPageStore(std::move(client)));
  const auto deleting = store->ReadKeys(kDeletingPrefix);
  if (!deleting.ok()) return deleting.status();
  for (const auto& [key, value] : *deleting) {
    uint64_t id = 0;
    if (!absl::SimpleHexAtoi(key, &id)) {
      return absl::DataLossError(absl::StrCat("\"", key, "\" is to be deleted, but is no layer"));
    }
    MutexLock lock(store->mu_);
    store->deleted_.insert(LayerId(id));
    store->to_reclaim_.push_back(LayerId(id));
  }
  store->reclaim_thread_ = std::thread([raw = store.get()] { raw->ReclaimLoop(); });
  pthread_setname_np(store->reclaim_thread_.native_handle(), "store-reclaim");
  return store;
}

RadosPageStore::~RadosPageStore() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
    wake_.SignalAll();
  }
  if (reclaim_thread_.joinable()) reclaim_thread_.join();
}

absl::StatusOr<std::shared_ptr<RadosLayer>> RadosPageStore::FindLayer(LayerId id) {
  {
    MutexLock lock(mu_);
    if (const auto found = layers_.find(id); found != layers_.end()) return found->second;
    if (deleted_.contains(id)) {
      return std::make_shared<RadosLayer>(client_.get(), id, StoredLayer());
    }
  }
  absl::StatusOr<StoredLayer> stored = ReadStoredLayer(client_.get(), id);
  if (!stored.ok()) return stored.status();
  auto layer = std::make_shared<RadosLayer>(client_.get(), id, *std::move(stored));
  MutexLock lock(mu_);
  // Another thread may have been first: there must be one only, as it is what changes are seen in.
  return layers_.try_emplace(id, std::move(layer)).first->second;
}

absl::Status RadosPageStore::Read(LayerId id, PageRange range, Visitor visit) {
  if (range.empty()) return absl::OkStatus();
  const absl::StatusOr<std::shared_ptr<RadosLayer>> found = FindLayer(id);
  if (!found.ok()) return found.status();
  const RadosLayer& layer = **found;
  const ExtentIndex last = ExtentOf(PageIndex(range.end().raw() - 1));
  for (PageRange rest = range; !rest.empty();) {
    const std::vector<ExtentIndex> extents =
        layer.Find(ExtentOf(rest.first), last, kWindowExtents + 1);
    if (extents.empty()) return absl::OkStatus();
    const PageIndex end =
        extents.size() > kWindowExtents ? PagesOf(extents.back()).first : rest.end();
    const PageRange window =
        PageRange::Between(std::max(rest.first, PagesOf(extents.front()).first), end);
    if (absl::Status status = ReadWindow(layer, window, visit); !status.ok()) return status;
    rest = PageRange::Between(end, rest.end());
  }
  return absl::OkStatus();
}

absl::Status RadosPageStore::ReadWindow(const RadosLayer& layer, PageRange window, Visitor visit) {
  std::deque<ExtentRead> reads;
  const ExtentIndex first = ExtentOf(window.first);
  const ExtentIndex last = ExtentOf(PageIndex(window.end().raw() - 1));
  absl::Status status;
  if (first == last) {
    status = ReadExtents(layer, window, &reads);
  } else {
    // Not while pages are handed out: who gets them may read the store.
    const ExtentLocks lock(&extent_locks_, ExtentLocks::Side::kShared, layer.id(), first, last);
    status = ReadExtents(layer, window, &reads);
  }
  for (ExtentRead& read : reads) {
    if (!status.ok()) break;
    status = read.Visit(visit);
  }
  return status;
}

absl::Status RadosPageStore::ReadExtents(const RadosLayer& layer, PageRange window,
                                         std::deque<ExtentRead>* reads) {
  int failed = 0;
  {
    RadosBatch batch(&client_->io());
    const ExtentIndex last = ExtentOf(PageIndex(window.end().raw() - 1));
    for (const ExtentIndex extent : layer.Find(ExtentOf(window.first), last, ~size_t{0})) {
      ExtentRead& read = reads->emplace_back(window.Intersect(PagesOf(extent)));
      librados::ObjectReadOperation op;
      read.Add(&op);
      // One that is listed may not be there yet: then it holds no page.
      batch.Submit(ExtentObject(layer.id(), extent), &op, [&failed](int result) {
        if (result < 0 && result != -ENOENT) failed = result;
      });
    }
  }
  if (failed == 0) return absl::OkStatus();
  return client_->Failed(absl::StrCat("reading ", window.count.raw(), " pages from ",
                                      window.first.raw(), " on of layer ", layer.id().raw()),
                         failed);
}

absl::Status RadosPageStore::Write(LayerId id, const PageWrites& writes, Durability) {
  const absl::StatusOr<std::shared_ptr<RadosLayer>> found = FindLayer(id);
  if (!found.ok()) return found.status();
  RadosLayer& layer = **found;
  const absl::StatusOr<WritePlan> plan = PlanWrite(layer, writes);
  if (!plan.ok()) return plan.status();
  std::vector<ExtentIndex> extents;
  for (const auto& [extent, change] : *plan) extents.push_back(extent);
  const ExtentLocks lock(&extent_locks_, ExtentLocks::Side::kExclusive, id, extents);
  std::vector<ExtentIndex> added, removed;
  std::vector<RadosChange> changes;
  for (const auto& [extent, change] : *plan) {
    const bool is_there = layer.Has(extent);
    if (!is_there && change.puts.empty()) continue;  // deleted since the plan was made
    if (!is_there) added.push_back(extent);
    if (change.puts.empty() && change.deletes_all()) removed.push_back(extent);
    changes.push_back(ChangeOf(id, extent, change, is_there));
  }
  // In this order nothing is ever there that is not listed, however this ends.
  const std::string doing = absl::StrCat("writing to layer ", id.raw());
  layer.NoteWrite();
  if (absl::Status status = layer.Change(added, {}); !status.ok()) return status;
  if (absl::Status status = client_->Apply(doing, changes); !status.ok()) return status;
  return layer.Change({}, removed);
}

absl::StatusOr<std::unique_ptr<BulkLoad>> RadosPageStore::StartBulkLoad(LayerId id) {
  absl::StatusOr<std::shared_ptr<RadosLayer>> layer = FindLayer(id);
  if (!layer.ok()) return layer.status();
  return StartRadosBulkLoad(client_.get(), *std::move(layer));
}

absl::Status RadosPageStore::DeleteLayer(LayerId id) {
  RadosChange change;
  change.object = kRadosStoreObject;
  change.fill = [id](auto* op) { op->omap_set({{DeletingKey(id), librados::bufferlist()}}); };
  change.frees = true;
  const std::string doing = absl::StrCat("deleting layer ", id.raw());
  if (absl::Status status = client_->Apply(doing, change); !status.ok()) return status;
  MutexLock lock(mu_);
  layers_.erase(id);
  deleted_.insert(id);
  to_reclaim_.push_back(id);
  wake_.SignalAll();
  return absl::OkStatus();
}

void RadosPageStore::ReclaimLoop() {
  std::vector<LayerId> left;  // to be tried again later
  MutexLock lock(mu_);
  while (!stopping_) {
    if (to_reclaim_.empty()) {
      wake_.WaitUntil(mu_, std::chrono::steady_clock::now() + kRetryEvery);
      if (!to_reclaim_.empty() || left.empty()) continue;
    }
    std::vector<LayerId> layers = std::exchange(to_reclaim_, {});
    layers.insert(layers.end(), left.begin(), left.end());
    left.clear();
    mu_.Unlock();
    for (const LayerId layer : layers) {
      const absl::Status status = stopping_ ? absl::CancelledError() : Reclaim(layer);
      if (status.ok()) continue;
      if (!stopping_) LogDebug(absl::StrCat("will be tried again: ", status.message()));
      left.push_back(layer);
    }
    mu_.Lock();
  }
}

absl::Status RadosPageStore::Reclaim(LayerId id) {
  absl::StatusOr<StoredLayer> stored = ReadStoredLayer(client_.get(), id);
  if (!stored.ok()) return stored.status();
  stored->extents.Add(stored->loading);
  const std::string doing = absl::StrCat("deleting layer ", id.raw());
  if (absl::Status status =
          RemoveExtents(client_.get(), id, stored->extents, kDeletedAtATime, &stopping_);
      !status.ok()) {
    return status;
  }
  RadosChange list{.object = LayerObject(id),
                   .fill = [](auto* op) { op->remove(); },
                   .absent = RadosChange::Absent::kLeave,
                   .frees = true};
  if (absl::Status status = client_->Apply(doing, list); !status.ok()) return status;
  RadosChange done{.object = kRadosStoreObject,
                   .fill = [id](auto* op) { op->omap_rm_keys({DeletingKey(id)}); },
                   .frees = true};
  if (absl::Status status = client_->Apply(doing, done); !status.ok()) return status;
  MutexLock lock(mu_);
  deleted_.erase(id);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> RadosPageStore::StoredBytes(LayerId id) {
  const absl::StatusOr<std::shared_ptr<RadosLayer>> layer = FindLayer(id);
  if (!layer.ok()) return layer.status();
  return (*layer)->StoredBytes();
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> RadosPageStore::ReadKeys(
    absl::string_view prefix) {
  std::vector<std::pair<std::string, std::string>> all;
  std::string after;
  for (bool more = true; more;) {
    std::map<std::string, librados::bufferlist> values;
    const int result = client_->io().omap_get_vals2(kRadosStoreObject, after, std::string(prefix),
                                                    kMetaAtATime, &values, &more);
    if (result < 0) return client_->Failed("reading the metadata", result);
    for (auto& [key, value] : values) {
      all.emplace_back(absl::StripPrefix(key, prefix), value.to_str());
      after = key;
    }
  }
  return all;
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> RadosPageStore::ReadMeta() {
  return ReadKeys(kMetaPrefix);
}

absl::Status RadosPageStore::WriteMeta(std::span<const MetaChange> changes) {
  std::map<std::string, librados::bufferlist> set;
  std::set<std::string> removed;
  for (const MetaChange& change : changes) {
    const std::string key = absl::StrCat(kMetaPrefix, change.key);
    set.erase(key);
    removed.erase(key);
    if (change.value.has_value()) {
      set[key].append(*change.value);
    } else {
      removed.insert(key);
    }
  }
  RadosChange change;
  change.object = kRadosStoreObject;
  change.fill = [&](auto* op) {
    if (!set.empty()) op->omap_set(set);
    if (!removed.empty()) op->omap_rm_keys(removed);
  };
  // A few bytes, and what deletes a volume must get through.
  change.frees = true;
  return client_->Apply("writing the metadata", change);
}

StoreStats RadosPageStore::Stats() {
  StoreStats stats;
  MutexLock lock(mu_);
  for (const auto& [id, layer] : layers_) stats.stored_bytes += layer->KnownBytes();
  return stats;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PageStore>> OpenRadosPageStore(absl::string_view location,
                                                              const PageStoreOptions& options) {
  absl::StatusOr<std::unique_ptr<RadosClient>> client = RadosClient::Open(location, options);
  if (!client.ok()) return client.status();
  return RadosPageStore::Open(*std::move(client));
}

}  // namespace faultline
