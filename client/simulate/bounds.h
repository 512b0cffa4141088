// SPDX-License-Identifier: Apache-2.0
//
// What cannot be beaten, and what could be if a policy saw every access: misses of demand paging,
// without prefetch, in a memory of `local` pages. REQUIRES: local > 0. Pages that were discarded
// read as zeros, and are no misses.
#ifndef FAULTLINE_CLIENT_SIMULATE_BOUNDS_H_
#define FAULTLINE_CLIENT_SIMULATE_BOUNDS_H_

#include <cstdint>

#include "client/simulate/access.h"

namespace faultline {

// Belady's MIN: the page leaves that is wanted last, which may be the one that was just fetched. No
// policy misses less often. Takes O(n log n) for n accesses.
uint64_t MinMisses(const AccessSequence& sequence, PageCount local);

// The page leaves whose last access is the longest ago.
uint64_t LruMisses(const AccessSequence& sequence, PageCount local);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SIMULATE_BOUNDS_H_
