// SPDX-License-Identifier: Apache-2.0
#include "client/attach/syscall_injection.h"

#include <absl/strings/str_cat.h>
#include <elf.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace faultline {
namespace {

#if defined(__x86_64__)

using Clock = std::chrono::steady_clock;

constexpr int kSyscallStop = SIGTRAP | 0x80;  // PTRACE_O_TRACESYSGOOD
constexpr absl::string_view kSyscallInstruction("\x0f\x05", 2);
// System V ABI for x86-64: what lies below the stack pointer and still belongs to the program.
constexpr uint64_t kRedZoneBytes = 128;
constexpr uint64_t kNoSyscall = ~uint64_t{0};
// Of executable memory that is searched for an instruction; the C library has one in its first MiB.
constexpr uint64_t kMaxSearchedBytes = uint64_t{16} << 20;
// The kernel's sigset_t, which is smaller than the C library's.
using KernelSignals = uint64_t;

int WaitStatusSignal(int status) { return status >> 8 & 0xff; }
bool IsEventStop(int status) { return status >> 16 == PTRACE_EVENT_STOP; }

std::string ProcStatusField(pid_t thread, absl::string_view name) {
  std::ifstream file(absl::StrCat("/proc/", thread, "/status"));
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, name.size(), name.data(), name.size()) != 0) continue;
    const size_t begin = line.find_first_not_of(":\t ", name.size());
    return begin == line.npos ? "" : line.substr(begin);
  }
  return "";
}

bool HasEnded(pid_t thread) {
  const std::string state = ProcStatusField(thread, "State");
  return state.empty() || state[0] == 'Z' || state[0] == 'X';
}

// The main thread, unless it has ended; 0 where all have.
pid_t FindThread(pid_t pid) {
  if (!HasEnded(pid)) return pid;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(absl::StrCat("/proc/", pid, "/task"), error)) {
    const pid_t thread = atoi(entry.path().filename().c_str());
    if (!HasEnded(thread)) return thread;
  }
  return 0;
}

// The tracer of one thread, for one thread of this process.
class TracedThread final : public StoppedThread {
 public:
  TracedThread(pid_t pid, pid_t thread) : pid_(pid), thread_(thread) {}

  absl::Status Stop(absl::Duration patience);
  // Puts everything back and lets go.
  absl::Status Release();
  InjectionTimes times() const { return times_; }

  absl::StatusOr<int64_t> Call(long number, Arguments arguments) override;
  absl::StatusOr<uint64_t> Lend(absl::string_view text) override;

 private:
  absl::Status AwaitFirstStop(absl::Duration patience);
  absl::Status SuspendSeccomp();
  absl::Status SaveState();
  absl::Status BeginAltering();
  void LeaveRestartableSequence();
  absl::StatusOr<uint64_t> FindSyscallInstruction() const;
  // Lets the thread run until `wanted` says that it has stopped there.
  absl::Status RunUntil(__ptrace_request how, bool (*wanted)(int status));
  absl::Status SetRegisters(user_regs_struct registers);
  absl::StatusOr<user_regs_struct> GetRegisters() const;
  bool Read(uint64_t address, void* bytes, size_t size) const;
  bool Write(uint64_t address, const void* bytes, size_t size) const;
  absl::Status Error(absl::string_view what) const;

  const pid_t pid_;
  const pid_t thread_;
  user_regs_struct registers_{};
  KernelSignals blocked_ = 0;
  uint64_t syscall_instruction_ = 0;
  bool altered_ = false;  // its registers and signal mask, and the stack where something was lent
  bool ended_ = false;
  bool was_stopped_ = false;  // by SIGSTOP, during the injection
  uint64_t lent_ = 0;
  std::string lent_bytes_;  // that were there
  Clock::time_point stopped_since_, altered_since_;
  InjectionTimes times_;
};

absl::Status TracedThread::Error(absl::string_view what) const {
  const int error = errno;
  if (error == ESRCH || HasEnded(thread_)) {
    return absl::NotFoundError(absl::StrCat("process ", pid_, " has ended"));
  }
  return absl::ErrnoToStatus(error, absl::StrCat(what, " of thread ", thread_));
}

absl::Status TracedThread::Stop(absl::Duration patience) {
  if (ptrace(PTRACE_SEIZE, thread_, 0, PTRACE_O_TRACESYSGOOD) != 0) {
    const int error = errno;
    const std::string tracer = ProcStatusField(thread_, "TracerPid");
    if (error == EPERM && !tracer.empty() && tracer != "0") {
      return absl::FailedPreconditionError(absl::StrCat("process ", pid_,
                                                        " is being traced by process ", tracer,
                                                        " (a debugger?); detach that first"));
    }
    errno = error;
    if (error != EPERM) return Error("PTRACE_SEIZE");
    return absl::PermissionDeniedError(
        absl::StrCat("may not trace process ", pid_,
                     "; do it as root, with CAP_SYS_PTRACE, or as the user that it runs as (unless "
                     "the process has made itself undumpable, or sysctl kernel.yama.ptrace_scope "
                     "forbids it)"));
  }
  if (ptrace(PTRACE_INTERRUPT, thread_, 0, 0) != 0) return Error("PTRACE_INTERRUPT");
  if (absl::Status status = AwaitFirstStop(patience); !status.ok()) return status;
  stopped_since_ = Clock::now();
  if (absl::Status status = SuspendSeccomp(); !status.ok()) return status;
  return SaveState();
}

absl::Status TracedThread::AwaitFirstStop(absl::Duration patience) {
  const auto deadline = Clock::now() + absl::ToChronoNanoseconds(patience);
  for (auto pause = std::chrono::microseconds(10);;) {
    int status = 0;
    const pid_t found = waitpid(thread_, &status, __WALL | WNOHANG);
    if (found < 0) return Error("waiting for a stop");
    if (found == thread_) {
      if (!WIFSTOPPED(status)) {
        ended_ = true;
        return absl::NotFoundError(absl::StrCat("process ", pid_, " has ended"));
      }
      if (IsEventStop(status)) return absl::OkStatus();
      // A signal was on its way: it gets it as ever, and stops later.
      ptrace(PTRACE_CONT, thread_, 0, WaitStatusSignal(status));
      continue;
    }
    if (Clock::now() >= deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          "thread ", thread_, " of process ", pid_, " did not stop within ",
          absl::FormatDuration(patience), "; its state is ", ProcStatusField(thread_, "State"),
          " (see /proc/", thread_, "/stack for what it waits for)"));
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, std::chrono::microseconds(1000));
  }
}

absl::Status TracedThread::SuspendSeccomp() {
  if (ProcStatusField(thread_, "Seccomp") == "0") return absl::OkStatus();
  if (ptrace(PTRACE_SETOPTIONS, thread_, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP) ==
      0) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("process ", pid_,
                   " has a seccomp filter, which might kill it for an injected system call, "
                   "and cannot be suspended (",
                   strerror(errno), "); do it as root or with CAP_SYS_ADMIN"));
}

absl::Status TracedThread::SaveState() {
  absl::StatusOr<user_regs_struct> registers = GetRegisters();
  if (!registers.ok()) return registers.status();
  registers_ = *registers;
  LeaveRestartableSequence();
  absl::StatusOr<uint64_t> instruction = FindSyscallInstruction();
  if (!instruction.ok()) return instruction.status();
  syscall_instruction_ = *instruction;
  // Where the thread waits with a mask for that time only, as in ppoll, this is the one to come
  // back, and setting it is right: the call that is started again sets its own again.
  if (ptrace(PTRACE_GETSIGMASK, thread_, sizeof blocked_, &blocked_) != 0) {
    return Error("PTRACE_GETSIGMASK");
  }
  return absl::OkStatus();
}

// From here until Release() it takes this process to make the thread what it was.
absl::Status TracedThread::BeginAltering() {
  if (altered_) return absl::OkStatus();
  altered_ = true;
  altered_since_ = Clock::now();
  const KernelSignals all = ~KernelSignals{0};
  if (ptrace(PTRACE_SETSIGMASK, thread_, sizeof all, &all) != 0) return Error("PTRACE_SETSIGMASK");
  return absl::OkStatus();
}

// A thread that was interrupted inside a restartable sequence must not go on in the middle of it.
// The kernel would abort it, but not after having seen the thread elsewhere: so do it here.
void TracedThread::LeaveRestartableSequence() {
  __ptrace_rseq_configuration config{};
  if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, thread_, sizeof config, &config) <= 0) return;
  // struct rseq and struct rseq_cs of <linux/rseq.h>.
  constexpr uint64_t kOffsetOfSection = 8;
  struct {
    uint32_t version, flags;
    uint64_t start, length, abort;
  } section{};
  uint64_t address = 0;
  if (config.rseq_abi_pointer == 0 ||
      !Read(config.rseq_abi_pointer + kOffsetOfSection, &address, sizeof address) || address == 0 ||
      !Read(address, &section, sizeof section)) {
    return;
  }
  if (registers_.rip - section.start < section.length) registers_.rip = section.abort;
}

absl::StatusOr<uint64_t> TracedThread::FindSyscallInstruction() const {
  const auto stands_at = [this](uint64_t address) {
    char bytes[2] = {};
    return Read(address, bytes, sizeof bytes) &&
           absl::string_view(bytes, sizeof bytes) == kSyscallInstruction;
  };
  // The one that the thread waits in.
  if (registers_.orig_rax != kNoSyscall && stands_at(registers_.rip - 2)) return registers_.rip - 2;
  uint64_t left = kMaxSearchedBytes;
  std::ifstream maps(absl::StrCat("/proc/", pid_, "/maps"));
  for (std::string line; std::getline(maps, line) && left > 0;) {
    uint64_t start, end;
    char permissions[5];
    if (sscanf(line.c_str(), "%lx-%lx %4s", &start, &end, permissions) != 3) continue;
    if (permissions[0] != 'r' || permissions[2] != 'x') continue;
    std::string code(std::min(end - start, left), '\0');
    left -= code.size();
    if (!Read(start, code.data(), code.size())) continue;
    const size_t at = code.find(kSyscallInstruction.data(), 0, kSyscallInstruction.size());
    if (at != code.npos) return start + at;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("no system call instruction was found in process ", pid_));
}

absl::StatusOr<int64_t> TracedThread::Call(long number, Arguments arguments) {
  user_regs_struct registers = registers_;
  registers.rax = static_cast<uint64_t>(number);
  registers.orig_rax = kNoSyscall;  // nothing to be started again when it leaves this stop
  registers.rip = syscall_instruction_;
  registers.rdi = arguments[0];
  registers.rsi = arguments[1];
  registers.rdx = arguments[2];
  registers.r10 = arguments[3];
  registers.r8 = arguments[4];
  registers.r9 = arguments[5];
  absl::Status status = BeginAltering();
  if (status.ok()) status = SetRegisters(registers);
  if (!status.ok()) return status;
  const auto is_syscall_stop = [](int found) {
    return found >> 16 == 0 && WaitStatusSignal(found) == kSyscallStop;
  };
  status = RunUntil(PTRACE_SYSCALL, is_syscall_stop);                   // its entry
  if (status.ok()) status = RunUntil(PTRACE_SYSCALL, is_syscall_stop);  // its exit
  if (!status.ok()) return status;
  const absl::StatusOr<user_regs_struct> result = GetRegisters();
  if (!result.ok()) return result.status();
  // On to a stop from which the kernel looks at calls to be started again; still before the
  // thread's next instruction.
  if (ptrace(PTRACE_INTERRUPT, thread_, 0, 0) != 0) return Error("PTRACE_INTERRUPT");
  if (status = RunUntil(PTRACE_CONT, IsEventStop); !status.ok()) return status;
  return static_cast<int64_t>(result->rax);
}

absl::StatusOr<uint64_t> TracedThread::Lend(absl::string_view text) {
  if (lent_ != 0) return absl::InternalError("memory was lent already");
  const std::string bytes = absl::StrCat(text, absl::string_view("\0", 1));
  const uint64_t address = (registers_.rsp - kRedZoneBytes - bytes.size()) & ~uint64_t{15};
  if (absl::Status status = BeginAltering(); !status.ok()) return status;
  lent_bytes_.resize(bytes.size());
  if (!Read(address, lent_bytes_.data(), bytes.size()) ||
      !Write(address, bytes.data(), bytes.size())) {
    return Error("there is no room on the stack");
  }
  lent_ = address;
  return address;
}

// There is no giving up in here: the thread has registers that are not its own.
absl::Status TracedThread::RunUntil(__ptrace_request how, bool (*wanted)(int status)) {
  while (true) {
    if (ptrace(how, thread_, 0, 0) != 0) return Error("resuming");
    int status = 0;
    pid_t found;
    do {
      found = waitpid(thread_, &status, __WALL);
    } while (found < 0 && errno == EINTR);
    if (found < 0) return Error("waiting for a stop");
    if (!WIFSTOPPED(status)) {
      ended_ = true;
      return absl::NotFoundError(absl::StrCat("process ", pid_, " has ended"));
    }
    if (wanted(status)) return absl::OkStatus();
    // The one signal that cannot be blocked and does not kill; it is sent again in the end.
    if (!IsEventStop(status) && WaitStatusSignal(status) == SIGSTOP) was_stopped_ = true;
  }
}

absl::Status TracedThread::Release() {
  if (ended_) return absl::NotFoundError(absl::StrCat("process ", pid_, " has ended"));
  absl::Status status;
  if (lent_ != 0 && !Write(lent_, lent_bytes_.data(), lent_bytes_.size())) {
    status = Error("putting back memory");
  }
  if (altered_) {
    status.Update(SetRegisters(registers_));
    if (ptrace(PTRACE_SETSIGMASK, thread_, sizeof blocked_, &blocked_) != 0) {
      status.Update(Error("PTRACE_SETSIGMASK"));
    }
    times_.altered = absl::FromChrono(Clock::now() - altered_since_);
  }
  if (ptrace(PTRACE_DETACH, thread_, 0, 0) != 0) status.Update(Error("PTRACE_DETACH"));
  times_.stopped = absl::FromChrono(Clock::now() - stopped_since_);
  if (was_stopped_) kill(pid_, SIGSTOP);
  return status;
}

absl::Status TracedThread::SetRegisters(user_regs_struct registers) {
  iovec part{&registers, sizeof registers};
  if (ptrace(PTRACE_SETREGSET, thread_, NT_PRSTATUS, &part) == 0) return absl::OkStatus();
  return Error("setting the registers");
}

absl::StatusOr<user_regs_struct> TracedThread::GetRegisters() const {
  user_regs_struct registers{};
  iovec part{&registers, sizeof registers};
  if (ptrace(PTRACE_GETREGSET, thread_, NT_PRSTATUS, &part) != 0) {
    return Error("reading the registers");
  }
  // The kernel gives fewer where the thread runs 32-bit code.
  if (part.iov_len == sizeof registers) return registers;
  return absl::FailedPreconditionError(
      absl::StrCat("process ", pid_, " is a 32-bit program; only 64-bit ones can be attached"));
}

bool TracedThread::Read(uint64_t address, void* bytes, size_t size) const {
  const iovec local{bytes, size}, remote{reinterpret_cast<void*>(address), size};
  return process_vm_readv(thread_, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(size);
}

bool TracedThread::Write(uint64_t address, const void* bytes, size_t size) const {
  const iovec local{const_cast<void*>(bytes), size}, remote{reinterpret_cast<void*>(address), size};
  return process_vm_writev(thread_, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(size);
}

absl::StatusOr<InjectionTimes> Inject(pid_t pid, absl::Duration patience,
                                      absl::FunctionRef<absl::Status(StoppedThread&)> body) {
  const pid_t thread = FindThread(pid);
  if (thread == 0) return absl::NotFoundError(absl::StrCat("there is no process ", pid));
  TracedThread traced(pid, thread);
  absl::Status status = traced.Stop(patience);
  if (status.ok()) status = body(traced);
  // Also where stopping has failed half-way. Where the thread did not stop, nothing of this has an
  // effect, and the end of this thread lets go of it.
  const absl::Status released = traced.Release();
  if (!status.ok()) return status;
  if (!released.ok()) return released;
  return traced.times();
}

#else

absl::StatusOr<InjectionTimes> Inject(pid_t, absl::Duration,
                                      absl::FunctionRef<absl::Status(StoppedThread&)>) {
  return absl::UnimplementedError("a running process can be attached on x86-64 machines only");
}

#endif

}  // namespace

absl::StatusOr<InjectionTimes> InjectSyscalls(
    pid_t pid, absl::Duration patience, absl::FunctionRef<absl::Status(StoppedThread&)> body) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  absl::StatusOr<InjectionTimes> times = absl::InternalError("the tracer did not run");
  // The relation of tracer and target is one of threads: it ends with this one.
  std::thread([&] { times = Inject(pid, patience, body); }).join();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return times;
}

}  // namespace faultline
