// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_INCOMING_VM_H_
#define FAULTLINE_CLIENT_VM_INCOMING_VM_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "client/attachment.h"
#include "client/bench/child_process.h"
#include "client/vm/memory_attacher.h"
#include "client/vm/qemu.h"
#include "client/vm/vm_record.h"

namespace faultline {

// A command line that starts QEMU, as the user has given it.
struct QemuCommand {
  std::vector<std::string> argv;
  bool paused = false;  // it has -S: the machine is not to run by itself
};

// INVALID_ARGUMENT, saying why, for a command line with which no machine can be restored: one that
// is empty, has -daemonize or -loadvm, or -incoming other than defer.
absl::StatusOr<QemuCommand> ParseQemuCommand(std::vector<std::string> argv);

// A QEMU that is started to take over a machine. Its standard streams are those of this process,
// and it never outlives it. Not thread-safe; to be used on the main thread.
//
// Until Resume() its machine has not run, and destruction kills it: nothing is lost.
class IncomingVm {
 public:
  // Starts QEMU, ready for the device state. FAILED_PRECONDITION, with what to change, unless it is
  // as `saved`; UNAVAILABLE where QEMU ends, having said why. With `memory`, whose volume is final,
  // the agent is handed the RAM first of all, and fetches while QEMU starts; otherwise Attach() has
  // to follow.
  static absl::StatusOr<std::unique_ptr<IncomingVm>> Start(const QemuCommand& command,
                                                           const VmRecord& saved,
                                                           const GuestMemory* memory = nullptr);
  ~IncomingVm();

  // Has the agent serve the RAM. Errors as of MemoryAttacher::Attach.
  absl::Status Attach(const GuestMemory& memory);
  absl::Status LoadDeviceState(absl::string_view state);
  // The machine runs, unless the command line says otherwise.
  absl::Status Resume();

  // To be asked for what is not done here.
  Qemu& qemu() { return *qemu_; }
  bool running() { return process_.running(); }
  pid_t pid() const { return pid_; }
  AttachmentId attachment() const { return attachment_; }
  // What the agent tells of the attachment; NOT_FOUND where it has ended.
  absl::StatusOr<AttachmentStats> Look() const;

  // Asks QEMU to end, and makes it after a while.
  void End() { process_.Terminate(); }
  // Waits for its end. UNKNOWN, with its exit status, unless that is 0.
  absl::Status Wait();

 private:
  IncomingVm() = default;

  // `status`, or what has become of QEMU where it has ended over it.
  absl::Status Explain(absl::Status status, absl::string_view doing);

  bool paused_ = false;
  bool resumed_ = false;
  ChildProcess process_;
  pid_t pid_ = 0;
  std::unique_ptr<MemoryAttacher> attacher_;
  std::unique_ptr<Qemu> qemu_;
  std::string agent_socket_;
  AttachmentId attachment_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_INCOMING_VM_H_
