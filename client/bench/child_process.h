// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_BENCH_CHILD_PROCESS_H_
#define FAULTLINE_CLIENT_BENCH_CHILD_PROCESS_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/time/time.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "client/unique_fd.h"

namespace faultline {

// A program that runs beside this one and never outlives it. Not thread-safe; to be started from
// the main thread, whose end ends it, too.
class ChildProcess {
 public:
  struct Streams {
    int in = -1;   // borrowed; -1: /dev/null
    int out = -1;  // borrowed; -1: inherited
    int err = -1;
  };

  // Which way a server is spoken to (FAULTLINE_TLS_..., FAULTLINE_AGENT_TLS_... and so on) is set
  // for the program that a user starts. One of ours that it starts itself is told by flags, where
  // there is TLS: it inherits none of these variables. All others it does.
  enum class TlsVariables { kInherited, kDropped };

  // `environment`, as NAME=VALUE, comes in place of, or beside, what is inherited. NOT_FOUND,
  // naming the program, where it cannot be run.
  static absl::StatusOr<ChildProcess> Start(const std::vector<std::string>& argv, Streams streams,
                                            const std::vector<std::string>& environment = {},
                                            TlsVariables tls = TlsVariables::kInherited);

  ChildProcess() = default;
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  // Asks it to end (SIGTERM), and after five seconds makes it.
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  bool running();
  // Waits for its end; the exit status, or 128 and the number of the signal.
  int Wait();
  int Terminate();

 private:
  pid_t pid_ = -1;  // -1: none, or reaped
  int status_ = 0;
};

// Runs a program to its end, with TlsVariables::kDropped, and returns what it wrote to its standard
// output. INTERNAL, with what it wrote to its standard error, where it fails.
absl::StatusOr<std::string> RunProgram(const std::vector<std::string>& argv);

// A program that writes lines to this one, and goes on until its standard input ends.
class HeldProgram {
 public:
  // As ChildProcess::Start; its standard error is inherited.
  static absl::StatusOr<HeldProgram> Start(const std::vector<std::string>& argv);

  pid_t pid() const { return child_.pid(); }
  // What it writes up to the end of a line, or the end of its output.
  std::string ReadLine();
  // Lets it go on to its end; the exit status, as ChildProcess::Wait() has it.
  int Release();

 private:
  UniqueFd to_, from_;
  ChildProcess child_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_BENCH_CHILD_PROCESS_H_
