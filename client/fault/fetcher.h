// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_FAULT_FETCHER_H_
#define FAULTLINE_CLIENT_FAULT_FETCHER_H_

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/attachment.h"
#include "client/fault/filler.h"
#include "client/fault/paged_memory.h"
#include "client/fault/parking.h"
#include "client/source/page_source.h"
#include "client/timers.h"
#include "proto/mutex.h"

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

// What the fault pipeline can do to the process whose memory it serves. Thread-safe.
class Target {
 public:
  virtual ~Target() = default;
  virtual std::string Name() const = 0;  // for messages
  // False where it cannot be killed, because its pid is not known.
  virtual bool Kill(const std::string& reason) = 0;
  // The process has exited or exec'ed: nothing can be filled any more.
  virtual void Gone() = 0;
};

// Goes with a fetch that nobody waits for; destroyed when everything that can be done for it was
// done, or the fetcher was stopped. Thread-safe.
class FetchTicket {
 public:
  virtual ~FetchTicket() = default;
  // `pages` were fetched: keeps some from the front of them, and says how many; the others are
  // filled. `bytes` are pages.size_bytes() of them, valid during the call; null: zeros.
  virtual PageCount Keep(PageRange /*pages*/, const std::byte* /*bytes*/) { return PageCount(0); }
};

// Runs a task on the one thread of an attachment that is served by one thread.
using Executor = std::function<void(Timers::Task)>;

// Gets the pages that faults wait for, and sees to it that each fault has an end: the page is
// filled, or after `fault_deadline`, or at once where the source says that the page cannot be had,
// the fault policy decides. Never a silent hang, never silent zeros.
//
// With an `executor`, everything is done on that one thread, and one fetch is under way at a time;
// without, fills happen wherever their bytes arrive, any number at a time.
//
// Thread-safe. Lives, with the memory, until the last fetch under way has ended.
class Fetcher : public std::enable_shared_from_this<Fetcher> {
 public:
  // `timers` and `target` are borrowed until Stop() has returned.
  Fetcher(std::shared_ptr<PagedMemory> memory, std::shared_ptr<PageSource> source, Timers* timers,
          Target* target, const AttachmentOptions& options, const FetchLimits& limits,
          Executor executor = nullptr);

  // Gets `pages`, which threads of the target wait for, and fills them. Never blocks on the source.
  void Demand(PageRange pages);

  // Fills `pages`, which need not be fetched, where a fault waits for them: with zeros what the
  // target has discarded, with its content what is staged.
  void FillLocal(PageRange pages);

  // Serves a fault at an address of no region, see Filler::FillStray().
  void Stray(uint64_t address);

  // Gets `pages` behind all faults, on `lane`, and fills those of them that are absent then, but
  // for what `ticket` keeps. A page that cannot be had is left as it is: a fault decides about it.
  // False after Stop(). REQUIRES: at most PageSource::max_fetch() pages.
  bool FetchAhead(PageRange pages, FetchLane lane, std::shared_ptr<FetchTicket> ticket);

  // Fills `page`, which a fault waits for, with `bytes` that were fetched ahead; null: zeros. The
  // fault is of class `fault`: it has found them here, or on their way.
  void FillFetched(PageIndex page, const std::byte* bytes, FaultClass fault,
                   FetchGrace::Token grace);

  // Runs `task` where this fetcher's work is done: here, or with an executor on its thread, and not
  // after Stop().
  void Perform(absl::AnyInvocable<void()> task);

  // Applies the fault policy to `pages`, which cannot be had because of `why`.
  void Fail(PageRange pages, const absl::Status& why);

  // An event was read: fills that it has held off are tried again.
  void Kick() { parking_->Kick(); }
  const PageSource& source() const { return *source_; }
  // What the source was asked for and has not answered yet, in no order.
  std::vector<PageRange> PagesInFlight() const;
  // Fills that wait for the address space to settle.
  const Parking& parking() const { return *parking_; }

  // Nothing is fetched, filled, poisoned or killed from here on, and no call into the timers or the
  // target is under way when it returns. Not to be called by the source or the target from inside a
  // call of the fetcher's. Safe to call twice.
  void Stop();
  bool stopped() const { return stopped_; }

 private:
  // One run of pages on its way, from the fault to its end.
  struct Job {
    PageRange pages;
    SteadyClock::time_point deadline;
    SteadyClock::duration backoff;
    FetchLane lane = FetchLane::kDemand;
    std::shared_ptr<FetchTicket> ticket = nullptr;  // null: a fault waits
    SteadyClock::time_point asked = {};             // when the source was asked
    FetchGrace::Token grace = {};                   // of what it has answered
    FaultClass fault = FaultClass::kDemand;         // that waits for it, where one does
  };
  // A job that the source works on. Used again, so that a fault costs no allocation.
  struct Flight {
    std::shared_ptr<Fetcher> fetcher;
    Job job;
    size_t at = 0;  // in flying_
  };
  struct Flying {
    Flight* flight;
    PageRange pages;
  };
  struct ReturnFlight {
    void operator()(Flight* flight) const;
  };
  using FlightPtr = std::unique_ptr<Flight, ReturnFlight>;
  // Since when a fill is held off, and how long until it is tried again.
  struct Held {
    SteadyClock::duration backoff;
    SteadyClock::time_point since;
  };
  // Bytes that are being filled, kept until all of them are.
  struct Install;

  // Held by every call that comes from outside, so that Stop() can wait for it.
  class Entry;

  Job NewJob(PageRange pages) const;
  void Try(Job job);
  void Start(Job job);
  FlightPtr TakeFlight(Job job);
  // With an executor: takes the runs to its thread.
  void CarryOver(const Job& job, const absl::StatusOr<std::span<const FetchedRun>>& runs);
  // Note how long the stages of a fault took.
  void NoteAsked(PageRange pages, SteadyClock::time_point asked);
  void NoteAnswered(const Job& job, SteadyClock::time_point arrived);
  void OnFetched(const Job& job, absl::StatusOr<std::span<const FetchedRun>> runs);
  void OnFetchFailed(Job job, const absl::Status& status);
  // Fills `pages` with `bytes`, null: zeros. Keeps a copy of what has to be filled later.
  void Fill(PageRange pages, const std::byte* bytes, const Job& job);
  void FillLocal(PageRange pages, Held held);
  void ParkInstall(Install install);
  void Refill(Install install);
  Held NewHeld() const { return {limits_.first_refill, timers_->Now()}; }
  // Tries again later; `retry` gets what it is to be parked with the next time.
  void Park(Held held, absl::AnyInvocable<void(Held)> retry);
  void StrayAgain(uint64_t address, Held held);
  void PoisonAgain(PageRange pages, const std::string& reason, Held held);
  void Later(SteadyClock::duration delay, absl::AnyInvocable<void()> task);
  // Wraps a task: it does not run after Stop().
  Timers::Task Entered(absl::AnyInvocable<void()> task);
  // Wraps a task for a thread of the timers: it runs where it has to, and not after Stop().
  Timers::Task Guarded(absl::AnyInvocable<void()> task);

  const std::shared_ptr<PagedMemory> memory_;
  const std::shared_ptr<PageSource> source_;
  Timers* const timers_;
  Target* const target_;
  const AttachmentOptions options_;
  const FetchLimits limits_;
  const Executor executor_;
  const std::shared_ptr<Parking> parking_;
  Filler filler_;
  std::atomic<bool> stopped_ = false;
  std::atomic<int> entries_ = 0;
  std::atomic<bool> source_failing_ = false;  // to log the first of repeated failures only
  mutable Mutex mu_;
  std::vector<std::unique_ptr<Flight>> idle_flights_ ABSL_GUARDED_BY(mu_);
  std::vector<Flying> flying_ ABSL_GUARDED_BY(mu_);  // the others
  // With an executor: used on its thread only.
  bool fetching_ = false;
  std::deque<Job> waiting_demand_, waiting_bulk_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_FETCHER_H_
