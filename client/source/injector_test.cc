// SPDX-License-Identifier: Apache-2.0
#include "client/source/injector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "client/source/faulty_page_sink.h"
#include "client/source/faulty_page_source.h"
#include "client/source/memory_page_source.h"
#include "client/source/memory_volume.h"
#include "client/source/page_sink_conformance.h"
#include "client/source/page_source_conformance.h"

namespace faultline {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::minutes;

// Runs what it is given on the thread that gives it.
class Immediate final : public Timers {
 public:
  SteadyClock::time_point Now() const override { return SteadyClock::now(); }
  void After(SteadyClock::duration, Task task) override { task(); }
};
Immediate immediate;

// Half of the requests take the way over the timers.
constexpr Injection kHalfLate{
    .latency = absl::Microseconds(100), .share = 0.5, .bytes_per_second = 1'000'000'000};

INSTANTIATE_TEST_SUITE_P(Injected, PageSourceConformance,
                         testing::Values(SourceMaker{
                             "late",
                             [](const std::string& content) {
                               return Injector(kHalfLate, &immediate)
                                   .Around(std::make_shared<MemoryPageSource>(content));
                             }}),
                         [](const auto& param) { return param.param.name; });

SinkMaker InjectedSink(const char* name, Injection injection) {
  return {name, [injection](PageCount size) -> OpenVolumeIo {
            auto volume = MemoryVolume::Create(std::string(size.in_bytes(), '\0'));
            auto injector = std::make_shared<Injector>(injection, &immediate);
            return [volume, injector](absl::string_view, absl::Time) {
              return absl::StatusOr<VolumeIo>(injector->Around(volume->OpenIo()));
            };
          }};
}

INSTANTIATE_TEST_SUITE_P(Injected, PageSinkConformance,
                         testing::Values(InjectedSink("late", kHalfLate),
                                         InjectedSink("lossy", {.loss = 0.3})),
                         [](const auto& param) { return param.param.name; });

class InjectorTest : public testing::Test {
 protected:
  static constexpr uint64_t kPages = 64;

  std::shared_ptr<PageSource> Injected(const Injection& injection) {
    return Injector(injection, &timers_).Around(inner_);
  }

  // Fetches page by page; what the answers are goes to answers_.
  void FetchEach(PageSource& source, absl::Time deadline = absl::InfiniteFuture(),
                 FetchLane lane = FetchLane::kDemand) {
    answers_.assign(kPages, "none");
    for (uint64_t page = 0; page < kPages; ++page) {
      source.Fetch(PageRange::Single(PageIndex(page)), lane, deadline,
                   [this, page](absl::StatusOr<std::span<const FetchedRun>> runs) {
                     EXPECT_EQ(answers_[page], "none") << "answered twice: page " << page;
                     answers_[page] = !runs.ok() ? std::string(runs.status().message())
                                      : (*runs)[0].bytes == nullptr
                                          ? "zero"
                                          : std::string(1, static_cast<char>((*runs)[0].bytes[0]));
                   });
    }
  }

  // For each page whether its fetch was answered (+) or still waits (-).
  std::string Waiting() const {
    std::string waiting;
    for (const std::string& answer : answers_) waiting += answer == "none" ? '-' : '+';
    return waiting;
  }
  size_t answered() const {
    const std::string waiting = Waiting();
    return static_cast<size_t>(std::count(waiting.begin(), waiting.end(), '+'));
  }

  FakeTimers timers_;
  const std::shared_ptr<FaultyPageSource> inner_ = std::make_shared<FaultyPageSource>(
      std::make_shared<MemoryPageSource>(std::string(kPages * kPageSize, 'x')), /*seed=*/1);
  const std::shared_ptr<MemoryVolume> volume_ =
      MemoryVolume::Create(std::string(kPages * kPageSize, '\0'));
  std::vector<std::string> answers_;
};

TEST_F(InjectorTest, ALateFetchReachesTheSourceWhenItsTimeHasCome) {
  FetchEach(*Injected({.latency = absl::Milliseconds(5)}));
  timers_.Advance(microseconds(4999));
  EXPECT_TRUE(inner_->fetched().empty());
  EXPECT_EQ(answered(), 0u);
  timers_.Advance(microseconds(1));
  EXPECT_EQ(inner_->fetched().size(), kPages);
  EXPECT_THAT(answers_, testing::Each("x"));
}

TEST_F(InjectorTest, JitterSpreadsLatencyToBothSides) {
  FetchEach(*Injected({.latency = absl::Milliseconds(5), .jitter = absl::Milliseconds(2)}));
  timers_.Advance(microseconds(2999));
  EXPECT_EQ(answered(), 0u);
  timers_.Advance(microseconds(2001));
  EXPECT_GT(answered(), kPages / 4);
  EXPECT_LT(answered(), kPages * 3 / 4);
  timers_.Advance(microseconds(2000));
  EXPECT_THAT(answers_, testing::Each("x"));
}

TEST_F(InjectorTest, WithAShareOfZeroNothingWaits) {
  FetchEach(*Injected({.latency = absl::Hours(1), .share = 0}));
  EXPECT_EQ(timers_.pending(), 0u);
  EXPECT_THAT(answers_, testing::Each("x"));
}

TEST_F(InjectorTest, AShareWaitsAndTheOthersGoOnAtOnce) {
  FetchEach(*Injected({.latency = absl::Milliseconds(5), .share = 0.25}));
  EXPECT_GT(timers_.pending(), kPages / 16);
  EXPECT_LT(timers_.pending(), kPages / 2);
  EXPECT_EQ(inner_->fetched().size(), kPages - timers_.pending());
  timers_.Advance(milliseconds(5));
  EXPECT_THAT(answers_, testing::Each("x"));
}

TEST_F(InjectorTest, TheSeedChoosesWhichFetchesWait) {
  const auto pattern = [this](uint64_t seed) {
    FetchEach(*Injected({.latency = absl::Milliseconds(5), .share = 0.5, .seed = seed}));
    std::string waiting = Waiting();
    timers_.Advance(milliseconds(5));
    return waiting;
  };
  EXPECT_EQ(pattern(1), pattern(1));
  EXPECT_NE(pattern(1), pattern(2));
}

TEST_F(InjectorTest, AVeryShortLatencyIsWaitedForAwake) {
  const auto source = Injected({.latency = absl::Microseconds(4)});
  const auto begin = SteadyClock::now();
  FetchEach(*source);
  EXPECT_GE(SteadyClock::now() - begin, microseconds(4 * kPages));
  EXPECT_EQ(timers_.pending(), 0u);
  EXPECT_THAT(answers_, testing::Each("x"));
}

TEST_F(InjectorTest, ALinkTakesOnePageAfterTheOther) {
  // A page takes 40.96 us, all of them 2621.44.
  FetchEach(*Injected({.bytes_per_second = 100'000'000}), absl::InfiniteFuture(), FetchLane::kBulk);
  timers_.Advance(microseconds(409));
  EXPECT_EQ(Waiting(), std::string(9, '+') + std::string(kPages - 9, '-'));
  timers_.Advance(microseconds(2211));
  EXPECT_EQ(answered(), kPages - 1);
  timers_.Advance(microseconds(2));
  EXPECT_THAT(answers_, testing::Each("x"));
}

TEST_F(InjectorTest, LatencyComesOnTopOfALinkAndDoesNotHoldItUp) {
  FetchEach(*Injected({.latency = absl::Milliseconds(50), .bytes_per_second = 100'000'000}));
  timers_.Advance(milliseconds(50) + microseconds(409));
  EXPECT_EQ(answered(), 9u);
}

TEST_F(InjectorTest, AFetchThatAThreadWaitsForDoesNotStandBehindBulk) {
  const auto source = Injected({.bytes_per_second = 100'000'000});
  FetchEach(*source, absl::InfiniteFuture(), FetchLane::kBulk);
  bool answered = false;
  source->Fetch(PageRange::Single(PageIndex(0)), FetchLane::kDemand, absl::InfiniteFuture(),
                [&](absl::StatusOr<std::span<const FetchedRun>>) { answered = true; });
  timers_.Advance(microseconds(41));
  EXPECT_TRUE(answered);
  EXPECT_EQ(InjectorTest::answered(), 1u);
  // And takes its part of the link from what follows.
  bool last = false;
  source->Fetch(PageRange::Single(PageIndex(0)), FetchLane::kBulk, absl::InfiniteFuture(),
                [&](absl::StatusOr<std::span<const FetchedRun>>) { last = true; });
  timers_.Advance(microseconds(41 * kPages - 41));
  EXPECT_EQ(InjectorTest::answered(), kPages);
  EXPECT_FALSE(last);
  timers_.Advance(microseconds(82));
  EXPECT_TRUE(last);
}

TEST_F(InjectorTest, AShareOfTheFetchesIsLostAndUnavailableAfterTheTimeout) {
  FetchEach(*Injected({.loss = 0.25, .timeout = absl::Milliseconds(30)}));
  const size_t lost = timers_.pending();
  EXPECT_GT(lost, kPages / 16);
  EXPECT_LT(lost, kPages / 2);
  EXPECT_EQ(inner_->fetched().size(), kPages - lost);
  timers_.Advance(milliseconds(29));
  EXPECT_EQ(answered(), kPages - lost);
  timers_.Advance(milliseconds(1));
  EXPECT_EQ(std::count_if(answers_.begin(), answers_.end(),
                          [](const std::string& answer) {
                            return answer.find("was lost on the way (injected)") !=
                                   std::string::npos;
                          }),
            static_cast<std::ptrdiff_t>(lost));
}

TEST_F(InjectorTest, ADelayBeyondTheDeadlineEndsWithTheDeadline) {
  FetchEach(*Injected({.latency = absl::Hours(2)}), absl::Now() + absl::Hours(1));
  timers_.Advance(minutes(59));
  EXPECT_EQ(Waiting(), std::string(kPages, '-'));
  timers_.Advance(minutes(1));
  EXPECT_EQ(answers_[7],
            "the fetch of page 7 is held up (injected) for longer than its deadline allows");
  EXPECT_TRUE(inner_->fetched().empty());
}

TEST_F(InjectorTest, AFetchThatWaitsOutlivesTheSource) {
  FetchEach(*Injected({.latency = absl::Milliseconds(5)}));
  timers_.Advance(milliseconds(5));
  EXPECT_THAT(answers_, testing::Each("x"));
}

TEST_F(InjectorTest, TheErrorsOfTheSourceArePassedOn) {
  inner_->FailPage(PageIndex(3), absl::DataLossError("page 3 is damaged"));
  FetchEach(*Injected({.latency = absl::Milliseconds(5)}));
  timers_.Advance(milliseconds(5));
  EXPECT_EQ(answers_[3], "page 3 is damaged");
  EXPECT_EQ(answers_[4], "x");
}

TEST_F(InjectorTest, ALateWriteHasTheBytesThatItWasGiven) {
  const VolumeIo io = volume_->OpenIo();
  std::future<absl::Status> done = StartWrite(
      *Injector({.latency = absl::Milliseconds(5)}, &timers_).Around(io.sink), {{1, 1}, {2, 0}});
  timers_.Advance(microseconds(4999));
  ExpectVersions(*io.source, {{1, 0}});
  timers_.Advance(microseconds(1));
  EXPECT_TRUE(done.get().ok());
  ExpectVersions(*io.source, {{1, 1}, {2, 0}});
}

TEST_F(InjectorTest, ZeroPagesTakeNoPartOfTheLinkAndFetchesTakeNoneOfTheWrites) {
  const Injector injector({.bytes_per_second = 100'000'000}, &timers_);
  const VolumeIo io = injector.Around(volume_->OpenIo());
  FetchEach(*io.source, absl::InfiniteFuture(), FetchLane::kBulk);
  std::future<absl::Status> zeros = StartWrite(*io.sink, {{1, 0}, {2, 0}, {3, 0}});
  EXPECT_TRUE(zeros.get().ok());
  std::future<absl::Status> data = StartWrite(*io.sink, {{1, 1}, {2, 0}, {3, 1}});
  timers_.Advance(microseconds(81));
  EXPECT_EQ(data.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  timers_.Advance(microseconds(1));
  EXPECT_TRUE(data.get().ok());
}

TEST_F(InjectorTest, OfLostWritesSomeAreAppliedAndNoneLate) {
  const auto sink = Injector({.loss = 0.5, .timeout = absl::Milliseconds(30)}, &timers_)
                        .Around(volume_->OpenIo().sink);
  std::vector<std::future<absl::Status>> done;
  for (uint64_t page = 0; page < kPages; ++page) done.push_back(StartWrite(*sink, {{page, 1}}));
  const std::string before = volume_->Bytes({PageIndex(0), PageCount(kPages)});
  timers_.Advance(milliseconds(30));
  EXPECT_TRUE(before == volume_->Bytes({PageIndex(0), PageCount(kPages)}));
  size_t ok = 0, applied = 0, dropped = 0;
  for (uint64_t page = 0; page < kPages; ++page) {
    const absl::Status status = done[page].get();
    const bool there = before.compare(page * kPageSize, kPageSize, PageOfVersion(page, 1)) == 0;
    if (status.ok()) {
      EXPECT_TRUE(there) << page;
      ++ok;
    } else {
      EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
      ++(there ? applied : dropped);
    }
  }
  EXPECT_GT(ok, kPages / 4);
  EXPECT_GT(applied, kPages / 16);
  EXPECT_GT(dropped, kPages / 16);
}

TEST_F(InjectorTest, AWriteWhoseDeadlineComesFirstIsNeverApplied) {
  const auto sink = Injector({.latency = absl::Hours(1)}, &timers_).Around(volume_->OpenIo().sink);
  std::future<absl::Status> done = StartWrite(*sink, {{1, 1}}, absl::Minutes(30));
  timers_.Advance(minutes(30));
  EXPECT_EQ(done.get().code(), absl::StatusCode::kDeadlineExceeded);
  timers_.Advance(minutes(90));
  EXPECT_EQ(volume_->Bytes(PageRange::Single(PageIndex(1))), std::string(kPageSize, '\0'));
}

}  // namespace
}  // namespace faultline
