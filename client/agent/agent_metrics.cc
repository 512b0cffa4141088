// SPDX-License-Identifier: Apache-2.0
#include "client/agent/agent_metrics.h"

#include <absl/strings/str_cat.h>

#include <utility>

#include "proto/page.h"

namespace faultline {
namespace {

// For a connection that does not stand: enough to make one, and little for who scrapes.
constexpr absl::Duration kServerPatience = absl::Milliseconds(200);

using Table = MetricTable<AttachmentMetrics>;
using Read = Table::Read;

double ToBytes(uint64_t pages) { return static_cast<double>(pages * kPageSize); }

Read Number(uint64_t AttachmentStats::*field) {
  return [field](const AttachmentMetrics& m) { return static_cast<double>(m.stats.*field); };
}
Read Bytes(uint64_t AttachmentStats::*pages) {
  return [pages](const AttachmentMetrics& m) { return ToBytes(m.stats.*pages); };
}
Read LocalBytes(uint64_t LocalMemoryStats::*pages) {
  return [pages](const AttachmentMetrics& m) { return ToBytes(m.stats.local.*pages); };
}
Read LatencyOf(FaultClass fault) {
  return
      [fault](const AttachmentMetrics& m) { return m.fault_latency[static_cast<size_t>(fault)]; };
}

double ResidentBytes(const AttachmentMetrics& m) {
  const bool far = m.stats.local.budget_pages > 0;
  return ToBytes(far ? m.stats.local.resident_pages : m.stats.present_pages);
}

using S = AttachmentStats;
using L = LocalMemoryStats;
using M = AttachmentMetrics;
using enum MetricKind;

std::vector<Table::Row> FaultRows() {
  return {
      {"fault_latency_seconds",
       kHistogram,
       "From a page fault being read from the kernel to its page being filled, by what the fault "
       "has waited for.",
       "class",
       {{"demand", LatencyOf(FaultClass::kDemand)},
        {"staged", LatencyOf(FaultClass::kStaged)},
        {"zero", LatencyOf(FaultClass::kZero)},
        {"deferred", LatencyOf(FaultClass::kDeferred)}}},
      {"fault_stage_seconds",
       kHistogram,
       "Of faults whose page was fetched: until the page was known (map), until it was asked for "
       "(resolve), until the answer (answer; of that, wire, server, and of that, store), and until "
       "it was filled (fill).",
       "stage",
       {{"map", &M::map},
        {"resolve", &M::resolve},
        {"answer", &M::answer},
        {"fill", &M::fill},
        {"wire", &M::wire},
        {"server", &M::server},
        {"store", &M::store}}},
      {"faults_total", kCounter, "Page faults that were read from the kernel.",
       Number(&S::faults_total)},
      {"joined_faults_total", kCounter,
       "Of those, for a page that another thread was waiting for already.",
       Number(&S::joined_faults_total)},
      {"stray_faults_total", kCounter,
       "Of those, in memory that is behind no volume, such as what a mapping has grown by.",
       Number(&S::stray_faults_total)},
      {"deferred_faults_total", kCounter, "Faults that had to wait for room in the local memory.",
       [](const M& m) { return static_cast<double>(m.stats.local.deferred_faults_total); }},
      {"waiting_faults", kGauge, "Pages that threads wait for now.", Number(&S::waiting_faults)},
      {"oldest_fault_seconds", kMaxGauge, "How long the thread waits now that waits the longest.",
       [](const M& m) { return m.stats.oldest_wait_seconds; }},
  };
}

std::vector<Table::Row> FetchRows() {
  return {
      {"fetches_total", kCounter, "Fetches from the page server, tried again ones included.",
       Number(&S::fetches_total)},
      {"fetch_retries_total", kCounter, "Fetches that have failed and were tried again.",
       Number(&S::fetch_retries_total)},
      {"fetch_failures_total", kCounter, "Fetches that have failed for good: the policy decided.",
       Number(&S::fetch_failures_total)},
      {"fetched_bytes_total", kCounter,
       "Pages that have come from the page server, decoded; without those that are zero.",
       Bytes(&S::fetched_pages_total)},
      {"prefetched_bytes_total", kCounter, "Pages that were fetched for a guess.",
       Bytes(&S::prefetched_pages_total)},
      {"prefetch_hits_total", kCounter, "Faults that found their page fetched ahead or on its way.",
       Number(&S::prefetch_hits_total)},
      {"prefetch_wasted_bytes_total", kCounter,
       "Pages that were fetched for a guess and dropped untouched.",
       Bytes(&S::prefetch_waste_total)},
      {"drain_left_bytes", kGauge, "Pages that a drain under way has still to fetch.",
       [](const M& m) { return ToBytes(m.drain_left_pages); }},
      {"drain_left_seconds", kMaxGauge,
       "How long a drain still takes at its mean speed so far; 0 when it is done, and nothing "
       "where "
       "there is none.",
       &M::drain_left_seconds},
  };
}

std::vector<Table::Row> FillRows() {
  return {
      {"filled_bytes_total",
       kCounter,
       "Pages that were put into memory.",
       "content",
       {{"page", Bytes(&S::copied_pages_total)}, {"zero", Bytes(&S::zeroed_pages_total)}}},
      {"filled_ahead_bytes_total", kCounter, "Of those, what no fault has waited for.",
       Bytes(&S::drained_pages_total)},
      {"fill_errors_total",
       kCounter,
       "Fill ioctls by their error. EAGAIN, EEXIST and ENOENT are part of memory that changes "
       "while "
       "it is filled.",
       "errno",
       {{"EAGAIN", Number(&S::fill_eagain_total)},
        {"EEXIST", Number(&S::fill_eexist_total)},
        {"ENOENT", Number(&S::fill_enoent_total)},
        {"EFAULT", Number(&S::fill_efault_total)},
        {"ENOMEM", Number(&S::fill_nomem_total)},
        {"ESRCH", Number(&S::fill_esrch_total)},
        {"other", Number(&S::fill_other_total)}}},
      {"partial_fills_total", kCounter, "Fill ioctls that were cut off after some of their pages.",
       Number(&S::fill_partial_total)},
      {"parks_total", kCounter, "Fills that were held off by a changing address space.",
       Number(&S::parks_total)},
      {"parked_seconds_total", kCounter, "How long those have waited together.",
       [](const M& m) { return m.stats.parked_us_total / 1e6; }},
      {"parked_fills", kGauge, "Fills that are held off now.", Number(&S::parked_fills)},
      {"oldest_parked_fill_seconds", kMaxGauge, "How long the oldest of those is held off.",
       &M::oldest_park_seconds},
      {"wakes_total", kCounter, "Threads that were woken without a fill of their page.",
       Number(&S::wakes_total)},
      {"events_total",
       kCounter,
       "Events of the kernel that tell of changed memory.",
       "event",
       {{"fork", Number(&S::fork_events_total)},
        {"remap", Number(&S::remap_events_total)},
        {"remove", Number(&S::remove_events_total)},
        {"unmap", Number(&S::unmap_events_total)}}},
      {"late_unmaps_total", kCounter,
       "Unmap events that came after something else had moved there.",
       Number(&S::late_unmaps_total)},
      {"ambiguous_events_total", kCounter, "Changes of memory whose order the events did not tell.",
       Number(&S::ambiguous_events_total)},
  };
}

std::vector<Table::Row> MemoryRows() {
  return {
      {"tracked_bytes", kGauge, "Memory that is served.", Bytes(&S::tracked_pages)},
      {"resident_bytes", kGauge, "Of that, what is filled, or of far memory what is here.",
       ResidentBytes},
      {"zero_bytes", kGauge, "Of that, what is zero and not filled.", Bytes(&S::zero_pages)},
      {"poisoned_bytes", kGauge, "Of that, what could not be had: access gets SIGBUS.",
       Bytes(&S::poisoned_pages)},
      {"local_budget_bytes", kGauge, "Far memory that may be here, staged pages included.",
       LocalBytes(&L::budget_pages)},
      {"staged_bytes", kGauge, "Far memory that was evicted and is still in the agent.",
       LocalBytes(&L::staged_pages)},
      {"dirty_bytes", kGauge, "Of that, what the page server has not acknowledged yet.",
       LocalBytes(&L::unwritten_pages)},
      {"pinned_bytes", kGauge, "Far memory that is pinned.", LocalBytes(&L::pinned_pages)},
      {"evicted_bytes_total", kCounter, "Far memory that was taken out.",
       LocalBytes(&L::evicted_pages_total)},
      {"evicted_clean_bytes_total", kCounter, "Of that, what the page server had as it was.",
       LocalBytes(&L::clean_pages_total)},
      {"evicted_zero_bytes_total", kCounter, "Of that, what was zero.",
       LocalBytes(&L::zero_pages_total)},
      {"returned_bytes_total", kCounter,
       "Of that, what a fault has taken back while it was staged.",
       LocalBytes(&L::returned_pages_total)},
      {"written_bytes_total", kCounter, "Far memory that the page server has acknowledged.",
       LocalBytes(&L::written_pages_total)},
      {"rewritten_bytes_total", kCounter, "Far memory whose write has failed and is tried again.",
       LocalBytes(&L::rewritten_pages_total)},
      {"write_latency_seconds", kHistogram,
       "From the start of a write of far memory to its acknowledgement.", &M::write},
  };
}

const Table& AttachmentTable() {
  static const Table* const table = [] {
    std::vector<Table::Row> rows;
    for (const auto& some : {FaultRows(), FetchRows(), FillRows(), MemoryRows()}) {
      rows.insert(rows.end(), some.begin(), some.end());
    }
    return new Table(rows);
  }();
  return *table;
}

struct AgentState {
  double attachments = 0, attachments_total = 0, handovers_refused = 0, server_up = 0,
         tls_files_good = 0;
};

const MetricTable<AgentState>& AgentTable() {
  static const MetricTable<AgentState> table({
      {"server_up", kGauge, "Whether the agent has a connection to its page server.",
       &AgentState::server_up},
      {"tls_files_good", kGauge,
       "0 where new TLS files are no good, so that connections will fail; the log says which.",
       &AgentState::tls_files_good},
      {"attachments", kGauge, "Processes that are served, forked children included.",
       &AgentState::attachments},
      {"attachments_total", kCounter, "Attachments that have begun, forked children included.",
       &AgentState::attachments_total},
      {"handovers_refused_total", kCounter,
       "Requests at the handover socket of those who may not have the volume.",
       &AgentState::handovers_refused},
  });
  return table;
}

using ServerTable = MetricTable<PageServerStats>;

ServerTable::Read Count(uint64_t PageServerStats::*field) {
  return [field](const PageServerStats& server) { return static_cast<double>(server.*field); };
}

// With the label `server`, its address.
const ServerTable& EachServerTable() {
  static const ServerTable table({
      {"connected", kGauge,
       "Whether there is a connection to the page server, it says that it serves, and it answers.",
       [](const PageServerStats& server) { return server.is_connected ? 1.0 : 0.0; }},
      {"fetches_total", kCounter, "Fetches that it was sent, hedges and failovers included.",
       Count(&PageServerStats::fetches)},
      {"hedges_total", kCounter, "Of those, what another server was slow with.",
       Count(&PageServerStats::hedges)},
      {"hedges_won_total", kCounter, "Of those, what it has answered before the other.",
       Count(&PageServerStats::hedges_won)},
      {"failovers_total", kCounter,
       "Fetches and writers that came to it because another server had failed.",
       Count(&PageServerStats::failovers)},
  });
  return table;
}

std::vector<LabelledSamples> SeriesOf(const std::vector<PageServerStats>& servers) {
  std::vector<LabelledSamples> series;
  for (const PageServerStats& server : servers) {
    series.push_back({{{"server", server.address}}, EachServerTable().Sample(server)});
  }
  return series;
}

}  // namespace

AgentMetrics::AgentMetrics(const Pager* pager, PageServer* page_server,
                           const HandoverServer* handovers, const TlsFilesWatch* tls_files,
                           size_t series_limit)
    : pager_(pager),
      page_server_(page_server),
      handovers_(handovers),
      tls_files_(tls_files),
      attachments_(series_limit, &AttachmentTable().infos()) {}

std::vector<prometheus::MetricFamily> AgentMetrics::Collect() {
  const Table& table = AttachmentTable();
  const PagerMetrics metrics = pager_->Metrics();
  MetricSamples totals = table.Sample(metrics.ended);
  std::vector<BoundedSeries::Source> live;
  for (const AttachmentMetrics& one : metrics.live) {
    MetricSamples samples = table.Sample(one);
    AddSamples(table.infos(), samples, &totals);
    live.push_back({one.stats.id,
                    {{{"volume", one.stats.volume}, {"attachment", absl::StrCat(one.stats.id)}},
                     std::move(samples)}});
  }
  // What ends just now may have counted a little behind its last word.
  KeepAbove(table.infos(), last_totals_, &totals);
  last_totals_ = totals;

  const AgentState state{.attachments = static_cast<double>(metrics.live.size()),
                         .attachments_total = static_cast<double>(metrics.attachments_total),
                         .handovers_refused = static_cast<double>(handovers_->refused()),
                         .server_up = page_server_->IsReachable(kServerPatience) ? 1.0 : 0.0,
                         .tls_files_good = tls_files_ == nullptr || tls_files_->good() ? 1.0 : 0.0};
  std::vector<prometheus::MetricFamily> families;
  AppendProcessFamilies(FAULTLINE_VERSION, &families);
  AppendFamilies("faultline_agent_", AgentTable().infos(), {{{}, AgentTable().Sample(state)}},
                 &families);
  AppendFamilies("faultline_agent_server_", EachServerTable().infos(),
                 SeriesOf(page_server_->Stats()), &families);
  AppendFamilies("faultline_agent_", table.infos(), {{{}, std::move(totals)}}, &families);
  AppendFamilies("faultline_attachment_", table.infos(), attachments_.Bound(std::move(live)),
                 &families);
  return families;
}

}  // namespace faultline
