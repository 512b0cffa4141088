// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_BENCH_LOCAL_STACK_H_
#define FAULTLINE_CLIENT_BENCH_LOCAL_STACK_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "client/bench/child_process.h"
#include "client/bench/limited_link.h"
#include "client/remote/server_tls.h"

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

// kTls: mutual TLS over TCP, with certificates made for the run.
enum class Transport { kTcp, kUnix, kTls };

// Of Transport::kTls; a client like that of the agent and of the commands.
inline constexpr char kOtherClient[] = "other";

// "TCP loopback" and the like.
const char* TransportName(Transport transport);

// Further flags of the programs, and what is between them.
struct LocalStackFlags {
  std::vector<std::string> server, agent;
  bench::LinkOptions link;  // over TCP only
  std::string store;        // of the server; empty: rocksdb: below the directory
  // Of this store, which must be one that several may have open; the agents have all of them.
  unsigned servers = 1;
};

struct AgentProcess {
  ChildProcess process;
  std::string socket;  // for handovers
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
  // Of several servers, one after the other.
  absl::Status KillAndRestartServer();

  // Kills the agent, and starts another in its place.
  absl::Status KillAndRestartAgent();

  // Starts one more agent of this server, with these flags beside those that every agent has. It
  // must end before this. `name` tells its files from those of others.
  absl::StatusOr<AgentProcess> StartAgent(const std::string& name,
                                          const std::vector<std::string>& flags) const;

  const std::string& directory() const { return directory_; }
  // Of several servers, with commas between.
  std::string server_address() const;
  // The server's, as the agents have it: behind the link, where there is one.
  std::string address_for_agents() const { return link_ ? link_->address() : server_address(); }
  const AgentProcess& agent() const { return agent_; }
  const std::string& agent_socket() const { return agent_.socket; }
  pid_t server_pid() const { return servers_.front().process.pid(); }
  pid_t agent_pid() const { return agent_.process.pid(); }

  // What clients of the server need; nothing, but for Transport::kTls.
  const ServerTls& tls() const { return tls_; }
  // The same for a client named kOtherClient, to whom nothing is granted yet.
  const ServerTls& other_client_tls() const { return other_client_tls_; }

  // Runs `faultline` with these arguments, against this server; its standard output.
  absl::StatusOr<std::string> Faultline(const std::vector<std::string>& arguments) const;

 private:
  absl::Status MakeCertificates();
  struct ServerProgram {
    ChildProcess process;
    std::string address;
  };
  absl::StatusOr<ServerProgram> StartServer(size_t number, const std::string& listen) const;

  std::string directory_;
  LocalStackFlags flags_;
  ServerTls tls_, other_client_tls_;
  std::vector<std::string> server_tls_flags_;
  std::vector<ServerProgram> servers_;
  size_t killed_next_ = 0;
  std::unique_ptr<bench::LimitedLink> link_;
  AgentProcess agent_;  // after servers and link: it ends first
};

// The path of a program that stands beside this one.
std::string SiblingProgram(const std::string& name);

// The path of a library that stands beside this program, or in ../lib/faultline, where it is
// installed. NOT_FOUND, naming both.
absl::StatusOr<std::string> SiblingLibrary(const std::string& name);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_BENCH_LOCAL_STACK_H_
