// SPDX-License-Identifier: Apache-2.0
#include "client/fault/read_ahead.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace faultline {
namespace {

// Beyond these, guesses are not carried out: the source is behind.
constexpr uint64_t kMaxPagesInFlight = 4 * kMaxPrefetchWindow.raw();
constexpr size_t kMaxFlights = 256;

// Of one flight: a fault that finds its page on its way waits for all of the flight.
constexpr PageCount kMaxFlight = kMaxFillChunk;

}  // namespace

// Goes with the fetch of one run.
class ReadAhead::Flight final : public FetchTicket {
 public:
  Flight(std::shared_ptr<ReadAhead> owner, PageRange pages, PageIndex staged_end)
      : owner_(std::move(owner)), pages_(pages), staged_end_(staged_end) {}
  ~Flight() override { owner_->OnFlightEnded(pages_); }
  Flight(const Flight&) = delete;
  Flight& operator=(const Flight&) = delete;

  PageCount Keep(PageRange pages, const std::byte* bytes) override {
    if (pages.first >= staged_end_) return PageCount(0);
    const PageRange kept = PageRange::Between(pages.first, std::min(pages.end(), staged_end_));
    owner_->Stage(kept, bytes);
    return kept.count;
  }

 private:
  const std::shared_ptr<ReadAhead> owner_;
  const PageRange pages_;
  const PageIndex staged_end_;
};

ReadAhead::ReadAhead(std::shared_ptr<PagedMemory> memory, std::shared_ptr<Fetcher> fetcher,
                     PageCount max_fetch, std::unique_ptr<Prefetcher> prefetcher)
    : memory_(std::move(memory)),
      fetcher_(std::move(fetcher)),
      max_fetch_(std::min(max_fetch, kMaxFlight)),
      prefetcher_(std::move(prefetcher)),
      staged_(kMaxStagedPages) {}

bool ReadAhead::FillStaged(PageIndex page, FaultClass fault,
                           std::array<std::byte, kPageSize>* buffer) {
  const std::byte* bytes = nullptr;
  FetchGrace::Token grace = memory_->HoldGrace();
  {
    MutexLock lock(mu_);
    const std::optional<StagedPages::Taken> taken = staged_.Take(page);
    if (!taken) return false;
    if (taken->bytes != nullptr) {
      memcpy(buffer->data(), taken->bytes, kPageSize);
      bytes = buffer->data();
    }
  }
  fetcher_->FillFetched(page, bytes, fault, std::move(grace));
  return true;
}

bool ReadAhead::Serve(PageIndex page) {
  bool served = FillStaged(page, FaultClass::kStaged, &buffer_);
  if (!served) {
    MutexLock lock(mu_);
    served = std::any_of(flights_.begin(), flights_.end(),
                         [page](const PageRange& flight) { return flight.Contains(page); });
  }
  if (served) Count(memory_->counters.prefetch_hits);
  touches_.push_back({page, served ? TouchKind::kHit : TouchKind::kMiss});
  return served;
}

void ReadAhead::Forget(PageIndex page) {
  MutexLock lock(mu_);
  static_cast<void>(staged_.Take(page));
}

void ReadAhead::FetchAhead() {
  {
    MutexLock lock(mu_);
    dropped_.swap(wasted_);
  }
  for (PageIndex page : dropped_) prefetcher_->OnWaste(page);
  dropped_.clear();
  for (const Touch& touch : touches_) {
    guesses_.clear();
    prefetcher_->OnTouch(touch.page, touch.kind, &guesses_);
    CarryOut(guesses_);
  }
  touches_.clear();
}

void ReadAhead::CarryOut(const std::vector<Guess>& guesses) {
  const PageRange volume = memory_->table->range();
  for (size_t i = 0; i < guesses.size(); ++i) {
    PageRange pages = guesses[i].pages;
    PageIndex staged_end = guesses[i].placement == Placement::kStaged ? pages.end() : pages.first;
    // A marker and what follows it travel together.
    if (guesses[i].placement == Placement::kStaged && i + 1 < guesses.size() &&
        guesses[i + 1].placement == Placement::kMapped &&
        guesses[i + 1].pages.first == pages.end()) {
      pages.count += guesses[++i].pages.count;
    }
    Fetch(pages.Intersect(volume), staged_end);
  }
}

void ReadAhead::Fetch(PageRange pages, PageIndex staged_end) {
  if (memory_->local != nullptr && !memory_->local->HasRoomAhead()) return;
  while (!pages.empty()) {
    const PageRange wanted = NextWanted(&pages);
    if (wanted.empty()) continue;
    {
      MutexLock lock(mu_);
      if (flights_.size() >= kMaxFlights ||
          pages_in_flight_ + wanted.count.raw() > kMaxPagesInFlight) {
        return;
      }
      flights_.push_back(wanted);
      pages_in_flight_ += wanted.count.raw();
    }
    Count(memory_->counters.prefetched_pages, wanted.count.raw());
    if (!fetcher_->FetchAhead(wanted, FetchLane::kPrefetch,
                              std::make_shared<Flight>(shared_from_this(), wanted, staged_end))) {
      return;
    }
  }
}

PageRange ReadAhead::NextWanted(PageRange* rest) {
  PageRange run;
  {
    SharedLock lock(memory_->space.map_changing_lock());
    const std::optional<PageRange> mapped = memory_->space.NextPages(rest->first);
    run = mapped ? mapped->Intersect(*rest) : PageRange{rest->end(), PageCount(0)};
    if (run.empty()) {
      *rest = PageRange{rest->end(), PageCount(0)};
      return run;
    }
    run.count = memory_->table->RunOfSameState(run);
    if (memory_->table->Get(run.first) != PageState::kAbsent) {
      *rest = PageRange::Between(run.end(), rest->end());
      return {run.first, PageCount(0)};
    }
  }
  run.count = std::min(run.count, max_fetch_);
  PageCount skip(0);
  {
    MutexLock lock(mu_);
    run.count = UnknownFront(run, &skip);
  }
  *rest = PageRange::Between(run.end() + skip, rest->end());
  return run;
}

PageCount ReadAhead::UnknownFront(PageRange pages, PageCount* skip) {
  PageRange front = pages;
  for (const PageRange& flight : flights_) {
    if (flight.Contains(front.first)) {
      *skip = std::min(flight.end(), pages.end()) - front.first;
      return PageCount(0);
    }
    if (front.Contains(flight.first)) front.count = flight.first - front.first;
  }
  if (staged_.size() == 0) return front.count;
  for (PageIndex page = front.first; page < front.end(); ++page) {
    if (!staged_.Has(page)) continue;
    if (page == front.first) *skip = PageCount(1);
    return page - front.first;
  }
  return front.count;
}

void ReadAhead::Stage(PageRange pages, const std::byte* bytes) {
  {
    MutexLock lock(mu_);
    for (PageIndex page = pages.first; page < pages.end(); ++page) {
      const std::byte* const from =
          bytes == nullptr ? nullptr : bytes + (page - pages.first).in_bytes();
      if (const std::optional<PageIndex> dropped = staged_.Put(page, from)) {
        Count(memory_->counters.prefetch_waste);
        if (wasted_.size() < kMaxStagedPages) wasted_.push_back(*dropped);
      }
    }
  }
  ServeWaiting(pages);  // not only when all of the flight is there
}

void ReadAhead::OnFlightEnded(PageRange pages) {
  {
    MutexLock lock(mu_);
    const auto flight = std::find(flights_.begin(), flights_.end(), pages);
    *flight = flights_.back();
    flights_.pop_back();
    pages_in_flight_ -= pages.count.raw();
  }
  // Faults that have found their page on its way had entered the queue before they looked.
  ServeWaiting(pages);
}

void ReadAhead::ServeWaiting(PageRange pages) {
  if (!memory_->queue.First(pages)) return;
  fetcher_->Perform([self = shared_from_this(), pages] {
    PageRange rest = pages;
    while (const std::optional<PageIndex> page = self->memory_->queue.First(rest)) {
      std::array<std::byte, kPageSize> buffer;
      if (!self->FillStaged(*page, FaultClass::kDemand, &buffer)) {
        self->fetcher_->Demand(PageRange::Single(*page));
      }
      rest = PageRange::Between(*page + PageCount(1), rest.end());
    }
  });
}

}  // namespace faultline
