// SPDX-License-Identifier: Apache-2.0
//
// What both parts of faultline.h need.
#ifndef FAULTLINE_CLIENT_LIB_SHARED_H_
#define FAULTLINE_CLIENT_LIB_SHARED_H_

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "client/lib/agent_connection.h"
#include "client/lib/failure.h"
#include "client/lib/faultline.h"
#include "client/lib/page_bytes.h"

namespace faultline {

// What a function of the library returns, with `failure`'s message in `*error`, which may be null.
int Return(const Failure& failure, faultline_error* error);

// `path`, or where that is null what holds instead.
std::string SocketPath(const char* path);

// Of all options, and of this machine.
Failure CheckCommon(int on_agent_loss);

// Maps `length` bytes of `fd`, or private anonymous memory where that is -1, and keeps them from
// children.
Failure MapAlone(int fd, uint64_t length, void** address);

Failure AskVolumeSize(AgentConnection* agent, const char* volume, uint64_t* bytes);

// Hands memory over, and sets the attachment's number.
Failure AskToAttach(AgentConnection* agent, const nlohmann::json& request,
                    const std::vector<int>& descriptors, uint64_t* attachment);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LIB_SHARED_H_
