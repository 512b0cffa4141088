// SPDX-License-Identifier: Apache-2.0
#include "client/fault/fetcher.h"

#include <absl/strings/str_cat.h>
#include <errno.h>
#include <string.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "proto/log.h"

namespace faultline {
namespace {

std::string ToString(PageRange pages) {
  return pages.count == PageCount(1)
             ? absl::StrCat("page ", pages.first.raw())
             : absl::StrCat("pages ", pages.first.raw(), " to ", pages.end().raw() - 1);
}

// Kept for use again: as many as a target may well have threads that wait.
constexpr size_t kMaxIdleFlights = 256;

}  // namespace

Fetcher::Fetcher(std::shared_ptr<PagedMemory> memory, std::shared_ptr<PageSource> source,
                 Timers* timers, Target* target, const AttachmentOptions& options,
                 const FetchLimits& limits, Executor executor)
    : memory_(std::move(memory)),
      source_(std::move(source)),
      timers_(timers),
      target_(target),
      options_(options),
      limits_(limits),
      executor_(std::move(executor)),
      parking_(std::make_shared<Parking>(timers)),
      filler_(memory_.get()) {}

class Fetcher::Entry {
 public:
  explicit Entry(Fetcher* fetcher) : fetcher_(fetcher) {
    fetcher_->entries_.fetch_add(1);
    allowed_ = !fetcher_->stopped_;
  }
  ~Entry() {
    if (fetcher_->entries_.fetch_sub(1) == 1 && fetcher_->stopped_) {
      fetcher_->entries_.notify_all();
    }
  }
  Entry(const Entry&) = delete;
  Entry& operator=(const Entry&) = delete;

  bool allowed() const { return allowed_; }

 private:
  Fetcher* const fetcher_;
  bool allowed_;
};

struct Fetcher::Install {
  PageRange pages;
  std::shared_ptr<const std::string> bytes;  // of `all`; null: zeros
  PageRange all;
  Job job;
  Held held;
};

void Fetcher::Stop() {
  stopped_ = true;
  for (int n = entries_; n != 0; n = entries_) entries_.wait(n);
  // What waits holds this alive.
  parking_->Clear();
  if (executor_) {
    executor_([self = shared_from_this()] {
      self->waiting_demand_.clear();
      self->waiting_bulk_.clear();
    });
  }
}

Fetcher::Job Fetcher::NewJob(PageRange pages) const {
  const bool forever =
      options_.policy == FaultPolicy::kWait || options_.fault_deadline == absl::InfiniteDuration();
  return {pages,
          forever ? SteadyClock::time_point::max()
                  : timers_->Now() + absl::ToChronoNanoseconds(options_.fault_deadline),
          limits_.first_retry};
}

void Fetcher::Demand(PageRange pages) {
  const Entry entry(this);
  if (!entry.allowed()) return;
  while (!pages.empty()) {
    const PageRange part{pages.first, std::min(pages.count, source_->max_fetch())};
    Try(NewJob(part));
    pages = PageRange::Between(part.end(), pages.end());
  }
}

bool Fetcher::FetchAhead(PageRange pages, FetchLane lane, std::shared_ptr<FetchTicket> ticket) {
  const Entry entry(this);
  if (!entry.allowed()) return false;
  Job job{pages, SteadyClock::time_point::max(), limits_.first_retry, lane, std::move(ticket)};
  if (executor_) {
    executor_(Entered([this, job] { Try(job); }));
  } else {
    Try(std::move(job));
  }
  return true;
}

void Fetcher::FillFetched(PageIndex page, const std::byte* bytes, FaultClass fault,
                          FetchGrace::Token grace) {
  const Entry entry(this);
  if (!entry.allowed()) return;
  Job job = NewJob(PageRange::Single(page));
  job.grace = std::move(grace);
  job.fault = fault;
  Fill(job.pages, bytes, job);
}

void Fetcher::Perform(absl::AnyInvocable<void()> task) {
  if (executor_) {
    executor_(Entered(std::move(task)));
    return;
  }
  const Entry entry(this);
  if (entry.allowed()) task();
}

void Fetcher::FillLocal(PageRange pages) {
  const Entry entry(this);
  if (entry.allowed()) FillLocal(pages, NewHeld());
}

void Fetcher::FillLocal(PageRange pages, Held held) {
  const FillReport report = filler_.FillLocal(pages);
  const PageRange rest = PageRange::Between(pages.first + report.done, pages.end());
  switch (report.end) {
    case FillEnd::kDone:
      return;
    case FillEnd::kTargetGone:
      target_->Gone();
      return;
    case FillEnd::kFailed:
      Fail(rest, absl::InternalError(absl::StrCat("fill: ", strerror(report.error))));
      return;
    case FillEnd::kTryAgain:
      Park(held, [this, rest](Held next) { FillLocal(rest, next); });
      return;
    case FillEnd::kAtSource:
      // It was evicted for good since.
      Try(NewJob(PageRange::Single(rest.first)));
      FillLocal(PageRange::Between(rest.first + PageCount(1), rest.end()), held);
      return;
  }
}

void Fetcher::Try(Job job) {
  if (executor_ && fetching_) {
    (job.lane == FetchLane::kDemand ? waiting_demand_ : waiting_bulk_).push_back(std::move(job));
    return;
  }
  Start(std::move(job));
}

void Fetcher::Start(Job job) {
  memory_->counters.fetches.fetch_add(1, std::memory_order_relaxed);
  const absl::Time deadline = absl::Now() + absl::FromChrono(limits_.attempt_timeout);
  if (executor_) fetching_ = true;
  const PageRange pages = job.pages;
  const FetchLane lane = job.lane;
  job.asked = SteadyClock::now();
  job.grace = memory_->HoldGrace();
  if (lane == FetchLane::kDemand) NoteAsked(pages, job.asked);
  source_->Fetch(pages, lane, deadline, [flight = TakeFlight(std::move(job))](auto runs) {
    Fetcher* const fetcher = flight->fetcher.get();
    const Entry entry(fetcher);
    if (!entry.allowed()) return;
    if (fetcher->executor_) {
      fetcher->CarryOver(flight->job, runs);
    } else {
      fetcher->OnFetched(flight->job, runs);
    }
  });
}

void Fetcher::NoteAsked(PageRange pages, SteadyClock::time_point asked) {
  if (const auto since = memory_->queue.Since(pages.first)) {
    memory_->counters.resolve_stage.Record(asked - *since);
  }
}

void Fetcher::NoteAnswered(const Job& job, SteadyClock::time_point arrived) {
  FaultCounters& counters = memory_->counters;
  counters.answer_stage.Record(arrived - job.asked);
  counters.fill_stage.Record(SteadyClock::now() - arrived);
}

Fetcher::FlightPtr Fetcher::TakeFlight(Job job) {
  const PageRange pages = job.pages;
  FlightPtr flight;
  {
    MutexLock lock(mu_);
    if (!idle_flights_.empty()) {
      flight.reset(idle_flights_.back().release());
      idle_flights_.pop_back();
    } else {
      flight.reset(new Flight);
    }
    flight->at = flying_.size();
    flying_.push_back({flight.get(), pages});
  }
  flight->fetcher = shared_from_this();
  flight->job = std::move(job);
  return flight;
}

std::vector<PageRange> Fetcher::PagesInFlight() const {
  std::vector<PageRange> pages;
  MutexLock lock(mu_);
  pages.reserve(flying_.size());
  for (const Flying& one : flying_) pages.push_back(one.pages);
  return pages;
}

void Fetcher::ReturnFlight::operator()(Flight* flight) const {
  std::unique_ptr<Flight> owned(flight);
  owned->job.ticket.reset();
  owned->job.grace = {};
  const std::shared_ptr<Fetcher> fetcher = std::move(owned->fetcher);
  if (fetcher == nullptr) return;
  MutexLock lock(fetcher->mu_);
  fetcher->flying_[owned->at] = fetcher->flying_.back();
  fetcher->flying_[owned->at].flight->at = owned->at;
  fetcher->flying_.pop_back();
  if (fetcher->idle_flights_.size() < kMaxIdleFlights) {
    fetcher->idle_flights_.push_back(std::move(owned));
  }
}

void Fetcher::CarryOver(const Job& job, const absl::StatusOr<std::span<const FetchedRun>>& runs) {
  // The runs live as long as this call only, and the work is done on another thread.
  auto bytes = std::make_shared<std::string>();
  std::vector<FetchedRun> copies;
  if (runs.ok()) {
    bytes->reserve(job.pages.size_bytes());
    for (const FetchedRun& run : *runs) {
      copies.push_back(run);
      if (run.bytes == nullptr) continue;
      copies.back().bytes = reinterpret_cast<const std::byte*>(bytes->data() + bytes->size());
      bytes->append(reinterpret_cast<const char*>(run.bytes), run.range.size_bytes());
    }
  }
  executor_(Entered([this, job, bytes, copies = std::move(copies), status = runs.status()] {
    fetching_ = false;
    if (status.ok()) {
      OnFetched(job, std::span<const FetchedRun>(copies));
    } else {
      OnFetched(job, status);
    }
    for (auto* waiting : {&waiting_demand_, &waiting_bulk_}) {
      if (fetching_ || waiting->empty()) continue;
      Job next = std::move(waiting->front());
      waiting->pop_front();
      Start(std::move(next));
    }
  }));
}

void Fetcher::OnFetched(const Job& job, absl::StatusOr<std::span<const FetchedRun>> runs) {
  if (!runs.ok()) {
    OnFetchFailed(job, runs.status());
    return;
  }
  if (source_failing_.exchange(false)) {
    LogInfo(absl::StrCat(target_->Name(), ": pages arrive again"));
  }
  const SteadyClock::time_point arrived = SteadyClock::now();
  for (const FetchedRun& run : *runs) {
    if (run.range.first >= job.pages.end()) {
      filler_.NoteHole(run.range);
      continue;
    }
    if (run.bytes != nullptr) Count(memory_->counters.fetched_pages, run.range.count.raw());
    const PageCount kept = job.ticket ? job.ticket->Keep(run.range, run.bytes) : PageCount(0);
    const std::byte* const bytes = run.bytes == nullptr ? nullptr : run.bytes + kept.in_bytes();
    Fill(PageRange::Between(run.range.first + kept, run.range.end()), bytes, job);
  }
  if (job.lane == FetchLane::kDemand) NoteAnswered(job, arrived);
}

void Fetcher::OnFetchFailed(Job job, const absl::Status& status) {
  // A guess is not worth a second try. Faults that wait for it have their own.
  if (job.lane == FetchLane::kPrefetch) return;
  if (status.code() == absl::StatusCode::kDataLoss && job.pages.count > PageCount(1)) {
    // Which page it is shows when each is asked for alone.
    const PageRange pages = job.pages;
    for (job.pages = PageRange::Single(pages.first); job.pages.first < pages.end();
         ++job.pages.first) {
      Try(job);
    }
    return;
  }
  const bool ahead = job.ticket != nullptr;
  const bool retry = (options_.policy == FaultPolicy::kWait && !ahead) || IsRetryable(status);
  if (!retry || job.deadline < timers_->Now() + job.backoff) {
    if (ahead) {
      LogWarning(absl::StrCat(target_->Name(), ": ", ToString(job.pages),
                              " cannot be fetched ahead, left to a fault: ", status.ToString()));
    } else {
      Fail(job.pages, status);
    }
    return;
  }
  if (!source_failing_.exchange(true)) {
    LogWarning(absl::StrCat(target_->Name(), ": fetch of ", ToString(job.pages),
                            " failed and is tried again: ", status.ToString()));
  }
  memory_->counters.fetch_retries.fetch_add(1, std::memory_order_relaxed);
  job.grace = {};
  const auto delay = job.backoff;
  job.backoff = std::min(job.backoff * 2, limits_.last_retry);
  Later(delay, [this, job = std::move(job)]() mutable { Try(std::move(job)); });
}

void Fetcher::Fill(PageRange pages, const std::byte* bytes, const Job& job) {
  const FillReport report = filler_.Fill(pages, bytes, job.fault);
  const PageRange rest = PageRange::Between(pages.first + report.done, pages.end());
  switch (report.end) {
    case FillEnd::kDone:
      return;
    case FillEnd::kTargetGone:
      target_->Gone();
      return;
    case FillEnd::kFailed:
      Fail(rest, absl::InternalError(absl::StrCat("fill: ", strerror(report.error))));
      return;
    case FillEnd::kTryAgain:
    case FillEnd::kAtSource:
      break;
  }
  std::shared_ptr<const std::string> copy;
  if (bytes != nullptr) {
    copy = std::make_shared<const std::string>(
        reinterpret_cast<const char*>(bytes) + report.done.in_bytes(), rest.size_bytes());
  }
  ParkInstall({rest, std::move(copy), rest, job, NewHeld()});
}

void Fetcher::ParkInstall(Install install) {
  Park(install.held, [this, install](Held held) mutable {
    install.held = held;
    Refill(std::move(install));
  });
}

void Fetcher::Refill(Install install) {
  const std::byte* from = nullptr;
  if (install.bytes != nullptr) {
    from = reinterpret_cast<const std::byte*>(install.bytes->data()) +
           (install.pages.first - install.all.first).in_bytes();
  }
  const FillReport report = filler_.Fill(install.pages, from, install.job.fault);
  const PageRange rest = PageRange::Between(install.pages.first + report.done, install.pages.end());
  if (report.end == FillEnd::kTargetGone) {
    target_->Gone();
  } else if (report.end == FillEnd::kFailed ||
             (report.end == FillEnd::kTryAgain && timers_->Now() > install.job.deadline)) {
    Fail(rest, absl::InternalError(
                   absl::StrCat("fill: ", strerror(report.error != 0 ? report.error : EAGAIN))));
  } else if (report.end == FillEnd::kTryAgain) {
    install.pages = rest;
    ParkInstall(std::move(install));
  }
}

void Fetcher::Stray(uint64_t address) {
  const Entry entry(this);
  if (entry.allowed()) StrayAgain(address, NewHeld());
}

void Fetcher::StrayAgain(uint64_t address, Held held) {
  std::optional<PageIndex> page;
  const FillReport report = filler_.FillStray(address, &page);
  if (page) {
    // An event has told since what is there.
    if (!memory_->queue.Join(*page, timers_->Now())) return;
    const PageRange single = PageRange::Single(*page);
    PageState state;
    {
      SharedLock lock(memory_->space.map_changing_lock());
      state = memory_->table->Get(*page);
    }
    if (IsFetched(state)) {
      Try(NewJob(single));
    } else {
      FillLocal(single, NewHeld());
    }
    return;
  }
  switch (report.end) {
    case FillEnd::kDone:
      return;
    case FillEnd::kTargetGone:
      target_->Gone();
      return;
    case FillEnd::kTryAgain:
    case FillEnd::kAtSource:
      Park(held, [this, address](Held next) { StrayAgain(address, next); });
      return;
    case FillEnd::kFailed:
      target_->Kill(absl::StrCat(target_->Name(), ": the fault at 0x", absl::Hex(address),
                                 " cannot be served: ", strerror(report.error)));
      return;
  }
}

void Fetcher::Fail(PageRange pages, const absl::Status& why) {
  memory_->counters.fetch_failures.fetch_add(1, std::memory_order_relaxed);
  const std::string reason =
      absl::StrCat(target_->Name(), ": ", ToString(pages), " cannot be had: ", why.ToString());
  switch (options_.policy) {
    case FaultPolicy::kWait:
      LogError(absl::StrCat(reason, "; tried again, as the policy is to wait"));
      Later(limits_.last_retry, [this, pages] { Demand(pages); });
      return;
    case FaultPolicy::kKill:
      if (target_->Kill(reason)) return;
      [[fallthrough]];
    case FaultPolicy::kPoison:
      LogError(absl::StrCat(reason, "; access to it gets SIGBUS from now on"));
      PoisonAgain(pages, reason, NewHeld());
      return;
  }
}

void Fetcher::PoisonAgain(PageRange pages, const std::string& reason, Held held) {
  const FillReport report = filler_.Poison(pages);
  switch (report.end) {
    case FillEnd::kDone:
      return;
    case FillEnd::kTargetGone:
      target_->Gone();
      return;
    case FillEnd::kFailed:
      target_->Kill(absl::StrCat(reason, "; and UFFDIO_POISON failed (", strerror(report.error),
                                 "; it needs Linux 6.6)"));
      return;
    case FillEnd::kTryAgain:
    case FillEnd::kAtSource:
      break;
  }
  const PageRange rest = PageRange::Between(pages.first + report.done, pages.end());
  Park(held, [this, rest, reason](Held next) { PoisonAgain(rest, reason, next); });
}

void Fetcher::Park(Held held, absl::AnyInvocable<void(Held)> retry) {
  FaultCounters& counters = memory_->counters;
  counters.parks.fetch_add(1, std::memory_order_relaxed);
  const SteadyClock::time_point parked = timers_->Now();
  const Held next{std::min(held.backoff * 2, limits_.last_refill), held.since};
  parking_->Park(
      held.backoff, held.since, Guarded([this, parked, next, retry = std::move(retry)]() mutable {
        memory_->counters.parked_ns.fetch_add(
            static_cast<uint64_t>(std::chrono::nanoseconds(timers_->Now() - parked).count()),
            std::memory_order_relaxed);
        retry(next);
      }));
}

void Fetcher::Later(SteadyClock::duration delay, absl::AnyInvocable<void()> task) {
  timers_->After(delay, Guarded(std::move(task)));
}

Timers::Task Fetcher::Entered(absl::AnyInvocable<void()> task) {
  return [self = shared_from_this(), task = std::move(task)]() mutable {
    const Entry entry(self.get());
    if (entry.allowed()) task();
  };
}

Timers::Task Fetcher::Guarded(absl::AnyInvocable<void()> task) {
  if (!executor_) return Entered(std::move(task));
  return [self = shared_from_this(), task = std::move(task)]() mutable {
    const Entry entry(self.get());
    if (entry.allowed()) self->executor_(self->Entered(std::move(task)));
  };
}

}  // namespace faultline
