// SPDX-License-Identifier: Apache-2.0
//
// The eviction helper: a thread in a program whose anonymous memory is far memory, which takes
// pages out of that memory when the agent commands it (command_memory.h). Only the process itself
// can: UFFDIO_MOVE refuses all others, and no call drops another process's anonymous pages.
//
// The thread is none of the C library's. All signals are blocked in it; it has its own descriptors
// (so that a program which closes all of its own does not disarm it), no capabilities, and touches
// no memory but what PrepareEvictionHelper() has mapped: the rest may be far memory, and must not
// be waited for. It ends with the process or at exec, and is not there in a forked child.
//
// Nothing here allocates, takes a lock or raises an exception, and everything is async-signal-safe:
// the child of a fork may prepare and start one of its own at once.
#ifndef FAULTLINE_CLIENT_FAR_EVICTION_HELPER_H_
#define FAULTLINE_CLIENT_FAR_EVICTION_HELPER_H_

#include <cstdint>

namespace faultline {

struct EvictionHelper {
  // A memfd that holds a CommandMemory; for the agent. Close-on-exec, as all descriptors here.
  int command_fd = -1;
  // All memory of the helper. No part of it may become far memory. In a forked child it is absent.
  uint64_t memory_start = 0;
  uint64_t memory_bytes = 0;
  // The part of it that is to be registered for missing pages with the userfaultfd of the far
  // memory, so that its events hold off the helper. It is no region: there is no page behind it.
  uint64_t staging_start = 0;
  uint64_t staging_bytes = 0;

  // Of the implementation.
  int scratch_uffd = -1;
  uint64_t command = 0;  // the address at which the memfd is mapped
};

// Maps the memory. 0, or an errno, and then nothing is left behind: ENOSYS where the kernel lacks
// UFFDIO_MOVE (before Linux 6.8) or this is no x86-64.
int PrepareEvictionHelper(EvictionHelper* helper);

// Starts the thread, which moves pages by `uffd`, and returns when it takes commands. It keeps
// copies of `uffd` and of `helper->command_fd`, where another agent finds them (OpenFileOf(),
// TakeUffd()); the caller's may be closed. 0, or an errno.
//
// REQUIRES: the staging part is registered with `uffd`.
int StartEvictionHelper(EvictionHelper* helper, int uffd);

// Unmaps and closes what PrepareEvictionHelper() has made. REQUIRES: it was not started.
void DiscardEvictionHelper(EvictionHelper* helper);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAR_EVICTION_HELPER_H_
