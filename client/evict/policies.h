// SPDX-License-Identifier: Apache-2.0
//
// The eviction policies by name.
#ifndef FAULTLINE_CLIENT_EVICT_POLICIES_H_
#define FAULTLINE_CLIENT_EVICT_POLICIES_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <memory>

#include "client/evict/eviction_policy.h"

namespace faultline {

inline constexpr absl::string_view kEvictionPolicyNames[] = {"fifo", "second-chance", "s3-fifo"};
// Whether `name` is one of these, and not a path.
bool IsBuiltInEvictionPolicy(absl::string_view name);

// For flags.
inline constexpr char kEvictionPolicyForm[] = "fifo|second-chance|s3-fifo|PATH.so";

// The policy called `name`; one with a slash in it or with ".so" at its end is a shared object, as
// faultline_policy.h has it. `capacity` is about how many pages will be resident (the local memory
// without the victim stage): sizes depend on it, correctness does not. INVALID_ARGUMENT, with the
// known names, for an unknown one; the errors of LoadPolicy() for a shared object.
absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeEvictionPolicy(absl::string_view name,
                                                                   PageCount capacity);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_POLICIES_H_
