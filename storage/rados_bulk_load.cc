// SPDX-License-Identifier: Apache-2.0
#include "storage/rados_bulk_load.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "storage/rados_extent.h"

namespace faultline {
namespace {

// 4 MiB at the same time.
constexpr size_t kExtentsAtATime = 16;
// How many are listed as loading at once, so that doing so costs little: 16 MiB.
constexpr uint64_t kMarkedExtents = 64;
// Objects that are removed at the same time when a load is given up.
constexpr size_t kRemovedAtATime = 32;

class RadosBulkLoad final : public BulkLoad {
 public:
  RadosBulkLoad(RadosClient* client, std::shared_ptr<RadosLayer> layer)
      : client_(client), layer_(std::move(layer)) {}
  ~RadosBulkLoad() override;

  absl::Status Put(PageIndex page, absl::string_view encoded) override;
  absl::Status Commit() override;

 private:
  struct Extent {
    ExtentIndex index;
    std::deque<std::string> bytes;
    std::vector<PageWrites::Put> puts;  // of `bytes`
  };

  absl::Status WriteExtents();
  absl::Status Mark(ExtentIndex extent);

  RadosClient* const client_;
  const std::shared_ptr<RadosLayer> layer_;
  std::deque<Extent> waiting_;  // to be written
  ExtentSet marked_;            // listed as loading
  ExtentSet loaded_;
  bool committed_ = false;
};

RadosBulkLoad::~RadosBulkLoad() {
  if (committed_ || marked_.count() == 0) return;
  // What fails here is deleted with the layer.
  if (!RemoveExtents(client_, layer_->id(), marked_, kRemovedAtATime, nullptr).ok()) return;
  RadosChange list;
  list.object = LayerObject(layer_->id());
  list.fill = [](auto* op) { op->remove(); };
  list.absent = RadosChange::Absent::kLeave;
  list.frees = true;
  client_->Apply("giving a load up", list).IgnoreError();
}

absl::Status RadosBulkLoad::Put(PageIndex page, absl::string_view encoded) {
  if (absl::Status status = CheckEncodedSize(page, encoded); !status.ok()) return status;
  const ExtentIndex extent = ExtentOf(page);
  if (waiting_.empty() || waiting_.back().index != extent) {
    if (waiting_.size() == kExtentsAtATime) {
      if (absl::Status status = WriteExtents(); !status.ok()) return status;
    }
    waiting_.push_back({.index = extent, .bytes = {}, .puts = {}});
  }
  Extent& last = waiting_.back();
  last.puts.push_back({page, last.bytes.emplace_back(encoded)});
  return absl::OkStatus();
}

absl::Status RadosBulkLoad::WriteExtents() {
  std::vector<RadosChange> changes;
  for (const Extent& extent : waiting_) {
    if (absl::Status status = Mark(extent.index); !status.ok()) return status;
    RadosChange& change = changes.emplace_back();
    change.object = ExtentObject(layer_->id(), extent.index);
    change.fill = [&extent](auto* op) {
      std::vector<const PageWrites::Put*> puts;
      for (const PageWrites::Put& put : extent.puts) puts.push_back(&put);
      PutPages(puts, op);
    };
    change.expected = false;
    loaded_.Add(extent.index);
  }
  const std::string doing = absl::StrCat("loading layer ", layer_->id().raw());
  const absl::Status status = client_->Apply(doing, changes);
  waiting_.clear();
  return status;
}

absl::Status RadosBulkLoad::Mark(ExtentIndex extent) {
  if (marked_.Has(extent)) return absl::OkStatus();
  const bool first = marked_.count() == 0;
  const ExtentIndex from = extent - extent % kMarkedExtents;
  for (uint64_t i = 0; i < kMarkedExtents; ++i) marked_.Add(from + i);
  RadosChange change;
  change.object = LayerObject(layer_->id());
  change.fill = [&](auto* op) {
    StoreBlocks(marked_, {extent / ExtentSet::kBlockExtents}, ExtentUse::kLoading, op);
  };
  change.expected = !first;
  return client_->Apply("listing extents to be loaded", change);
}

absl::Status RadosBulkLoad::Commit() {
  if (!waiting_.empty()) {
    if (absl::Status status = WriteExtents(); !status.ok()) return status;
  }
  layer_->NoteWrite();
  if (loaded_.count() == 0) return absl::OkStatus();
  absl::Status status = layer_->CommitLoad(loaded_, marked_);
  committed_ = status.ok();
  return status;
}

}  // namespace

std::unique_ptr<BulkLoad> StartRadosBulkLoad(RadosClient* client,
                                             std::shared_ptr<RadosLayer> layer) {
  return std::make_unique<RadosBulkLoad>(client, std::move(layer));
}

absl::Status RemoveExtents(RadosClient* client, LayerId layer, const ExtentSet& extents,
                           size_t at_a_time, const std::atomic<bool>* stop) {
  const std::vector<ExtentIndex> all = extents.All();
  for (size_t at = 0; at < all.size(); at += at_a_time) {
    if (stop != nullptr && *stop) return absl::CancelledError("stopping");
    std::vector<RadosChange> changes;
    for (size_t i = at; i < std::min(all.size(), at + at_a_time); ++i) {
      RadosChange& change = changes.emplace_back();
      change.object = ExtentObject(layer, all[i]);
      change.fill = [](auto* op) { op->remove(); };
      change.absent = RadosChange::Absent::kLeave;
      change.frees = true;
    }
    const std::string doing = absl::StrCat("deleting layer ", layer.raw());
    if (absl::Status status = client->Apply(doing, changes); !status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace faultline
