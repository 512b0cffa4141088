// SPDX-License-Identifier: Apache-2.0
#include "client/evict/area_scanner.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "client/process_maps.h"
#include "proto/log.h"

namespace faultline {

std::vector<AddressRange> AreaScanner::Candidates() const {
  std::vector<AddressRange> candidates;
  for (const VmArea& area : ReadMaps(pid_)) {
    if (!area.anonymous || area.shared || area.range.length < least_) continue;
    if (refused_.contains(area.range.start)) continue;
    std::vector<AddressRange> taken;
    if (excluded_.Overlaps(area.range)) taken.push_back(excluded_);
    memory_->space.ForEachPart(
        area.range, [&](const AddressSpace::Part& part) { taken.push_back(part.range); });
    std::sort(taken.begin(), taken.end(),
              [](AddressRange a, AddressRange b) { return a.start < b.start; });
    uint64_t at = area.range.start;
    for (AddressRange range : taken) {
      if (at < range.start) candidates.push_back({at, range.start - at});
      at = std::max(at, range.end());
    }
    if (at < area.range.end()) candidates.push_back({at, area.range.end() - at});
  }
  return candidates;
}

absl::StatusOr<bool> AreaScanner::Scan() {
  {
    SharedLock lock(memory_->space.map_changing_lock());
    if (memory_->space.unsettled() || Candidates().empty()) return false;
  }
  // No event is read from here on. Where none is outstanding at the end either, no memory of the
  // uffd has moved meanwhile: what is new here is not something old at another address. (Memory
  // that is none of the uffd's may change at any time; it is registered or not, as it is then.)
  ExclusiveLock lock(memory_->space.map_changing_lock());
  Uffd& uffd = *memory_->uffd;
  if (memory_->space.unsettled() || uffd.Probe() != SpaceState::kSettled) return false;
  struct Found {
    AddressRange range;
    std::vector<AddressRange> present;
  };
  std::vector<Found> found;
  uint64_t pages = 0;
  for (AddressRange range : Candidates()) {
    if (!uffd.Register(range).ok()) {
      refused_.insert(range.start);
      continue;
    }
    found.push_back({range, PresentPages(pid_, range)});
    pages += range.length / kPageSize;
  }
  if (uffd.Probe() != SpaceState::kSettled) return false;
  if (absl::Status status = Prepare(PageCount(pages)); !status.ok()) {
    for (const Found& area : found) uffd.Unregister(area.range).IgnoreError();
    return status;
  }
  for (const Found& area : found) Add(area.range, area.present);
  if (memory_->journal != nullptr && !found.empty()) {
    // Until then it is unknown memory, of which nothing was ever taken: its faults are strays.
    const absl::Status status = memory_->journal->Commit(memory_->space.Encode());
    if (!status.ok())
      LogError(absl::StrCat("no agent can go on with this one: ", status.message()));
  }
  return !found.empty();
}

absl::Status AreaScanner::Prepare(PageCount pages) {
  if (pages > memory_->table->range().end() - next_page_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the volume has no pages left for ", pages.in_bytes(),
                     " bytes that were mapped; they stay ordinary memory"));
  }
  if (far_ == nullptr || pages == PageCount(0)) return absl::OkStatus();
  absl::Status status = far_->AllocatePages({next_page_, pages});
  // Also where this agent is killed before the map says so: no page has two areas.
  if (status.ok()) far_->set_next_page(next_page_ + pages);
  return status;
}

void AreaScanner::Add(AddressRange range, const std::vector<AddressRange>& present) {
  memory_->space.Add(range, next_page_);
  for (AddressRange there : present) {
    const PageIndex first = next_page_ + PageCount((there.start - range.start) / kPageSize);
    const PageRange pages{first, PageCount(there.length / kPageSize)};
    memory_->table->SetAll(pages, PageState::kPresent);
    for (PageIndex page = pages.first; page < pages.end(); ++page) {
      memory_->local->OnZeroed(PageRange::Single(page));
    }
  }
  next_page_ += PageCount(range.length / kPageSize);
}

}  // namespace faultline
