// SPDX-License-Identifier: Apache-2.0
#include "client/evict/range_fetcher.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>

#include <algorithm>
#include <utility>

namespace faultline {
namespace {

constexpr int kMaxUnderWay = 4;
// Of one fetch: a fault does not wait long behind it.
constexpr PageCount kLongestRun{64};
constexpr size_t kMaxWaiting = 256;

}  // namespace

class RangeFetcher::Ticket final : public FetchTicket {
 public:
  Ticket(std::shared_ptr<PagedMemory> memory, std::shared_ptr<std::atomic<int>> under_way)
      : memory_(std::move(memory)), under_way_(std::move(under_way)) {
    ++*under_way_;
  }
  ~Ticket() override {
    --*under_way_;
    memory_->local->Wake();
  }
  Ticket(const Ticket&) = delete;
  Ticket& operator=(const Ticket&) = delete;

 private:
  const std::shared_ptr<PagedMemory> memory_;
  const std::shared_ptr<std::atomic<int>> under_way_;
};

RangeFetcher::RangeFetcher(std::shared_ptr<PagedMemory> memory, std::shared_ptr<Fetcher> fetcher)
    : memory_(std::move(memory)), fetcher_(std::move(fetcher)) {}

RangeFetcher::~RangeFetcher() {
  for (Work& work : work_) {
    if (work.done) std::move(work.done)(absl::UnavailableError("the attachment ends"));
  }
}

void RangeFetcher::Add(FarCommand command, FarDone done) {
  if (work_.size() >= kMaxWaiting) {
    std::move(done)(absl::ResourceExhaustedError(absl::StrCat(
        kMaxWaiting, " ranges are being fetched already; ask again when some are here")));
    return;
  }
  LocalMemory& local = *memory_->local;
  if (command.kind == FarCommand::Kind::kPin) {
    if (absl::Status status = local.Pin(command.pages); !status.ok()) {
      std::move(done)(status);
      return;
    }
  } else {
    std::move(std::exchange(done, nullptr))(absl::OkStatus());
  }
  const PageIndex first = command.pages.first;
  work_.push_back({std::move(command), std::move(done), first, local.RoomBesidePinned()});
}

bool RangeFetcher::Step() {
  if (work_.empty()) return false;
  if (work_.front().command.deadline <= absl::Now()) {
    Work work = std::move(work_.front());
    work_.pop_front();
    if (work.done) {
      memory_->local->Unpin(work.command.pages);
      std::move(work.done)(
          absl::DeadlineExceededError("not all pages could be fetched in time; none is pinned"));
    }
    return true;
  }
  bool any = false;
  while (*under_way_ < kMaxUnderWay && memory_->local->HasRoomAhead()) {
    if (!FetchNext(work_.front())) {
      if (*under_way_ > 0) break;
      EndPass();
      return true;
    }
    any = true;
  }
  return any;
}

bool RangeFetcher::FetchNext(Work& work) {
  const PageTable& table = *memory_->table;
  const bool pin = work.command.kind == FarCommand::Kind::kPin;
  const PageIndex end = work.command.pages.end();
  PageRange run;
  PageState state = PageState::kPresent;
  {
    SharedLock lock(memory_->space.map_changing_lock());
    for (;; work.cursor = run.end()) {
      if (work.cursor >= end || work.room == PageCount(0)) return false;
      run = PageRange::Between(work.cursor, end);
      run.count = table.RunOfSameState(run);
      state = table.Get(run.first);
      if (state == PageState::kAbsent || (pin && state == PageState::kStaged)) break;
    }
  }
  work.found = true;
  if (state == PageState::kStaged) {
    run.count = PageCount(1);
    memory_->queue.Join(run.first, SteadyClock::now());
    fetcher_->FillLocal(run);
  } else {
    run.count = std::min({run.count, kLongestRun, fetcher_->source().max_fetch(), work.room});
    fetcher_->FetchAhead(run, pin ? FetchLane::kBulk : FetchLane::kPrefetch,
                         std::make_shared<Ticket>(memory_, under_way_));
    if (!pin) work.room -= run.count;
  }
  work.cursor = run.end();
  return true;
}

void RangeFetcher::EndPass() {
  Work& work = work_.front();
  if (work.command.kind == FarCommand::Kind::kPin && std::exchange(work.found, false)) {
    // Some may have been on their way out, or could not be had yet.
    work.cursor = work.command.pages.first;
    return;
  }
  FarDone done = std::move(work.done);
  work_.pop_front();
  if (done) std::move(done)(absl::OkStatus());
}

}  // namespace faultline
