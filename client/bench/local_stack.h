// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_BENCH_LOCAL_STACK_H_
#define FAULTLINE_CLIENT_BENCH_LOCAL_STACK_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include "client/bench/child_process.h"

namespace faultline {

// A directory that is removed, with all that is in it, at the end.
class TemporaryDirectory {
 public:
  // Below `parent`; /var/tmp where that is empty: a disk, not memory.
  static absl::StatusOr<TemporaryDirectory> Create(const std::string& parent);
  TemporaryDirectory(TemporaryDirectory&& other) noexcept;
  TemporaryDirectory& operator=(TemporaryDirectory&& other) noexcept;
  ~TemporaryDirectory();

  const std::string& path() const { return path_; }

 private:
  explicit TemporaryDirectory(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

enum class Transport { kTcp, kUnix };

// Further flags of the programs.
struct LocalStackFlags {
  std::vector<std::string> server, agent;
};

// A page server and an agent of this machine: the programs that stand beside this one, started on
// loopback and ended with it. Not thread-safe.
class LocalStack {
 public:
  // The store, the sockets and the logs are below `directory`. UNAVAILABLE, with the end of its
  // log, where one of them does not come up.
  static absl::StatusOr<LocalStack> Start(const std::string& directory, Transport transport,
                                          LocalStackFlags flags = {});

  // Kills the server, as a crash would, and starts it again on the same store at the same address.
  absl::Status KillAndRestartServer();

  const std::string& server_address() const { return server_address_; }
  const std::string& agent_socket() const { return agent_socket_; }
  pid_t server_pid() const { return server_.pid(); }
  pid_t agent_pid() const { return agent_.pid(); }

  // Runs `faultline` with these arguments, against this server; its standard output.
  absl::StatusOr<std::string> Faultline(const std::vector<std::string>& arguments) const;

 private:
  absl::Status StartServer(const std::string& listen);
  absl::Status StartAgent();

  std::string directory_;
  LocalStackFlags flags_;
  std::string server_address_;
  std::string agent_socket_;
  ChildProcess server_;
  ChildProcess agent_;  // after the server: it ends first
};

// The path of a program that stands beside this one.
std::string SiblingProgram(const std::string& name);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_BENCH_LOCAL_STACK_H_
