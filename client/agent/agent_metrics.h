// SPDX-License-Identifier: Apache-2.0
//
// What an agent exports: deploy/prometheus/README.md has the list. Each metric of an attachment
// stands twice, as that of all attachments of the agent together, which are kept when they end, and
// by itself for as long as it lives.
#ifndef FAULTLINE_CLIENT_AGENT_AGENT_METRICS_H_
#define FAULTLINE_CLIENT_AGENT_AGENT_METRICS_H_

#include <cstddef>
#include <vector>

#include "client/attach/handover_server.h"
#include "client/pager.h"
#include "client/remote/page_server.h"
#include "proto/metrics.h"
#include "proto/tls_files_watch.h"

namespace faultline {

// Not thread-safe.
class AgentMetrics {
 public:
  // All are borrowed; no TLS: no `tls_files`. At most `series_limit` attachments have series of
  // their own.
  AgentMetrics(const Pager* pager, PageServer* page_server, const HandoverServer* handovers,
               const TlsFilesWatch* tls_files, size_t series_limit);

  // Waits a little for the page server where that is away.
  std::vector<prometheus::MetricFamily> Collect();

 private:
  const Pager* const pager_;
  PageServer* const page_server_;
  const HandoverServer* const handovers_;
  const TlsFilesWatch* const tls_files_;
  BoundedSeries attachments_;
  MetricSamples last_totals_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_AGENT_AGENT_METRICS_H_
