// SPDX-License-Identifier: Apache-2.0
//
// What tests of pages share.
#ifndef FAULTLINE_PROTO_PAGE_TESTING_H_
#define FAULTLINE_PROTO_PAGE_TESTING_H_

#include <cstdint>
#include <limits>

#include "proto/page.h"

namespace faultline {

// Sums with it overflow.
inline constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();

constexpr PageRange Pages(uint64_t first, uint64_t count) {
  return {PageIndex(first), PageCount(count)};
}

}  // namespace faultline

#endif  // FAULTLINE_PROTO_PAGE_TESTING_H_
