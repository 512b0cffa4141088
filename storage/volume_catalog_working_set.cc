// SPDX-License-Identifier: Apache-2.0
//
// The working sets of a catalog's volumes.
#include <absl/strings/str_cat.h>

#include <utility>
#include <vector>

#include "proto/log.h"
#include "proto/volume_name.h"
#include "storage/volume_catalog.h"
#include "storage/working_set_layer.h"

namespace faultline {

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

absl::StatusOr<WorkingSet> VolumeCatalog::GetWorkingSet(uint64_t volume_id) {
  for (int attempt = 0; attempt < kChangeAttempts; ++attempt) {
    if (absl::Status status = RefreshToLook(); !status.ok()) return status;
    const absl::StatusOr<std::shared_ptr<Volume>> volume = FindKnownById(volume_id);
    if (!volume.ok()) return volume.status();
    const VolumeInfo info = (*volume)->info();
    absl::StatusOr<std::optional<WorkingSet>> stored = FindWorkingSet(info);
    if (!stored.ok()) return stored.status();
    // Another process may have put one in its place meanwhile, and deleted this one.
    if (absl::Status status = RefreshToLook(); !status.ok()) return status;
    if (store_->shared() && (*volume)->info().working_set != info.working_set) continue;
    if (stored->has_value()) return **std::move(stored);
    return WorkingSet::Create(info.size());
  }
  return absl::UnavailableError("other servers change the working set all the time; try again");
}

absl::StatusOr<PageCount> VolumeCatalog::MergeWorkingSet(uint64_t volume_id,
                                                         const WorkingSet& pages) {
  return Retry([&] { return TryMergeWorkingSet(volume_id, pages); });
}

absl::StatusOr<PageCount> VolumeCatalog::TryMergeWorkingSet(uint64_t volume_id,
                                                            const WorkingSet& pages) {
  MutexLock lock(change_mu_);
  if (absl::Status status = Refresh(); !status.ok()) return status;
  const absl::StatusOr<std::shared_ptr<Volume>> volume = FindKnownById(volume_id);
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
  const bool add_in_place =
      stored->has_value() && layer_users_[info.working_set] == 1 && !store_->shared();
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
  const MetaChange changes[] = {NextIdChange(), PendingChange(layer)};
  if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
  absl::Status status = WriteWorkingSet(*store_, layer, set);
  if (status.ok()) status = SwitchWorkingSet(volume, layer);
  if (!status.ok()) {
    garbage_.insert(layer);
    CollectGarbage();
  }
  return status;
}

absl::Status VolumeCatalog::SwitchWorkingSet(Volume* volume, LayerId layer) {
  // Only what holds change_mu_ changes a volume's info, so its readers need not wait for the disk.
  VolumeInfo changed = volume->info();
  const LayerId before = std::exchange(changed.working_set, layer);
  std::vector<MetaChange> changes = {RecordChange(changed)};
  if (layer != LayerId()) changes.push_back(LayerChange(layer));
  if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
  pending_.erase(layer);
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
  return Retry([&] { return TryClearWorkingSet(name, only_id); });
}

absl::Status VolumeCatalog::TryClearWorkingSet(absl::string_view name, uint64_t only_id) {
  MutexLock lock(change_mu_);
  const absl::StatusOr<std::shared_ptr<Volume>> volume = FindOnly(name, only_id);
  if (!volume.ok()) return volume.status();
  const VolumeInfo info = (*volume)->info();
  if (absl::Status status = CheckWorkingSetChange(info); !status.ok()) return status;
  if (info.working_set == LayerId()) return absl::OkStatus();
  return SwitchWorkingSet(volume->get(), LayerId());
}

}  // namespace faultline
