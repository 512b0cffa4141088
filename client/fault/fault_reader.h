// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_FAULT_FAULT_READER_H_
#define FAULTLINE_CLIENT_FAULT_FAULT_READER_H_

#include <absl/status/status.h>

#include <memory>
#include <vector>

#include "client/fault/fetcher.h"
#include "client/fault/paged_memory.h"

namespace faultline {

// Drains one uffd: applies events to the address space while it holds the map-changing lock
// exclusively across read(), collects faults, and when nothing more is there resolves those against
// the map as it is then (the kernel returns faults before the events that explain them) and has
// their pages fetched.
//
// Never waits for a page or for the source. One thread at a time.
class FaultReader {
 public:
  // `memory` and `target` are borrowed.
  FaultReader(PagedMemory* memory, std::shared_ptr<Fetcher> fetcher, Target* target);

  // To be called when the uffd is readable. An error is final: it cannot be read any more.
  absl::Status Drain();

 private:
  // Reads and applies one batch under the exclusive lock; returns how many events it had.
  absl::StatusOr<size_t> ReadBatch();
  void Apply(const RemapEvent& event)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(memory_->space.map_changing_lock());
  void Apply(const RemoveEvent& event)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(memory_->space.map_changing_lock());
  void Apply(const UnmapEvent& event)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(memory_->space.map_changing_lock());
  void WakeAll(AddressRange range);
  void Resolve();
  // A fault at an address that no mapping names: there is no page to serve it with.
  void Refuse(uint64_t address);

  PagedMemory* const memory_;
  const std::shared_ptr<Fetcher> fetcher_;
  Target* const target_;
  // Kept between calls, so that a fault costs no allocation.
  std::vector<UffdEvent> events_;
  std::vector<uint64_t> faults_;     // addresses, in the order they were read
  std::vector<AddressRange> woken_;  // whose waiters have to look again
  std::vector<PageIndex> demanded_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_FAULT_READER_H_
