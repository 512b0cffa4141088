// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_VM_WATCH_H_
#define FAULTLINE_CLIENT_VM_VM_WATCH_H_

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/time/time.h>

#include "client/vm/end_signals.h"
#include "client/vm/incoming_vm.h"
#include "client/vm/vm_output.h"

namespace faultline {

struct WatchOptions {
  // All of the RAM is being fetched: tell how far that is. Otherwise only its pages are counted.
  bool drain = false;
  // Called once, when all of the RAM is there.
  absl::FunctionRef<void()> on_complete;
  // Called at every look, some times a second; may block for a moment.
  absl::FunctionRef<void()> on_look;
  // The machine is stopped while a fault waits for longer (FaultPause).
  absl::Duration stop_after = absl::InfiniteDuration();
};

// Watches over a machine that was resumed, until its QEMU ends or a signal asks for that. UNKNOWN
// where QEMU ends with a status other than 0.
absl::Status WatchVm(IncomingVm& vm, const EndSignals& signals, const WatchOptions& options,
                     const VmOutput& output);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_VM_WATCH_H_
