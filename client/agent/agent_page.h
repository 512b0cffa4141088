// SPDX-License-Identifier: Apache-2.0
//
// The page of an agent, and what it asks for:
//
//   /                                                the page; page/ has its files
//   /metrics                                         for Prometheus
//   /api/agent                                       the agent and its attachments, in numbers
//   /api/attachments/ID/map?first=&count=&cells=     one's memory: client/memory_map.h
//   /api/attachments/ID/events?after=SEQUENCE        what has happened to it behind that
//
// Everybody on this machine may read it. So it tells pages by their place in the volume or in the
// order of the address space, never by their address: where a program has its memory is nobody
// else's business (address space layout randomization lives by that).
#ifndef FAULTLINE_CLIENT_AGENT_AGENT_PAGE_H_
#define FAULTLINE_CLIENT_AGENT_AGENT_PAGE_H_

#include <string>
#include <vector>

#include "client/agent/agent_metrics.h"
#include "proto/http_server.h"

namespace faultline {

// All are borrowed, and outlive the server of these routes.
struct AgentPageSources {
  const Pager* pager = nullptr;
  PageServer* page_server = nullptr;
  AgentMetrics* metrics = nullptr;
  std::string server_address;  // of the page server, to be shown
};

std::vector<HttpRoute> AgentPageRoutes(const AgentPageSources& sources);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_AGENT_AGENT_PAGE_H_
