// SPDX-License-Identifier: Apache-2.0
#include "client/source/delayed_page_source.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>

#include <algorithm>
#include <random>
#include <utility>

#include "proto/mutex.h"

namespace faultline {
namespace {

class DelayedPageSource final : public PageSource {
 public:
  DelayedPageSource(std::shared_ptr<PageSource> inner, const FetchDelay& delay, Timers* timers)
      : inner_(std::move(inner)),
        delay_(delay.delay),
        share_(delay.share),
        timers_(timers),
        random_(delay.seed) {}

  void Fetch(PageRange range, FetchLane lane, absl::Time deadline, FetchDone done) override {
    if (!Choose()) {
      inner_->Fetch(range, lane, deadline, std::move(done));
      return;
    }
    const absl::Duration left = deadline - absl::Now();
    if (left <= delay_) {
      timers_->After(absl::ToChronoNanoseconds(std::max(left, absl::ZeroDuration())),
                     [delay = delay_, range, done = std::move(done)]() mutable {
                       done(absl::DeadlineExceededError(absl::StrCat(
                           "the fetch of page ", range.first.raw(), " is held up for ",
                           absl::FormatDuration(delay), ", longer than its deadline allows")));
                     });
      return;
    }
    // Holds on to the inner source, not to this: whoever fetched may let go of it meanwhile.
    timers_->After(absl::ToChronoNanoseconds(delay_),
                   [inner = inner_, range, lane, deadline, done = std::move(done)]() mutable {
                     inner->Fetch(range, lane, deadline, std::move(done));
                   });
  }

  PageCount size() const override { return inner_->size(); }
  PageCount max_fetch() const override { return inner_->max_fetch(); }
  const FetchStages* stages() const override { return inner_->stages(); }

 private:
  // Whether the next fetch is held up.
  bool Choose() {
    MutexLock lock(mu_);
    return std::uniform_real_distribution<double>(0, 1)(random_) < share_;
  }

  const std::shared_ptr<PageSource> inner_;
  const absl::Duration delay_;
  const double share_;
  Timers* const timers_;
  Mutex mu_;
  std::mt19937_64 random_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

std::shared_ptr<PageSource> DelayFetches(std::shared_ptr<PageSource> inner, const FetchDelay& delay,
                                         Timers* timers) {
  return std::make_shared<DelayedPageSource>(std::move(inner), delay, timers);
}

}  // namespace faultline
