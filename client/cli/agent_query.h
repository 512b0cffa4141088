// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CLI_AGENT_QUERY_H_
#define FAULTLINE_CLIENT_CLI_AGENT_QUERY_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>

#include <string>
#include <vector>

#include "client/attachment.h"

namespace faultline {

// Sends `query` to the agent that listens on the Unix socket `path`, and returns its answer: all
// that comes until it closes the connection or one whole JSON text is there. UNAVAILABLE, naming
// the path and what to check, where no agent answers within `timeout`.
absl::StatusOr<std::string> QueryAgent(const std::string& path, absl::string_view query,
                                       absl::Duration timeout);

// The attachments of that agent. Errors as above, and what it says where it refuses.
absl::StatusOr<std::vector<AttachmentStats>> QueryAttachments(const std::string& path);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_CLI_AGENT_QUERY_H_
