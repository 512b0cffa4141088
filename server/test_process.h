// SPDX-License-Identifier: Apache-2.0
//
// The real faultline-server as a child process, for tests that kill it or fill its disk.
#ifndef FAULTLINE_SERVER_TEST_PROCESS_H_
#define FAULTLINE_SERVER_TEST_PROCESS_H_

#include <stdint.h>
#include <sys/types.h>

#include <string>
#include <vector>

namespace faultline {

// Where the child gets a file system of its own: a tmpfs of so many bytes, which only it sees.
struct ProcessDisk {
  std::string path;  // empty: none
  uint64_t size_bytes = 0;
};

// Not thread-safe. A child that still runs at the end is killed.
class ServerProcess {
 public:
  // What the child exits with where it may not mount the disk.
  static constexpr int kExitCannotMount = 77;

  // Starts the program with `flags` and, beside that of the test, `environment` ("NAME=VALUE").
  explicit ServerProcess(const std::vector<std::string>& flags,
                         const std::vector<std::string>& environment = {},
                         const ProcessDisk& disk = {});
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // Reads the child's output until a line with `text`, which it returns; empty where the output
  // ends before.
  std::string WaitForLine(const std::string& text);
  void Signal(int signal_number);
  // Waits for the end of the child. Its exit status, or 128 and the signal that killed it.
  int Wait();

  // What the child has printed as far as it was read; after Wait(), all of it.
  const std::string& output() const { return output_; }

 private:
  // Appends what there is; false at the end of the output.
  bool ReadSome();

  pid_t pid_ = -1;
  int read_fd_ = -1;
  std::string output_;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_TEST_PROCESS_H_
