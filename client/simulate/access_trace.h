// SPDX-License-Identifier: Apache-2.0
//
// Accesses out of and into traces.
#ifndef FAULTLINE_CLIENT_SIMULATE_ACCESS_TRACE_H_
#define FAULTLINE_CLIENT_SIMULATE_ACCESS_TRACE_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>

#include "client/simulate/access.h"

namespace faultline {

// Of one simulation; they take 8 bytes each.
inline constexpr uint64_t kMaxAccesses = uint64_t{1} << 28;

struct LoadedAccesses {
  AccessSequence sequence;
  // The trace has no accesses, but faults, which are taken for them: it is known what was missed in
  // the memory of that run only.
  bool is_of_faults = false;
  uint64_t dropped = 0;    // of the trace's records, when it was written
  uint64_t not_whole = 0;  // when it was read
};

// The accesses and discards in the trace at `path`. The errors of TraceReader; INVALID_ARGUMENT
// where it has neither accesses nor faults, or more than kMaxAccesses.
absl::StatusOr<LoadedAccesses> LoadAccesses(const std::string& path);

// Writes a trace of them, one nanosecond apart.
absl::Status SaveAccesses(const AccessSequence& sequence, const std::string& path);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SIMULATE_ACCESS_TRACE_H_
