// SPDX-License-Identifier: Apache-2.0
//
// System calls that a thread of another process makes without knowing of it: mechanism only, by
// ptrace, on x86-64.
//
// A typical injection: PTRACE_SEIZE and PTRACE_INTERRUPT stop the thread, wherever it is. Its
// registers and signal mask are kept, all signals are blocked, the registers are set to a system
// call at a `syscall` instruction that the process has anyway, and the thread runs from the stop at
// that call's entry to the one at its exit, and on to another stop before its next own instruction.
// There everything is put back, and the thread is let go. (Not by PTRACE_SINGLESTEP, whose SIGTRAP
// would reset the disposition of a program that ignores that signal.)
//
// What the thread notices: nothing, but for what any stop by SIGSTOP and SIGCONT does. A system
// call that was interrupted goes on, with what is left of its time-out (ppoll, nanosleep, futex,
// ...); those that signal(7) lists as failing with EINTR then (epoll_wait, sigtimedwait, ...) do. A
// process that was stopped stays stopped. Signals that arrive meanwhile are delivered afterwards.
//
// What can go wrong: the tracer is a thread of its own, so that whatever ends it, the kernel lets
// go of the target; PTRACE_O_EXITKILL is not set. This process blocks its signals for as long, so
// that only SIGKILL can end it in between. For as long as InjectionTimes::altered (below 0.1 ms, as
// a rule) that would leave the target with the registers of an injected call: the call that it
// waited in seems to return a wrong number, or, where it ran, it goes astray. Nothing is lost
// before and after. A SIGSTOP of this process in between keeps the target stopped for as long.
#ifndef FAULTLINE_CLIENT_ATTACH_SYSCALL_INJECTION_H_
#define FAULTLINE_CLIENT_ATTACH_SYSCALL_INJECTION_H_

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>
#include <sys/types.h>

#include <array>
#include <cstdint>

namespace faultline {

// A thread of another process that is stopped. For the thread that it is given to only.
class StoppedThread {
 public:
  using Arguments = std::array<uint64_t, 6>;

  // Makes the thread call system call `number`, which must not wait for anything. Returns what the
  // kernel has: a value, or a negative errno. NOT_FOUND where the thread has ended.
  virtual absl::StatusOr<int64_t> Call(long number, Arguments arguments) = 0;

  // Puts `text` and a NUL where the thread does not use its stack, for the calls to come, and
  // returns its address. What was there is put back in the end. Once only.
  virtual absl::StatusOr<uint64_t> Lend(absl::string_view text) = 0;

 protected:
  ~StoppedThread() = default;
};

struct InjectionTimes {
  absl::Duration stopped;
  absl::Duration altered;  // of that, with registers that were not its own
};

// Stops the main thread of process `pid`, or where that has ended another one of it, calls `body`
// with it, and lets it go. Returns the error of `body`, whose calls are all that is left of it
// then. Otherwise NOT_FOUND where there is no such process, or it has ended meanwhile;
// PERMISSION_DENIED where this process may not trace it; DEADLINE_EXCEEDED where it did not stop
// within `patience`, because it waits in the kernel and cannot be interrupted; UNIMPLEMENTED on
// other machines than x86-64. FAILED_PRECONDITION where another process traces it; where it is no
// 64-bit program; or where it has a seccomp filter, which might kill it for a system call that it
// never makes itself, and which cannot be suspended (that needs CAP_SYS_ADMIN).
absl::StatusOr<InjectionTimes> InjectSyscalls(pid_t pid, absl::Duration patience,
                                              absl::FunctionRef<absl::Status(StoppedThread&)> body);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACH_SYSCALL_INJECTION_H_
