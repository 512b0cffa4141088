// SPDX-License-Identifier: Apache-2.0
#include "client/agent/agent_page.h"

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>

#include <chrono>
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

#include "proto/page_files.h"

namespace faultline {

namespace page_files {
extern const std::string_view agent_html, agent_js;
}

namespace {

using Json = nlohmann::ordered_json;

constexpr absl::Duration kPagePatience = absl::Milliseconds(50);
// Shown by themselves; there may be any number of forked children.
constexpr size_t kMostAttachments = 200;

constexpr const char* kClassNames[kFaultClasses] = {"demand", "staged", "zero", "deferred"};
constexpr const char* kStateNames[kMapStates] = {"absent",   "in flight", "staged",  "dirty",
                                                 "resident", "zero",      "evicted", "poisoned"};
constexpr const char* kEventNames[kMemoryEventKinds] = {"fork", "remap", "remove", "unmap"};

Json ToJson(const AttachmentMetrics& metrics) {
  Json json;
  VisitFields(metrics.stats, [&json](const char* name, const auto& field) {
    // Quantiles are none of these metrics, and sums of times are none of the reader's.
    if (!absl::EndsWith(name, "_us") && !absl::EndsWith(name, "_ns_sum")) json[name] = field;
  });
  json["far"] = metrics.stats.local.budget_pages > 0;
  json["draining"] = metrics.draining;
  json["drain_left_pages"] = metrics.drain_left_pages;
  json["drain_left_seconds"] =
      std::isnan(metrics.drain_left_seconds) ? Json(nullptr) : Json(metrics.drain_left_seconds);
  for (size_t i = 0; i < kFaultClasses; ++i) {
    json["fault_latency"][kClassNames[i]] = metrics.fault_latency[i].counts;
  }
  return json;
}

Json CollectNumbers(const AgentPageSources& sources) {
  const PagerMetrics metrics = sources.pager->Metrics();
  Json json = PageHeader(FAULTLINE_VERSION);
  json["server"] = {{"address", sources.server_address},
                    {"connected", sources.page_server->IsReachable(kPagePatience)}};
  json["attachments_total"] = metrics.attachments_total;
  json["attachments_live"] = metrics.live.size();
  json["attachments"] = Json::array();
  for (const AttachmentMetrics& one : metrics.live) {
    if (json["attachments"].size() == kMostAttachments) break;
    json["attachments"].push_back(ToJson(one));
  }
  return json;
}

// Cells that are alike and next to each other are told once: [how many, state, pages, state, ...].
Json ToJson(const std::vector<MemoryMap::Cell>& cells) {
  Json runs = Json::array();
  for (size_t i = 0; i < cells.size();) {
    size_t end = i + 1;
    while (end < cells.size() && cells[end] == cells[i]) ++end;
    Json run = {end - i};
    for (size_t state = 0; state < kMapStates; ++state) {
      if (cells[i][state] == 0) continue;
      run.push_back(state);
      run.push_back(cells[i][state]);
    }
    runs.push_back(std::move(run));
    i = end;
  }
  return runs;
}

absl::StatusOr<HttpAnswer> AnswerMap(const Pager& pager, AttachmentId id,
                                     const HttpRequest& request) {
  MapView view;
  const absl::StatusOr<uint64_t> first = request.Number("first", view.first);
  if (!first.ok()) return first.status();
  const absl::StatusOr<uint64_t> count = request.Number("count", view.count, 1);
  if (!count.ok()) return count.status();
  const absl::StatusOr<uint64_t> cells =
      request.Number("cells", view.cells, 1, MemoryMap::kMostCells);
  if (!cells.ok()) return cells.status();
  view = {*first, *count, *cells};
  const absl::StatusOr<MemoryMap> map = pager.Map(id, view);
  if (!map.ok()) return map.status();
  Json json;
  json["total"] = map->total;
  json["first"] = map->first;
  json["count"] = map->count;
  json["cell_pages"] = map->cell_pages;
  json["stride"] = map->stride;
  json["states"] = kStateNames;
  json["cells"] = ToJson(map->cells);
  json["regions_total"] = map->regions_total;
  json["regions"] = Json::array();
  for (const MemoryMap::Region& region : map->regions) {
    json["regions"].push_back({{"first", region.first},
                               {"count", region.count},
                               {"volume_page", region.volume_page.raw()},
                               {"shared", region.shared}});
  }
  return JsonAnswer(json);
}

absl::StatusOr<HttpAnswer> AnswerEvents(const Pager& pager, AttachmentId id,
                                        const HttpRequest& request) {
  const absl::StatusOr<uint64_t> after = request.Number("after", 0);
  if (!after.ok()) return after.status();
  const absl::StatusOr<std::vector<MemoryEvent>> events = pager.Events(id, *after);
  if (!events.ok()) return events.status();
  Json list = Json::array();
  for (const MemoryEvent& event : *events) {
    list.push_back({{"sequence", event.sequence},
                    {"event", kEventNames[static_cast<size_t>(event.kind)]},
                    {"page", event.page == kNoPage ? Json(nullptr) : Json(event.page)},
                    {"pages", event.length / kPageSize},
                    {"time_ms", std::chrono::duration_cast<std::chrono::milliseconds>(
                                    event.when.time_since_epoch())
                                    .count()}});
  }
  return JsonAnswer({{"events", std::move(list)}});
}

absl::StatusOr<HttpAnswer> AnswerOfOne(const Pager& pager, const HttpRequest& request) {
  const std::vector<std::string> parts = absl::StrSplit(request.rest, '/');
  AttachmentId id = 0;
  if (parts.size() == 2 && absl::SimpleAtoi(parts[0], &id)) {
    if (parts[1] == "map") return AnswerMap(pager, id, request);
    if (parts[1] == "events") return AnswerEvents(pager, id, request);
  }
  return absl::NotFoundError("of an attachment there is /api/attachments/ID/map and .../ID/events");
}

}  // namespace

std::vector<HttpRoute> AgentPageRoutes(const AgentPageSources& sources) {
  std::vector<HttpRoute> routes = SharedPageRoutes();
  routes.push_back(FileRoute("/", kHtmlType, page_files::agent_html));
  routes.push_back(FileRoute("/agent.js", kScriptType, page_files::agent_js));
  routes.push_back(MetricsRoute([metrics = sources.metrics] { return metrics->Collect(); }));
  routes.push_back(NumbersRoute("/api/agent", [sources] { return CollectNumbers(sources); }));
  routes.push_back({"/api/attachments/", [pager = sources.pager](const HttpRequest& request) {
                      return AnswerOfOne(*pager, request);
                    }});
  return routes;
}

}  // namespace faultline
