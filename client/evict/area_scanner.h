// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVICT_AREA_SCANNER_H_
#define FAULTLINE_CLIENT_EVICT_AREA_SCANNER_H_

#include <absl/status/statusor.h>

#include <memory>
#include <set>
#include <vector>

#include "client/fault/paged_memory.h"

namespace faultline {

// Makes the private anonymous memory of a process far memory, as it comes: looks at what areas
// there are, and those that are large enough become regions, each page of theirs with a new one of
// the volume. What is there by then is resident; what is not has been zero, and is filled with
// zeros.
//
// No event tells that memory was mapped or has grown. Until it is looked at, such memory is the
// kernel's alone: there is no fault of it, and it counts for no budget.
//
// One caller at a time.
class AreaScanner {
 public:
  // Areas of less than `least` bytes are left alone, and so is `excluded`.
  AreaScanner(std::shared_ptr<PagedMemory> memory, pid_t pid, uint64_t least, AddressRange excluded)
      : memory_(std::move(memory)),
        pid_(pid),
        least_(least),
        excluded_(excluded),
        far_(memory_->journal != nullptr ? memory_->journal->far() : nullptr),
        next_page_(far_ != nullptr ? far_->next_page() : PageIndex(0)) {}

  // Whether it has found something new. Takes the map-changing lock exclusively where it may.
  // RESOURCE_EXHAUSTED: the volume or the journal has no room for it; it stays ordinary memory.
  absl::StatusOr<bool> Scan();

 private:
  // What is no region yet.
  std::vector<AddressRange> Candidates() const
      ABSL_SHARED_LOCKS_REQUIRED(memory_->space.map_changing_lock());
  // Makes room in the journal for `pages` new ones, and for the map.
  absl::Status Prepare(PageCount pages);
  void Add(AddressRange range, const std::vector<AddressRange>& present)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(memory_->space.map_changing_lock());

  const std::shared_ptr<PagedMemory> memory_;
  const pid_t pid_;
  const uint64_t least_;
  const AddressRange excluded_;
  const std::shared_ptr<FarJournal> far_;  // may be null
  PageIndex next_page_;                    // the first of the volume that no region has had
  std::set<uint64_t> refused_;             // start addresses of what cannot be registered
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_AREA_SCANNER_H_
