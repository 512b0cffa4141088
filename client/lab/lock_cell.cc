// SPDX-License-Identifier: Apache-2.0
#include "client/lab/lock_cell.h"

#include <absl/strings/str_cat.h>
#include <errno.h>
#include <sched.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <latch>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "client/lab/event_drain.h"
#include "client/lab/fill_work.h"
#include "proto/page.h"

namespace faultline {
namespace {

constexpr uint64_t kEventFeatures =
    uapi::kFeatureEventRemap | uapi::kFeatureEventRemove | uapi::kFeatureEventUnmap;

constexpr uint64_t kFactorOfWhatNeedsNoMemory = 16;

// What one thread of fills has seen so far.
struct alignas(64) Filler {
  LatencySamples samples;
  uint64_t pages = 0, refused = 0, finished_nanos = 0;
  int error = 0;
};

class CellRun {
 public:
  CellRun(const LockCell& cell, FillWork* work, const EventDrain* drain)
      : cell_(cell),
        work_(work),
        drain_(drain),
        churner_(std::in_place, cell.churn, work->vma(), cell.churn_pause_nanos),
        fillers_(cell.threads) {}

  absl::StatusOr<LockFigures> Measure(uint64_t nanos) {
    // The first round takes what comes once: page tables, stacks, caches.
    if (absl::Status status = Round(nanos / 20); !status.ok()) return status;
    for (Filler& filler : fillers_) filler = Filler();
    churner_.emplace(cell_.churn, work_->vma(), cell_.churn_pause_nanos);
    measured_nanos_ = 0;
    events_ = 0;
    // Rounds that are short beside what they need to begin must not go on for ever.
    const uint64_t give_up = NowNanos() + 5 * nanos;
    while (measured_nanos_ < nanos && NowNanos() < give_up) {
      if (absl::Status status = Round(nanos - measured_nanos_); !status.ok()) return status;
    }
    return Figures();
  }

 private:
  static constexpr uint64_t kRefusalsBeforeYield = 64;

  absl::Status Round(uint64_t nanos);
  void Fill(size_t thread, uint64_t deadline);
  LockFigures Figures() const;

  const LockCell cell_;
  FillWork* const work_;
  const EventDrain* const drain_;  // null where no events are asked for
  std::optional<Churner> churner_;
  std::vector<Filler> fillers_;
  std::atomic<bool> stop_ = false;
  uint64_t measured_nanos_ = 0, events_ = 0;
};

absl::Status CellRun::Round(uint64_t nanos) {
  if (absl::Status status = work_->Reset(); !status.ok()) return status;
  stop_ = false;
  const bool churns = cell_.churn != Churn::kOff;
  const uint64_t events_before = drain_ != nullptr ? drain_->events() : 0;
  std::latch ready(static_cast<ptrdiff_t>(cell_.threads) + (churns ? 2 : 1));
  absl::Status churned;
  std::atomic<uint64_t> started = 0;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < cell_.threads; ++i) {
    threads.emplace_back([this, i, nanos, &ready, &started] {
      ready.arrive_and_wait();
      uint64_t none = 0;
      started.compare_exchange_strong(none, NowNanos());
      Fill(i, started.load() + nanos);
    });
  }
  if (churns) {
    threads.emplace_back([this, &ready, &churned] {
      ready.arrive_and_wait();
      churned = churner_->Run(stop_);
      if (!churned.ok()) stop_ = true;
    });
  }
  ready.arrive_and_wait();
  for (std::thread& thread : threads) thread.join();
  uint64_t finished = started.load();
  for (const Filler& filler : fillers_) {
    finished = std::max(finished, filler.finished_nanos);
    if (filler.error != 0) {
      return absl::InternalError(
          absl::StrCat("UFFDIO_", FillOpName(cell_.op), ": ", strerror(filler.error)));
    }
  }
  measured_nanos_ += finished - started.load();
  if (drain_ != nullptr) events_ += drain_->events() - events_before;
  return churned;
}

void CellRun::Fill(size_t thread, uint64_t deadline) {
  Filler& filler = fillers_[thread];
  uint64_t before = NowNanos();
  while (!stop_.load(std::memory_order_relaxed)) {
    if (before >= deadline || work_->IsExhausted(thread)) break;
    const FillResult result = work_->FillNext(thread);
    const uint64_t after = NowNanos();
    if (result.bytes_done > 0) {
      filler.samples.Record(after - before);
      filler.pages += result.bytes_done / kPageSize;
    } else if (result.error == EAGAIN) {
      // Until the event is read and its writer has run: some microseconds, unless it is these
      // retries that they wait for.
      if (++filler.refused % kRefusalsBeforeYield == 0) sched_yield();
    } else {
      filler.error = result.error;
      break;
    }
    before = result.bytes_done > 0 ? after : NowNanos();
  }
  stop_ = true;
  filler.finished_nanos = NowNanos();
}

LockFigures CellRun::Figures() const {
  const double seconds = static_cast<double>(measured_nanos_) / 1e9;
  const auto rate = [seconds](uint64_t count) { return static_cast<double>(count) / seconds; };
  uint64_t pages = 0, refused = 0;
  std::vector<const LatencySamples*> fills;
  for (const Filler& filler : fillers_) {
    pages += filler.pages;
    refused += filler.refused;
    fills.push_back(&filler.samples);
  }
  LockFigures figures;
  figures.pages_per_second = rate(pages);
  figures.fill = LatencySamples::Of(fills);
  figures.refused_per_second = rate(refused);
  figures.churn_calls_per_second = churner_->calls_per_second();
  figures.map = LatencySamples::Of({&churner_->map()});
  figures.mremap = LatencySamples::Of({&churner_->mremap()});
  figures.madvise = LatencySamples::Of({&churner_->madvise()});
  figures.events_per_second = rate(events_);
  return figures;
}

}  // namespace

absl::StatusOr<LockFigures> MeasureLocks(const LockCell& cell, std::chrono::milliseconds duration,
                                         uint64_t memory_bytes) {
  FillWorkOptions options;
  options.op = cell.op;
  options.chunk_bytes = cell.chunk_bytes;
  options.threads = cell.threads;
  options.memory_bytes = memory_bytes;
  // These need no memory but page tables, and are done with the same range sooner.
  if (cell.op == FillOp::kZeropage || cell.op == FillOp::kPoison) {
    options.memory_bytes *= kFactorOfWhatNeedsNoMemory;
  }
  options.tail_bytes = Churner::kBytes;
  options.features = cell.events == Events::kRequested ? kEventFeatures : 0;
  const absl::StatusOr<std::unique_ptr<FillWork>> work = FillWork::Create(options);
  if (!work.ok()) return work.status();
  std::unique_ptr<EventDrain> drain;  // ends before the memory goes
  if (cell.events == Events::kRequested) {
    absl::StatusOr<std::unique_ptr<EventDrain>> started = EventDrain::Start((*work)->fd());
    if (!started.ok()) return started.status();
    drain = *std::move(started);
  }
  return CellRun(cell, work->get(), drain.get())
      .Measure(static_cast<uint64_t>(std::chrono::nanoseconds(duration).count()));
}

}  // namespace faultline
