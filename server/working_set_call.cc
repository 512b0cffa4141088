// SPDX-License-Identifier: Apache-2.0
#include "server/working_set_call.h"

#include <absl/strings/str_cat.h>

#include <memory>
#include <span>
#include <vector>

#include "proto/page_set.h"

namespace faultline {

absl::Status GetWorkingSet(const VolumeCatalog& catalog, const rpc::GetWorkingSetRequest& request,
                           rpc::GetWorkingSetResponse* response) {
  const absl::StatusOr<PageSet> set = catalog.GetWorkingSet(request.volume_id());
  if (!set.ok()) return set.status();
  const absl::StatusOr<std::vector<uint64_t>> numbers = set->EncodeRuns();
  if (!numbers.ok()) return numbers.status();
  response->mutable_pages()->mutable_runs()->Add(numbers->begin(), numbers->end());
  return absl::OkStatus();
}

absl::Status MergeWorkingSet(VolumeCatalog& catalog, const rpc::MergeWorkingSetRequest& request,
                             rpc::MergeWorkingSetResponse* response) {
  const absl::StatusOr<std::shared_ptr<Volume>> volume = catalog.FindById(request.volume_id());
  if (!volume.ok()) return volume.status();
  const VolumeInfo info = (*volume)->info();
  const auto& runs = request.pages().runs();
  const absl::StatusOr<PageSet> pages =
      PageSet::DecodeRuns(info.size(), std::span(runs.data(), static_cast<size_t>(runs.size())));
  if (!pages.ok()) {
    return absl::Status(pages.status().code(), absl::StrCat("working set of volume \"", info.name,
                                                            "\": ", pages.status().message()));
  }
  const absl::StatusOr<PageCount> total = catalog.MergeWorkingSet(info.id, *pages);
  if (!total.ok()) return total.status();
  response->set_total_pages(total->raw());
  return absl::OkStatus();
}

}  // namespace faultline
