// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_FAULT_PAUSE_H_
#define FAULTLINE_CLIENT_VM_FAULT_PAUSE_H_

#include <absl/time/time.h>

#include "client/attachment.h"
#include "client/vm/qemu.h"
#include "client/vm/vm_output.h"

namespace faultline {

// Has a machine stand still while its pages do not come, and go on when they do, so that to its
// guest no time passes meanwhile. A machine that somebody else has paused is left alone. Not
// thread-safe.
//
// A processor that waits for a page inside of an emulated instruction cannot be stopped before it
// has it. QEMU then stops the guest's clock and its other processors, and answers nothing until the
// page is there. Where it waits for a page while it delivers an interrupt, or QEMU's main thread
// does, even that is not to be had: the machine stands still, and its clock goes on.
class FaultPause {
 public:
  // All are borrowed. A fault may wait for `deadline`.
  FaultPause(Qemu* qemu, absl::Duration deadline, const VmOutput* output)
      : qemu_(qemu), deadline_(deadline), output_(output) {}

  // What the agent tells of the machine's RAM now.
  void Look(const AttachmentStats& stats);

  bool stopped() const { return state_ == State::kStopped; }

 private:
  enum class State { kRuns, kWaits, kStopped, kLeftAlone };

  void Stop(double waited_seconds);
  void Continue();
  void GoOn();

  Qemu* const qemu_;
  const absl::Duration deadline_;
  const VmOutput* const output_;
  State state_ = State::kRuns;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_FAULT_PAUSE_H_
