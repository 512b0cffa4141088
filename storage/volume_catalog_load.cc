// SPDX-License-Identifier: Apache-2.0
//
// How a catalog learns what its store's metadata says: once, and where other processes change that
// as well, again and again.
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>
#include <xxhash.h>

#include <algorithm>
#include <span>
#include <utility>

#include "proto/log.h"
#include "storage/volume_catalog.h"

namespace faultline {

absl::StatusOr<VolumeCatalog::Content> VolumeCatalog::ReadContent() {
  auto meta = store_->ReadMeta();
  if (!meta.ok()) return meta.status();
  Content content;
  for (const auto& [key, value] : *meta) {
    uint64_t number = 0;
    if (absl::string_view name = key; absl::ConsumePrefix(&name, kVolumePrefix)) {
      absl::StatusOr<VolumeInfo> info = ParseRecord(name, value);
      if (!info.ok()) return info.status();
      if (!content.volumes.emplace(info->id, *info).second) {
        return DamagedMeta(key, "has the id of another volume");
      }
    } else if (absl::string_view id = key; absl::ConsumePrefix(&id, kLayerPrefix)) {
      if (!absl::SimpleAtoi(id, &number)) return DamagedMeta(key, "is not the key of a layer");
      content.layers.emplace(number, value);
    } else if (key == kNextKey) {
      if (!absl::SimpleAtoi(value, &content.next_id)) {
        return DamagedMeta(key, "does not hold a number");
      }
    } else {
      return DamagedMeta(key, "is unknown to this program; a newer one may have written it");
    }
  }
  for (auto& [id, info] : content.volumes) {
    // A program that knows of no working sets takes their layers for garbage.
    if (info.working_set != LayerId() && !content.layers.contains(info.working_set)) {
      LogWarning(
          absl::StrCat("the working set of volume \"", info.name, "\" is gone, so it has none"));
      info.working_set = LayerId();
    }
    for (const LayerId layer : LayersOf(info)) ++content.users[layer];
  }
  if (absl::Status status = CheckContent(content); !status.ok()) return status;
  return content;
}

absl::Status VolumeCatalog::CheckContent(const Content& content) {
  for (const auto& [layer, users] : content.users) {
    if (!content.layers.contains(layer) || layer.raw() >= content.next_id) {
      return DamagedMeta(LayerKey(layer), "is missing, though a volume consists of that layer");
    }
  }
  if (!content.volumes.empty() && content.volumes.rbegin()->first >= content.next_id) {
    return DamagedMeta(kNextKey, "is behind the volumes there are");
  }
  if (!content.layers.empty() && content.layers.rbegin()->first.raw() >= content.next_id) {
    return DamagedMeta(kNextKey, "is behind the layers there are");
  }
  return absl::OkStatus();
}

absl::Status VolumeCatalog::Load() {
  if (const std::optional<RawImage> image = store_->raw_image(); image.has_value()) {
    ServeRawImage(*image);
    return absl::OkStatus();
  }
  loads_ |= 1;
  const absl::StatusOr<Content> content = ReadContent();
  if (!content.ok()) return content.status();
  Adopt(*content);
  ++loads_;
  return absl::OkStatus();
}

void VolumeCatalog::Adopt(const Content& content) {
  std::vector<std::shared_ptr<Volume>> known;
  {
    MutexLock lock(mu_);
    for (const auto& [id, volume] : by_id_) known.push_back(volume);
  }
  for (const auto& volume : known) {
    const VolumeInfo info = volume->info();
    if (const auto found = content.volumes.find(info.id); found != content.volumes.end()) {
      AdoptVolume(volume.get(), found->second);
      continue;
    }
    {
      ExclusiveLock volume_lock(volume->mu_);
      volume->deleted_ = true;
    }
    store_->Disown(info.id);
    MutexLock lock(mu_);
    volumes_.erase(info.name);
    by_id_.erase(info.id);
  }
  for (const auto& [id, info] : content.volumes) {
    if (!FindKnownById(id).ok()) Add(info);
  }
  std::vector<LayerId> gone;
  for (const auto& [layer, users] : layer_users_) {
    if (!content.users.contains(layer)) gone.push_back(layer);
  }
  store_->NoteLayers(gone, /*frozen=*/false);
  layer_users_ = content.users;
  next_id_ = content.next_id;
  AdoptGarbage(content.layers);
}

void VolumeCatalog::AdoptGarbage(const std::map<LayerId, std::string>& layers) {
  std::erase_if(garbage_, [&](LayerId layer) { return !layers.contains(layer); });
  pending_.clear();
  for (const auto& [layer, value] : layers) {
    if (layer_users_.contains(layer)) {
      garbage_.erase(layer);
      continue;
    }
    int64_t made = 0;
    if (store_->shared() && absl::SimpleAtoi(value, &made) &&
        absl::Now() - absl::FromUnixSeconds(made) < kPendingFor) {
      pending_.insert(layer);
    } else if (garbage_.insert(layer).second) {
      LogInfo(absl::StrCat("layer ", layer.raw(),
                           " belongs to no volume: left by a crash, or being deleted by another "
                           "server; deleted"));
    }
  }
}

void VolumeCatalog::AdoptVolume(Volume* volume, const VolumeInfo& info) {
  const VolumeInfo before = volume->info();
  if (RecordChange(before).value == RecordChange(info).value) return;
  {
    ExclusiveLock volume_lock(volume->mu_);
    volume->info_ = info;
    // Before anybody reads in the new ones what is remembered of the old.
    if (before.layers != info.layers) NoteLayers(info);
  }
  if (before.access != info.access) access_version_.fetch_add(1, std::memory_order_release);
}

absl::StatusOr<bool> VolumeCatalog::IsFresh() {
  const uint64_t loads = loads_;
  if (loads % 2 != 0) return false;
  absl::StatusOr<bool> current = store_->MetaIsCurrent();
  // Not where it was loaded meanwhile: current is then what is not known yet.
  if (current.ok() && loads_ != loads) return false;
  return current;
}

absl::Status VolumeCatalog::Refresh() {
  if (!store_->shared()) return absl::OkStatus();
  const absl::StatusOr<bool> fresh = IsFresh();
  if (!fresh.ok()) return fresh.status();
  return *fresh ? absl::OkStatus() : Load();
}

absl::Status VolumeCatalog::RefreshToLook() {
  if (!store_->shared()) return absl::OkStatus();
  const absl::StatusOr<bool> fresh = IsFresh();
  if (!fresh.ok()) return fresh.status();
  if (*fresh) return absl::OkStatus();
  MutexLock lock(change_mu_);
  return Refresh();
}

void VolumeCatalog::RefreshLoop() {
  absl::Status before;
  while (true) {
    {
      MutexLock lock(stop_mu_);
      if (!stopping_) {
        stop_changed_.WaitUntil(stop_mu_, std::chrono::steady_clock::now() + kRefreshEvery);
      }
      if (stopping_) return;
    }
    absl::Status status = RefreshToLook();
    if (!status.ok() && before.ok()) {
      LogWarning(absl::StrCat("what other servers change is not known here: ", status.message()));
    }
    before = std::move(status);
  }
}

absl::Status VolumeCatalog::OwnVolume(Volume& volume) {
  if (!store_->shared() || volume.info().kind != VolumeInfo::Kind::kVolume) {
    return absl::OkStatus();
  }
  for (int attempt = 0; attempt < kChangeAttempts; ++attempt) {
    const VolumeInfo before = volume.info();
    const LayerId first[] = {before.layers.front()};
    if (absl::Status status = store_->Own(before.id, first); !status.ok()) return status;
    const uint64_t taken = store_->Ownership(first[0]);
    // What an owner before was about to write is of a version that there is no more.
    absl::Status changed = absl::AbortedError("");
    while (absl::IsAborted(changed)) {
      if (absl::Status status = Refresh(); !status.ok()) return status;
      changed = store_->WriteMeta({});
    }
    if (!changed.ok()) return changed;
    // Still the owner after that, and so whoever is the next finds what is written from here on.
    const LayerId top[] = {volume.info().layers.front()};
    if (absl::Status status = store_->Own(before.id, top); !status.ok()) return status;
    if (taken != 0 && store_->Ownership(top[0]) == taken) return absl::OkStatus();
  }
  return absl::UnavailableError(absl::StrCat(
      "volume \"", volume.info().name, "\" is taken by other servers all the time; try again"));
}

absl::Status VolumeCatalog::KeepOwning(const VolumeInfo& before, std::span<const LayerId> layers) {
  const uint64_t taken = store_->Ownership(before.layers.front());
  absl::Status status = store_->Own(before.id, layers);
  // One that was lost in between is not to be had without a look at the record.
  if (status.ok() && store_->Ownership(layers.front()) != taken) status = absl::AbortedError("");
  if (!status.ok()) store_->Disown(before.id);
  return status;
}

bool VolumeCatalog::Owns(const Volume& volume) {
  return store_->Ownership(volume.info().layers.front()) != 0;
}

absl::Status VolumeCatalog::Own(Volume& volume, uint64_t epoch) {
  return Retry([&]() -> absl::Status {
    MutexLock lock(change_mu_);
    if (absl::Status status = Refresh(); !status.ok()) return status;
    {
      SharedLock volume_lock(volume.mu_);
      if (absl::Status status = volume.CheckWritable(); !status.ok()) return status;
      if (epoch != 0) {
        if (absl::Status status = volume.CheckWriter({epoch, 0}); !status.ok()) return status;
      }
    }
    return OwnVolume(volume);
  });
}

absl::StatusOr<bool> VolumeCatalog::IsCurrent(const Volume& volume,
                                              const std::vector<LayerId>& layers) {
  const absl::StatusOr<bool> fresh = IsFresh();
  if (!fresh.ok()) return fresh.status();
  if (!*fresh) {
    // Mostly others have changed something else; and who changes something here, and is to be
    // waited for before all is loaded, may be at it for long.
    const VolumeInfo known = volume.info();
    const auto record = store_->ReadMetaKey(VolumeKey(known.name));
    if (!record.ok()) return record.status();
    if (record->has_value()) {
      const absl::StatusOr<VolumeInfo> now = ParseRecord(known.name, **record);
      if (!now.ok()) return now.status();
      if (now->id == known.id && now->layers == layers) return true;
    }
    if (absl::Status status = RefreshToLook(); !status.ok()) return status;
  }
  SharedLock lock(volume.mu_);
  return !volume.deleted_ && volume.info_.layers == layers;
}

bool VolumeCatalog::AreKnownToBeCurrent() {
  const uint64_t loads = loads_;
  return loads % 2 == 0 && store_->MetaIsKnownToBeCurrent() && loads_ == loads;
}

void VolumeCatalog::NoteLayers(const VolumeInfo& info) {
  const std::span<const LayerId> layers = info.layers;
  const size_t changing = info.kind == VolumeInfo::Kind::kVolume ? 1 : 0;
  store_->NoteLayers(layers.first(changing), /*frozen=*/false);
  store_->NoteLayers(layers.subspan(changing), /*frozen=*/true);
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

}  // namespace faultline
