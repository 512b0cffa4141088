// SPDX-License-Identifier: Apache-2.0
#include "proto/working_set_message.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace faultline {
namespace {

template <typename Field>
auto Numbers(const Field& field) {
  return std::span(field.data(), static_cast<size_t>(field.size()));
}

}  // namespace

absl::Status EncodeWorkingSet(const WorkingSet& set, rpc::WorkingSet* message) {
  const absl::StatusOr<std::vector<uint64_t>> runs = set.pages().EncodeRuns();
  if (!runs.ok()) return runs.status();
  const std::vector<int64_t> first = set.EncodeFirst();
  message->Clear();
  message->mutable_runs()->Add(runs->begin(), runs->end());
  message->mutable_first()->Add(first.begin(), first.end());
  return absl::OkStatus();
}

absl::StatusOr<WorkingSet> DecodeWorkingSet(PageCount volume_size, const rpc::WorkingSet& message) {
  absl::StatusOr<PageSet> pages = PageSet::DecodeRuns(volume_size, Numbers(message.runs()));
  if (!pages.ok()) return pages.status();
  WorkingSet set(*std::move(pages));
  if (absl::Status status = set.DecodeFirst(Numbers(message.first())); !status.ok()) return status;
  return set;
}

}  // namespace faultline
