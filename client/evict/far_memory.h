// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVICT_FAR_MEMORY_H_
#define FAULTLINE_CLIENT_EVICT_FAR_MEMORY_H_

#include <absl/status/statusor.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "client/address_space.h"
#include "client/evict/eviction_policy.h"
#include "client/evict/local_memory_limit.h"
#include "client/evict/page_extractor.h"
#include "client/journal/far_record.h"
#include "client/source/page_sink.h"
#include "client/uffd/uffd.h"
#include "proto/page.h"

namespace faultline {

// What makes an attachment one of far memory: its pages leave when there is no room for them, and
// are written to the volume that they are fetched from.
struct FarMemory {
  LocalMemoryLimit limit;  // of pages that take up memory here
  std::unique_ptr<EvictionPolicy> policy;
  std::shared_ptr<PageSink> sink;
  // Nothing in the volume is of worth: all pages begin as zeros, and are not fetched.
  bool fresh = false;
  // How the memory is to be registered.
  Uffd::Protection protection = Uffd::Protection::kNone;
  // What takes pages out of it. Both arguments are borrowed.
  std::function<absl::StatusOr<std::unique_ptr<PageExtractor>>(Uffd*, const AddressSpace*)>
      new_extractor;

  // Takes a snapshot of the volume as it is; blocks. Null: there are no checkpoints.
  std::function<absl::Status(const std::string& name)> snapshot;

  // By which another agent goes on where this one is killed, if there is a journal; none: the
  // attachment ends with this agent.
  std::optional<FarRecord> record;

  // For the children of forks, of private memory: freezes the volume as it is, and opens that
  // (ForkedSource). Null: the memory must not be inherited (MADV_DONTFORK).
  std::function<absl::StatusOr<std::shared_ptr<PageSource>>()> freeze;

  // Instead of mappings: the private anonymous memory of the whole process, as it comes, in areas
  // of at least so many bytes; AreaScanner. 0: there are mappings.
  uint64_t least_area = 0;
  // Memory that never becomes a region, and the part of it that is to be registered nevertheless.
  AddressRange excluded, staging;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_FAR_MEMORY_H_
