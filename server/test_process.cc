// SPDX-License-Identifier: Apache-2.0
#include "server/test_process.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

namespace faultline {
namespace {

// Between fork and exec: system calls only. Gives the process a mount namespace of its own, in a
// user namespace of its own where it is not privileged, with a tmpfs in it.
bool MountDisk(const char* path, const char* options) {
  if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
  // Otherwise the mount would be seen by everybody.
  if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  return mount("tmpfs", path, "tmpfs", 0, options) == 0;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& text : strings) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

ServerProcess::ServerProcess(const std::vector<std::string>& flags,
                             const std::vector<std::string>& environment, const ProcessDisk& disk) {
  std::vector<std::string> arguments = {FAULTLINE_SERVER_PROGRAM};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  std::vector<std::string> variables = environment;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.push_back(*variable);
  const std::vector<char*> argv = Pointers(arguments);
  const std::vector<char*> envp = Pointers(variables);
  const std::string mount_options = "mode=0777,size=" + std::to_string(disk.size_bytes);
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) {
    ADD_FAILURE() << "pipe: " << strerror(errno);
    return;
  }
  read_fd_ = fds[0];
  pid_ = fork();
  if (pid_ == 0) {
    dup2(fds[1], STDOUT_FILENO);
    dup2(fds[1], STDERR_FILENO);
    if (!disk.path.empty() && !MountDisk(disk.path.c_str(), mount_options.c_str())) {
      _exit(kExitCannotMount);
    }
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  close(fds[1]);
}

ServerProcess::~ServerProcess() {
  if (pid_ > 0) {
    Signal(SIGKILL);
    Wait();
  }
  if (read_fd_ >= 0) close(read_fd_);
}

bool ServerProcess::ReadSome() {
  char buffer[4096];
  ssize_t n;
  do {
    n = read(read_fd_, buffer, sizeof buffer);
  } while (n < 0 && errno == EINTR);
  if (n <= 0) return false;
  output_.append(buffer, static_cast<size_t>(n));
  return true;
}

std::string ServerProcess::WaitForLine(const std::string& text) {
  while (true) {
    const size_t found = output_.find(text);
    if (found != std::string::npos) {
      if (const size_t end = output_.find('\n', found); end != std::string::npos) {
        const size_t newline = output_.rfind('\n', found);
        const size_t begin = newline == std::string::npos ? 0 : newline + 1;
        return output_.substr(begin, end - begin);
      }
    }
    if (!ReadSome()) return "";
  }
}

void ServerProcess::Signal(int signal_number) {
  if (pid_ > 0) kill(pid_, signal_number);
}

int ServerProcess::Wait() {
  while (ReadSome()) {
  }
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace faultline
