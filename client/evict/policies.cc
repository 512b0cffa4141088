// SPDX-License-Identifier: Apache-2.0
#include "client/evict/policies.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <iterator>
#include <string>

#include "client/evict/fifo_policy.h"
#include "client/evict/plugin_policy.h"
#include "client/evict/s3_fifo_policy.h"

namespace faultline {

bool IsBuiltInEvictionPolicy(absl::string_view name) {
  return std::find(std::begin(kEvictionPolicyNames), std::end(kEvictionPolicyNames), name) !=
         std::end(kEvictionPolicyNames);
}

absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeEvictionPolicy(absl::string_view name,
                                                                   PageCount capacity) {
  if (name == "fifo") return std::make_unique<FifoPolicy>(FifoPolicy::SecondChance::kNo);
  if (name == "second-chance") return std::make_unique<FifoPolicy>(FifoPolicy::SecondChance::kYes);
  if (name == "s3-fifo") return std::make_unique<S3FifoPolicy>(capacity);
  if (absl::StrContains(name, "/") || absl::EndsWith(name, ".so")) {
    return LoadPolicy(std::string(name), capacity);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown eviction policy \"", name, "\"; known are ",
                   absl::StrJoin(kEvictionPolicyNames, ", "), " and the path of a shared object"));
}

}  // namespace faultline
