// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_LIB_PRELOAD_TAKEOVER_H_
#define FAULTLINE_CLIENT_LIB_PRELOAD_TAKEOVER_H_

#include <sys/types.h>

#include <cstdint>

#include "client/lib/agent_connection.h"
#include "client/lib/failure.h"
#include "client/lib/preload.h"
#include "client/unique_fd.h"

namespace faultline {

// Hands one mapping of this process to an agent. Used once; not thread-safe. The agent serves the
// mapping for as long as this object is there.
class PreloadTakeover {
 public:
  PreloadTakeover();

  // Does what can fail before there is a mapping, so that most failures change nothing: finds the
  // agent and the volume, opens a userfaultfd, looks whether the file is empty.
  Failure Prepare(const PreloadOptions& options, const MapCall& call);

  // REQUIRES: Prepare() of the same mapping has succeeded, and the mapping is at `address` now.
  // After a failure it is not registered with anything.
  Failure Take(const PreloadOptions& options, const MapCall& call, void* address);

 private:
  Failure CheckVolume(const PreloadOptions& options, uint64_t length);
  Failure HandOver(const PreloadOptions& options, const MapCall& call, void* address);

  AgentConnection agent_;
  UniqueFd uffd_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LIB_PRELOAD_TAKEOVER_H_
