// SPDX-License-Identifier: Apache-2.0
#include "proto/service_manager.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "proto/log.h"

namespace faultline {
namespace {

constexpr char kNotifySocket[] = "NOTIFY_SOCKET";
constexpr int kFirstPassedSocket = 3;  // SD_LISTEN_FDS_START

// The number in an environment variable, which it takes out; 0 where there is none.
int TakeNumber(const char* variable) {
  const char* const text = getenv(variable);
  int number = 0;
  if (text == nullptr || !absl::SimpleAtoi(text, &number)) number = 0;
  unsetenv(variable);
  return number;
}

}  // namespace

void NotifyServiceManager(absl::string_view state) {
  const char* const path = getenv(kNotifySocket);
  if (path == nullptr || *path == '\0') return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const size_t length = strlen(path);
  int error = length < sizeof address.sun_path ? 0 : ENAMETOOLONG;
  if (error == 0) {
    memcpy(address.sun_path, path, length);
    if (*path == '@') address.sun_path[0] = '\0';  // of the abstract namespace
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || sendto(fd, state.data(), state.size(), MSG_NOSIGNAL,
                         reinterpret_cast<const sockaddr*>(&address),
                         static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length)) < 0) {
      error = errno;
    }
    if (fd >= 0) close(fd);
  }
  if (error == 0) return;
  LogWarning(absl::StrCat("cannot tell the service manager at ", path, " (NOTIFY_SOCKET): ",
                          strerror(error), "; it may end this process for being slow to start"));
}

std::vector<int> TakePassedSockets() {
  const int count = TakeNumber("LISTEN_FDS");
  const bool for_this_process = TakeNumber("LISTEN_PID") == getpid();
  unsetenv("LISTEN_FDNAMES");
  std::vector<int> sockets;
  if (!for_this_process) return sockets;
  for (int fd = kFirstPassedSocket; fd < kFirstPassedSocket + count; ++fd) {
    // What is no descriptor is none that could be taken.
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) sockets.push_back(fd);
  }
  return sockets;
}

}  // namespace faultline
