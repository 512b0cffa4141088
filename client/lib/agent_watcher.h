// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_LIB_AGENT_WATCHER_H_
#define FAULTLINE_CLIENT_LIB_AGENT_WATCHER_H_

#include <pthread.h>

#include <string>

#include "client/lib/failure.h"
#include "client/unique_fd.h"

namespace faultline {

// What becomes of the process when its agent is gone.
enum class OnAgentLoss { kKill, kWait };

// A thread that waits for the end of the connection to the agent. While it runs every other thread
// may be waiting for a page, with any lock in its hands: so it allocates nothing, takes no lock,
// and touches no memory but its stack and this object. All signals are blocked in it.
class AgentWatcher {
 public:
  AgentWatcher() = default;
  AgentWatcher(const AgentWatcher&) = delete;
  AgentWatcher& operator=(const AgentWatcher&) = delete;
  ~AgentWatcher();  // Stop()

  // Watches `socket`, which must outlive the watcher. `what` is said of the memory when it is lost.
  Failure Start(int socket, OnAgentLoss on_loss, const std::string& what);

  // After it, the end of the connection means nothing any more. Idempotent.
  void Stop();

 private:
  void Run();

  int socket_ = -1;
  OnAgentLoss on_loss_ = OnAgentLoss::kKill;
  UniqueFd stop_;  // an eventfd
  bool running_ = false;
  pthread_t thread_{};
  char last_words_[512] = "";
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LIB_AGENT_WATCHER_H_
