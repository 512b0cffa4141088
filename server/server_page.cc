// SPDX-License-Identifier: Apache-2.0
#include "server/server_page.h"

#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "proto/page_files.h"

namespace faultline {

namespace page_files {
extern const std::string_view server_html, server_js;
}

namespace {

using Json = nlohmann::ordered_json;

// Shown by themselves: the first by name.
constexpr size_t kMostVolumes = 500;

void AddVolumes(VolumeCatalog* catalog, Json* json) {
  const std::vector<VolumeInfo> volumes = catalog->List();
  (*json)["volumes_total"] = volumes.size();
  Json& list = (*json)["volumes"] = Json::array();
  for (const VolumeInfo& info : volumes) {
    if (list.size() == kMostVolumes) break;
    const absl::StatusOr<std::shared_ptr<Volume>> volume = catalog->FindById(info.id);
    if (!volume.ok()) continue;  // deleted just now
    const VolumeTraffic& traffic = (*volume)->traffic();
    list.push_back({{"id", info.id},
                    {"name", info.name},
                    {"snapshot", info.kind == VolumeInfo::Kind::kSnapshot},
                    {"parent", info.parent},
                    {"size_bytes", info.size_bytes},
                    {"pages_fetched_total", traffic.pages_fetched.load()},
                    {"pages_written_total", traffic.pages_written.load()}});
  }
}

Json CollectNumbers(const ServerPageSources& sources) {
  const ServerCounters& counters = *sources.counters;
  PageStore& store = sources.catalog->store();
  const StoreStats stats = store.Stats();
  Json json = PageHeader(FAULTLINE_VERSION);
  json["addresses"] = sources.addresses;
  json["store"] = {{"name", sources.store},
                   {"read_only", store.read_only()},
                   {"stored_bytes", stats.stored_bytes},
                   {"free_bytes", stats.free_bytes},
                   {"capacity_bytes", stats.capacity_bytes}};
  json["fetch_streams"] = counters.fetch_streams.value();
  json["write_streams"] = counters.write_streams.value();
  json["pages_in_flight"] = sources.window->pages_in_flight();
  json["pages_fetched_total"] = counters.pages_fetched.value();
  json["pages_written_total"] = counters.pages_written.value();
  json["requests_failed_total"] = counters.requests_failed.value();
  json["latency"] = {{"fetch", counters.fetches.Counts().counts},
                     {"write", counters.writes.Counts().counts},
                     {"store_read", counters.store_reads.Counts().counts},
                     {"store_write", counters.store_writes.Counts().counts}};
  AddVolumes(sources.catalog, &json);
  return json;
}

}  // namespace

std::vector<HttpRoute> ServerPageRoutes(const ServerPageSources& sources) {
  std::vector<HttpRoute> routes = SharedPageRoutes();
  routes.push_back(FileRoute("/", kHtmlType, page_files::server_html));
  routes.push_back(FileRoute("/server.js", kScriptType, page_files::server_js));
  routes.push_back(MetricsRoute([metrics = sources.metrics] { return metrics->Collect(); }));
  routes.push_back(NumbersRoute("/api/server", [sources] { return CollectNumbers(sources); }));
  return routes;
}

}  // namespace faultline
