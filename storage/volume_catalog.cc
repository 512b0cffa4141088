// SPDX-License-Identifier: Apache-2.0
#include "storage/volume_catalog.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>
#include <xxhash.h>

#include <algorithm>
#include <utility>

#include "proto/log.h"
#include "proto/page_codec.h"
#include "proto/volume_name.h"
#include "storage/catalog_meta.h"
#include "storage/working_set_layer.h"

namespace faultline {
namespace {

// All layers that the record of `info` names.
std::vector<LayerId> LayersOf(const VolumeInfo& info) {
  std::vector<LayerId> layers = info.layers;
  if (info.working_set != LayerId()) layers.push_back(info.working_set);
  return layers;
}

absl::Status CheckSize(absl::string_view name, uint64_t size_bytes) {
  constexpr uint64_t kMaxBytes = PageCount(kMaxVolumePages).in_bytes();
  if (size_bytes > 0 && size_bytes <= kMaxBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("volume \"", name, "\" cannot have a size of ",
                                                 size_bytes, " bytes; allowed are 1 to ",
                                                 kMaxBytes));
}

absl::Status CheckChainLength(const VolumeInfo& info, absl::string_view operation) {
  if (info.layers.size() < kMaxLayers) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("cannot ", operation, " \"", info.name, "\": it already has ",
                   info.layers.size(), " layers, the most that are allowed; export it and import ",
                   "that into a new volume, which will have one"));
}

absl::Status NameIsTaken(absl::string_view name) {
  return absl::AlreadyExistsError(
      absl::StrCat("there already is a volume or snapshot \"", name, "\""));
}

}  // namespace

// An import: a bulk load into a new layer, which is garbage until the commit.
class VolumeCatalog::ImportIntoLayer final : public Import {
 public:
  // `target_id` is that of the volume whose content is replaced, or 0 for a volume to be made.
  ImportIntoLayer(VolumeCatalog* catalog, std::string name, const ImportOptions& options,
                  uint64_t target_id, LayerId layer, std::unique_ptr<BulkLoad> load)
      : catalog_(catalog),
        name_(std::move(name)),
        options_(options),
        target_id_(target_id),
        layer_(layer),
        load_(std::move(load)) {}

  ~ImportIntoLayer() override {
    if (committed_) return;
    load_.reset();
    MutexLock lock(catalog_->change_mu_);
    catalog_->garbage_.push_back(layer_);
    catalog_->CollectGarbage();
  }

  absl::Status Put(PageIndex page, absl::string_view encoded) override {
    const PageCount size = PageCount::CoveringBytes(options_.size_bytes);
    if (page.raw() >= size.raw()) {
      return absl::OutOfRangeError(absl::StrCat("import into \"", name_, "\": page ", page.raw(),
                                                " lies beyond the ", size.raw(),
                                                " pages that were announced"));
    }
    if (page < next_) {
      return absl::InvalidArgumentError(
          absl::StrCat("import into \"", name_, "\": page ", page.raw(), " comes after page ",
                       next_.raw() - 1, "; pages must come in ascending order"));
    }
    next_ = page + PageCount(1);
    if (IsEncodedZeroPage(encoded)) return absl::OkStatus();
    return load_->Put(page, encoded);
  }

  absl::StatusOr<VolumeInfo> Commit() override {
    if (absl::Status status = load_->Commit(); !status.ok()) return status;
    absl::StatusOr<VolumeInfo> info = catalog_->CommitImport(*this);
    committed_ = info.ok();
    return info;
  }

 private:
  friend class VolumeCatalog;

  VolumeCatalog* const catalog_;
  const std::string name_;
  const ImportOptions options_;
  const uint64_t target_id_;
  const LayerId layer_;
  std::unique_ptr<BulkLoad> load_;
  PageIndex next_;  // no page before it may come any more
  bool committed_ = false;
};

VolumeCatalog::VolumeCatalog(std::unique_ptr<PageStore> store) : store_(std::move(store)) {}

VolumeCatalog::~VolumeCatalog() = default;

absl::StatusOr<std::unique_ptr<VolumeCatalog>> VolumeCatalog::Open(
    std::unique_ptr<PageStore> store) {
  std::unique_ptr<VolumeCatalog> catalog(new VolumeCatalog(std::move(store)));
  MutexLock lock(catalog->change_mu_);
  if (absl::Status status = catalog->Load(); !status.ok()) return status;
  catalog->CollectGarbage();
  return catalog;
}

absl::Status VolumeCatalog::Load() {
  if (const std::optional<RawImage> image = store_->raw_image(); image.has_value()) {
    ServeRawImage(*image);
    return absl::OkStatus();
  }
  auto meta = store_->ReadMeta();
  if (!meta.ok()) return meta.status();
  std::set<LayerId> known;
  for (const auto& [key, value] : *meta) {
    uint64_t number = 0;
    if (absl::string_view name = key; absl::ConsumePrefix(&name, kVolumePrefix)) {
      // Ordered by key: those of the layers came before.
      if (absl::Status status = LoadRecord(name, value, known); !status.ok()) return status;
    } else if (absl::string_view id = key; absl::ConsumePrefix(&id, kLayerPrefix)) {
      if (!absl::SimpleAtoi(id, &number)) return DamagedMeta(key, "is not the key of a layer");
      known.insert(LayerId(number));
    } else if (key == kNextKey) {
      if (!absl::SimpleAtoi(value, &next_id_)) return DamagedMeta(key, "does not hold a number");
    } else {
      return DamagedMeta(key, "is unknown to this program; a newer one may have written it");
    }
  }
  for (const auto& [layer, users] : layer_users_) {
    if (known.erase(layer) == 0 || layer.raw() >= next_id_) {
      return DamagedMeta(LayerKey(layer), "is missing, though a volume consists of that layer");
    }
  }
  if (LargestVolumeId() >= next_id_) {
    return DamagedMeta(kNextKey, "is behind the volumes there are");
  }
  for (const LayerId layer : known) {
    if (layer.raw() >= next_id_) return DamagedMeta(kNextKey, "is behind the layers there are");
    LogInfo(absl::StrCat("layer ", layer.raw(), " belongs to no volume: left by a crash, deleted"));
    garbage_.push_back(layer);
  }
  return absl::OkStatus();
}

absl::Status VolumeCatalog::LoadRecord(absl::string_view name, absl::string_view bytes,
                                       const std::set<LayerId>& known) {
  absl::StatusOr<VolumeInfo> info = ParseRecord(name, bytes);
  if (!info.ok()) return info.status();
  if (FindById(info->id).ok()) {
    return DamagedMeta(VolumeKey(name), "has the id of another volume");
  }
  // A program that knows of no working sets takes their layers for garbage.
  if (info->working_set != LayerId() && !known.contains(info->working_set)) {
    LogWarning(absl::StrCat("the working set of volume \"", name, "\" is gone, so it has none"));
    info->working_set = LayerId();
  }
  Add(*info);
  return absl::OkStatus();
}

uint64_t VolumeCatalog::LargestVolumeId() const {
  MutexLock lock(mu_);
  return by_id_.empty() ? 0 : by_id_.rbegin()->first;
}

void VolumeCatalog::ServeRawImage(const RawImage& image) {
  VolumeInfo info;
  info.name = image.name;
  // By its name: a client that comes back to this address and finds another image there is told so,
  // and one that finds its own goes on.
  info.id = std::max<uint64_t>(XXH3_64bits(image.name.data(), image.name.size()), 1);
  info.kind = VolumeInfo::Kind::kSnapshot;
  info.size_bytes = image.size_bytes;
  info.layers = {image.layer};
  info.created = absl::Now();
  Add(info);
}

absl::Status VolumeCatalog::CheckChange(absl::string_view name) const {
  if (absl::Status status = CheckVolumeName(name); !status.ok()) return status;
  if (!store_->read_only()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("volume \"", name,
                   "\" cannot be changed or made: this server serves a raw image, read-only"));
}

absl::Status VolumeCatalog::CheckNameIsFree(absl::string_view name) const {
  return Find(name).ok() ? NameIsTaken(name) : absl::OkStatus();
}

MetaChange VolumeCatalog::NextIdChange() const {
  return {std::string(kNextKey), absl::StrCat(next_id_)};
}

void VolumeCatalog::Add(const VolumeInfo& info) {
  for (const LayerId layer : LayersOf(info)) ++layer_users_[layer];
  auto volume = std::make_shared<Volume>(store_.get(), info);
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
    garbage_.push_back(layer);
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
    volume->info_ = std::move(changed);
  }
  Release(folded);
  CollectGarbage();
  return absl::OkStatus();
}

void VolumeCatalog::CollectGarbage() {
  std::vector<LayerId> left;
  for (const LayerId layer : std::exchange(garbage_, {})) {
    absl::Status status = store_->DeleteLayer(layer);
    const MetaChange changes[] = {{LayerKey(layer), std::nullopt}};
    if (status.ok()) status = store_->WriteMeta(changes);
    if (status.ok()) continue;
    LogWarning(absl::StrCat("layer ", layer.raw(), ", which no volume needs, was not deleted: ",
                            status.message(), "; tried again with the next change"));
    left.push_back(layer);
  }
  garbage_ = std::move(left);
}

absl::StatusOr<VolumeInfo> VolumeCatalog::Create(absl::string_view name, uint64_t size_bytes,
                                                 Durability durability, absl::string_view owner) {
  if (absl::Status status = CheckChange(name); !status.ok()) return status;
  if (absl::Status status = CheckSize(name, size_bytes); !status.ok()) return status;
  MutexLock lock(change_mu_);
  if (absl::Status status = CheckNameIsFree(name); !status.ok()) return status;
  VolumeInfo info;
  info.name = std::string(name);
  info.id = NewId();
  info.size_bytes = size_bytes;
  info.layers = {LayerId(NewId())};
  info.durability = durability;
  info.created = absl::Now();
  info.access.owner = std::string(owner);
  const MetaChange changes[] = {NextIdChange(), LayerChange(info.layers[0]), RecordChange(info)};
  if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
  Add(info);
  return info;
}

std::vector<VolumeInfo> VolumeCatalog::List() const {
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

absl::StatusOr<std::shared_ptr<Volume>> VolumeCatalog::Find(absl::string_view name) const {
  MutexLock lock(mu_);
  if (const auto it = volumes_.find(name); it != volumes_.end()) return it->second;
  return absl::NotFoundError(absl::StrCat("there is no volume or snapshot \"", name, "\""));
}

absl::StatusOr<std::shared_ptr<Volume>> VolumeCatalog::FindOnly(absl::string_view name,
                                                                uint64_t only_id) const {
  absl::StatusOr<std::shared_ptr<Volume>> found = Find(name);
  if (!found.ok() || only_id == 0 || (*found)->info().id == only_id) return found;
  return absl::NotFoundError(
      absl::StrCat("volume or snapshot \"", name, "\" was deleted, and another made in its place"));
}

absl::StatusOr<std::shared_ptr<Volume>> VolumeCatalog::FindById(uint64_t id) const {
  MutexLock lock(mu_);
  if (const auto it = by_id_.find(id); it != by_id_.end()) return it->second;
  return absl::NotFoundError(
      absl::StrCat("there is no volume with the id ", id, "; it may have been deleted"));
}

absl::StatusOr<VolumeInfo> VolumeCatalog::Snapshot(absl::string_view volume,
                                                   absl::string_view snapshot,
                                                   absl::string_view owner, uint64_t only_id) {
  if (absl::Status status = CheckChange(snapshot); !status.ok()) return status;
  MutexLock lock(change_mu_);
  auto found = FindOnly(volume, only_id);
  if (!found.ok()) return found.status();
  if (absl::Status status = CheckNameIsFree(snapshot); !status.ok()) return status;
  Volume& source = **found;
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
  source.info_ = std::move(changed);
  ++layer_users_[top];
  Add(frozen);
  return frozen;
}

absl::StatusOr<VolumeInfo> VolumeCatalog::Clone(absl::string_view snapshot,
                                                absl::string_view volume, absl::string_view owner,
                                                uint64_t only_id) {
  if (absl::Status status = CheckChange(volume); !status.ok()) return status;
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
  MutexLock lock(change_mu_);
  auto found = FindOnly(name, only_id);
  if (!found.ok()) return found.status();
  Volume& volume = **found;
  VolumeInfo info;
  {
    ExclusiveLock volume_lock(volume.mu_);
    const MetaChange changes[] = {{VolumeKey(name), std::nullopt}};
    if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
    volume.deleted_ = true;
    info = volume.info_;
  }
  Remove(info);
  CollectGarbage();
  return absl::OkStatus();
}

absl::StatusOr<VolumeInfo> VolumeCatalog::TakeEpoch(absl::string_view name, uint64_t only_id,
                                                    const EpochClaim& claim) {
  if (absl::Status status = CheckVolumeName(name); !status.ok()) return status;
  MutexLock lock(change_mu_);
  auto found = FindOnly(name, only_id);
  if (!found.ok()) return found.status();
  Volume& volume = **found;
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

absl::Status VolumeCatalog::CheckImportTarget(const Volume& target, const ImportOptions& options) {
  const VolumeInfo& info = target.info_;
  if (absl::Status status = target.CheckWritable(); !status.ok()) return status;
  if (options.size_bytes > info.size_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("volume \"", info.name, "\" has ", info.size_bytes, " bytes, too few for the ",
                     options.size_bytes, " to be imported; import under another name"));
  }
  if (options.replace) return absl::OkStatus();
  const absl::StatusOr<bool> holds = target.HoldsPages();
  if (!holds.ok()) return holds.status();
  if (!*holds) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("volume \"", info.name, "\" already holds pages; have its content replaced ",
                   "(--replace), or import under another name"));
}

absl::StatusOr<std::unique_ptr<VolumeCatalog::Import>> VolumeCatalog::StartImport(
    absl::string_view name, const ImportOptions& options) {
  if (absl::Status status = CheckChange(name); !status.ok()) return status;
  if (absl::Status status = CheckSize(name, options.size_bytes); !status.ok()) return status;
  uint64_t target_id = 0;
  if (const auto found = Find(name); found.ok()) {
    Volume& target = **found;
    SharedLock target_lock(target.mu_);
    if (options.only_id.value_or(target.info_.id) != target.info_.id) return NameIsTaken(name);
    if (absl::Status status = CheckImportTarget(target, options); !status.ok()) return status;
    target_id = target.info_.id;
  } else if (options.only_id.value_or(0) != 0) {
    return found.status();
  }
  MutexLock lock(change_mu_);
  const LayerId layer(NewId());
  const MetaChange changes[] = {NextIdChange(), LayerChange(layer)};
  if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
  auto load = store_->StartBulkLoad(layer);
  if (!load.ok()) {
    garbage_.push_back(layer);
    CollectGarbage();
    return load.status();
  }
  return std::make_unique<ImportIntoLayer>(this, std::string(name), options, target_id, layer,
                                           *std::move(load));
}

absl::StatusOr<VolumeInfo> VolumeCatalog::CommitImport(const ImportIntoLayer& import) {
  MutexLock lock(change_mu_);
  const auto found = Find(import.name_);
  if (import.target_id_ == 0) {
    if (absl::Status status = CheckNameIsFree(import.name_); !status.ok()) return status;
    VolumeInfo info;
    info.name = import.name_;
    info.id = NewId();
    info.size_bytes = import.options_.size_bytes;
    info.layers = {import.layer_};
    info.durability = import.options_.durability;
    info.created = absl::Now();
    info.access.owner = import.options_.owner;
    const MetaChange changes[] = {NextIdChange(), RecordChange(info)};
    if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
    Add(info);
    return info;
  }
  if (!found.ok() || (*found)->info().id != import.target_id_) {
    return absl::NotFoundError(
        absl::StrCat("volume \"", import.name_, "\" was deleted while content was imported"));
  }
  Volume& target = **found;
  VolumeInfo replaced;
  VolumeInfo changed;
  {
    ExclusiveLock target_lock(target.mu_);
    if (absl::Status status = CheckImportTarget(target, import.options_); !status.ok()) {
      return status;
    }
    replaced = target.info_;
    changed = target.info_;
    changed.layers = {import.layer_};
    changed.working_set = LayerId();
    changed.parent.clear();
    if (changed.epoch > 0) ++changed.epoch;
    changed.writer = 0;
    const MetaChange changes[] = {RecordChange(changed)};
    if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
    target.info_ = changed;
  }
  ++layer_users_[import.layer_];
  Release(LayersOf(replaced));
  CollectGarbage();
  return changed;
}

absl::Status VolumeCatalog::CheckWorkingSetChange(const VolumeInfo& info) const {
  if (!store_->read_only()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the working set of volume \"", info.name,
                   "\" cannot be kept: this server serves a raw image, read-only"));
}

absl::StatusOr<std::optional<WorkingSet>> VolumeCatalog::FindWorkingSet(
    const VolumeInfo& info) const {
  if (info.working_set == LayerId()) return std::nullopt;
  absl::StatusOr<WorkingSet> set = ReadWorkingSet(*store_, info.working_set, info.size());
  if (set.ok()) return *std::move(set);
  if (!absl::IsDataLoss(set.status())) return set.status();
  bool first = false;
  {
    MutexLock lock(mu_);
    first = damage_logged_.insert(info.working_set).second;
  }
  if (first) {
    LogError(absl::StrCat("the working set of volume \"", info.name,
                          "\" is damaged, so it counts as none: ", set.status().message()));
  }
  return std::nullopt;
}

absl::StatusOr<WorkingSet> VolumeCatalog::GetWorkingSet(uint64_t volume_id) const {
  const absl::StatusOr<std::shared_ptr<Volume>> volume = FindById(volume_id);
  if (!volume.ok()) return volume.status();
  const VolumeInfo info = (*volume)->info();
  absl::StatusOr<std::optional<WorkingSet>> stored = FindWorkingSet(info);
  if (!stored.ok()) return stored.status();
  if (stored->has_value()) return **std::move(stored);
  return WorkingSet::Create(info.size());
}

absl::StatusOr<PageCount> VolumeCatalog::MergeWorkingSet(uint64_t volume_id,
                                                         const WorkingSet& pages) {
  MutexLock lock(change_mu_);
  const absl::StatusOr<std::shared_ptr<Volume>> volume = FindById(volume_id);
  if (!volume.ok()) return volume.status();
  const VolumeInfo info = (*volume)->info();
  if (absl::Status status = CheckWorkingSetChange(info); !status.ok()) return status;
  if (pages.pages().volume_size() != info.size()) {
    return absl::InvalidArgumentError(absl::StrCat("volume \"", info.name, "\" has ",
                                                   info.size().raw(), " pages, the set is of ",
                                                   pages.pages().volume_size().raw()));
  }
  absl::StatusOr<std::optional<WorkingSet>> stored = FindWorkingSet(info);
  if (!stored.ok()) return stored.status();
  const bool add_in_place = stored->has_value() && layer_users_[info.working_set] == 1;
  absl::StatusOr<WorkingSet> set =
      stored->has_value() ? **std::move(stored) : WorkingSet::Create(info.size());
  if (!set.ok()) return set.status();
  const PageCount before = set->pages().count();
  set->Merge(pages);
  if (set->pages().count() == before) return before;
  if (set->pages().CountRuns() > kMaxPageSetRuns) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the working set of volume \"", info.name, "\" would have more than ",
                     kMaxPageSetRuns, " runs, the most that are kept; clear it to start anew"));
  }
  const absl::Status status = add_in_place ? WriteWorkingSet(*store_, info.working_set, *set)
                                           : StoreWorkingSetAside(volume->get(), *set);
  if (!status.ok()) return status;
  return set->pages().count();
}

absl::Status VolumeCatalog::StoreWorkingSetAside(Volume* volume, const WorkingSet& set) {
  const LayerId layer(NewId());
  const MetaChange changes[] = {NextIdChange(), LayerChange(layer)};
  if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
  absl::Status status = WriteWorkingSet(*store_, layer, set);
  if (status.ok()) status = SwitchWorkingSet(volume, layer);
  if (!status.ok()) {
    garbage_.push_back(layer);
    CollectGarbage();
  }
  return status;
}

absl::Status VolumeCatalog::SwitchWorkingSet(Volume* volume, LayerId layer) {
  // Only what holds change_mu_ changes a volume's info, so its readers need not wait for the disk.
  VolumeInfo changed = volume->info();
  const LayerId before = std::exchange(changed.working_set, layer);
  const MetaChange changes[] = {RecordChange(changed)};
  if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
  {
    ExclusiveLock lock(volume->mu_);
    volume->info_.working_set = layer;
  }
  if (layer != LayerId()) ++layer_users_[layer];
  if (before != LayerId()) Release({before});
  CollectGarbage();
  return absl::OkStatus();
}

absl::Status VolumeCatalog::ClearWorkingSet(absl::string_view name, uint64_t only_id) {
  if (absl::Status status = CheckVolumeName(name); !status.ok()) return status;
  MutexLock lock(change_mu_);
  const absl::StatusOr<std::shared_ptr<Volume>> volume = FindOnly(name, only_id);
  if (!volume.ok()) return volume.status();
  const VolumeInfo info = (*volume)->info();
  if (absl::Status status = CheckWorkingSetChange(info); !status.ok()) return status;
  if (info.working_set == LayerId()) return absl::OkStatus();
  return SwitchWorkingSet(volume->get(), LayerId());
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

absl::StatusOr<uint64_t> VolumeCatalog::StoredBytesOf(absl::string_view owner) const {
  std::set<LayerId> layers;
  for (const VolumeInfo& info : List()) {
    if (info.access.owner == owner) layers.insert(info.layers.begin(), info.layers.end());
  }
  VolumeInfo all;
  all.layers.assign(layers.begin(), layers.end());
  return StoredBytes(all);
}

}  // namespace faultline
