// SPDX-License-Identifier: Apache-2.0
//
// How an agent goes on with far memory where another was killed; journal/far_journal.h says what it
// finds, and why that is all. In this order:
//   1. RestorePages(), before anything of the memory is served
//   2. FaultReader::Recover(), then faults and events are served
//   3. NoteResident(), until it succeeds, and only then is anything evicted
#ifndef FAULTLINE_CLIENT_EVICT_TAKEOVER_H_
#define FAULTLINE_CLIENT_EVICT_TAKEOVER_H_

#include <absl/status/status.h>
#include <sys/types.h>

#include "client/evict/page_extractor.h"
#include "client/fault/paged_memory.h"

namespace faultline {

// Finds the state of each page that has left the target, those included that the other agent was
// about to take out. `memory` has far memory, and its map is that of the last commit. Nobody else
// has `memory`. DATA_LOSS where what was taken has no room.
absl::Status RestorePages(PagedMemory* memory, PageExtractor* extractor)
    ABSL_EXCLUSIVE_LOCKS_REQUIRED(memory->space.map_changing_lock());

// Notes which pages process `pid` has. False while its address space is changing: then nothing is
// noted, since what is at an address may be something else by now.
bool NoteResident(pid_t pid, PagedMemory* memory, PageExtractor* extractor);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_TAKEOVER_H_
