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

// Of pages that are not in a working set, between pages that are.
constexpr PageCount kSmallGap{3};

// The lock of the address space is held for a look at this many pages at most.
constexpr PageCount kMaxLook{uint64_t{1} << 18};

// While the target faults: one run at a time, and no long one, is ahead of a fault on the wire and
// on the processors; or two short ones. So much later it is taken to have what it needs.
constexpr size_t kWindowBesideFaults = 1;
// On a way so wide that such runs are that long, another one costs a fault little, and keeps the
// way from being idle between them.
constexpr PageCount kRunOfWideWay{64};
constexpr size_t kWindowOfWideWay = 2;
constexpr size_t kWindowOfReplay = 8;
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
                 Timers* timers, PageCount max_fetch, std::shared_ptr<const PageSet> working_set,
                 std::function<void(uint64_t left)> drained)
    : memory_(std::move(memory)),
      fetcher_(std::move(fetcher)),
      timers_(timers),
      max_run_(std::min(max_fetch, DrainWindow::kLongestRun)),
      working_set_(std::move(working_set)),
      drained_(std::move(drained)),
      cursor_(memory_->table->range().first) {}

PageRange Drainer::NextOfSet(PageIndex from) const {
  const PageRange all = memory_->table->range();
  if (working_set_ == nullptr) return PageRange::Between(from, all.end());
  PageRange run = working_set_->NextRun(from);
  // Small gaps are fetched, too: a request costs more than a few pages.
  while (!run.empty() && run.count < max_run_) {
    const PageRange next = working_set_->NextRun(run.end());
    if (next.empty() || next.first > run.end() + kSmallGap) break;
    run = PageRange::Between(run.first, next.end());
  }
  return run.Intersect(all);
}

std::optional<Drainer::Stretch> Drainer::NextRun() {
  const PageTable& table = *memory_->table;
  const bool beside_faults = IsTargetFaulting();
  const PageCount longest =
      std::min(max_run_, beside_faults ? window_.run_beside_faults() : window_.run());
  while (cursor_ < table.range().end()) {
    const PageRange wanted = NextOfSet(cursor_);
    if (wanted.empty()) break;
    SharedLock lock(memory_->space.map_changing_lock());
    const std::optional<PageRange> mapped = memory_->space.NextPages(wanted.first);
    if (!mapped) break;
    PageRange look = mapped->Intersect(wanted);
    if (look.empty()) {
      cursor_ = wanted.end();
      continue;
    }
    look.count = std::min(look.count, kMaxLook);
    look.count = table.RunOfSameState(look);
    const bool absent = table.Get(look.first) == PageState::kAbsent;
    if (absent) look.count = std::min(look.count, longest);
    cursor_ = look.end();
    if (absent) return Stretch{look, beside_faults};
  }
  cursor_ = table.range().end();
  return std::nullopt;
}

bool Drainer::IsTargetFaulting() {
  const SteadyClock::time_point now = timers_->Now();
  const uint64_t faults = memory_->counters.faults.load(std::memory_order_relaxed);
  if (std::exchange(faults_, faults) != faults) last_fault_ = now;
  const SteadyClock::duration passed = now - last_fault_;
  return passed < kFaultsPass || (memory_->queue.size() > 0 && passed < kFaultWaits);
}

size_t Drainer::Window() {
  const bool beside_faults = IsTargetFaulting();
  if (!beside_faults && working_set_ == nullptr) return window_.size();
  // A target whose working set comes is about to fault for pages of it.
  if (!beside_faults) return std::min(window_.size(), kWindowOfReplay);
  const PageCount run = window_.run_beside_faults();
  const bool one = run >= DrainWindow::kShortestRun && run < kRunOfWideWay;
  return one ? kWindowBesideFaults : kWindowOfWideWay;
}

bool Drainer::IsUnsettled() const {
  SharedLock lock(memory_->space.map_changing_lock());
  return memory_->space.unsettled();
}

bool Drainer::EndPass() {
  same_passes_ = found_ == found_before_ ? same_passes_ + 1 : 0;
  const bool last = found_ == 0 || same_passes_ == kSamePasses || working_set_ != nullptr;
  found_before_ = std::exchange(found_, 0);
  cursor_ = memory_->table->range().first;
  return last;
}

void Drainer::Run() { Pump(); }

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
    {
      MutexLock lock(mu_);
      if (under_way_ < Window()) run = NextRun();
      if (run) {
        ++under_way_;
        found_ += run->pages.count.raw();
      } else {
        left = found_;
        if (under_way_ == 0 && working_set_ == nullptr && IsUnsettled()) {
          cursor_ = memory_->table->range().first;
          found_ = 0;
          pumping_ = false;
          timers_->After(kSettlePause, [self = shared_from_this()] { self->Pump(); });
          return;
        }
        finished = under_way_ == 0 && EndPass();
        finished_ = finished;
        if (finished || under_way_ > 0) pumping_ = false;
        if (!finished && under_way_ > 0) return;  // whoever ends one of those goes on
      }
    }
    if (finished) {
      drained_(left);
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
    if (run.beside_faults) {
      window_.OnRunBesideFaults(run.pages.count, now - began);
    } else {
      window_.OnRunEnded(now, run.pages.count, now - began);
    }
  }
  Pump();
}

}  // namespace faultline
