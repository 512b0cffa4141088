// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_FAULT_FETCHER_H_
#define FAULTLINE_CLIENT_FAULT_FETCHER_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "client/attachment.h"
#include "client/fault/filler.h"
#include "client/fault/paged_memory.h"
#include "client/source/page_source.h"
#include "client/timers.h"

namespace faultline {

// How often and how long things are tried.
struct FetchLimits {
  SteadyClock::duration attempt_timeout = std::chrono::seconds(5);  // for one answer of the source
  SteadyClock::duration first_retry = std::chrono::milliseconds(5);
  SteadyClock::duration last_retry = std::chrono::milliseconds(500);
  // A fill that met a changing address space: the event's writer needs microseconds to get on.
  SteadyClock::duration first_refill = std::chrono::microseconds(50);
  SteadyClock::duration last_refill = std::chrono::milliseconds(5);
};

// What a Fetcher can do to the process whose memory it serves. Thread-safe.
class Target {
 public:
  virtual ~Target() = default;
  virtual std::string Name() const = 0;  // for messages
  virtual void Kill(const std::string& reason) = 0;
  // The process has exited or exec'ed: nothing can be filled any more.
  virtual void Gone() = 0;
};

// Gets the pages that faults wait for, and sees to it that each fault has an end: the page is
// filled, or after `fault_deadline`, or at once where the source says that the page cannot be had,
// the fault policy decides. Never a silent hang, never silent zeros.
//
// Thread-safe. Lives, with the memory, until the last fetch under way has ended.
class Fetcher : public std::enable_shared_from_this<Fetcher> {
 public:
  // `timers` and `target` are borrowed until Stop() has returned.
  Fetcher(std::shared_ptr<PagedMemory> memory, std::shared_ptr<PageSource> source, Timers* timers,
          Target* target, const AttachmentOptions& options, const FetchLimits& limits);

  // Gets `pages`, which threads of the target wait for, and fills them. Never blocks on the source.
  void Demand(PageRange pages);

  // Fills `pages`, which the target has discarded, with zeros.
  void Zero(PageRange pages);

  // Applies the fault policy to `pages`, which cannot be had because of `why`.
  void Fail(PageRange pages, const absl::Status& why);

  // Nothing is fetched, filled, poisoned or killed from here on, and no call into the timers or the
  // target is under way when it returns. Not to be called by the source or the target from inside a
  // call of the fetcher's. Safe to call twice.
  void Stop();

 private:
  // One run of pages on its way, from the fault to its end.
  struct Job {
    PageRange pages;
    SteadyClock::time_point deadline;
    SteadyClock::duration backoff;
  };

  // Held by every call that comes from outside, so that Stop() can wait for it.
  class Entry;

  void Try(Job job);
  void OnFetched(const Job& job, absl::StatusOr<std::span<const FetchedRun>> runs);
  void OnFetchFailed(Job job, const absl::Status& status);
  // `bytes` null: zeros. Retries keep a copy of what is left.
  void Install(PageRange pages, const std::byte* bytes, SteadyClock::time_point deadline);
  void Refill(PageRange pages, std::shared_ptr<const std::string> bytes, Job job);
  void PoisonOrKill(PageRange pages, const std::string& reason, SteadyClock::duration backoff);
  void Later(SteadyClock::duration delay, absl::AnyInvocable<void()> task);
  Job NewJob(PageRange pages, SteadyClock::duration backoff) const;

  const std::shared_ptr<PagedMemory> memory_;
  const std::shared_ptr<PageSource> source_;
  Timers* const timers_;
  Target* const target_;
  const AttachmentOptions options_;
  const FetchLimits limits_;
  Filler filler_;
  std::atomic<bool> stopped_ = false;
  std::atomic<int> entries_ = 0;
  std::atomic<bool> source_failing_ = false;  // to log the first of repeated failures only
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_FETCHER_H_
