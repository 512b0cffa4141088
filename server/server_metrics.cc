// SPDX-License-Identifier: Apache-2.0
#include "server/server_metrics.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>

namespace faultline {
namespace {

struct ServerState {
  const ServerCounters& counters;
  StoreStats store;
  bool read_only;
  uint64_t pages_in_flight;
  size_t volumes;
  bool tls_files_good;
};

struct VolumeState {
  VolumeInfo info;
  uint64_t pages_fetched = 0, pages_written = 0;
};

double PagesToBytes(uint64_t pages) { return static_cast<double>(pages * kPageSize); }

// Of a file system; there is none of 0 bytes.
double OrUnknown(uint64_t bytes, const StoreStats& store) {
  return store.capacity_bytes > 0 ? static_cast<double>(bytes)
                                  : std::numeric_limits<double>::quiet_NaN();
}

MetricTable<ServerState>::Read PagesOf(Counter ServerCounters::*pages) {
  return [pages](const ServerState& s) { return PagesToBytes((s.counters.*pages).value()); };
}
MetricTable<ServerState>::Read NumberOf(Counter ServerCounters::*counter) {
  return [counter](const ServerState& s) {
    return static_cast<double>((s.counters.*counter).value());
  };
}
MetricTable<ServerState>::Read LatenciesOf(LatencyHistogram ServerCounters::*latency) {
  return [latency](const ServerState& s) { return (s.counters.*latency).Counts(); };
}

using Kind = MetricKind;
using C = ServerCounters;

const MetricTable<ServerState>& ServerTable() {
  using State = ServerState;
  static const MetricTable<State> table({
      {"fetched_bytes_total", Kind::kCounter,
       "Pages that were asked for and answered, before compression; zero ones included.",
       PagesOf(&C::pages_fetched)},
      {"written_bytes_total", Kind::kCounter,
       "Pages that were written, before compression; trimmed ones included.",
       PagesOf(&C::pages_written)},
      {"requests_failed_total", Kind::kCounter, "Fetches and writes answered with an error.",
       NumberOf(&C::requests_failed)},
      {"calls_refused_total", Kind::kCounter,
       "Calls and requests that their client may not make; the audit log names them.",
       NumberOf(&C::calls_refused)},
      {"handshakes_failed_total", Kind::kCounter,
       "Connections refused before a call: no certificate, a wrong or an expired one, no TLS.",
       NumberOf(&C::handshakes_failed)},
      {"tls_files_good", Kind::kGauge,
       "0 where new TLS files are no good, so that connections will fail; the log says which.",
       [](const State& s) { return s.tls_files_good ? 1.0 : 0.0; }},
      {"request_latency_seconds",
       Kind::kHistogram,
       "From the arrival of a fetch or write to its answer, of those that have succeeded.",
       "kind",
       {{"fetch", LatenciesOf(&C::fetches)}, {"write", LatenciesOf(&C::writes)}}},
      {"store_latency_seconds",
       Kind::kHistogram,
       "Of that, what the store has taken; a write is durable then, as its volume asks for.",
       "kind",
       {{"read", LatenciesOf(&C::store_reads)}, {"write", LatenciesOf(&C::store_writes)}}},
      {"streams",
       Kind::kGauge,
       "Streams that are open now.",
       "kind",
       {{"fetch", NumberOf(&C::fetch_streams)}, {"write", NumberOf(&C::write_streams)}}},
      {"in_flight_bytes", Kind::kGauge, "Pages that requests hold in memory now.",
       [](const State& s) { return PagesToBytes(s.pages_in_flight); }},
      {"volumes", Kind::kGauge, "Volumes and snapshots that there are.",
       [](const State& s) { return static_cast<double>(s.volumes); }},
      {"store_bytes", Kind::kGauge, "What the store takes up, about.",
       [](const State& s) { return static_cast<double>(s.store.stored_bytes); }},
      {"store_free_bytes", Kind::kGauge,
       "What is free on the store's file system; nothing for a store that does not grow on one.",
       [](const State& s) { return OrUnknown(s.store.free_bytes, s.store); }},
      {"store_capacity_bytes", Kind::kGauge, "The size of that file system.",
       [](const State& s) { return OrUnknown(s.store.capacity_bytes, s.store); }},
      {"store_cache_hits_total", Kind::kCounter,
       "Pages that were answered out of this server's cache of a store that is elsewhere (rados:).",
       [](const State& s) { return static_cast<double>(s.store.cache_hits); }},
      {"store_cache_misses_total", Kind::kCounter,
       "Pages that were not in that cache, and asked of the store.",
       [](const State& s) { return static_cast<double>(s.store.cache_misses); }},
      {"store_cache_bytes", Kind::kGauge, "What that cache takes; --store-memory bounds it.",
       [](const State& s) { return static_cast<double>(s.store.cache_bytes); }},
      {"store_read_only", Kind::kGauge, "1 where nothing can be written to the store.",
       [](const State& s) { return s.read_only ? 1.0 : 0.0; }},
  });
  return table;
}

const MetricTable<VolumeState>& VolumeTable() {
  using State = VolumeState;
  static const MetricTable<State> table({
      {"size_bytes", Kind::kGauge, "The size of the volume.",
       [](const State& s) { return static_cast<double>(s.info.size_bytes); }},
      {"fetched_bytes_total", Kind::kCounter,
       "Pages of the volume that were asked for and answered; zero ones included.",
       [](const State& s) { return PagesToBytes(s.pages_fetched); }},
      {"written_bytes_total", Kind::kCounter,
       "Pages that were written to the volume; trimmed ones included.",
       [](const State& s) { return PagesToBytes(s.pages_written); }},
  });
  return table;
}

}  // namespace

ServerMetrics::ServerMetrics(VolumeCatalog* catalog, const ServerCounters* counters,
                             const PageWindow* window, const TlsFilesWatch* tls_files,
                             size_t series_limit)
    : catalog_(catalog),
      counters_(counters),
      window_(window),
      tls_files_(tls_files),
      volumes_(series_limit, &VolumeTable().infos()) {}

std::vector<prometheus::MetricFamily> ServerMetrics::Collect() {
  std::vector<BoundedSeries::Source> volumes;
  for (const VolumeInfo& info : catalog_->List()) {
    const absl::StatusOr<std::shared_ptr<Volume>> volume = catalog_->FindById(info.id);
    if (!volume.ok()) continue;  // deleted just now
    const VolumeTraffic& traffic = (*volume)->traffic();
    const VolumeState state{info, traffic.pages_fetched, traffic.pages_written};
    volumes.push_back({info.id, {{{"volume", info.name}}, VolumeTable().Sample(state)}});
  }
  std::sort(volumes.begin(), volumes.end(),
            [](const auto& one, const auto& other) { return one.id < other.id; });

  PageStore& store = catalog_->store();
  const ServerState state{*counters_,        store.Stats(),
                          store.read_only(), window_->pages_in_flight(),
                          volumes.size(),    tls_files_ == nullptr || tls_files_->good()};
  std::vector<prometheus::MetricFamily> families;
  AppendProcessFamilies(FAULTLINE_VERSION, &families);
  AppendFamilies("faultline_server_", ServerTable().infos(), {{{}, ServerTable().Sample(state)}},
                 &families);
  AppendFamilies("faultline_volume_", VolumeTable().infos(), volumes_.Bound(std::move(volumes)),
                 &families);
  return families;
}

}  // namespace faultline
