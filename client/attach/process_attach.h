// SPDX-License-Identifier: Apache-2.0
//
// Takes over the memory of a process that runs already, and that knows nothing of it: its main
// thread is made to open a userfaultfd (syscall_injection.h), of which this process then gets a
// copy and registers the memory. (Nothing else would do: a userfaultfd serves the memory of the
// process that opened it.)
//
// The target's own copy stays open. It is what keeps memory that was not filled from turning into
// zeros when the agent dies: the target waits instead.
//
// The memory is registered here and looked at afterwards, not by the agent: what is not there once
// the memory is registered cannot come from anywhere but the agent any more. Looking first would
// leave a gap in which the target might touch a page, which then would be zeros for ever.
#ifndef FAULTLINE_CLIENT_ATTACH_PROCESS_ATTACH_H_
#define FAULTLINE_CLIENT_ATTACH_PROCESS_ATTACH_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <sys/types.h>

#include <string>

#include "client/attach/syscall_injection.h"
#include "client/attach/target_memory.h"
#include "client/unique_fd.h"

namespace faultline {

struct ProcessAttachOptions {
  // What the target opens where it may not have a userfaultfd by the system call, as it sees it.
  std::string device = "/dev/userfaultfd";
  absl::Duration patience = absl::Seconds(5);  // for the target to stop
};

// A process's memory, registered, and the userfaultfd that serves it: to be handed over.
struct TakenMemory {
  pid_t pid = 0;
  UniqueFd uffd;               // past UFFDIO_API
  int target_descriptor = -1;  // the number of the target's own copy
  AddressRange range;
  InjectionTimes times;
};

// Takes `memory` of the process `pid`, whose pidfd is `pidfd`. From here on its threads wait at
// pages that nobody has filled: hand it over at once, or GiveBack() it. If this process is killed
// before it has done either, they wait for ever. Errors as of InjectSyscalls; PERMISSION_DENIED
// where the target may not have a userfaultfd; FAILED_PRECONDITION where something of `memory` is
// there already (CheckNothingIsResident) or is served by another userfaultfd. After an error the
// target is as it was before.
absl::StatusOr<TakenMemory> TakeMemory(pid_t pid, int pidfd, const TargetMemory& memory,
                                       const ProcessAttachOptions& options);

// A userfaultfd of process `pid`, before UFFDIO_API, of which the process itself has no copy: what
// is registered with it is as it was once this process has closed it, or has ended. For anything
// but serving pages. Errors as of TakeMemory().
absl::StatusOr<UniqueFd> BorrowUffd(pid_t pid, int pidfd, const ProcessAttachOptions& options);

// Makes it the target's own memory again, where nobody has taken it: pages that are not there are
// zeros. The target's copy of the userfaultfd is closed.
absl::Status GiveBack(TakenMemory taken);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACH_PROCESS_ATTACH_H_
