// SPDX-License-Identifier: Apache-2.0
//
// What the eviction helper's thread does; see eviction_helper.h.
#ifndef FAULTLINE_CLIENT_FAR_EVICTION_THREAD_H_
#define FAULTLINE_CLIENT_FAR_EVICTION_THREAD_H_

#include <linux/futex.h>

#include <cstdint>

#include "client/far/command_memory.h"

namespace faultline {

// In memory of the helper's own. Constant once the thread runs, but for the robust list.
struct EvictionThread {
  CommandMemory* command;
  int uffd;          // of the far memory, and of the staging area
  int scratch_uffd;  // of the scratch area
  // Of the command memory: kept for an agent that goes on where another was killed.
  int command_fd;
  uint64_t staging;  // each as large as `bytes` of the command
  uint64_t scratch;

  // Where the kernel finds `command->life` when the thread ends: behind `robust_entry`, by an
  // offset.
  robust_list_head robust_head;
  robust_list robust_entry;
};

// The thread. REQUIRES: it has `thread`'s memory for a stack and for thread-local storage, and all
// signals are blocked.
[[noreturn]] void RunEvictionThread(EvictionThread* thread);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAR_EVICTION_THREAD_H_
