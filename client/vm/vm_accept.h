// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_VM_ACCEPT_H_
#define FAULTLINE_CLIENT_VM_VM_ACCEPT_H_

#include <absl/status/status.h>

#include <string>
#include <vector>

#include "client/vm/memory_attacher.h"
#include "client/vm/vm_output.h"

namespace faultline {

struct VmAcceptOptions {
  std::string from;    // where OfferVm() listens
  GuestMemory memory;  // how it comes; from where is found out
  std::vector<std::string> command;
};

// Takes over the machine that OfferVm() offers: it runs in a QEMU that is started here, and its RAM
// comes from there, through an agent of its own. Returns when that QEMU has ended. Where it fails
// before the machine runs, it has not run here, and the other end continues it.
absl::Status AcceptVm(const VmAcceptOptions& options, const VmOutput& output);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_VM_ACCEPT_H_
