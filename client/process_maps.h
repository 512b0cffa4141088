// SPDX-License-Identifier: Apache-2.0
//
// What the kernel tells of another process's memory in /proc.
#ifndef FAULTLINE_CLIENT_PROCESS_MAPS_H_
#define FAULTLINE_CLIENT_PROCESS_MAPS_H_

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "client/uffd/uffd.h"

namespace faultline {

struct VmArea {
  AddressRange range;
  bool shared = false;
  bool anonymous = false;  // of no file, and nothing of the kernel's (a stack, vdso)
  // Of a file; and where in it, in bytes, the area begins.
  uint64_t device = 0, inode = 0, offset = 0;
  // From ReadSmaps() only.
  bool wipe_on_fork = false;
  bool registered = false;  // with some userfaultfd, for missing pages
};

// The memory areas of process `pid`, ascending; empty where they cannot be read.
std::vector<VmArea> ReadMaps(pid_t pid);
// As ReadMaps(), with more detail. The kernel walks all page tables for it: milliseconds for each
// GiB that is present.
std::vector<VmArea> ReadSmaps(pid_t pid);

// The parts of `range` where process `pid` has pages, in memory or swapped out; none where that
// cannot be read.
std::vector<AddressRange> PresentPages(pid_t pid, AddressRange range);

// The process that thread `thread` belongs to; 0 where there is none. Both as this process's pid
// namespace has them.
pid_t ProcessOfThread(pid_t thread);

// The descendants of process `pid` that have memory which was copied from it by fork: they have
// executed no other program since. Not those whose parent between has ended.
std::vector<pid_t> ForkedDescendants(pid_t pid);

// Whether process `pid` has one thread, and not more.
bool HasOneThread(pid_t pid);

// Whether a thread of process `pid` other than the calling one is running, or ready to run.
bool HasRunningThread(pid_t pid);

// Whether process `pid` has the same pid namespace as this one, so that its numbers mean the same.
bool SharesPidNamespace(pid_t pid);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_PROCESS_MAPS_H_
