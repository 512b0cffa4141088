// SPDX-License-Identifier: Apache-2.0
//
// TestTarget: a run of attach_target.cc, for tests that attach a process.
#ifndef FAULTLINE_CLIENT_ATTACH_TEST_TARGET_H_
#define FAULTLINE_CLIENT_ATTACH_TEST_TARGET_H_

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "client/unique_fd.h"

namespace faultline {

// Killed at the end. Blocking; not thread-safe.
class TestTarget {
 public:
  // Returns once it has said that it is ready.
  explicit TestTarget(std::vector<std::string> args) {
    int input[2], output[2];
    EXPECT_EQ(pipe2(input, O_CLOEXEC), 0);
    EXPECT_EQ(pipe2(output, O_CLOEXEC), 0);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(input[0], STDIN_FILENO);
      dup2(output[1], STDOUT_FILENO);
      args.insert(args.begin(), FAULTLINE_ATTACH_TARGET);
      std::vector<char*> argv;
      for (std::string& arg : args) argv.push_back(arg.data());
      argv.push_back(nullptr);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(input[0]);
    close(output[1]);
    input_.reset(input[1]);
    output_.reset(output[0]);
    pidfd_.reset(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
    const std::string ready = ReadLine();
    EXPECT_EQ(ready.substr(0, 6), "ready ");
    address_ = ready.size() > 6 ? strtoull(ready.c_str() + 6, nullptr, 16) : 0;
  }
  ~TestTarget() { Kill(); }
  TestTarget(const TestTarget&) = delete;
  TestTarget& operator=(const TestTarget&) = delete;

  pid_t pid() const { return pid_; }
  int pidfd() const { return pidfd_.get(); }
  uint64_t address() const { return address_; }

  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

  // Ends its wait, and returns what it says of it.
  std::string Release() {
    EXPECT_EQ(write(input_.get(), "x", 1), 1);
    return ReadLine();
  }
  // All of its memory; after Release().
  std::string ReadMemory() {
    std::string all;
    std::vector<char> bytes(65536);
    for (ssize_t n; (n = read(output_.get(), bytes.data(), bytes.size())) > 0;) {
      all.append(bytes.data(), static_cast<size_t>(n));
    }
    return all;
  }

  // "S (sleeping)", of the main thread.
  std::string State() const { return StatusField("State:\t"); }
  std::string StatusField(const std::string& name) const {
    std::ifstream file(absl::StrCat("/proc/", pid_, "/status"));
    for (std::string line; std::getline(file, line);) {
      if (line.compare(0, name.size(), name) == 0) return line.substr(name.size());
    }
    return "";
  }
  // How many userfaultfds it has open.
  int CountUserfaultfds() const {
    int count = 0;
    for (int fd = 0; fd < 64; ++fd) {
      char target[64] = "";
      const std::string link = absl::StrCat("/proc/", pid_, "/fd/", fd);
      if (readlink(link.c_str(), target, sizeof target - 1) < 0) continue;
      if (std::string(target) == "anon_inode:[userfaultfd]") ++count;
    }
    return count;
  }

 private:
  std::string ReadLine() {
    std::string line;
    for (char c; read(output_.get(), &c, 1) == 1 && c != '\n';) line += c;
    return line;
  }

  pid_t pid_ = 0;
  UniqueFd pidfd_, input_, output_;
  uint64_t address_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACH_TEST_TARGET_H_
