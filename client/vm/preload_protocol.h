// SPDX-License-Identifier: Apache-2.0
//
// What PreloadAttacher and the library that it loads into QEMU agree on. The standard library only.
//
// The library inherits one end of a pair of stream sockets. Once it has found the RAM it says
// kPreloadReady. It is told once
//   {"socket": PATH OF THE AGENT'S, "timeout_ms": N, "handover": {as in handover_message.h, but
//    without "mappings"}}
// and answers, in one line, as the agent does or with {"status":"error","message":...}.
#ifndef FAULTLINE_CLIENT_VM_PRELOAD_PROTOCOL_H_
#define FAULTLINE_CLIENT_VM_PRELOAD_PROTOCOL_H_

#include <cstddef>

namespace faultline {

inline constexpr char kPreloadLibrary[] = "libfaultline-vm-preload.so";
// The variables of the environment that tell the library its socket and the size of the RAM.
inline constexpr char kPreloadDescriptor[] = "FAULTLINE_PRELOAD_FD";
inline constexpr char kPreloadBytes[] = "FAULTLINE_PRELOAD_BYTES";
inline constexpr char kPreloadReady[] = "{\"status\":\"ready\"}\n";
inline constexpr size_t kMaxPreloadMessageBytes = size_t{64} << 10;

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_PRELOAD_PROTOCOL_H_
