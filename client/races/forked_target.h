// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_RACES_FORKED_TARGET_H_
#define FAULTLINE_CLIENT_RACES_FORKED_TARGET_H_

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <optional>

#include "client/races/race_testing.h"

namespace faultline {

// A target that is a process of its own: it maps memory of `kind` at pages [page, page + count) of
// the arena, which then is at the same addresses as here, hands over a fresh userfaultfd, and runs
// `work` (async-signal-safe) after Go().
class ForkedTarget {
 public:
  template <typename Work>
  ForkedTarget(Arena* arena, MemoryKind kind, uint64_t page, uint64_t count, Work work) {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    child_.emplace([&] {
      close(ends[0]);
      if (!arena->Map(kind, page, count)) return 101;
      if (!Send(ends[1], OpenFresh())) return 102;
      go_.Pass();
      return work();
    });
    close(ends[1]);
    uffd_ = Receive(ends[0]);
    EXPECT_TRUE(uffd_);
    close(ends[0]);
  }

  Child& child() { return *child_; }
  pid_t pid() const { return child_->pid(); }
  UniqueFd TakeUffd() { return std::move(uffd_); }
  void Go() const { go_.Open(); }

 private:
  static int OpenFresh() {
    constexpr int kFlags = O_CLOEXEC | O_NONBLOCK;
    const int device = open(uapi::kDevice, O_RDWR | O_CLOEXEC);
    const int fd = device < 0 ? -1 : ioctl(device, uapi::kIoctlNew, kFlags);
    close(device);
    return fd >= 0 ? fd : static_cast<int>(syscall(SYS_userfaultfd, kFlags));
  }

  // One byte with a descriptor.
  struct Message {
    Message() {
      header.msg_iov = &part;
      header.msg_iovlen = 1;
      header.msg_control = control;
      header.msg_controllen = sizeof(control);
    }
    char byte = 0;
    iovec part{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr header = {};
  };
  static bool Send(int socket, int fd) {
    Message message;
    cmsghdr* control = CMSG_FIRSTHDR(&message.header);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(sizeof(fd));
    memcpy(CMSG_DATA(control), &fd, sizeof(fd));
    const bool sent = fd >= 0 && sendmsg(socket, &message.header, 0) == 1;
    close(fd);
    return sent;
  }
  static UniqueFd Receive(int socket) {
    Message message;
    if (recvmsg(socket, &message.header, MSG_CMSG_CLOEXEC) != 1) return UniqueFd();
    const cmsghdr* control = CMSG_FIRSTHDR(&message.header);
    if (control == nullptr) return UniqueFd();
    int fd;
    memcpy(&fd, CMSG_DATA(control), sizeof(fd));
    return UniqueFd(fd);
  }

  Gate go_;
  std::optional<Child> child_;
  UniqueFd uffd_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_RACES_FORKED_TARGET_H_
