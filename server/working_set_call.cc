// SPDX-License-Identifier: Apache-2.0
#include "server/working_set_call.h"

#include <absl/strings/str_cat.h>

#include <memory>

#include "proto/working_set_message.h"

namespace faultline {

absl::Status GetWorkingSet(const AccessControl& access, const Caller& caller,
                           const rpc::GetWorkingSetRequest& request,
                           rpc::GetWorkingSetResponse* response) {
  const absl::Status allowed =
      access.FindById(caller, request.volume_id(), VolumeRole::kReader).status();
  if (!allowed.ok()) return allowed;
  const absl::StatusOr<WorkingSet> set = access.catalog().GetWorkingSet(request.volume_id());
  if (!set.ok()) return set.status();
  return EncodeWorkingSet(*set, response->mutable_pages());
}

absl::Status MergeWorkingSet(const AccessControl& access, const Caller& caller,
                             const rpc::MergeWorkingSetRequest& request,
                             rpc::MergeWorkingSetResponse* response) {
  const absl::StatusOr<std::shared_ptr<Volume>> volume =
      access.FindById(caller, request.volume_id(), VolumeRole::kWriter);
  if (!volume.ok()) return volume.status();
  const VolumeInfo info = (*volume)->info();
  const absl::StatusOr<WorkingSet> pages = DecodeWorkingSet(info.size(), request.pages());
  if (!pages.ok()) {
    return absl::Status(pages.status().code(), absl::StrCat("working set of volume \"", info.name,
                                                            "\": ", pages.status().message()));
  }
  const absl::StatusOr<PageCount> total = access.catalog().MergeWorkingSet(info.id, *pages);
  if (!total.ok()) return total.status();
  response->set_total_pages(total->raw());
  return absl::OkStatus();
}

}  // namespace faultline
