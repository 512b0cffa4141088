// SPDX-License-Identifier: Apache-2.0
//
// What both parts of faultline.h need.
#ifndef FAULTLINE_CLIENT_LIB_SHARED_H_
#define FAULTLINE_CLIENT_LIB_SHARED_H_

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "client/lib/agent_connection.h"
#include "client/lib/agent_watcher.h"
#include "client/lib/failure.h"
#include "client/lib/faultline.h"
#include "client/lib/page_bytes.h"

namespace faultline {

// What a function of the library returns, with `failure`'s message in `*error`, which may be null.
int Return(const Failure& failure, faultline_error* error);

// `path`, or where that is null what holds instead.
std::string SocketPath(const char* path);

// Copies what a program has given to `*known`, which is what `initialiser` makes: one that was
// built with an older header has a shorter struct.
template <typename Options>
Failure CopyOptions(const Options& given, const char* initialiser, Options* known) {
  if (given.struct_size < sizeof known->struct_size || given.struct_size > sizeof *known) {
    return {EINVAL, "the options have struct_size " + std::to_string(given.struct_size) +
                        "; start from " + initialiser +
                        ", and with a library that is as new as the header"};
  }
  memcpy(known, &given, given.struct_size);
  return Success();
}

// Of all options, and of this machine.
Failure CheckCommon(int on_agent_loss);

// Maps `length` bytes of `fd`, or private anonymous memory where that is -1, and keeps them from
// children.
Failure MapAlone(int fd, uint64_t length, void** address);

Failure AskVolumeSize(AgentConnection* agent, const char* volume, uint64_t* bytes);

// Hands memory over, and sets the attachment's number.
Failure AskToAttach(AgentConnection* agent, const nlohmann::json& request,
                    const std::vector<int>& descriptors, uint64_t* attachment);

// Looks from here on whether the agent is there, which serves `volume`.
Failure Watch(AgentWatcher* watcher, const AgentConnection& agent, int on_agent_loss,
              const char* volume);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LIB_SHARED_H_
