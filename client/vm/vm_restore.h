// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_VM_RESTORE_H_
#define FAULTLINE_CLIENT_VM_VM_RESTORE_H_

#include <absl/status/status.h>

#include <string>
#include <vector>

#include "client/remote/server_tls.h"
#include "client/vm/memory_attacher.h"
#include "client/vm/vm_output.h"

namespace faultline {

struct VmRestoreOptions {
  std::string server;  // address
  ServerTls tls = {};
  GuestMemory memory;  // but for its size
  std::vector<std::string> command;
};

// Starts a QEMU with a saved machine, which runs at once: its RAM comes as it is touched. Returns
// when that QEMU has ended. Where the machine cannot be loaded, its QEMU is killed and nothing
// remains. Any number of machines may be started from what was saved, at the same time.
absl::Status RestoreVm(const VmRestoreOptions& options, const VmOutput& output);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_VM_RESTORE_H_
