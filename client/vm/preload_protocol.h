// SPDX-License-Identifier: Apache-2.0
//
// What PreloadAttacher and the library that it loads into QEMU agree on. The standard library only.
//
// The library inherits one end of a pair of stream sockets. Once it has found the RAM it says
// kPreloadReady. It is asked once, with kPreloadRequest, and answers in one line
//   {"status":"ok","address":N,"size":N}, with two descriptors: the userfaultfd, of which it keeps
//   a copy, and a pidfd of its process; or
//   {"status":"error","message":...}
// The end of the connection is QEMU's end, too.
#ifndef FAULTLINE_CLIENT_VM_PRELOAD_PROTOCOL_H_
#define FAULTLINE_CLIENT_VM_PRELOAD_PROTOCOL_H_

#include <cstddef>

namespace faultline {

inline constexpr char kPreloadLibrary[] = "libfaultline-vm-preload.so";
// The variables of the environment that tell the library its socket, the size of the RAM and, where
// it is not empty, an open /dev/userfaultfd.
inline constexpr char kPreloadDescriptor[] = "FAULTLINE_PRELOAD_FD";
// QEMU is held when it has mapped its RAM, until that was handed over; otherwise it goes on, and
// may not touch its RAM before.
inline constexpr char kPreloadHold[] = "FAULTLINE_PRELOAD_HOLD";
inline constexpr char kPreloadBytes[] = "FAULTLINE_PRELOAD_BYTES";
inline constexpr char kPreloadNode[] = "FAULTLINE_PRELOAD_NODE";
inline constexpr char kPreloadReady[] = "{\"status\":\"ready\"}\n";
inline constexpr char kPreloadRequest[] = "{\"give\":\"ram\"}\n";
// To a QEMU that is held.
inline constexpr char kPreloadGoOn[] = "{\"go\":\"on\"}";
inline constexpr int kPreloadDescriptors = 2;
inline constexpr size_t kMaxPreloadMessageBytes = 4096;

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_PRELOAD_PROTOCOL_H_
