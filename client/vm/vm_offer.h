// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_VM_OFFER_H_
#define FAULTLINE_CLIENT_VM_VM_OFFER_H_

#include <absl/status/status.h>

#include <string>

#include "client/vm/vm_output.h"

namespace faultline {

struct VmOfferOptions {
  std::string qmp;      // path of QEMU's socket
  std::string listen;   // where AcceptVm() connects: host:port or unix:path
  std::string pages;    // where the RAM is served; "": at any port of the same host, or beside it
  bool resume = false;  // the machine was taken already, and its offer was killed
};

// Offers the machine of a running QEMU to one AcceptVm(), which is waited for. It is stopped only
// when the other end is ready, its RAM is served in place, and its QEMU quits when the other end
// has all of it. Fails, and the machine goes on if it was running, until the other end is told to
// run it; from there on it never goes on by itself.
absl::Status OfferVm(const VmOfferOptions& options, const VmOutput& output);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_VM_OFFER_H_
