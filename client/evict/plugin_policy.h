// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVICT_PLUGIN_POLICY_H_
#define FAULTLINE_CLIENT_EVICT_PLUGIN_POLICY_H_

#include <absl/status/statusor.h>

#include <memory>
#include <string>

#include "client/evict/eviction_policy.h"

namespace faultline {

// The policy of the shared object at `path`, as faultline_policy.h has it. What it chooses is
// checked: whatever it returns, the policy that is returned here keeps the contract of
// EvictionPolicy. (What it does to the memory of this process is not.) NOT_FOUND where there is no
// such file; INVALID_ARGUMENT where it cannot be loaded, has no faultline_policy(), or has it in
// another version; RESOURCE_EXHAUSTED where it refuses to be created.
absl::StatusOr<std::unique_ptr<EvictionPolicy>> LoadPolicy(const std::string& path,
                                                           PageCount capacity);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_PLUGIN_POLICY_H_
