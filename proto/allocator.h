// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_PROTO_ALLOCATOR_H_
#define FAULTLINE_PROTO_ALLOCATOR_H_

#include <malloc.h>

namespace faultline {

// Lets the allocator keep what is given back. Messages of half a megabyte come and go thousands of
// times in a second; glibc would return their memory to the system each time and take it again page
// by page: 0.3 page faults for each page of a drain, a fifth of the agent's processor time.
inline void KeepFreedMemory() {
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
}

}  // namespace faultline

#endif  // FAULTLINE_PROTO_ALLOCATOR_H_
