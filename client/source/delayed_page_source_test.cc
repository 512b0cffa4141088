// SPDX-License-Identifier: Apache-2.0
#include "client/source/delayed_page_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "client/source/faulty_page_source.h"
#include "client/source/memory_page_source.h"
#include "client/source/page_source_conformance.h"

namespace faultline {

// Half of the fetches take the way over the timers.
INSTANTIATE_TEST_SUITE_P(DelayedSources, PageSourceConformance,
                         testing::Values(SourceMaker{
                             "delayed",
                             [](const std::string& content) -> std::shared_ptr<PageSource> {
                               // Runs what it is given on the thread that gives it.
                               class Immediate final : public Timers {
                                public:
                                 SteadyClock::time_point Now() const override {
                                   return SteadyClock::now();
                                 }
                                 void After(SteadyClock::duration, Task task) override { task(); }
                               };
                               static Immediate timers;
                               return DelayFetches(
                                   std::make_shared<MemoryPageSource>(content),
                                   {.delay = absl::Microseconds(100), .share = 0.5, .seed = 1},
                                   &timers);
                             }}),
                         [](const auto& param) { return param.param.name; });

namespace {

class DelayedPageSource : public testing::Test {
 protected:
  static constexpr uint64_t kPages = 64;

  std::shared_ptr<PageSource> Delayed(absl::Duration delay, double share, uint64_t seed = 1) {
    return DelayFetches(inner_, {.delay = delay, .share = share, .seed = seed}, &timers_);
  }

  // Fetches page by page; what the answers are goes to answers_.
  void FetchEach(PageSource& source, absl::Time deadline = absl::InfiniteFuture()) {
    answers_.assign(kPages, "none");
    for (uint64_t page = 0; page < kPages; ++page) {
      source.Fetch(PageRange::Single(PageIndex(page)), FetchLane::kDemand, deadline,
                   [this, page](absl::StatusOr<std::span<const FetchedRun>> runs) {
                     EXPECT_EQ(answers_[page], "none") << "answered twice: page " << page;
                     answers_[page] = runs.ok()
                                          ? std::string(1, static_cast<char>((*runs)[0].bytes[0]))
                                          : std::string(runs.status().message());
                   });
    }
  }

  // For each page whether its fetch was answered (+) or still waits (-).
  std::string Waiting() const {
    std::string waiting;
    for (const std::string& answer : answers_) waiting += answer == "none" ? '-' : '+';
    return waiting;
  }

  FakeTimers timers_;
  const std::shared_ptr<FaultyPageSource> inner_ = std::make_shared<FaultyPageSource>(
      std::make_shared<MemoryPageSource>(std::string(kPages * kPageSize, 'x')), /*seed=*/1);
  std::vector<std::string> answers_;
};

TEST_F(DelayedPageSource, ADelayedFetchReachesTheSourceWhenItsTimeHasCome) {
  const auto source = Delayed(absl::Milliseconds(5), 1);
  FetchEach(*source);
  timers_.Advance(std::chrono::microseconds(4999));
  EXPECT_TRUE(inner_->fetched().empty());
  EXPECT_EQ(Waiting(), std::string(kPages, '-'));
  timers_.Advance(std::chrono::microseconds(1));
  EXPECT_EQ(inner_->fetched().size(), kPages);
  EXPECT_THAT(answers_, testing::Each("x"));
}

TEST_F(DelayedPageSource, WithAShareOfZeroNothingWaits) {
  const auto source = Delayed(absl::Hours(1), 0);
  FetchEach(*source);
  EXPECT_EQ(timers_.pending(), 0u);
  EXPECT_THAT(answers_, testing::Each("x"));
}

TEST_F(DelayedPageSource, AShareWaitsAndTheOthersGoOnAtOnce) {
  const auto source = Delayed(absl::Milliseconds(5), 0.25);
  FetchEach(*source);
  EXPECT_GT(timers_.pending(), kPages / 16);
  EXPECT_LT(timers_.pending(), kPages / 2);
  EXPECT_EQ(inner_->fetched().size(), kPages - timers_.pending());
  timers_.Advance(std::chrono::milliseconds(5));
  EXPECT_THAT(answers_, testing::Each("x"));
}

TEST_F(DelayedPageSource, TheSeedChoosesWhichFetchesWait) {
  const auto pattern = [this](uint64_t seed) {
    FetchEach(*Delayed(absl::Milliseconds(5), 0.5, seed));
    std::string waiting = Waiting();
    timers_.Advance(std::chrono::milliseconds(5));
    return waiting;
  };
  EXPECT_EQ(pattern(1), pattern(1));
  EXPECT_NE(pattern(1), pattern(2));
}

TEST_F(DelayedPageSource, ADelayBeyondTheDeadlineEndsWithTheDeadline) {
  const auto source = Delayed(absl::Hours(2), 1);
  FetchEach(*source, absl::Now() + absl::Hours(1));
  timers_.Advance(std::chrono::minutes(59));
  EXPECT_EQ(Waiting(), std::string(kPages, '-'));
  timers_.Advance(std::chrono::minutes(1));
  EXPECT_EQ(answers_[7], "the fetch of page 7 is held up for 2h, longer than its deadline allows");
  EXPECT_TRUE(inner_->fetched().empty());
}

TEST_F(DelayedPageSource, AFetchThatWaitsOutlivesTheSource) {
  FetchEach(*Delayed(absl::Milliseconds(5), 1));
  timers_.Advance(std::chrono::milliseconds(5));
  EXPECT_THAT(answers_, testing::Each("x"));
}

TEST_F(DelayedPageSource, TheErrorsOfTheSourceArePassedOn) {
  inner_->FailPage(PageIndex(3), absl::DataLossError("page 3 is damaged"));
  FetchEach(*Delayed(absl::Milliseconds(5), 1));
  timers_.Advance(std::chrono::milliseconds(5));
  EXPECT_EQ(answers_[3], "page 3 is damaged");
  EXPECT_EQ(answers_[4], "x");
}

}  // namespace
}  // namespace faultline
