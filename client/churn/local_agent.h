// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CHURN_LOCAL_AGENT_H_
#define FAULTLINE_CLIENT_CHURN_LOCAL_AGENT_H_

#include <absl/status/statusor.h>

#include <memory>
#include <string>

#include "client/pager.h"
#include "client/source/injection.h"

namespace faultline::churn {

struct LocalAgentOptions {
  std::string socket;
  PagerOptions pager;
  int fill_threads = 4;  // that answer fetches, and so fill
  Injection injection;
  PrefetchPolicy prefetch = PrefetchPolicy::kNone;
};

// An agent inside this process, for one volume in memory: what the paging core does with a source
// that costs nothing. Not thread-safe; what connects to its socket may do so at any time.
class LocalAgent {
 public:
  // Listens on return. `content` is the volume's, whatever its name. Only warnings are logged.
  static absl::StatusOr<std::unique_ptr<LocalAgent>> Start(const LocalAgentOptions& options,
                                                           std::string content);
  virtual ~LocalAgent() = default;
};

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_LOCAL_AGENT_H_
