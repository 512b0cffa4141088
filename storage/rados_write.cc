// SPDX-License-Identifier: Apache-2.0
#include "storage/rados_write.h"

#include <algorithm>
#include <utility>

namespace faultline {

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

}  // namespace faultline
