// SPDX-License-Identifier: Apache-2.0
#include "proto/service_manager.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

namespace faultline {
namespace {

// A datagram socket, as a service manager has it.
class NotifySocket {
 public:
  explicit NotifySocket(std::string name) : name_(std::move(name)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, name_.data(), name_.size());
    if (name_[0] == '@') address.sun_path[0] = '\0';
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&address),
                   static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name_.size())),
              0);
    setenv("NOTIFY_SOCKET", name_.c_str(), 1);
  }
  ~NotifySocket() {
    unsetenv("NOTIFY_SOCKET");
    if (name_[0] != '@') unlink(name_.c_str());
    close(fd_);
  }
  // Empty where nothing has come.
  std::string Receive() const {
    char bytes[256];
    const ssize_t n = recv(fd_, bytes, sizeof bytes, MSG_DONTWAIT);
    return n > 0 ? std::string(bytes, static_cast<size_t>(n)) : "";
  }

 private:
  const std::string name_;
  const int fd_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
};

TEST(ServiceManager, IsToldAtItsPath) {
  const NotifySocket socket(absl::StrCat(testing::TempDir(), "/notify.", getpid()));
  NotifyServiceManager("READY=1");
  EXPECT_EQ(socket.Receive(), "READY=1");
}

TEST(ServiceManager, IsToldInTheAbstractNamespace) {
  const NotifySocket socket(absl::StrCat("@faultline/notify.", getpid()));
  NotifyServiceManager("STOPPING=1\nSTATUS=stops");
  EXPECT_EQ(socket.Receive(), "STOPPING=1\nSTATUS=stops");
}

TEST(ServiceManager, NothingIsSaidWhereNobodyListens) {
  unsetenv("NOTIFY_SOCKET");
  NotifyServiceManager("READY=1");
  testing::internal::CaptureStderr();
  setenv("NOTIFY_SOCKET", "/nobody/listens/here", 1);
  NotifyServiceManager("READY=1");
  unsetenv("NOTIFY_SOCKET");
  EXPECT_NE(testing::internal::GetCapturedStderr().find("cannot tell the service manager"),
            std::string::npos);
}

// The exit status of a child that has descriptors 3 and 4 open: what TakePassedSockets() returns,
// one digit each; 100 more where a variable is left.
int TakenByAChild(const char* count, bool right_pid) {
  const pid_t child = fork();
  if (child == 0) {
    // Of the test program's own, which are of no use to the child.
    close_range(3, ~0U, 0);
    if (open("/dev/null", O_RDONLY) != 3 || open("/dev/null", O_RDONLY) != 4) _exit(99);
    setenv("LISTEN_FDS", count, 1);
    setenv("LISTEN_PID", absl::StrCat(getpid() + (right_pid ? 0 : 1)).c_str(), 1);
    int found = 0;
    for (const int fd : TakePassedSockets()) {
      found = found * 10 + fd;
      if (fcntl(fd, F_GETFD) != FD_CLOEXEC) _exit(98);
    }
    const bool left = getenv("LISTEN_FDS") != nullptr || getenv("LISTEN_PID") != nullptr;
    _exit(found + (left ? 100 : 0));
  }
  int status = -1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(ServiceManager, PassesSockets) {
  EXPECT_EQ(TakenByAChild("1", true), 3);
  EXPECT_EQ(TakenByAChild("2", true), 34);
  EXPECT_EQ(TakenByAChild("3", true), 34);  // there is no third
  EXPECT_EQ(TakenByAChild("many", true), 0);
}

TEST(ServiceManager, SocketsOfAnotherProcessAreLeftAlone) {
  EXPECT_EQ(TakenByAChild("2", false), 0);
}

}  // namespace
}  // namespace faultline
