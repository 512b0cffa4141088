// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_PROTO_WORKING_SET_MESSAGE_H_
#define FAULTLINE_PROTO_WORKING_SET_MESSAGE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "proto/pager.pb.h"
#include "proto/working_set.h"

namespace faultline {

// Sets `*message`. The errors of PageSet::EncodeRuns().
absl::Status EncodeWorkingSet(const WorkingSet& set, rpc::WorkingSet* message);

// Reads a message that is not trusted. The errors of PageSet::DecodeRuns() and
// WorkingSet::DecodeFirst().
absl::StatusOr<WorkingSet> DecodeWorkingSet(PageCount volume_size, const rpc::WorkingSet& message);

}  // namespace faultline

#endif  // FAULTLINE_PROTO_WORKING_SET_MESSAGE_H_
