// SPDX-License-Identifier: Apache-2.0
#include "client/fault/drainer.h"

#include <algorithm>
#include <utility>

namespace faultline {
namespace {

// Between two looks at an address space that keeps changing.
constexpr auto kSettlePause = std::chrono::milliseconds(2);

// A page that is being moved just as it is filled may be missed by a pass, but hardly by all.
constexpr int kSamePasses = 3;

// Of the pages around a fault: they are not fetched before others in pieces of less than this part.
constexpr uint64_t kLittle = 4;

// The lock of the address space is held for a look at this many pages at most.
constexpr PageCount kMaxLook{uint64_t{1} << 18};

// While the target faults: one run at a time, and no long one, is ahead of a fault on the wire and
// on the processors.
constexpr size_t kWindowBesideFaults = 1;
// On a way so wide that such runs are that long, another one costs a fault little, and keeps the
// way from being idle between them.
constexpr PageCount kRunOfWideWay{64};
constexpr size_t kWindowOfWideWay = 2;
// One where even the shortest takes long is not to be idle between them, also where not much of a
// run is left to be fetched: then so many pieces are as good as one.
constexpr size_t kWindowOfNarrowWay = 3;
constexpr size_t kPieces = 4;
constexpr size_t kWindowOfReplay = 8;
// However short its runs are: many of them make up one message.
constexpr size_t kRunsOfReplay = 1024;
// For so long a target that begins to run where its first pages are waits for little but
// processors.
constexpr auto kSettleTime = std::chrono::milliseconds(100);
// How often it is looked at whether a target has begun to run, whose first pages are there.
constexpr auto kStartPause = std::chrono::milliseconds(10);
// And for so long it goes on to pages near by, so that the pieces that are left over, each a
// message on a narrow way, are worth it.
constexpr auto kStartTime = std::chrono::seconds(1);
// When it is taken to have what it needs.
constexpr auto kFaultsPass = std::chrono::milliseconds(1);
// A fault that waits for longer waits for something else than the drain.
constexpr auto kFaultWaits = std::chrono::milliseconds(50);

}  // namespace

// Goes with the fetch of one run.
class Drainer::Ticket final : public FetchTicket {
 public:
  Ticket(std::shared_ptr<Drainer> drainer, const Stretch& run)
      : drainer_(std::move(drainer)), run_(run), began_(drainer_->timers_->Now()) {}
  ~Ticket() override { drainer_->OnRunEnded(run_, began_); }
  Ticket(const Ticket&) = delete;
  Ticket& operator=(const Ticket&) = delete;

 private:
  const std::shared_ptr<Drainer> drainer_;
  const Stretch run_;
  const SteadyClock::time_point began_;
};

Drainer::Drainer(std::shared_ptr<PagedMemory> memory, std::shared_ptr<Fetcher> fetcher,
                 Timers* timers, PageCount max_fetch, std::unique_ptr<const Replay> replay,
                 Drained drained)
    : memory_(std::move(memory)),
      fetcher_(std::move(fetcher)),
      timers_(timers),
      max_run_(std::min(max_fetch, DrainWindow::kLongestRun)),
      replay_(std::move(replay)),
      drained_(std::move(drained)) {
  MutexLock lock(mu_);
  BeginPass();
}

void Drainer::BeginPass() {
  if (replay_ == nullptr) left_ = memory_->table->range();
}

SteadyClock::duration Drainer::TimeSinceFault() {
  const SteadyClock::time_point now = timers_->Now();
  const uint64_t faults = memory_->counters.faults.load(std::memory_order_relaxed);
  if (std::exchange(faults_, faults) != faults) last_fault_ = now;
  const SteadyClock::duration passed = now - last_fault_;
  const bool waits = memory_->queue.size() > 0 && passed < kFaultWaits;
  return waits ? SteadyClock::duration(0) : passed;
}

Drainer::Room Drainer::FindRoomOfReplay() {
  const size_t runs = std::min(window_.size(), kWindowOfReplay);
  const PageCount pages(window_.run().raw() * runs);
  // Not one for one: what is asked for together makes up one message.
  if (pages_under_way_.raw() * 2 <= pages.raw()) refilling_ = true;
  if (pages_under_way_ >= pages || under_way_ >= kRunsOfReplay) refilling_ = false;
  if (!refilling_) return {};
  return {.runs = kRunsOfReplay, .pages = pages, .longest_run = std::min(max_run_, window_.run())};
}

bool Drainer::IsStarting() const {
  if (replay_ == nullptr || replay_->first_part == 0 || replay_->target_waits) return false;
  const bool between = next_replayed_ >= replay_->first_part && left_.empty() &&
                       next_replayed_ < replay_->runs.size();
  return between && memory_->counters.faults.load(std::memory_order_relaxed) == 0 &&
         timers_->Now() - start_ < kSettleTime;
}

Drainer::Room Drainer::FindRoom() {
  const SteadyClock::duration passed = TimeSinceFault();
  if (replay_ != nullptr) return FindRoomOfReplay();
  const PageCount short_run = window_.run_beside_faults();
  if (passed < kFaultsPass) {
    const SteadyClock::duration passed_since_start = timers_->Now() - start_;
    const bool narrow = short_run < DrainWindow::kShortestRun;
    size_t runs = narrow ? kWindowOfNarrowWay : kWindowBesideFaults;
    if (short_run >= kRunOfWideWay && passed_since_start >= kSettleTime) runs = kWindowOfWideWay;
    return {.runs = narrow ? runs * kPieces : runs,
            .pages = PageCount(short_run.raw() * runs),
            .longest_run = std::min(max_run_, short_run),
            .beside_faults = true,
            .near_faults = (!narrow || passed_since_start < kStartTime)};
  }
  const PageCount pages = window_.Allowed(passed);
  const PageCount run = std::max(PageCount(pages.raw() / 2), short_run);
  return {.runs = window_.size(),
          .pages = pages,
          .longest_run = std::min({max_run_, window_.run(), run})};
}

std::optional<PageRange> Drainer::FindAbsent(PageRange wanted, PageCount longest,
                                             PageIndex* cursor) const {
  const PageTable& table = *memory_->table;
  SharedLock lock(memory_->space.map_changing_lock());
  const std::optional<PageRange> mapped = memory_->space.NextPages(wanted.first);
  PageRange look = mapped ? mapped->Intersect(wanted) : PageRange();
  if (look.empty()) {
    *cursor = mapped ? wanted.end() : table.range().end();
    return std::nullopt;
  }
  look.count = std::min(look.count, kMaxLook);
  look.count = table.RunOfSameState(look);
  const bool absent = table.Get(look.first) == PageState::kAbsent;
  if (absent) look.count = std::min(look.count, longest);
  *cursor = look.end();
  return absent ? std::optional(look) : std::nullopt;
}

std::optional<PageRange> Drainer::NextAroundFault(PageCount run) {
  const uint64_t fault = memory_->last_fault.load(std::memory_order_relaxed);
  if (std::exchange(near_fault_, fault) != fault) {
    const PageIndex first(fault - fault % run.raw());
    near_ = PageRange{first, run}.Intersect(memory_->table->range());
  }
  while (!near_.empty()) {
    PageIndex next = near_.end();
    const std::optional<PageRange> found = FindAbsent(near_, run, &next);
    near_ = PageRange::Between(std::min(next, near_.end()), near_.end());
    if (found && found->count.raw() * kLittle >= run.raw()) return found;
  }
  return std::nullopt;
}

std::optional<Drainer::Stretch> Drainer::NextRun() {
  Room room = FindRoom();
  if (under_way_ >= room.runs) return std::nullopt;
  if (under_way_ > 0) {
    if (pages_under_way_ + PageCount(room.longest_run.raw() / 2) > room.pages) return std::nullopt;
    room.longest_run = std::min(room.longest_run, room.pages - pages_under_way_);
  }
  if (room.near_faults) {
    if (const auto found = NextAroundFault(room.longest_run))
      return Stretch{*found, pages_under_way_ + found->count, true};
  }
  for (;;) {
    if (left_.empty()) {
      if (replay_ == nullptr || next_replayed_ == replay_->runs.size()) return std::nullopt;
      left_ = replay_->runs[next_replayed_++].Intersect(memory_->table->range());
    }
    PageIndex next = left_.end();
    const std::optional<PageRange> found = FindAbsent(left_, room.longest_run, &next);
    left_ = PageRange::Between(std::min(next, left_.end()), left_.end());
    if (found) return Stretch{*found, pages_under_way_ + found->count, room.beside_faults};
  }
}

bool Drainer::IsUnsettled() const {
  SharedLock lock(memory_->space.map_changing_lock());
  return memory_->space.unsettled();
}

bool Drainer::EndPass() {
  same_passes_ = found_ == found_before_ ? same_passes_ + 1 : 0;
  const bool last = found_ == 0 || same_passes_ == kSamePasses || replay_ != nullptr;
  found_before_ = std::exchange(found_, 0);
  if (!last) BeginPass();
  return last;
}

void Drainer::Follow(const DrainWindow& first) {
  MutexLock lock(mu_);
  window_ = first;
  last_fault_ = timers_->Now();
  start_ = last_fault_;
}

void Drainer::Run() {
  {
    MutexLock lock(mu_);
    if (replay_ != nullptr) start_ = timers_->Now();
  }
  Pump();
}

void Drainer::Pump() {
  // A source may answer at once, and so come back here from inside of itself.
  {
    MutexLock lock(mu_);
    if (pumping_ || finished_) return;
    pumping_ = true;
  }
  for (;;) {
    std::optional<Stretch> run;
    bool finished = false;
    uint64_t left = 0;
    DrainWindow window;
    {
      MutexLock lock(mu_);
      // Nobody reads events any more, so that the address space may never be settled.
      if (fetcher_->stopped()) {
        finished_ = true;
        return;
      }
      // Looked at once: what is not asked for because of that is not the end of the pass.
      const bool starting = IsStarting();
      if (!starting) run = NextRun();
      if (run) {
        ++under_way_;
        pages_under_way_ += run->pages.count;
        found_ += run->pages.count.raw();
      } else {
        if (starting) {
          pumping_ = false;
          if (under_way_ == 0) {
            timers_->After(kStartPause, [self = shared_from_this()] { self->Pump(); });
          }
          return;
        }
        left = found_;
        if (under_way_ == 0 && replay_ == nullptr && IsUnsettled()) {
          BeginPass();
          found_ = 0;
          pumping_ = false;
          timers_->After(kSettlePause, [self = shared_from_this()] { self->Pump(); });
          return;
        }
        finished = under_way_ == 0 && EndPass();
        finished_ = finished;
        window = window_;
        if (finished || under_way_ > 0) pumping_ = false;
        if (!finished && under_way_ > 0) return;  // whoever ends one of those goes on
      }
    }
    if (finished) {
      drained_(left, window);
      return;
    }
    if (!run || fetcher_->FetchAhead(run->pages, FetchLane::kBulk,
                                     std::make_shared<Ticket>(shared_from_this(), *run))) {
      continue;
    }
    MutexLock lock(mu_);
    finished_ = true;
    return;
  }
}

void Drainer::OnRunEnded(const Stretch& run, SteadyClock::time_point began) {
  {
    const SteadyClock::time_point now = timers_->Now();
    MutexLock lock(mu_);
    --under_way_;
    pages_under_way_ -= run.pages.count;
    if (run.beside_faults) {
      window_.OnRunBesideFaults(run.under_way, now - began);
    } else {
      window_.OnRunEnded(now, run.pages.count, now - began);
    }
  }
  Pump();
}

}  // namespace faultline
