// SPDX-License-Identifier: Apache-2.0
#include "client/fault/fetcher.h"

#include <absl/strings/str_cat.h>
#include <errno.h>
#include <string.h>

#include <algorithm>
#include <utility>

#include "proto/log.h"

namespace faultline {
namespace {

std::string ToString(PageRange pages) {
  return pages.count == PageCount(1)
             ? absl::StrCat("page ", pages.first.raw())
             : absl::StrCat("pages ", pages.first.raw(), " to ", pages.end().raw() - 1);
}

}  // namespace

Fetcher::Fetcher(std::shared_ptr<PagedMemory> memory, std::shared_ptr<PageSource> source,
                 Timers* timers, Target* target, const AttachmentOptions& options,
                 const FetchLimits& limits)
    : memory_(std::move(memory)),
      source_(std::move(source)),
      timers_(timers),
      target_(target),
      options_(options),
      limits_(limits),
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

void Fetcher::Stop() {
  stopped_ = true;
  for (int n = entries_; n != 0; n = entries_) entries_.wait(n);
}

Fetcher::Job Fetcher::NewJob(PageRange pages, SteadyClock::duration backoff) const {
  const bool forever =
      options_.policy == FaultPolicy::kWait || options_.fault_deadline == absl::InfiniteDuration();
  return {pages,
          forever ? SteadyClock::time_point::max()
                  : timers_->Now() + absl::ToChronoNanoseconds(options_.fault_deadline),
          backoff};
}

void Fetcher::Demand(PageRange pages) {
  const Entry entry(this);
  if (!entry.allowed()) return;
  while (!pages.empty()) {
    const PageRange part{pages.first, std::min(pages.count, source_->max_fetch())};
    Try(NewJob(part, limits_.first_retry));
    pages = PageRange::Between(part.end(), pages.end());
  }
}

void Fetcher::Zero(PageRange pages) {
  const Entry entry(this);
  if (!entry.allowed()) return;
  Install(pages, nullptr, NewJob(pages, limits_.first_refill).deadline);
}

void Fetcher::Try(Job job) {
  memory_->counters.fetches.fetch_add(1, std::memory_order_relaxed);
  const absl::Time deadline = absl::Now() + absl::FromChrono(limits_.attempt_timeout);
  source_->Fetch(job.pages, FetchLane::kDemand, deadline,
                 [self = shared_from_this(), job](auto runs) { self->OnFetched(job, runs); });
}

void Fetcher::OnFetched(const Job& job, absl::StatusOr<std::span<const FetchedRun>> runs) {
  const Entry entry(this);
  if (!entry.allowed()) return;
  if (!runs.ok()) {
    OnFetchFailed(job, runs.status());
    return;
  }
  if (source_failing_.exchange(false)) {
    LogInfo(absl::StrCat(target_->Name(), ": pages arrive again"));
  }
  for (const FetchedRun& run : *runs) Install(run.range, run.bytes, job.deadline);
}

void Fetcher::OnFetchFailed(Job job, const absl::Status& status) {
  if (status.code() == absl::StatusCode::kDataLoss && job.pages.count > PageCount(1)) {
    // Which page it is shows when each is asked for alone.
    for (PageIndex page = job.pages.first; page < job.pages.end(); ++page) {
      Try({PageRange::Single(page), job.deadline, job.backoff});
    }
    return;
  }
  const bool retry = options_.policy == FaultPolicy::kWait || IsRetryable(status);
  if (!retry || timers_->Now() + job.backoff > job.deadline) {
    Fail(job.pages, status);
    return;
  }
  if (!source_failing_.exchange(true)) {
    LogWarning(absl::StrCat(target_->Name(), ": fetch of ", ToString(job.pages),
                            " failed and is tried again: ", status.ToString()));
  }
  memory_->counters.fetch_retries.fetch_add(1, std::memory_order_relaxed);
  const auto delay = job.backoff;
  job.backoff = std::min(job.backoff * 2, limits_.last_retry);
  Later(delay, [this, job] { Try(job); });
}

void Fetcher::Install(PageRange pages, const std::byte* bytes, SteadyClock::time_point deadline) {
  const FillReport report = filler_.Fill(pages, bytes);
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
      break;
  }
  std::shared_ptr<const std::string> copy;
  if (bytes != nullptr) {
    copy = std::make_shared<const std::string>(
        reinterpret_cast<const char*>(bytes) + report.done.in_bytes(), rest.size_bytes());
  }
  Refill(rest, std::move(copy), {rest, deadline, limits_.first_refill});
}

void Fetcher::Refill(PageRange pages, std::shared_ptr<const std::string> bytes, Job job) {
  const auto delay = job.backoff;
  job.backoff = std::min(job.backoff * 2, limits_.last_refill);
  Later(delay, [this, pages, bytes = std::move(bytes), job]() mutable {
    const std::byte* from = nullptr;
    if (bytes != nullptr) {
      from = reinterpret_cast<const std::byte*>(bytes->data()) +
             (pages.first - job.pages.first).in_bytes();
    }
    const FillReport report = filler_.Fill(pages, from);
    const PageRange rest = PageRange::Between(pages.first + report.done, pages.end());
    if (report.end == FillEnd::kTargetGone) {
      target_->Gone();
    } else if (report.end == FillEnd::kFailed ||
               (report.end == FillEnd::kTryAgain && timers_->Now() > job.deadline)) {
      Fail(rest, absl::InternalError(
                     absl::StrCat("fill: ", strerror(report.error != 0 ? report.error : EAGAIN))));
    } else if (report.end == FillEnd::kTryAgain) {
      Refill(rest, std::move(bytes), job);
    }
  });
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
      target_->Kill(reason);
      return;
    case FaultPolicy::kPoison:
      LogError(absl::StrCat(reason, "; access to it gets SIGBUS from now on"));
      PoisonOrKill(pages, reason, limits_.first_refill);
      return;
  }
}

void Fetcher::PoisonOrKill(PageRange pages, const std::string& reason,
                           SteadyClock::duration backoff) {
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
      break;
  }
  const PageRange rest = PageRange::Between(pages.first + report.done, pages.end());
  Later(backoff, [this, rest, reason, next = std::min(backoff * 2, limits_.last_refill)] {
    PoisonOrKill(rest, reason, next);
  });
}

void Fetcher::Later(SteadyClock::duration delay, absl::AnyInvocable<void()> task) {
  timers_->After(delay, [self = shared_from_this(), task = std::move(task)]() mutable {
    const Entry entry(self.get());
    if (entry.allowed()) task();
  });
}

}  // namespace faultline
