// SPDX-License-Identifier: Apache-2.0
//
// TestPeer: the peer's side of a handover, for tests. Blocking; not thread-safe.
#ifndef FAULTLINE_CLIENT_ATTACH_TEST_PEER_H_
#define FAULTLINE_CLIENT_ATTACH_TEST_PEER_H_

#include <absl/strings/string_view.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <cstring>
#include <string>
#include <vector>

#include "client/unique_fd.h"

namespace faultline {

// -1 where this process may not have one.
inline UniqueFd OpenTestUffd() {
  UniqueFd fd(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  if (!fd) fd.reset(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1)));
  return fd;
}

class TestPeer {
 public:
  explicit TestPeer(const std::string& path)
      : socket_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
              0)
        << path << ": " << strerror(errno);
  }

  void Send(absl::string_view bytes, const std::vector<int>& descriptors = {}) {
    iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    std::vector<char> control(CMSG_SPACE(descriptors.size() * sizeof(int)));
    if (!descriptors.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
      memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size() * sizeof(int));
    }
    ASSERT_EQ(sendmsg(socket_.get(), &message, MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()))
        << strerror(errno);
  }

  // The next line that the agent sends, without its line feed; "" at the end of the connection.
  std::string ReadLine() {
    while (true) {
      if (const size_t end = received_.find('\n'); end != std::string::npos) {
        std::string line = received_.substr(0, end);
        received_.erase(0, end + 1);
        return line;
      }
      char bytes[4096];
      const ssize_t n = recv(socket_.get(), bytes, sizeof bytes, 0);
      if (n <= 0) return "";
      received_.append(bytes, static_cast<size_t>(n));
    }
  }

  // Reads until the agent closes the connection; returns what was read.
  std::string ReadToEnd() {
    std::string all;
    for (std::string line = ReadLine(); !line.empty(); line = ReadLine()) all += line + "\n";
    return all + received_;
  }

  void FinishSending() { shutdown(socket_.get(), SHUT_WR); }
  void Close() { socket_.reset(); }
  int fd() const { return socket_.get(); }

 private:
  UniqueFd socket_;
  std::string received_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACH_TEST_PEER_H_
