// SPDX-License-Identifier: Apache-2.0
#include "client/lib/shared.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include <nlohmann/json.hpp>

namespace faultline {

using nlohmann::json;

int Return(const Failure& failure, faultline_error* error) {
  if (error != nullptr) {
    const size_t size = failure.message.copy(error->message, sizeof error->message - 1);
    error->message[size] = '\0';
  }
  return -failure.code;
}

std::string SocketPath(const char* path) {
  if (path == nullptr) path = getenv("FAULTLINE_SOCKET");
  return path != nullptr ? path : FAULTLINE_DEFAULT_SOCKET;
}

Failure CheckCommon(int on_agent_loss) {
  if (on_agent_loss != FAULTLINE_ON_AGENT_LOSS_KILL &&
      on_agent_loss != FAULTLINE_ON_AGENT_LOSS_WAIT) {
    return {EINVAL, "unknown value " + std::to_string(on_agent_loss) +
                        " for what to do on the loss of the agent"};
  }
  if (sysconf(_SC_PAGESIZE) != static_cast<long>(kPageBytes)) {
    return {EINVAL, "this machine's pages are not of 4096 bytes"};
  }
  return Success();
}

Failure MapAlone(int fd, uint64_t length, void** address) {
  const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  void* const mapped = mmap(nullptr, length, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, 0);
  if (mapped == MAP_FAILED) {
    return SystemFailure("cannot map " + std::to_string(length) + " bytes");
  }
  *address = mapped;
  if (madvise(mapped, length, MADV_DONTFORK) != 0) {
    return SystemFailure("cannot keep the memory out of child processes");
  }
  return Success();
}

Failure AskVolumeSize(AgentConnection* agent, const char* volume, uint64_t* bytes) {
  json answer;
  Failure failure = agent->Ask({{"query", "volume"}, {"volume", volume}}, {}, &answer);
  if (!failure.ok()) return failure;
  const auto size = answer.find("size");
  if (size == answer.end() || !size->is_number_unsigned()) {
    return {EPROTO, "the agent did not tell the volume's size: " + answer.dump()};
  }
  *bytes = size->get<uint64_t>();
  return Success();
}

Failure AskToAttach(AgentConnection* agent, const json& request,
                    const std::vector<int>& descriptors, uint64_t* attachment) {
  json answer;
  Failure failure = agent->Ask(request, descriptors, &answer);
  if (!failure.ok()) return failure;
  const auto id = answer.find("attachment");
  if (id == answer.end() || !id->is_number_unsigned()) {
    return {EPROTO, "the agent did not tell the attachment: " + answer.dump()};
  }
  *attachment = id->get<uint64_t>();
  return Success();
}

Failure Watch(AgentWatcher* watcher, const AgentConnection& agent, int on_agent_loss,
              const char* volume) {
  return watcher->Start(
      agent.fd(),
      on_agent_loss == FAULTLINE_ON_AGENT_LOSS_WAIT ? OnAgentLoss::kWait : OnAgentLoss::kKill,
      std::string("volume ") + volume);
}

}  // namespace faultline
