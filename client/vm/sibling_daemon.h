// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_VM_SIBLING_DAEMON_H_
#define FAULTLINE_CLIENT_VM_SIBLING_DAEMON_H_

#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include "client/bench/child_process.h"
#include "client/unique_fd.h"

namespace faultline {

// A daemon that stands beside this program, and runs for as long as this object lives. Its log is
// kept, and is part of the error where it does not come up. Not thread-safe; for the main thread.
class SiblingDaemon {
 public:
  // A page server; listens on return.
  static absl::StatusOr<SiblingDaemon> StartServer(const std::vector<std::string>& flags);
  // An agent whose handover socket is `socket`; answers on return.
  static absl::StatusOr<SiblingDaemon> StartAgent(const std::vector<std::string>& flags,
                                                  const std::string& socket);

  SiblingDaemon() = default;

  // Where a page server listens, with the true port.
  const std::string& address() const { return address_; }
  bool running() { return process_.running(); }

  // Starts an agent that has ended again, in its place: it goes on with what it has served.
  absl::Status RestartAgent();

  // The end of what it has said.
  std::string Log() const;

 private:
  static absl::StatusOr<SiblingDaemon> Start(const std::string& program,
                                             const std::vector<std::string>& flags);

  std::vector<std::string> flags_;
  std::string socket_;
  std::string address_;
  UniqueFd log_;  // a memfd
  ChildProcess process_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_VM_SIBLING_DAEMON_H_
