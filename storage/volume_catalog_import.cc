// SPDX-License-Identifier: Apache-2.0
//
// Imports into the volumes of a catalog.
#include <absl/strings/str_cat.h>

#include <utility>

#include "proto/page_codec.h"
#include "storage/volume_catalog.h"

namespace faultline {

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
    catalog_->garbage_.insert(layer_);
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
    absl::StatusOr<VolumeInfo> info = Retry([this] { return catalog_->TryCommitImport(*this); });
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
  return Retry([&] { return TryStartImport(name, options); });
}

absl::StatusOr<std::unique_ptr<VolumeCatalog::Import>> VolumeCatalog::TryStartImport(
    absl::string_view name, const ImportOptions& options) {
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
  if (absl::Status status = Refresh(); !status.ok()) return status;
  const LayerId layer(NewId());
  const MetaChange changes[] = {NextIdChange(), PendingChange(layer)};
  if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
  auto load = store_->StartBulkLoad(layer);
  if (!load.ok()) {
    garbage_.insert(layer);
    CollectGarbage();
    return load.status();
  }
  return std::make_unique<ImportIntoLayer>(this, std::string(name), options, target_id, layer,
                                           *std::move(load));
}

absl::StatusOr<VolumeInfo> VolumeCatalog::TryCommitImport(const ImportIntoLayer& import) {
  MutexLock lock(change_mu_);
  if (absl::Status status = Refresh(); !status.ok()) return status;
  if (store_->shared() && !pending_.contains(import.layer_)) {
    return absl::UnavailableError(
        absl::StrCat("import into \"", import.name_, "\" took longer than ",
                     absl::FormatDuration(kPendingFor), ", and was given up; start anew"));
  }
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
    const MetaChange changes[] = {NextIdChange(), LayerChange(import.layer_), RecordChange(info)};
    if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
    pending_.erase(import.layer_);
    Add(info);
    return info;
  }
  const auto found = FindKnown(import.name_);
  if (!found.ok() || (*found)->info().id != import.target_id_) {
    return absl::NotFoundError(
        absl::StrCat("volume \"", import.name_, "\" was deleted while content was imported"));
  }
  return ReplaceContent(import, **found);
}

absl::StatusOr<VolumeInfo> VolumeCatalog::ReplaceContent(const ImportIntoLayer& import,
                                                         Volume& target) {
  const bool owned = Owns(target);
  if (absl::Status status = OwnVolume(target); !status.ok()) return status;
  // Others may have given it up while this was waiting for the volume.
  if (store_->shared() && !pending_.contains(import.layer_)) return absl::AbortedError("");
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
    const MetaChange changes[] = {LayerChange(import.layer_), RecordChange(changed)};
    if (absl::Status status = store_->WriteMeta(changes); !status.ok()) return status;
    target.info_ = changed;
  }
  pending_.erase(import.layer_);
  // What fails here is done by the next write.
  KeepOwning(replaced, changed.layers).IgnoreError();
  if (!owned) store_->Disown(changed.id);
  NoteLayers(changed);
  ++layer_users_[import.layer_];
  Release(LayersOf(replaced));
  CollectGarbage();
  return changed;
}

}  // namespace faultline
