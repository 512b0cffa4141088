// SPDX-License-Identifier: Apache-2.0
//
// What a LiveAttachment tells of itself.
#include <algorithm>
#include <chrono>
#include <span>

#include "client/live_attachment.h"

namespace faultline {
namespace {

// 0 where there is no time.
double SecondsSince(std::optional<SteadyClock::time_point> time) {
  return time ? std::chrono::duration<double>(SteadyClock::now() - *time).count() : 0;
}

}  // namespace

AttachmentStats LiveAttachment::Stats() const {
  const FaultCounters& counters = memory_->counters;
  const std::span<const LatencyHistogram> latency = counters.fault_latency;
  AttachmentStats stats = CountersOf();
  stats.fault_p50_us = LatencyHistogram::QuantileMicros(latency, 0.5);
  stats.fault_p90_us = LatencyHistogram::QuantileMicros(latency, 0.9);
  stats.fault_p99_us = LatencyHistogram::QuantileMicros(latency, 0.99);
  stats.fault_max_us = LatencyHistogram::MaxMicros(latency);
  AddStages(counters, &stats);
  return stats;
}

AttachmentMetrics LiveAttachment::Metrics() const {
  const FaultCounters& counters = memory_->counters;
  AttachmentMetrics metrics;
  metrics.stats = CountersOf();
  metrics.oldest_park_seconds = SecondsSince(fetcher_->parking().OldestSince());
  AddDrain(&metrics);
  for (size_t i = 0; i < kFaultClasses; ++i) {
    metrics.fault_latency[i] = counters.fault_latency[i].Counts();
  }
  metrics.map = counters.map_stage.Counts();
  metrics.resolve = counters.resolve_stage.Counts();
  metrics.answer = counters.answer_stage.Counts();
  metrics.fill = counters.fill_stage.Counts();
  const FetchStages* const stages = fetcher_->source().stages();
  if (stages != nullptr && parent_ == 0) {
    metrics.wire = stages->wire.Counts();
    metrics.server = stages->server.Counts();
    metrics.store = stages->store.Counts();
  }
  if (memory_->local != nullptr) metrics.write = memory_->local->write_latency().Counts();
  return metrics;
}

MemoryMap LiveAttachment::Map(const MapView& view) const {
  MapOverlay overlay;
  overlay.in_flight = fetcher_->PagesInFlight();
  for (PageIndex page : memory_->queue.Pages()) {
    overlay.in_flight.push_back(PageRange::Single(page));
  }
  if (ahead_ != nullptr) overlay.staged = ahead_->Staged();
  return DrawMap(*memory_, view, overlay);
}

void LiveAttachment::AddDrain(AttachmentMetrics* metrics) const {
  MutexLock lock(mu_);
  if (!drain_began_) return;
  if (drained_) {
    metrics->drain_left_seconds = 0;
    return;
  }
  metrics->draining = true;
  metrics->drain_left_pages = PagesLeft(metrics->stats);
  const double left = static_cast<double>(metrics->drain_left_pages);
  const double done = static_cast<double>(left_at_drain_) - left;
  if (done > 0) metrics->drain_left_seconds = SecondsSince(drain_began_) * left / done;
}

AttachmentStats LiveAttachment::CountersOf() const {
  const FaultCounters& counters = memory_->counters;
  AttachmentStats stats;
  stats.id = id_;
  stats.parent = parent_;
  stats.pid = pid_;
  stats.volume = volume_;
  {
    SharedLock lock(memory_->space.map_changing_lock());
    stats.regions = memory_->space.region_count();
    for (AddressRange range : memory_->space.Ranges()) {
      stats.tracked_pages += range.length / kPageSize;
    }
  }
  stats.present_pages = memory_->table->CountOf(PageState::kPresent).raw();
  stats.poisoned_pages = memory_->table->CountOf(PageState::kPoisoned).raw();
  stats.zero_pages = memory_->table->CountOf(PageState::kZero).raw();
  if (memory_->local != nullptr) stats.local = memory_->local->Stats();
  stats.drained = drained_;
  stats.waiting_faults = memory_->queue.size();
  stats.oldest_wait_seconds = SecondsSince(memory_->queue.Oldest());
  stats.faults_total = counters.faults;
  stats.joined_faults_total = counters.joined_faults;
  stats.zero_faults_total = counters.zero_faults;
  stats.stray_faults_total = counters.stray_faults;
  stats.fetches_total = counters.fetches;
  stats.fetch_retries_total = counters.fetch_retries;
  stats.fetch_failures_total = counters.fetch_failures;
  stats.fetched_pages_total = counters.fetched_pages;
  stats.copied_pages_total = counters.copied_pages;
  stats.zeroed_pages_total = counters.zeroed_pages;
  stats.drained_pages_total = counters.drained_pages;
  stats.prefetched_pages_total = counters.prefetched_pages;
  stats.prefetch_hits_total = counters.prefetch_hits;
  stats.prefetch_waste_total = counters.prefetch_waste;
  stats.fill_eagain_total = counters.eagain;
  stats.fill_partial_total = counters.partial;
  stats.fill_eexist_total = counters.eexist;
  stats.fill_enoent_total = counters.enoent;
  stats.fill_efault_total = counters.efault;
  stats.fill_nomem_total = counters.nomem;
  stats.fill_esrch_total = counters.esrch;
  stats.fill_other_total = counters.other_errors;
  stats.parked_fills = fetcher_->parking().size();
  stats.parks_total = counters.parks;
  stats.parked_us_total = static_cast<double>(counters.parked_ns) / 1000;
  stats.wakes_total = counters.wakes;
  stats.fork_events_total = counters.fork_events;
  stats.remap_events_total = counters.remap_events;
  stats.remove_events_total = counters.remove_events;
  stats.unmap_events_total = counters.unmap_events;
  stats.late_unmaps_total = memory_->space.late_unmaps();
  stats.ambiguous_events_total = memory_->space.ambiguous();
  stats.read_ns_sum = counters.read_ns_sum;
  stats.filled_ns_sum = counters.filled_ns_sum;
  return stats;
}

void LiveAttachment::AddStages(const FaultCounters& counters, AttachmentStats* stats) const {
  const auto quantiles = [](const LatencyHistogram& stage, double* p50, double* p99) {
    *p50 = stage.QuantileMicros(0.5);
    *p99 = stage.QuantileMicros(0.99);
  };
  quantiles(counters.map_stage, &stats->map_p50_us, &stats->map_p99_us);
  quantiles(counters.resolve_stage, &stats->resolve_p50_us, &stats->resolve_p99_us);
  quantiles(counters.answer_stage, &stats->answer_p50_us, &stats->answer_p99_us);
  quantiles(counters.fill_stage, &stats->fill_p50_us, &stats->fill_p99_us);
  if (const FetchStages* stages = fetcher_->source().stages()) {
    quantiles(stages->wire, &stats->wire_p50_us, &stats->wire_p99_us);
    quantiles(stages->server, &stats->server_p50_us, &stats->server_p99_us);
    quantiles(stages->store, &stats->store_p50_us, &stats->store_p99_us);
  }
}

uint64_t LiveAttachment::PagesLeft(const AttachmentStats& stats) {
  const uint64_t known = stats.present_pages + stats.zero_pages + stats.poisoned_pages;
  return stats.tracked_pages - std::min(stats.tracked_pages, known);
}

}  // namespace faultline
