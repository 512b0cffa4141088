// SPDX-License-Identifier: Apache-2.0
#include "client/vm/memory_attacher.h"

#include <absl/strings/str_cat.h>

namespace faultline {

absl::StatusOr<VmFaultPolicy> ParseVmFaultPolicy(absl::string_view name) {
  if (name == "stop") return VmFaultPolicy::kStop;
  if (name == "wait") return VmFaultPolicy::kWait;
  if (name == "poison") return VmFaultPolicy::kPoison;
  if (name == "kill") return VmFaultPolicy::kKill;
  return absl::InvalidArgumentError(
      absl::StrCat("unknown fault policy \"", name, "\"; known are stop, wait, poison and kill"));
}

}  // namespace faultline
