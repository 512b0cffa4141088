// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_LIB_AGENT_CONNECTION_H_
#define FAULTLINE_CLIENT_LIB_AGENT_CONNECTION_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "client/attach/json_text_splitter.h"
#include "client/lib/failure.h"
#include "client/unique_fd.h"

namespace faultline {

// Whether `failure` is that nobody serves the socket, or that the agent has ended meanwhile.
bool IsAgentLoss(const Failure& failure);

// A connection to an agent's socket: one request, one answer. Not thread-safe.
class AgentConnection {
 public:
  explicit AgentConnection(std::chrono::milliseconds timeout);

  Failure Connect(const std::string& path);

  // Sends `request` with `descriptors` and reads the answer to it, each within the time-out. Fails
  // with EREMOTEIO, and the agent's message, where it answers with an error.
  Failure Ask(const nlohmann::json& request, const std::vector<int>& descriptors,
              nlohmann::json* answer);

  // Ends attachment `id`. Where the connection has ended, with an agent that was killed, its
  // successor is asked, again and again until `patience` is over.
  Failure Detach(uint64_t id, std::chrono::milliseconds patience);

  int fd() const { return socket_.get(); }
  const std::string& path() const { return path_; }

 private:
  Failure Send(const std::string& text, const std::vector<int>& descriptors);
  Failure ReceiveText(std::string* text);

  const std::chrono::milliseconds timeout_;
  std::string path_;
  UniqueFd socket_;
  JsonTextSplitter splitter_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LIB_AGENT_CONNECTION_H_
