// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_FAR_FAR_TARGET_H_
#define FAULTLINE_CLIENT_FAR_FAR_TARGET_H_

#include <cstdint>

namespace faultline {

// What far_target says first, with its userfaultfd and the memfd of its helper's commands.
struct FarTargetHello {
  uint64_t memory_start;
  uint64_t memory_bytes;
  uint64_t staging_start;
  uint64_t staging_bytes;
  uint64_t helper_start;  // all of its memory
  uint64_t helper_bytes;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAR_FAR_TARGET_H_
