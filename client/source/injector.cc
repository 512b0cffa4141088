// SPDX-License-Identifier: Apache-2.0
#include "client/source/injector.h"

#include <absl/functional/any_invocable.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "client/source/kept_pages.h"
#include "client/source/link_schedule.h"
#include "proto/mutex.h"
#include "proto/page_codec.h"

namespace faultline {
namespace {

using Nanos = std::chrono::nanoseconds;

// What the caller waits awake: a thread of the timers is woken up as late as that.
constexpr Nanos kAwake = std::chrono::microseconds(20);

absl::Status Lost(absl::string_view what, PageIndex first) {
  return absl::UnavailableError(
      absl::StrCat("the ", what, " of page ", first.raw(), " was lost on the way (injected)"));
}

absl::Status TooLate(absl::string_view what, PageIndex first) {
  return absl::DeadlineExceededError(absl::StrCat("the ", what, " of page ", first.raw(),
                                                  " is held up (injected) for longer than its "
                                                  "deadline allows"));
}

}  // namespace

// What requests meet. Thread-safe.
class Injector::Way {
 public:
  enum class Fate { kArrives, kLost, kAnswerLost };
  struct Passage {
    Fate fate = Fate::kArrives;
    Nanos wait{0};
  };

  Way(const Injection& injection, Timers* timers)
      : injection_(injection),
        timers_(timers),
        random_(injection.seed),
        fetches_(NewLink()),
        demand_(NewLink()),
        writes_(NewLink()) {}

  Passage Fetch(FetchLane lane, PageCount pages) {
    MutexLock lock(mu_);
    Passage passage = Draw();
    if (passage.fate != Fate::kArrives) {
      passage.fate = Fate::kLost;  // it is all the same
      return passage;
    }
    const Nanos now = Now();
    const Nanos in_turn = fetches_.Arrival(now, pages.in_bytes());
    const Nanos arrival =
        lane == FetchLane::kDemand ? demand_.Arrival(now, pages.in_bytes()) : in_turn;
    passage.wait += arrival - now;
    return passage;
  }

  Passage Write(PageCount pages) {
    MutexLock lock(mu_);
    Passage passage = Draw();
    if (passage.fate == Fate::kLost) return passage;
    const Nanos now = Now();
    passage.wait += writes_.Arrival(now, pages.in_bytes()) - now;
    return passage;
  }

  Nanos timeout() const { return absl::ToChronoNanoseconds(injection_.timeout); }

  // Runs `task` after `wait`, or at `deadline` if that comes first; it is told which.
  void After(Nanos wait, absl::Time deadline, absl::AnyInvocable<void(bool in_time)> task) {
    const Nanos left = absl::ToChronoNanoseconds(deadline - absl::Now());
    const bool in_time = wait == Nanos(0) || wait < left;
    if (in_time && wait <= kAwake) {
      for (const auto end = SteadyClock::now() + wait; SteadyClock::now() < end;) continue;
      task(true);
      return;
    }
    timers_->After(in_time ? wait : std::max(left, Nanos(0)),
                   [in_time, task = std::move(task)]() mutable { task(in_time); });
  }

 private:
  LinkSchedule NewLink() const { return {injection_.bytes_per_second, Nanos(0), Nanos(0)}; }
  Nanos Now() const { return std::chrono::duration_cast<Nanos>(timers_->Now().time_since_epoch()); }

  // Always draws the same number of times: what one request meets does not change for the others.
  Passage Draw() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    std::uniform_real_distribution<double> unit(0, 1);
    const double fate = unit(random_), delayed = unit(random_), jitter = unit(random_) * 2 - 1;
    Passage passage;
    if (fate < injection_.loss) {
      passage.fate = fate < injection_.loss / 2 ? Fate::kAnswerLost : Fate::kLost;
    }
    if (delayed < injection_.share) {
      passage.wait = absl::ToChronoNanoseconds(injection_.latency + injection_.jitter * jitter);
    }
    return passage;
  }

  const Injection injection_;
  Timers* const timers_;
  Mutex mu_;
  std::mt19937_64 random_ ABSL_GUARDED_BY(mu_);
  // What is fetched, all of it and again that part which threads wait for; and what is written.
  LinkSchedule fetches_ ABSL_GUARDED_BY(mu_), demand_ ABSL_GUARDED_BY(mu_),
      writes_ ABSL_GUARDED_BY(mu_);
};

// Both hold on to what is behind them while a request waits, not to themselves: whoever has made it
// may let go of them meanwhile.
class Injector::Source final : public PageSource {
 public:
  Source(std::shared_ptr<Way> way, std::shared_ptr<PageSource> inner)
      : way_(std::move(way)), inner_(std::move(inner)) {}

  void Fetch(PageRange range, FetchLane lane, absl::Time deadline, FetchDone done) override {
    const Way::Passage passage = way_->Fetch(lane, range.count);
    if (passage.fate == Way::Fate::kLost) {
      way_->After(way_->timeout(), deadline,
                  [first = range.first, done = std::move(done)](bool in_time) mutable {
                    done(in_time ? Lost("fetch", first) : TooLate("fetch", first));
                  });
      return;
    }
    way_->After(
        passage.wait, deadline,
        [inner = inner_, range, lane, deadline, done = std::move(done)](bool in_time) mutable {
          if (in_time) {
            inner->Fetch(range, lane, deadline, std::move(done));
          } else {
            done(TooLate("fetch", range.first));
          }
        });
  }

  PageCount size() const override { return inner_->size(); }
  PageCount max_fetch() const override { return inner_->max_fetch(); }
  const FetchStages* stages() const override { return inner_->stages(); }

 private:
  const std::shared_ptr<Way> way_;
  const std::shared_ptr<PageSource> inner_;
};

class Injector::Sink final : public PageSink {
 public:
  Sink(std::shared_ptr<Way> way, std::shared_ptr<PageSink> inner)
      : way_(std::move(way)), inner_(std::move(inner)) {}

  void Write(std::span<const PageToWrite> pages, absl::Time deadline, WriteDone done) override {
    const auto data = std::count_if(pages.begin(), pages.end(), [](const PageToWrite& page) {
      return page.bytes != nullptr && !IsZeroPage(PageBytes(page.bytes, kPageSize));
    });
    const Way::Passage passage = way_->Write(PageCount(static_cast<uint64_t>(data)));
    const PageIndex first = pages.front().page;
    if (passage.fate != Way::Fate::kArrives) {
      done = [way = way_, first, deadline, done = std::move(done)](const absl::Status&) mutable {
        way->After(way->timeout(), deadline, [first, done = std::move(done)](bool in_time) mutable {
          done(in_time ? Lost("write", first) : TooLate("write", first));
        });
      };
      if (passage.fate == Way::Fate::kLost) {
        done(absl::OkStatus());  // of which nobody hears
        return;
      }
    }
    if (passage.wait == Nanos(0)) {
      inner_->Write(pages, deadline, std::move(done));
      return;
    }
    way_->After(passage.wait, deadline,
                [inner = inner_, kept = KeptPages(pages), deadline,
                 done = std::move(done)](bool in_time) mutable {
                  if (in_time) {
                    inner->Write(kept.pages(), deadline, std::move(done));
                  } else {
                    done(TooLate("write", kept.pages().front().page));
                  }
                });
  }

  PageCount size() const override { return inner_->size(); }
  PageCount max_write() const override { return inner_->max_write(); }

 private:
  const std::shared_ptr<Way> way_;
  const std::shared_ptr<PageSink> inner_;
};

Injector::Injector(const Injection& injection, Timers* timers)
    : way_(std::make_shared<Way>(injection, timers)) {}

Injector::~Injector() = default;

std::shared_ptr<PageSource> Injector::Around(std::shared_ptr<PageSource> inner) const {
  return std::make_shared<Source>(way_, std::move(inner));
}

std::shared_ptr<PageSink> Injector::Around(std::shared_ptr<PageSink> inner) const {
  return std::make_shared<Sink>(way_, std::move(inner));
}

VolumeIo Injector::Around(VolumeIo inner) const {
  inner.source = Around(std::move(inner.source));
  inner.sink = Around(std::move(inner.sink));
  return inner;
}

}  // namespace faultline
