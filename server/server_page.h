// SPDX-License-Identifier: Apache-2.0
//
// The page of a page server, and what it asks for:
//
//   /            the page; page/ has its files
//   /metrics     for Prometheus
//   /api/server  the server, its store and its volumes, in numbers
//
// Everybody on this machine may read it: names and sizes, and nothing of what is in a volume.
#ifndef FAULTLINE_SERVER_SERVER_PAGE_H_
#define FAULTLINE_SERVER_SERVER_PAGE_H_

#include <functional>
#include <string>
#include <vector>

#include "proto/http_server.h"
#include "server/counters.h"
#include "server/page_window.h"
#include "server/server_metrics.h"
#include "storage/volume_catalog.h"

namespace faultline {

// All are borrowed, and outlive the server of these routes.
struct ServerPageSources {
  VolumeCatalog* catalog = nullptr;
  const ServerCounters* counters = nullptr;
  const PageWindow* window = nullptr;
  ServerMetrics* metrics = nullptr;
  std::string store;                   // as it was named
  std::vector<std::string> addresses;  // that are listened on
};

std::vector<HttpRoute> ServerPageRoutes(const ServerPageSources& sources);

}  // namespace faultline

#endif  // FAULTLINE_SERVER_SERVER_PAGE_H_
