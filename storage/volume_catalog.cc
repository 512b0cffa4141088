// SPDX-License-Identifier: Apache-2.0
#include "storage/volume_catalog.h"

#include <absl/strings/str_cat.h>
#include <pthread.h>

#include <algorithm>
#include <utility>

#include "proto/log.h"
#include "proto/volume_name.h"
#include "storage/catalog_meta.h"

namespace faultline {
namespace {

absl::Status CheckChainLength(const VolumeInfo& info, absl::string_view operation) {
  if (info.layers.size() < kMaxLayers) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("cannot ", operation, " \"", info.name, "\": it already has ",
                   info.layers.size(), " layers, the most that are allowed; export it and import ",
                   "that into a new volume, which will have one"));
}

}  // namespace

VolumeCatalog::VolumeCatalog(std::unique_ptr<PageStore> store) : store_(std::move(store)) {}

VolumeCatalog::~VolumeCatalog() {
  {
    MutexLock lock(stop_mu_);
    stopping_ = true;
    stop_changed_.SignalAll();
  }
  if (refresh_thread_.joinable()) refresh_thread_.join();
}

absl::StatusOr<std::unique_ptr<VolumeCatalog>> VolumeCatalog::Open(
    std::unique_ptr<PageStore> store) {
  std::unique_ptr<VolumeCatalog> catalog(new VolumeCatalog(std::move(store)));
  MutexLock lock(catalog->change_mu_);
  if (absl::Status status = catalog->Load(); !status.ok()) return status;
  catalog->CollectGarbage();
  if (catalog->store_->shared()) {
    catalog->refresh_thread_ = std::thread([raw = catalog.get()] { raw->RefreshLoop(); });
    pthread_setname_np(catalog->refresh_thread_.native_handle(), "catalog-refresh");
  }
  return catalog;
}

absl::Status VolumeCatalog::CheckChange(absl::string_view name) const {
  if (absl::Status status = CheckVolumeName(name); !status.ok()) return status;
  if (!store_->read_only()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("volume \"", name,
                   "\" cannot be changed or made: this server serves a raw image, read-only"));
}

absl::Status VolumeCatalog::CheckNameIsFree(absl::string_view name) const {
  return FindKnown(name).ok() ? NameIsTaken(name) : absl::OkStatus();
}

MetaChange VolumeCatalog::NextIdChange() const {
  return {std::string(kNextKey), absl::StrCat(next_id_)};
}

void VolumeCatalog::Add(const VolumeInfo& info) {
  for (const LayerId layer : LayersOf(info)) ++layer_users_[layer];
  auto volume = std::make_shared<Volume>(store_.get(), static_cast<VolumeRecords*>(this), info);
  NoteLayers(info);
  MutexLock lock(mu_);
  volumes_[info.name] = volume;
  by_id_[info.id] = std::move(volume);
}

void VolumeCatalog::Remove(const VolumeInfo& info) {
  Release(LayersOf(info));
  MutexLock lock(mu_);
  volumes_.erase(info.name);
  by_id_.erase(info.id);
}

void VolumeCatalog::Release(const std::vector<LayerId>& layers) {
  for (const LayerId layer : layers) {
    if (--layer_users_[layer] > 0) continue;
    layer_users_.erase(layer);
    garbage_.insert(layer);
  }
}

absl::Status VolumeCatalog::CopyPages(LayerId from, LayerId to, PageCount size) {
  constexpr size_t kAtATime = 1024;
  for (PageRange rest{PageIndex(0), size}; !rest.empty();) {
    std::vector<std::pair<PageIndex, std::string>> pages;
    PageIndex next = rest.end();
    absl::Status status =
        store_->Read(from, rest, [&](PageIndex page, absl::string_view encoded) -> absl::Status {
          if (pages.size() == kAtATime) {
            next = page;
            return absl::CancelledError();
          }
          pages.emplace_back(page, encoded);
          return absl::OkStatus();
        });
    if (!status.ok() && next == rest.end()) return status;
    PageWrites writes;
    for (const auto& [page, encoded] : pages) writes.puts.push_back({page, encoded});
    if (!pages.empty()) status = store_->Write(to, writes, Durability::kNone);
    if (!pages.empty() && !status.ok()) return status;
    rest = PageRange::Between(next, rest.end());
  }
  return absl::OkStatus();
}

absl::Status VolumeCatalog::FoldLayers(Volume* volume) {
  VolumeInfo changed = volume->info();
  if (store_->shared()) {
    // Until the end: what another process may fold as well.
    std::vector<LayerId> alone = {changed.layers[0]};
    for (const LayerId layer : changed.layers) {
      if (layer != alone[0] && layer_users_.at(layer) == 1) alone.push_back(layer);
    }
    if (absl::Status status = KeepOwning(changed, alone); !status.ok()) return status;
  }
  std::vector<LayerId> kept, folded;  // oldest first
  for (size_t i = changed.layers.size(); i-- > 0;) {
    const LayerId layer = changed.layers[i];
    // The top one changes.
    const bool foldable =
        i > 0 && !kept.empty() && layer_users_.at(layer) == 1 && layer_users_.at(kept.back()) == 1;
    if (!foldable) {
      kept.push_back(layer);
      continue;
    }
    // Who reads meanwhile finds its pages in `layer`; and so does who comes after a crash.
    if (absl::Status status = CopyPages(layer, kept.back(), changed.size()); !status.ok()) {
      return status;
    }
    folded.push_back(layer);
  }
  if (folded.empty()) return absl::OkStatus();
  if (absl::Status status = store_->Sync(); !status.ok()) return status;
  changed.layers.assign(kept.rbegin(), kept.rend());
  {
    ExclusiveLock lock(volume->mu_);
    const MetaChange changes[] = {RecordChange(changed)};
    if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
    volume->info_ = changed;
  }
  const LayerId top[] = {changed.layers[0]};
  if (absl::Status status = KeepOwning(changed, top); !status.ok()) return status;
  NoteLayers(changed);
  Release(folded);
  CollectGarbage();
  return absl::OkStatus();
}

absl::Status VolumeCatalog::DeleteGarbage(LayerId layer) {
  const MetaChange marked = LayerChange(layer), removed = {LayerKey(layer), std::nullopt};
  if (store_->shared()) {
    // From here on whoever was filling it cannot put it to use.
    if (absl::Status status = store_->WriteMeta({&marked, 1}); !status.ok()) return status;
    pending_.erase(layer);
  }
  if (absl::Status status = store_->DeleteLayer(layer); !status.ok()) return status;
  return store_->WriteMeta({&removed, 1});
}

absl::Status VolumeCatalog::DeleteGarbageOrFindItGone(LayerId layer) {
  absl::Status status = DeleteGarbage(layer);
  while (absl::IsAborted(status)) {
    if (status = Refresh(); !status.ok()) return status;
    if (!garbage_.contains(layer)) return absl::OkStatus();
    status = DeleteGarbage(layer);
  }
  return status;
}

void VolumeCatalog::CollectGarbage() {
  const std::vector<LayerId> layers(garbage_.begin(), garbage_.end());
  for (const LayerId layer : layers) {
    // Another one of this list may have been found gone together with it.
    if (!garbage_.contains(layer)) continue;
    const absl::Status status = DeleteGarbageOrFindItGone(layer);
    if (status.ok()) {
      garbage_.erase(layer);
      continue;
    }
    LogWarning(absl::StrCat("layer ", layer.raw(), ", which no volume needs, was not deleted: ",
                            status.message(), "; tried again with the next change"));
  }
}

MetaChange VolumeCatalog::PendingChange(LayerId layer) {
  if (!store_->shared()) return LayerChange(layer);
  pending_.insert(layer);
  return {LayerKey(layer), absl::StrCat(absl::ToUnixSeconds(absl::Now()))};
}

absl::StatusOr<VolumeInfo> VolumeCatalog::Create(absl::string_view name, uint64_t size_bytes,
                                                 Durability durability, absl::string_view owner) {
  if (absl::Status status = CheckChange(name); !status.ok()) return status;
  if (absl::Status status = CheckSize(name, size_bytes); !status.ok()) return status;
  VolumeInfo wanted;
  wanted.name = std::string(name);
  wanted.size_bytes = size_bytes;
  wanted.durability = durability;
  wanted.access.owner = std::string(owner);
  return Retry([&] { return TryCreate(wanted); });
}

absl::StatusOr<VolumeInfo> VolumeCatalog::TryCreate(const VolumeInfo& wanted) {
  MutexLock lock(change_mu_);
  if (absl::Status status = Refresh(); !status.ok()) return status;
  if (absl::Status status = CheckNameIsFree(wanted.name); !status.ok()) return status;
  VolumeInfo info = wanted;
  info.id = NewId();
  info.layers = {LayerId(NewId())};
  info.created = absl::Now();
  const MetaChange changes[] = {NextIdChange(), LayerChange(info.layers[0]), RecordChange(info)};
  if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
  Add(info);
  return info;
}

std::vector<VolumeInfo> VolumeCatalog::List() {
  // Where the store does not answer, what was known last.
  RefreshToLook().IgnoreError();
  std::vector<std::shared_ptr<Volume>> volumes;
  {
    MutexLock lock(mu_);
    for (const auto& [name, volume] : volumes_) volumes.push_back(volume);
  }
  std::vector<VolumeInfo> infos;
  infos.reserve(volumes.size());
  for (const auto& volume : volumes) infos.push_back(volume->info());
  return infos;
}

absl::StatusOr<std::shared_ptr<Volume>> VolumeCatalog::Find(absl::string_view name) {
  if (absl::Status status = RefreshToLook(); !status.ok()) return status;
  return FindKnown(name);
}

absl::StatusOr<std::shared_ptr<Volume>> VolumeCatalog::FindById(uint64_t id) {
  absl::StatusOr<std::shared_ptr<Volume>> found = FindKnownById(id);
  if (found.ok()) return found;
  if (absl::Status status = RefreshToLook(); !status.ok()) return status;
  return FindKnownById(id);
}

absl::StatusOr<std::shared_ptr<Volume>> VolumeCatalog::FindKnown(absl::string_view name) const {
  MutexLock lock(mu_);
  if (const auto it = volumes_.find(name); it != volumes_.end()) return it->second;
  return absl::NotFoundError(absl::StrCat("there is no volume or snapshot \"", name, "\""));
}

absl::StatusOr<std::shared_ptr<Volume>> VolumeCatalog::FindOnly(absl::string_view name,
                                                                uint64_t only_id) {
  if (absl::Status status = Refresh(); !status.ok()) return status;
  absl::StatusOr<std::shared_ptr<Volume>> found = FindKnown(name);
  if (!found.ok() || only_id == 0 || (*found)->info().id == only_id) return found;
  return absl::NotFoundError(
      absl::StrCat("volume or snapshot \"", name, "\" was deleted, and another made in its place"));
}

absl::StatusOr<std::shared_ptr<Volume>> VolumeCatalog::FindKnownById(uint64_t id) const {
  MutexLock lock(mu_);
  if (const auto it = by_id_.find(id); it != by_id_.end()) return it->second;
  return absl::NotFoundError(
      absl::StrCat("there is no volume with the id ", id, "; it may have been deleted"));
}

absl::StatusOr<VolumeInfo> VolumeCatalog::Snapshot(absl::string_view volume,
                                                   absl::string_view snapshot,
                                                   absl::string_view owner, uint64_t only_id) {
  if (absl::Status status = CheckChange(snapshot); !status.ok()) return status;
  return Retry([&] { return TrySnapshot(volume, snapshot, owner, only_id); });
}

absl::StatusOr<VolumeInfo> VolumeCatalog::TrySnapshot(absl::string_view volume,
                                                      absl::string_view snapshot,
                                                      absl::string_view owner, uint64_t only_id) {
  MutexLock lock(change_mu_);
  auto found = FindOnly(volume, only_id);
  if (!found.ok()) return found.status();
  if (absl::Status status = CheckNameIsFree(snapshot); !status.ok()) return status;
  Volume& source = **found;
  const bool owned = Owns(source);
  if (absl::Status status = OwnVolume(source); !status.ok()) return status;
  if (absl::Status status = CheckNameIsFree(snapshot); !status.ok()) return status;
  if (source.info().layers.size() >= kFoldLayers) {
    if (absl::Status status = FoldLayers(&source); !status.ok()) return status;
  }
  ExclusiveLock source_lock(source.mu_);
  if (absl::Status status = source.CheckWritable(); !status.ok()) return status;
  if (absl::Status status = CheckChainLength(source.info_, "snapshot"); !status.ok()) return status;

  VolumeInfo frozen = source.info_;
  frozen.name = std::string(snapshot);
  frozen.id = NewId();
  frozen.kind = VolumeInfo::Kind::kSnapshot;
  frozen.parent = std::string(volume);
  frozen.epoch = 0;
  frozen.writer = 0;
  frozen.created = absl::Now();
  frozen.access = {.owner = std::string(owner), .grants = {}};
  const LayerId top(NewId());
  VolumeInfo changed = source.info_;
  changed.layers.insert(changed.layers.begin(), top);
  const MetaChange changes[] = {NextIdChange(), LayerChange(top), RecordChange(frozen),
                                RecordChange(changed)};
  if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
  const VolumeInfo before = std::exchange(source.info_, changed);
  ++layer_users_[top];
  // What fails here is done by the next write.
  const LayerId owned_next[] = {top};
  KeepOwning(before, owned_next).IgnoreError();
  Add(frozen);
  if (!owned) store_->Disown(changed.id);
  return frozen;
}

absl::StatusOr<VolumeInfo> VolumeCatalog::Clone(absl::string_view snapshot,
                                                absl::string_view volume, absl::string_view owner,
                                                uint64_t only_id) {
  if (absl::Status status = CheckChange(volume); !status.ok()) return status;
  return Retry([&] { return TryClone(snapshot, volume, owner, only_id); });
}

absl::StatusOr<VolumeInfo> VolumeCatalog::TryClone(absl::string_view snapshot,
                                                   absl::string_view volume,
                                                   absl::string_view owner, uint64_t only_id) {
  MutexLock lock(change_mu_);
  auto found = FindOnly(snapshot, only_id);
  if (!found.ok()) return found.status();
  VolumeInfo info = (*found)->info();
  if (info.kind != VolumeInfo::Kind::kSnapshot) {
    return absl::FailedPreconditionError(absl::StrCat(
        "\"", snapshot, "\" is no snapshot; only snapshots can be cloned, so make one of it"));
  }
  if (absl::Status status = CheckNameIsFree(volume); !status.ok()) return status;
  if (absl::Status status = CheckChainLength(info, "clone"); !status.ok()) return status;
  info.name = std::string(volume);
  info.id = NewId();
  info.kind = VolumeInfo::Kind::kVolume;
  info.parent = std::string(snapshot);
  info.created = absl::Now();
  info.access = {.owner = std::string(owner), .grants = {}};
  info.layers.insert(info.layers.begin(), LayerId(NewId()));
  const MetaChange changes[] = {NextIdChange(), LayerChange(info.layers[0]), RecordChange(info)};
  if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
  Add(info);
  return info;
}

absl::Status VolumeCatalog::Delete(absl::string_view name, uint64_t only_id) {
  if (absl::Status status = CheckChange(name); !status.ok()) return status;
  return Retry([&] { return TryDelete(name, only_id); });
}

absl::Status VolumeCatalog::TryDelete(absl::string_view name, uint64_t only_id) {
  MutexLock lock(change_mu_);
  auto found = FindOnly(name, only_id);
  if (!found.ok()) return found.status();
  Volume& volume = **found;
  if (absl::Status status = OwnVolume(volume); !status.ok()) return status;
  VolumeInfo info;
  {
    ExclusiveLock volume_lock(volume.mu_);
    if (absl::Status status = volume.CheckExists(); !status.ok()) return status;
    const MetaChange changes[] = {{VolumeKey(name), std::nullopt}};
    if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
    volume.deleted_ = true;
    info = volume.info_;
  }
  store_->ForgetVolume(info.id);
  Remove(info);
  CollectGarbage();
  return absl::OkStatus();
}

absl::StatusOr<VolumeInfo> VolumeCatalog::TakeEpoch(absl::string_view name, uint64_t only_id,
                                                    const EpochClaim& claim) {
  if (absl::Status status = CheckVolumeName(name); !status.ok()) return status;
  return Retry([&] { return TryTakeEpoch(name, only_id, claim); });
}

absl::StatusOr<VolumeInfo> VolumeCatalog::TryTakeEpoch(absl::string_view name, uint64_t only_id,
                                                       const EpochClaim& claim) {
  MutexLock lock(change_mu_);
  auto found = FindOnly(name, only_id);
  if (!found.ok()) return found.status();
  Volume& volume = **found;
  // Before anybody is fenced in vain.
  if (absl::Status status = CheckClaim(volume.info(), claim); !status.ok()) return status;
  if (absl::Status status = OwnVolume(volume); !status.ok()) return status;
  ExclusiveLock volume_lock(volume.mu_);
  if (absl::Status status = volume.CheckWritable(); !status.ok()) return status;
  VolumeInfo changed = volume.info_;
  if (absl::Status status = CheckClaim(changed, claim); !status.ok()) return status;
  if (claim.from_epoch != 0 && claim.from_epoch != changed.epoch) return changed;
  ++changed.epoch;
  changed.writer = claim.writer;
  const MetaChange changes[] = {RecordChange(changed)};
  if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
  volume.info_ = changed;
  return changed;
}

absl::StatusOr<VolumeInfo> VolumeCatalog::SetRole(absl::string_view name,
                                                  absl::string_view identity, VolumeRole role,
                                                  uint64_t only_id) {
  if (absl::Status status = CheckChange(name); !status.ok()) return status;
  return Retry([&] { return TrySetRole(name, identity, role, only_id); });
}

absl::StatusOr<VolumeInfo> VolumeCatalog::TrySetRole(absl::string_view name,
                                                     absl::string_view identity, VolumeRole role,
                                                     uint64_t only_id) {
  MutexLock lock(change_mu_);
  const auto found = FindOnly(name, only_id);
  if (!found.ok()) return found.status();
  // Only what holds change_mu_ changes a volume's info, so its readers need not wait for the disk.
  VolumeInfo changed = (*found)->info();
  if (absl::Status status = changed.access.SetRole(identity, role); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("volume \"", name, "\": ", status.message()));
  }
  const MetaChange changes[] = {RecordChange(changed)};
  if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
  {
    ExclusiveLock lock_volume((*found)->mu_);
    (*found)->info_.access = changed.access;
  }
  access_version_.fetch_add(1, std::memory_order_release);
  return changed;
}

absl::StatusOr<uint64_t> VolumeCatalog::StoredBytes(const VolumeInfo& info) const {
  uint64_t total = 0;
  for (LayerId layer : info.layers) {
    const absl::StatusOr<uint64_t> stored = store_->StoredBytes(layer);
    if (!stored.ok()) return stored.status();
    total += *stored;
  }
  return total;
}

absl::StatusOr<uint64_t> VolumeCatalog::StoredBytesOf(absl::string_view owner) {
  std::set<LayerId> layers;
  for (const VolumeInfo& info : List()) {
    if (info.access.owner == owner) layers.insert(info.layers.begin(), info.layers.end());
  }
  VolumeInfo all;
  all.layers.assign(layers.begin(), layers.end());
  return StoredBytes(all);
}

}  // namespace faultline
