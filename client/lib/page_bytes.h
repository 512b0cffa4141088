// SPDX-License-Identifier: Apache-2.0
//
// The size of a page, for what is loaded into foreign programs and includes nothing of proto/.
#ifndef FAULTLINE_CLIENT_LIB_PAGE_BYTES_H_
#define FAULTLINE_CLIENT_LIB_PAGE_BYTES_H_

#include <cstdint>

namespace faultline {

inline constexpr uint64_t kPageBytes = 4096;

// To whole pages.
constexpr uint64_t RoundDown(uint64_t bytes) { return bytes / kPageBytes * kPageBytes; }
constexpr uint64_t RoundUp(uint64_t bytes) { return RoundDown(bytes + kPageBytes - 1); }

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LIB_PAGE_BYTES_H_
