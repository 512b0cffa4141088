// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_PRELOAD_ATTACHER_H_
#define FAULTLINE_CLIENT_VM_PRELOAD_ATTACHER_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>

#include "client/vm/memory_attacher.h"

namespace faultline {

// Loads libfaultline-vm-preload.so (preload.cc) into QEMU, which recognises the RAM by its size
// `ram_bytes` and hands it over when it is told to. NOT_FOUND where there is no such library beside
// this program.
absl::StatusOr<std::unique_ptr<MemoryAttacher>> NewPreloadAttacher(uint64_t ram_bytes);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_PRELOAD_ATTACHER_H_
