// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_VM_SAVE_H_
#define FAULTLINE_CLIENT_VM_VM_SAVE_H_

#include <absl/status/status.h>

#include <string>

#include "client/remote/server_tls.h"
#include "client/vm/vm_output.h"
#include "client/vm/vm_volumes.h"

namespace faultline {

// What becomes of a machine once it is saved.
enum class AfterSave { kPause, kContinue, kQuit };

struct VmSaveOptions {
  std::string server;  // address
  ServerTls tls = {};
  std::string qmp;  // path of QEMU's socket
  StoreVmOptions store;
  AfterSave after = AfterSave::kPause;
};

// Saves the machine of a running QEMU: stops it, takes its device state, and stores that and its
// RAM. Where it fails, the machine goes on if it was running. `output` is borrowed.
absl::Status SaveVm(const VmSaveOptions& options, const VmOutput& output);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_VM_SAVE_H_
