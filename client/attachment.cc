// SPDX-License-Identifier: Apache-2.0
#include "client/attachment.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <limits>

#include "client/evict/far_memory.h"

namespace faultline {
namespace {

std::string ToString(const Mapping& mapping) {
  return absl::StrCat("mapping of ", mapping.size, " bytes at 0x", absl::Hex(mapping.address),
                      ", volume offset ", mapping.offset);
}

absl::Status CheckMapping(const Mapping& mapping, PageCount volume_size) {
  const auto invalid = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(ToString(mapping), ": ", what));
  };
  if (mapping.size == 0) return invalid("its size is 0");
  if (!IsPageAligned(mapping.address)) return invalid("its address is not a multiple of 4096");
  if (!IsPageAligned(mapping.size)) return invalid("its size is not a multiple of 4096");
  if (!IsPageAligned(mapping.offset)) return invalid("its offset is not a multiple of 4096");
  if (mapping.size > std::numeric_limits<uint64_t>::max() - mapping.address) {
    return invalid("its end is beyond the last address");
  }
  if (!IsWithin(mapping.offset / kPageSize, mapping.size / kPageSize, volume_size)) {
    return absl::OutOfRangeError(absl::StrCat(
        ToString(mapping), ": it reaches beyond the volume's ", volume_size.in_bytes(), " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace

AttachRequest::AttachRequest() = default;
AttachRequest::AttachRequest(AttachRequest&&) noexcept = default;
AttachRequest::~AttachRequest() = default;

absl::Status CheckMappings(const std::vector<Mapping>& mappings, PageCount volume_size) {
  if (mappings.empty()) return absl::InvalidArgumentError("there are no mappings");
  for (const Mapping& mapping : mappings) {
    if (absl::Status status = CheckMapping(mapping, volume_size); !status.ok()) return status;
  }
  // Two neighbours in sorted order overlap if any two mappings do.
  const auto check_overlap = [&mappings](uint64_t Mapping::*start, absl::string_view where) {
    std::vector<Mapping> sorted = mappings;
    std::sort(sorted.begin(), sorted.end(),
              [&](const Mapping& a, const Mapping& b) { return a.*start < b.*start; });
    for (size_t i = 1; i < sorted.size(); ++i) {
      if (sorted[i - 1].*start + sorted[i - 1].size > sorted[i].*start) {
        return absl::InvalidArgumentError(absl::StrCat(ToString(sorted[i - 1]), " and ",
                                                       ToString(sorted[i]), " overlap in ", where));
      }
    }
    return absl::OkStatus();
  };
  if (absl::Status status = check_overlap(&Mapping::address, "their addresses"); !status.ok()) {
    return status;
  }
  return check_overlap(&Mapping::offset, "the volume");
}

absl::StatusOr<FaultPolicy> ParseFaultPolicy(absl::string_view name) {
  for (FaultPolicy policy : {FaultPolicy::kWait, FaultPolicy::kPoison, FaultPolicy::kKill}) {
    if (name == FaultPolicyName(policy)) return policy;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown fault policy \"", name, "\"; known are wait, poison and kill"));
}

absl::StatusOr<SharedDiscard> ParseSharedDiscard(absl::string_view name) {
  if (name == "keep") return SharedDiscard::kKeep;
  if (name == "zero") return SharedDiscard::kZero;
  return absl::InvalidArgumentError(absl::StrCat("unknown treatment of discarded shared memory \"",
                                                 name, "\"; known are keep and zero"));
}

absl::string_view SharedDiscardName(SharedDiscard discard) {
  return discard == SharedDiscard::kKeep ? "keep" : "zero";
}

absl::string_view FaultPolicyName(FaultPolicy policy) {
  switch (policy) {
    case FaultPolicy::kWait:
      return "wait";
    case FaultPolicy::kPoison:
      return "poison";
    case FaultPolicy::kKill:
      return "kill";
  }
  return "?";
}

}  // namespace faultline
