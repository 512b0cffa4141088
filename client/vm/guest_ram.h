// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_GUEST_RAM_H_
#define FAULTLINE_CLIENT_VM_GUEST_RAM_H_

#include <absl/status/statusor.h>
#include <sys/types.h>

#include <cstdint>
#include <string>

namespace faultline {

// A path by which the file can be opened that process `pid` has mapped shared and writable, with
// all of its `size_bytes`: what a memory backend with share=on has, be it a file (also one that was
// unlinked) or a memfd. It is one of /proc/PID/fd, and good for as long as the process lives.
// PERMISSION_DENIED, saying what to do, where the process may not be looked at; NOT_FOUND where
// there is no such file, or more than one of this size.
absl::StatusOr<std::string> FindSharedMemoryFile(pid_t pid, uint64_t size_bytes);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_GUEST_RAM_H_
