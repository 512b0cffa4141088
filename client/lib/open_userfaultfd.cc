// SPDX-License-Identifier: Apache-2.0
#include "client/lib/open_userfaultfd.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

namespace faultline {
namespace {

// Newer than the headers of some build hosts: Linux 6.1.
constexpr unsigned long kUserfaultfdIocNew = 0xaa00;  // _IO(0xAA, 0x00)

constexpr int kFlags = O_CLOEXEC | O_NONBLOCK;

}  // namespace

Failure OpenUserfaultfd(UniqueFd* uffd, const char* device) {
  if (const UniqueFd node(open(device, O_RDWR | O_CLOEXEC)); node) {
    if (OpenUserfaultfdFrom(node.get(), uffd).ok()) return Success();
  }
  uffd->reset(static_cast<int>(syscall(SYS_userfaultfd, kFlags)));
  if (*uffd) return Success();
  if (errno == EPERM || errno == EACCES) {
    return {EPERM,
            "this process may not have a userfaultfd; give it one of: root or CAP_SYS_PTRACE; read "
            "and write permission on /dev/userfaultfd (Linux 6.1); or set "
            "sysctl vm.unprivileged_userfaultfd=1 (in a container also a seccomp profile that "
            "allows userfaultfd)"};
  }
  return SystemFailure("cannot open a userfaultfd");
}

Failure OpenUserfaultfdFrom(int node, UniqueFd* uffd) {
  uffd->reset(ioctl(node, kUserfaultfdIocNew, kFlags));
  return *uffd ? Success() : SystemFailure("cannot make a userfaultfd from /dev/userfaultfd");
}

}  // namespace faultline
