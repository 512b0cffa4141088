// SPDX-License-Identifier: Apache-2.0
#include "client/attach/process_attach.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "client/uffd/uapi.h"
#include "client/uffd/uffd.h"

namespace faultline {
namespace {

// Not with UFFD_USER_MODE_ONLY: the target's system calls on memory that is not filled yet would
// fail.
constexpr uint64_t kUffdFlags = O_CLOEXEC | O_NONBLOCK;

absl::Status NoUserfaultfd(pid_t pid, const std::string& device, int syscall_error,
                           absl::string_view why) {
  return absl::PermissionDeniedError(absl::StrCat(
      "process ", pid, " may not have a userfaultfd (userfaultfd(2): ", strerror(syscall_error),
      "; ", device, ": ", why,
      "). Any one of these gives it: sysctl vm.unprivileged_userfaultfd=1; "
      "CAP_SYS_PTRACE; or a node that it may open, which --device=PATH tells (mknod PATH c 10 "
      "$(awk '$2 == \"userfaultfd\" { print $1 }' /proc/misc), and chown it to the user of the "
      "process)"));
}

// Opens a userfaultfd in the target, and returns its number there.
absl::StatusOr<int> OpenUffdIn(StoppedThread& thread, pid_t pid, const std::string& device) {
  absl::StatusOr<int64_t> uffd = thread.Call(SYS_userfaultfd, {kUffdFlags});
  if (!uffd.ok()) return uffd.status();
  if (*uffd >= 0) return static_cast<int>(*uffd);
  const int refused = static_cast<int>(-*uffd);
  if (refused != EPERM) {
    return absl::FailedPreconditionError(
        absl::StrCat("process ", pid, " cannot open a userfaultfd: ", strerror(refused)));
  }
  const absl::StatusOr<uint64_t> path = thread.Lend(device);
  if (!path.ok()) return path.status();
  const absl::StatusOr<int64_t> node =
      thread.Call(SYS_openat, {static_cast<uint64_t>(AT_FDCWD), *path, O_RDWR | O_CLOEXEC});
  if (!node.ok()) return node.status();
  if (*node < 0) return NoUserfaultfd(pid, device, refused, strerror(static_cast<int>(-*node)));
  uffd = thread.Call(SYS_ioctl, {static_cast<uint64_t>(*node), uapi::kIoctlNew, kUffdFlags});
  const absl::StatusOr<int64_t> closed = thread.Call(SYS_close, {static_cast<uint64_t>(*node)});
  if (!uffd.ok()) return uffd.status();
  if (!closed.ok()) return closed.status();
  if (*uffd < 0) return NoUserfaultfd(pid, device, refused, strerror(static_cast<int>(-*uffd)));
  return static_cast<int>(*uffd);
}

// Registers the memory with a userfaultfd that nobody has used yet.
absl::Status Register(int fd, pid_t pid, AddressRange range) {
  absl::StatusOr<std::unique_ptr<Uffd>> uffd = AdoptFreshUffd(
      UniqueFd(fcntl(fd, F_DUPFD_CLOEXEC, 0)),
      uapi::kFeatureEventFork | uapi::kFeatureEventRemap | uapi::kFeatureEventRemove |
          uapi::kFeatureEventUnmap | uapi::kFeatureThreadId);
  if (!uffd.ok()) return uffd.status();
  // By hand, since what its errors mean is another thing to somebody who attaches a process.
  uffdio_register request{};
  request.range = {range.start, range.length};
  request.mode = UFFDIO_REGISTER_MODE_MISSING;
  if (ioctl(fd, UFFDIO_REGISTER, &request) == 0) return absl::OkStatus();
  const int error = errno;
  const std::string memory = absl::StrCat("the memory of process ", pid);
  switch (error) {
    case EBUSY:
      return absl::FailedPreconditionError(
          absl::StrCat(memory,
                       " is registered with a userfaultfd already: is it attached? (faultline "
                       "attachments lists what an agent serves)"));
    case EINVAL:
      return absl::FailedPreconditionError(absl::StrCat(
          memory,
          " cannot be registered: it is neither private anonymous memory nor of tmpfs, or "
          "it has changed meanwhile"));
    case EPERM:
      return absl::FailedPreconditionError(
          absl::StrCat(memory, " cannot be registered: its file may not be written"));
    case ENOMEM:
    case ESRCH:
      return absl::NotFoundError(
          absl::StrCat("process ", pid, " has ended, or runs another program"));
    default:
      return absl::ErrnoToStatus(error, absl::StrCat("UFFDIO_REGISTER of ", memory));
  }
}

absl::StatusOr<UniqueFd> CopyDescriptor(int pidfd, pid_t pid, int number) {
  UniqueFd uffd(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, number, 0)));
  if (!uffd) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("pidfd_getfd of descriptor ", number, " of process ", pid));
  }
  return uffd;
}

absl::Status CloseIn(pid_t pid, int descriptor, absl::Duration patience) {
  return InjectSyscalls(
             pid, patience,
             [&](StoppedThread& thread) {
               return thread.Call(SYS_close, {static_cast<uint64_t>(descriptor)}).status();
             })
      .status();
}

}  // namespace

absl::StatusOr<UniqueFd> BorrowUffd(pid_t pid, int pidfd, const ProcessAttachOptions& options) {
  int number = -1;
  const absl::StatusOr<InjectionTimes> times =
      InjectSyscalls(pid, options.patience, [&](StoppedThread& thread) {
        const absl::StatusOr<int> opened = OpenUffdIn(thread, pid, options.device);
        number = opened.value_or(-1);
        return opened.status();
      });
  if (!times.ok()) return times.status();
  absl::StatusOr<UniqueFd> uffd = CopyDescriptor(pidfd, pid, number);
  if (absl::Status closed = CloseIn(pid, number, options.patience); !closed.ok()) return closed;
  return uffd;
}

absl::StatusOr<TakenMemory> TakeMemory(pid_t pid, int pidfd, const TargetMemory& memory,
                                       const ProcessAttachOptions& options) {
  // So that what cannot be attached is not stopped, either.
  if (absl::Status status = CheckNothingIsResident(pid, memory); !status.ok()) return status;
  TakenMemory taken;
  taken.pid = pid;
  taken.range = memory.range;
  absl::StatusOr<InjectionTimes> times =
      InjectSyscalls(pid, options.patience, [&](StoppedThread& thread) {
        absl::StatusOr<int> number = OpenUffdIn(thread, pid, options.device);
        taken.target_descriptor = number.value_or(-1);
        return number.status();
      });
  if (!times.ok()) return times.status();
  taken.times = *times;
  absl::StatusOr<UniqueFd> uffd = CopyDescriptor(pidfd, pid, taken.target_descriptor);
  if (!uffd.ok()) return uffd.status();
  taken.uffd = *std::move(uffd);
  absl::Status status = Register(taken.uffd.get(), pid, memory.range);
  if (status.ok()) status = CheckNothingIsResident(pid, memory);
  if (status.ok()) return taken;
  if (absl::Status back = GiveBack(std::move(taken)); !back.ok()) {
    return absl::Status(status.code(), absl::StrCat(status.message(), " (", back.message(), ")"));
  }
  return status;
}

absl::Status GiveBack(TakenMemory taken) {
  uffdio_range range{taken.range.start, taken.range.length};
  // Fails where it was not registered in the first place.
  ioctl(taken.uffd.get(), UFFDIO_UNREGISTER, &range);
  ioctl(taken.uffd.get(), UFFDIO_WAKE, &range);
  taken.uffd.reset();
  return CloseIn(taken.pid, taken.target_descriptor, absl::Seconds(5));
}

}  // namespace faultline
