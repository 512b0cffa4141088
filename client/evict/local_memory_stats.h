// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVICT_LOCAL_MEMORY_STATS_H_
#define FAULTLINE_CLIENT_EVICT_LOCAL_MEMORY_STATS_H_

#include <cstdint>

namespace faultline {

// Of an attachment with far memory: see local_memory.h.
struct LocalMemoryStats {
  uint64_t budget_pages = 0;
  uint64_t resident_pages = 0;
  uint64_t staged_pages = 0;
  uint64_t pinned_pages = 0;           // to be resident, whether or not they were filled yet
  uint64_t unwritten_pages = 0;        // staged, and not acknowledged yet
  uint64_t evicted_pages_total = 0;    // taken out of the target's memory
  uint64_t returned_pages_total = 0;   // taken back by a fault while they were staged
  uint64_t written_pages_total = 0;    // acknowledged
  uint64_t rewritten_pages_total = 0;  // of evicted ones, whose write has failed and is done again
  uint64_t clean_pages_total = 0;      // evicted, and not written, as the server had them
  uint64_t zero_pages_total = 0;       // evicted, all zero
  uint64_t deferred_faults_total = 0;  // that had to wait for room
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_LOCAL_MEMORY_STATS_H_
