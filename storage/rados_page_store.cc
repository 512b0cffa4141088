// SPDX-License-Identifier: Apache-2.0
#include "storage/rados_page_store.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <optional>
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
#include "storage/rados_lease.h"
#include "storage/rados_meta.h"
#include "storage/rados_page_cache.h"
#include "storage/rados_write.h"
#include "storage/run_thread.h"

namespace faultline {
namespace {

// What one call reads at most before it hands out the first page, and what it sees of one moment:
// more than any Fetch asks for.
constexpr size_t kWindowExtents = 17;

// Of the pool's objects that are deleted at the same time; few, as nobody waits for them.
constexpr size_t kDeletedAtATime = 8;
constexpr auto kRetryEvery = std::chrono::seconds(5);

constexpr absl::string_view kDeletingPrefix = "deleting.";
constexpr absl::string_view kOwnerPrefix = "w.";

std::string DeletingKey(LayerId layer) {
  return absl::StrFormat("%s%x", kDeletingPrefix, layer.raw());
}

// What owns one volume's layers: a connection of its own, so that it can be fenced by itself.
struct Owner {
  std::unique_ptr<RadosClient> client;
  std::map<LayerId, std::shared_ptr<RadosLayer>> layers;
  bool lost = false;  // for good
};

// A layer as one call uses it.
struct FoundLayer {
  RadosClient* client = nullptr;
  std::shared_ptr<Owner> owner;  // null where the layer is owned by nobody or by others
  std::shared_ptr<RadosLayer> layer;
  bool remembered = false;  // others find the same object, so that it pays to cache its pages
};

// What a call reads of one extent: out of the cache, or from the pool.
struct ExtentPart {
  explicit ExtentPart(PageRange pages) : read(pages) {}

  ExtentRead read;
  bool is_cached = false;
  RadosPageCache::Pages cached;
  uint64_t ticket = 0;
};

// What one call may do, and has done.
struct ReadCall {
  bool may_ask = true;  // the pool
  bool asked = false;
};

absl::Status NotAtHand() { return absl::UnavailableError("the pool would have to be asked"); }

class RadosPageStore final : public PageStore {
 public:
  static absl::StatusOr<std::unique_ptr<PageStore>> Open(absl::string_view location,
                                                         const PageStoreOptions& options,
                                                         std::unique_ptr<RadosClient> client);
  ~RadosPageStore() override;

  absl::Status Read(LayerId layer, PageRange range, Visitor visit) override;
  absl::Status ReadAtHand(LayerId layer, PageRange range, Visitor visit) override;
  absl::Status Write(LayerId layer, const PageWrites& writes, Durability durability) override;
  absl::Status Sync() override { return absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<BulkLoad>> StartBulkLoad(LayerId layer) override;
  absl::Status DeleteLayer(LayerId layer) override;
  absl::StatusOr<uint64_t> StoredBytes(LayerId layer) override;
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadMeta() override {
    return meta_.Read();
  }
  absl::Status WriteMeta(std::span<const MetaChange> changes) override {
    return meta_.Write(changes);
  }
  bool shared() const override { return true; }
  absl::StatusOr<bool> MetaIsCurrent() override { return meta_.IsCurrent(); }
  bool MetaIsKnownToBeCurrent() override { return meta_.IsKnownToBeCurrent(); }
  absl::StatusOr<std::optional<std::string>> ReadMetaKey(absl::string_view key) override {
    return meta_.ReadKey(key);
  }
  absl::Status Own(uint64_t volume, std::span<const LayerId> layers) override;
  uint64_t Ownership(LayerId layer) override;
  void Disown(uint64_t volume) override;
  void ForgetVolume(uint64_t volume) override;
  void NoteLayers(std::span<const LayerId> layers, bool frozen) override;
  StoreStats Stats() override;

 private:
  RadosPageStore(absl::string_view location, const PageStoreOptions& options,
                 std::unique_ptr<RadosClient> client)
      : location_(location),
        options_(options),
        client_(std::move(client)),
        cache_(options.memory_bytes) {}

  // What this process knows of a layer, or null.
  FoundLayer FindKnown(LayerId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The one object in which changes of a layer by this process are seen.
  absl::StatusOr<FoundLayer> FindToWrite(LayerId id);
  absl::StatusOr<FoundLayer> FindToRead(LayerId id, ExtentIndex first, ExtentIndex last);
  // Forgets an owner that has been fenced, where `status` says that.
  absl::Status Check(const FoundLayer& found, absl::Status status);
  std::shared_ptr<Owner> FindOwner(uint64_t volume);  // or null
  void Lose(const std::shared_ptr<Owner>& owner);
  void ForgetLayers(const std::shared_ptr<Owner>& owner) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<std::shared_ptr<Owner>> TakeOwner(uint64_t volume);

  absl::Status ReadFound(const FoundLayer& found, PageRange range, Visitor visit, ReadCall call);
  absl::Status ReadWindow(const FoundLayer& found, PageRange window, Visitor visit, ReadCall* call);
  absl::Status ReadExtents(const FoundLayer& found, PageRange window, std::deque<ExtentPart>* parts,
                           ReadCall* call);
  absl::Status VisitPart(const FoundLayer& found, ExtentPart& part, Visitor visit);
  absl::Status WriteFound(const FoundLayer& found, const PageWrites& writes);
  // Forgets the owners that this process is no more; OK where that is known of all.
  absl::Status CheckOwners();
  void ReclaimLoop();
  absl::Status Reclaim(LayerId layer);

  const std::string location_;
  const PageStoreOptions options_;
  const std::unique_ptr<RadosClient> client_;
  ExtentLocks::Table extent_locks_;
  RadosPageCache cache_;

  Mutex mu_;
  CondVar wake_;
  std::map<uint64_t, std::shared_ptr<Owner>> owners_ ABSL_GUARDED_BY(mu_);  // by volume
  std::map<LayerId, std::shared_ptr<Owner>> owner_of_ ABSL_GUARDED_BY(mu_);
  // That this process owned, and does not: it writes to them as nobody else either, however late
  // that one is which thinks that it does.
  std::set<LayerId> lost_ ABSL_GUARDED_BY(mu_);
  // Those that this process writes though nobody owns them, and those that do not change any more.
  std::map<LayerId, std::shared_ptr<RadosLayer>> layers_ ABSL_GUARDED_BY(mu_);
  std::set<LayerId> frozen_ ABSL_GUARDED_BY(mu_);
  uint64_t notes_ ABSL_GUARDED_BY(mu_) = 0;         // calls of NoteLayers()
  std::set<LayerId> deleted_ ABSL_GUARDED_BY(mu_);  // whose objects may still be there
  std::vector<LayerId> to_reclaim_ ABSL_GUARDED_BY(mu_);
  std::atomic<bool> stopping_ = false;
  RunThread connector_{"store-connect"};  // whoever writes first may be in no hurry
  // What it calls uses all of the above.
  RadosLease lease_{client_.get(), [this] { return CheckOwners(); }};
  RadosMeta meta_{client_.get(), &lease_};
  std::thread reclaim_thread_;  // last: it uses all of the above
};

absl::StatusOr<std::unique_ptr<PageStore>> RadosPageStore::Open(
    absl::string_view location, const PageStoreOptions& options,
    std::unique_ptr<RadosClient> client) {
  std::unique_ptr<RadosPageStore> store(new RadosPageStore(location, options, std::move(client)));
  if (absl::Status status = store->meta_.Init(); !status.ok()) return status;
  const auto deleting = store->meta_.ReadKeys(kDeletingPrefix);
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

FoundLayer RadosPageStore::FindKnown(LayerId id) {
  if (const auto owned = owner_of_.find(id); owned != owner_of_.end()) {
    const std::shared_ptr<Owner>& owner = owned->second;
    return {owner->client.get(), owner, owner->layers.at(id), true};
  }
  if (const auto found = layers_.find(id); found != layers_.end()) {
    return {client_.get(), nullptr, found->second, true};
  }
  if (!deleted_.contains(id)) return {};
  auto empty = std::make_shared<RadosLayer>(client_.get(), id, StoredLayer());
  return {client_.get(), nullptr, std::move(empty), false};
}

absl::StatusOr<FoundLayer> RadosPageStore::FindToWrite(LayerId id) {
  {
    MutexLock lock(mu_);
    if (lost_.contains(id)) {
      return absl::AbortedError(
          absl::StrCat("layer ", id.raw(), ": another process has taken it over"));
    }
    if (FoundLayer known = FindKnown(id); known.layer != nullptr) return known;
  }
  absl::StatusOr<StoredLayer> stored = ReadStoredLayer(client_.get(), id);
  if (!stored.ok()) return stored.status();
  auto layer = std::make_shared<RadosLayer>(client_.get(), id, *std::move(stored));
  MutexLock lock(mu_);
  // Another thread may have been first: there must be one only, as it is what changes are seen in.
  return FoundLayer{client_.get(), nullptr, layers_.try_emplace(id, std::move(layer)).first->second,
                    true};
}

absl::StatusOr<FoundLayer> RadosPageStore::FindToRead(LayerId id, ExtentIndex first,
                                                      ExtentIndex last) {
  bool frozen = false;
  uint64_t notes = 0;
  {
    MutexLock lock(mu_);
    if (FoundLayer known = FindKnown(id); known.layer != nullptr) return known;
    frozen = frozen_.contains(id);
    notes = notes_;
  }
  // What another process may be adding to is asked for anew each time: its list where that spares
  // many questions, else each extent.
  absl::StatusOr<StoredLayer> stored = StoredLayer();
  if (frozen || last - first >= kWindowExtents) {
    stored = ReadStoredLayer(client_.get(), id);
    if (!stored.ok()) return stored.status();
  } else {
    for (ExtentIndex extent = first; extent <= last; ++extent) stored->extents.Add(extent);
  }
  auto layer = std::make_shared<RadosLayer>(client_.get(), id, *std::move(stored));
  MutexLock lock(mu_);
  // Not what may have been read before a note said to forget it.
  const bool remembered = frozen && notes == notes_;
  if (remembered) layer = layers_.try_emplace(id, std::move(layer)).first->second;
  return FoundLayer{client_.get(), nullptr, std::move(layer), remembered};
}

void RadosPageStore::ForgetLayers(const std::shared_ptr<Owner>& owner) {
  std::erase_if(owner_of_, [&](const auto& entry) {
    if (entry.second == owner) lost_.insert(entry.first);
    return entry.second == owner;
  });
}

void RadosPageStore::Lose(const std::shared_ptr<Owner>& owner) {
  MutexLock lock(mu_);
  owner->lost = true;
  std::erase_if(owners_, [&](const auto& entry) { return entry.second == owner; });
  ForgetLayers(owner);
}

absl::Status RadosPageStore::Check(const FoundLayer& found, absl::Status status) {
  if (absl::IsAborted(status) && found.owner != nullptr) Lose(found.owner);
  return status;
}

absl::StatusOr<std::shared_ptr<Owner>> RadosPageStore::TakeOwner(uint64_t volume) {
  std::shared_ptr<Owner> owner = FindOwner(volume);
  if (owner != nullptr) {
    const absl::Status status = owner->client->CheckOwner();
    if (status.ok()) return owner;
    if (!absl::IsAborted(status)) return status;
    Lose(owner);
  }
  auto client = RadosClient::OpenOwner(location_, options_,
                                       absl::StrFormat("%s%x", kOwnerPrefix, volume), &connector_);
  if (!client.ok()) return client.status();
  owner = std::make_shared<Owner>();
  owner->client = *std::move(client);
  {
    // From here on it is looked after, and may be lost.
    MutexLock lock(mu_);
    owners_[volume] = owner;
  }
  // An owner before may be answering out of its cache: also where this process has found none, as
  // one between may have ended.
  lease_.EndOthers();
  return owner;
}

absl::Status RadosPageStore::CheckOwners() {
  std::vector<std::shared_ptr<Owner>> owners;
  {
    MutexLock lock(mu_);
    for (const auto& [volume, owner] : owners_) owners.push_back(owner);
  }
  for (const std::shared_ptr<Owner>& owner : owners) {
    const absl::Status status = owner->client->CheckOwner();
    if (absl::IsAborted(status)) {
      Lose(owner);
    } else if (!status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status RadosPageStore::Own(uint64_t volume, std::span<const LayerId> layers) {
  const absl::StatusOr<std::shared_ptr<Owner>> taken = TakeOwner(volume);
  if (!taken.ok()) return taken.status();
  const std::shared_ptr<Owner>& owner = *taken;
  std::map<LayerId, std::shared_ptr<RadosLayer>> owned;
  for (const LayerId id : layers) {
    {
      MutexLock lock(mu_);
      if (const auto known = owner->layers.find(id); known != owner->layers.end()) {
        owned[id] = known->second;
        continue;
      }
    }
    absl::StatusOr<StoredLayer> stored = ReadStoredLayer(owner->client.get(), id);
    if (!stored.ok()) return stored.status();
    owned[id] = std::make_shared<RadosLayer>(owner->client.get(), id, *std::move(stored));
  }
  MutexLock lock(mu_);
  if (owner->lost) {
    return absl::AbortedError(
        absl::StrCat("volume ", volume, ": another process has taken it over meanwhile"));
  }
  ForgetLayers(owner);
  for (const auto& [id, layer] : owned) {
    owner_of_[id] = owner;
    lost_.erase(id);
    layers_.erase(id);
    frozen_.erase(id);
  }
  owner->layers = std::move(owned);
  return absl::OkStatus();
}

uint64_t RadosPageStore::Ownership(LayerId layer) {
  MutexLock lock(mu_);
  const auto owner = owner_of_.find(layer);
  return owner == owner_of_.end() ? 0 : owner->second->client->epoch();
}

std::shared_ptr<Owner> RadosPageStore::FindOwner(uint64_t volume) {
  MutexLock lock(mu_);
  const auto found = owners_.find(volume);
  return found == owners_.end() ? nullptr : found->second;
}

void RadosPageStore::Disown(uint64_t volume) {
  // Gives its lock up when the last call that uses it has ended.
  if (const std::shared_ptr<Owner> owner = FindOwner(volume); owner != nullptr) Lose(owner);
}

void RadosPageStore::ForgetVolume(uint64_t volume) {
  const std::shared_ptr<Owner> owner = FindOwner(volume);
  if (owner == nullptr) return;
  // Where this fails, an empty object is left.
  owner->client->RemoveLock().IgnoreError();
  Lose(owner);
}

void RadosPageStore::NoteLayers(std::span<const LayerId> layers, bool frozen) {
  MutexLock lock(mu_);
  ++notes_;
  for (const LayerId layer : layers) {
    if (owner_of_.contains(layer)) continue;
    layers_.erase(layer);
    frozen_.erase(layer);
    if (frozen) frozen_.insert(layer);
  }
}

absl::Status RadosPageStore::Read(LayerId id, PageRange range, Visitor visit) {
  if (range.empty()) return absl::OkStatus();
  const ExtentIndex last = ExtentOf(PageIndex(range.end().raw() - 1));
  const absl::StatusOr<FoundLayer> found = FindToRead(id, ExtentOf(range.first), last);
  if (!found.ok()) return found.status();
  return Check(*found, ReadFound(*found, range, visit, {}));
}

absl::Status RadosPageStore::ReadAtHand(LayerId id, PageRange range, Visitor visit) {
  if (range.empty()) return absl::OkStatus();
  FoundLayer found;
  {
    MutexLock lock(mu_);
    found = FindKnown(id);
  }
  if (found.layer == nullptr) return NotAtHand();
  return ReadFound(found, range, visit, {.may_ask = false});
}

absl::Status RadosPageStore::ReadFound(const FoundLayer& found, PageRange range, Visitor visit,
                                       ReadCall call) {
  const RadosLayer& layer = *found.layer;
  const ExtentIndex last = ExtentOf(PageIndex(range.end().raw() - 1));
  for (PageRange rest = range; !rest.empty();) {
    const std::vector<ExtentIndex> extents =
        layer.Find(ExtentOf(rest.first), last, kWindowExtents + 1);
    if (extents.empty()) break;
    const PageIndex end =
        extents.size() > kWindowExtents ? PagesOf(extents.back()).first : rest.end();
    const PageRange window =
        PageRange::Between(std::max(rest.first, PagesOf(extents.front()).first), end);
    if (absl::Status status = ReadWindow(found, window, visit, &call); !status.ok()) {
      return status;
    }
    rest = PageRange::Between(end, rest.end());
  }
  // What is known here, and that nothing is there, is true only as long as nobody else is the
  // owner.
  if (found.owner == nullptr || call.asked || lease_.HoldsOwners()) return absl::OkStatus();
  return call.may_ask ? found.client->CheckOwner() : NotAtHand();
}

absl::Status RadosPageStore::ReadWindow(const FoundLayer& found, PageRange window, Visitor visit,
                                        ReadCall* call) {
  std::deque<ExtentPart> parts;
  const ExtentIndex first = ExtentOf(window.first);
  const ExtentIndex last = ExtentOf(PageIndex(window.end().raw() - 1));
  absl::Status status;
  if (first == last) {
    status = ReadExtents(found, window, &parts, call);
  } else if (!call->may_ask) {
    status = NotAtHand();  // whoever has the locks may be waiting for the pool
  } else {
    // Not while pages are handed out: who gets them may read the store.
    const ExtentLocks lock(&extent_locks_, ExtentLocks::Side::kShared, found.layer->id(), first,
                           last);
    status = ReadExtents(found, window, &parts, call);
  }
  for (ExtentPart& part : parts) {
    if (!status.ok()) break;
    status = VisitPart(found, part, visit);
  }
  return status;
}

absl::Status RadosPageStore::VisitPart(const FoundLayer& found, ExtentPart& part, Visitor visit) {
  if (part.is_cached) return part.cached.Visit(visit);
  if (!found.remembered) return part.read.Visit(visit);  // nobody will look for it
  RadosPageCache::Read pages;
  absl::Status status = part.read.Visit([&](PageIndex page, absl::string_view encoded) {
    pages.emplace_back(page, encoded);
    return visit(page, encoded);
  });
  if (status.ok()) {
    cache_.Add(found.layer->number(), part.read.pages(), part.ticket, std::move(pages));
  }
  return status;
}

absl::Status RadosPageStore::ReadExtents(const FoundLayer& found, PageRange window,
                                         std::deque<ExtentPart>* parts, ReadCall* call) {
  const RadosLayer& layer = *found.layer;
  int failed = 0;
  {
    RadosBatch batch(&found.client->io());
    const ExtentIndex last = ExtentOf(PageIndex(window.end().raw() - 1));
    for (const ExtentIndex extent : layer.Find(ExtentOf(window.first), last, ~size_t{0})) {
      ExtentPart& part = parts->emplace_back(window.Intersect(PagesOf(extent)));
      part.is_cached = found.remembered &&
                       cache_.Find(layer.number(), part.read.pages(), &part.cached, &part.ticket);
      if (part.is_cached) continue;
      if (!call->may_ask) return NotAtHand();
      call->asked = true;
      librados::ObjectReadOperation op;
      part.read.Add(&op);
      // One that is listed may not be there yet: then it holds no page.
      batch.Submit(ExtentObject(layer.id(), extent), &op, [&failed](int result) {
        if (result < 0 && result != -ENOENT) failed = result;
      });
    }
  }
  if (failed == 0) return absl::OkStatus();
  return found.client->Failed(absl::StrCat("reading ", window.count.raw(), " pages from ",
                                           window.first.raw(), " on of layer ", layer.id().raw()),
                              failed);
}

absl::Status RadosPageStore::Write(LayerId id, const PageWrites& writes, Durability) {
  const absl::StatusOr<FoundLayer> found = FindToWrite(id);
  if (!found.ok()) return found.status();
  return Check(*found, WriteFound(*found, writes));
}

absl::Status RadosPageStore::WriteFound(const FoundLayer& found, const PageWrites& writes) {
  RadosLayer& layer = *found.layer;
  const LayerId id = layer.id();
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
  std::deque<RadosPageCache::Write> cached;
  for (const auto& [extent, change] : *plan) {
    cached.emplace_back(&cache_, layer.number(), extent, change);
  }
  layer.NoteWrite();
  if (absl::Status status = layer.Change(added, {}); !status.ok()) return status;
  if (absl::Status status = found.client->Apply(doing, changes); !status.ok()) return status;
  for (RadosPageCache::Write& write : cached) write.Commit();
  return layer.Change({}, removed);
}

absl::StatusOr<std::unique_ptr<BulkLoad>> RadosPageStore::StartBulkLoad(LayerId id) {
  absl::StatusOr<FoundLayer> found = FindToWrite(id);
  if (!found.ok()) return found.status();
  return StartRadosBulkLoad(client_.get(), std::move(found->layer));
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
  frozen_.erase(id);
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
  while (true) {
    const absl::StatusOr<FoundLayer> found = FindToRead(id, 0, ~ExtentIndex{0});
    if (!found.ok()) return found.status();
    const absl::StatusOr<uint64_t> bytes = found->layer->StoredBytes();
    // Whoever owns it: that is asked for once more without being that.
    if (!absl::IsAborted(Check(*found, bytes.status()))) return bytes;
  }
}

StoreStats RadosPageStore::Stats() {
  StoreStats stats;
  stats.cache_hits = cache_.hits();
  stats.cache_misses = cache_.misses();
  stats.cache_bytes = cache_.bytes();
  MutexLock lock(mu_);
  for (const auto& [id, layer] : layers_) stats.stored_bytes += layer->KnownBytes();
  for (const auto& [volume, owner] : owners_) {
    for (const auto& [id, layer] : owner->layers) stats.stored_bytes += layer->KnownBytes();
  }
  return stats;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PageStore>> OpenRadosPageStore(absl::string_view location,
                                                              const PageStoreOptions& options) {
  absl::StatusOr<std::unique_ptr<RadosClient>> client = RadosClient::Open(location, options);
  if (!client.ok()) return client.status();
  return RadosPageStore::Open(location, options, *std::move(client));
}

}  // namespace faultline
