// SPDX-License-Identifier: Apache-2.0
//
// What a page server exports: deploy/prometheus/README.md has the list.
#ifndef FAULTLINE_SERVER_SERVER_METRICS_H_
#define FAULTLINE_SERVER_SERVER_METRICS_H_

#include <cstddef>
#include <vector>

#include "proto/metrics.h"
#include "proto/tls_files_watch.h"
#include "server/counters.h"
#include "server/page_window.h"
#include "storage/volume_catalog.h"

namespace faultline {

// Not thread-safe.
class ServerMetrics {
 public:
  // All are borrowed; no TLS: no `tls_files`. At most `series_limit` volumes have series of their
  // own.
  ServerMetrics(VolumeCatalog* catalog, const ServerCounters* counters, const PageWindow* window,
                const TlsFilesWatch* tls_files, size_t series_limit);

  std::vector<prometheus::MetricFamily> Collect();

 private:
  VolumeCatalog* const catalog_;
  const ServerCounters* const counters_;
  const PageWindow* const window_;
  const TlsFilesWatch* const tls_files_;
  BoundedSeries volumes_;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_SERVER_METRICS_H_
