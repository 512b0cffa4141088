// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_PROTO_LIBRARIES_H_
#define FAULTLINE_PROTO_LIBRARIES_H_

#include <absl/synchronization/mutex.h>
#include <malloc.h>

namespace faultline {

// Sets libraries up for a process that serves pages. To be called first of all.
inline void TuneLibraries() {
  // Lets the allocator keep what is given back. Messages of half a megabyte come and go thousands
  // of times in a second; glibc would return their memory to the system each time and take it again
  // page by page: 0.3 page faults for each page of a drain, a fifth of the agent's processor time.
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  // Debian builds abseil so that it looks for deadlocks, each time that gRPC locks something, in a
  // graph which has one lock for the whole process.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

}  // namespace faultline

#endif  // FAULTLINE_PROTO_LIBRARIES_H_
