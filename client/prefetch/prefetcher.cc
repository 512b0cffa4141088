// SPDX-License-Identifier: Apache-2.0
#include "client/prefetch/prefetcher.h"

#include <absl/strings/str_cat.h>

#include "client/prefetch/cluster_prefetcher.h"
#include "client/prefetch/majority_prefetcher.h"
#include "client/prefetch/sequential_prefetcher.h"
#include "client/prefetch/stream_prefetcher.h"

namespace faultline {
namespace {

constexpr PrefetchPolicy kPolicies[] = {PrefetchPolicy::kNone, PrefetchPolicy::kSequential,
                                        PrefetchPolicy::kMajority, PrefetchPolicy::kStreams,
                                        PrefetchPolicy::kCluster};

}  // namespace

absl::string_view PrefetchPolicyName(PrefetchPolicy policy) {
  switch (policy) {
    case PrefetchPolicy::kNone:
      return "none";
    case PrefetchPolicy::kSequential:
      return "sequential";
    case PrefetchPolicy::kMajority:
      return "majority";
    case PrefetchPolicy::kStreams:
      return "streams";
    case PrefetchPolicy::kCluster:
      break;
  }
  return "cluster";
}

absl::StatusOr<PrefetchPolicy> ParsePrefetchPolicy(absl::string_view name) {
  for (PrefetchPolicy policy : kPolicies) {
    if (name == PrefetchPolicyName(policy)) return policy;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown prefetch policy \"", name,
                   "\"; known are none, sequential, majority, streams and cluster"));
}

absl::StatusOr<WorkingSetUse> ParseWorkingSetUse(absl::string_view name) {
  if (name == "none") return WorkingSetUse::kNone;
  if (name == "record") return WorkingSetUse::kRecord;
  if (name == "replay") return WorkingSetUse::kReplay;
  if (name == "both") return WorkingSetUse::kBoth;
  return absl::InvalidArgumentError(absl::StrCat("unknown use of a working set \"", name,
                                                 "\"; known are none, record, replay and both"));
}

absl::string_view WorkingSetUseName(WorkingSetUse use) {
  switch (use) {
    case WorkingSetUse::kNone:
      return "none";
    case WorkingSetUse::kRecord:
      return "record";
    case WorkingSetUse::kReplay:
      return "replay";
    case WorkingSetUse::kBoth:
      break;
  }
  return "both";
}

std::unique_ptr<Prefetcher> NewPrefetcher(PrefetchPolicy policy) {
  switch (policy) {
    case PrefetchPolicy::kNone:
      break;
    case PrefetchPolicy::kSequential:
      return std::make_unique<SequentialPrefetcher>();
    case PrefetchPolicy::kMajority:
      return std::make_unique<MajorityPrefetcher>();
    case PrefetchPolicy::kStreams:
      return std::make_unique<StreamPrefetcher>();
    case PrefetchPolicy::kCluster:
      return std::make_unique<ClusterPrefetcher>();
  }
  return nullptr;
}

}  // namespace faultline
