// SPDX-License-Identifier: Apache-2.0
#include "client/fault/fetcher.h"

#include <errno.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/fault/fault_testing.h"
#include "client/source/faulty_page_source.h"
#include "client/source/memory_page_source.h"

namespace faultline {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class FetcherTest : public testing::Test {
 protected:
  ~FetcherTest() override {
    if (fetcher_ != nullptr) fetcher_->Stop();
  }

  void Start(FaultPolicy policy, absl::Duration deadline = absl::Seconds(60)) {
    fetcher_ = std::make_shared<Fetcher>(memory_, source_, &timers_, &target_,
                                         AttachmentOptions{policy, deadline}, FetchLimits());
  }
  void Fault(uint64_t page) {
    memory_->queue.Join(PageIndex(page), SteadyClock::now());
    fetcher_->Demand(PageRange::Single(PageIndex(page)));
  }
  std::string PageAt(uint64_t page) { return kernel_->PageAt(kBase + page * kPageSize); }

  FakeMemory fake_{{{kBase, 100 * kPageSize, 0}}};
  std::shared_ptr<PagedMemory> memory_ = fake_.memory;
  FakeUffd* kernel_ = fake_.kernel;
  std::shared_ptr<FaultyPageSource> source_ = std::make_shared<FaultyPageSource>(
      std::make_shared<MemoryPageSource>(TestVolume(100)), /*seed=*/1);
  FakeTimers timers_;
  FakeTarget target_;
  std::shared_ptr<Fetcher> fetcher_;
};

TEST_F(FetcherTest, DemandedPagesAreFetchedAndFilled) {
  Start(FaultPolicy::kPoison);
  fetcher_->Demand({PageIndex(4), PageCount(3)});
  for (uint64_t page = 4; page < 7; ++page) EXPECT_EQ(PageAt(page), TestPage(page));
  EXPECT_THAT(source_->fetched(), ElementsAre(PageRange{PageIndex(4), PageCount(3)}));
}

TEST_F(FetcherTest, ASourceThatIsAwayForAWhileDelaysTheFault) {
  Start(FaultPolicy::kPoison);
  source_->FailPage(PageIndex(3), absl::UnavailableError("server is down"));
  Fault(3);
  timers_.Advance(std::chrono::seconds(30));
  EXPECT_EQ(PageAt(3), "");
  EXPECT_GT(memory_->counters.fetch_retries, 10u);
  source_->HealPage(PageIndex(3));
  timers_.Advance(std::chrono::seconds(1));
  EXPECT_EQ(PageAt(3), TestPage(3));
  EXPECT_EQ(memory_->queue.size(), 0u);
}

TEST_F(FetcherTest, RetriesBackOffAndAreBounded) {
  Start(FaultPolicy::kPoison);
  source_->FailPage(PageIndex(3), absl::UnavailableError("server is down"));
  Fault(3);
  timers_.Advance(std::chrono::seconds(10));
  EXPECT_LE(memory_->counters.fetch_retries, 40u);
}

TEST_F(FetcherTest, AfterTheDeadlineTheAccessGetsSigbus) {
  Start(FaultPolicy::kPoison, absl::Seconds(10));
  source_->FailPage(PageIndex(3), absl::UnavailableError("server is down"));
  Fault(3);
  timers_.Advance(std::chrono::seconds(11));
  EXPECT_EQ(PageAt(3), FakeUffd::kPoisoned);
  EXPECT_EQ(memory_->counters.fetch_failures, 1u);
  EXPECT_EQ(memory_->queue.size(), 0u);
}

TEST_F(FetcherTest, AfterTheDeadlineThePolicyMayKillTheTarget) {
  Start(FaultPolicy::kKill, absl::Seconds(10));
  source_->FailPage(PageIndex(3), absl::UnavailableError("server is down"));
  Fault(3);
  timers_.Advance(std::chrono::seconds(11));
  ASSERT_EQ(target_.kills.size(), 1u);
  EXPECT_THAT(target_.kills[0], HasSubstr("page 3 cannot be had: UNAVAILABLE: server is down"));
  EXPECT_EQ(PageAt(3), "");
}

TEST_F(FetcherTest, ThePolicyToWaitKnowsNoDeadline) {
  Start(FaultPolicy::kWait, absl::Seconds(10));
  source_->FailPage(PageIndex(3), absl::NotFoundError("volume was deleted"));
  Fault(3);
  timers_.Advance(std::chrono::hours(1));
  EXPECT_EQ(PageAt(3), "");
  source_->HealPage(PageIndex(3));
  timers_.Advance(std::chrono::seconds(1));
  EXPECT_EQ(PageAt(3), TestPage(3));
}

TEST_F(FetcherTest, ADamagedPageIsPoisonedAtOnceAndItsNeighboursAreFilled) {
  Start(FaultPolicy::kPoison);
  source_->FailPage(PageIndex(5), absl::DataLossError("checksum does not match"));
  fetcher_->Demand({PageIndex(4), PageCount(3)});
  EXPECT_EQ(PageAt(4), TestPage(4));
  EXPECT_EQ(PageAt(5), FakeUffd::kPoisoned);
  EXPECT_EQ(PageAt(6), TestPage(6));
}

TEST_F(FetcherTest, WithoutPoisonInTheKernelTheTargetIsKilledNeverLeftWithZeros) {
  Start(FaultPolicy::kPoison);
  source_->FailPage(PageIndex(5), absl::DataLossError("checksum does not match"));
  kernel_->QueueResult({EINVAL, 0});
  Fault(5);
  ASSERT_EQ(target_.kills.size(), 1u);
  EXPECT_THAT(target_.kills[0], HasSubstr("UFFDIO_POISON failed"));
  EXPECT_EQ(PageAt(5), "");
}

TEST_F(FetcherTest, AFillThatMeetsAChangingMapIsTriedAgainWithTheSameBytes) {
  Start(FaultPolicy::kPoison);
  for (int i = 0; i < 5; ++i) kernel_->QueueResult({EAGAIN, 0});
  Fault(9);
  EXPECT_EQ(PageAt(9), "");
  timers_.Advance(std::chrono::milliseconds(50));
  EXPECT_EQ(PageAt(9), TestPage(9));
  EXPECT_EQ(source_->fetched().size(), 1u);
}

TEST_F(FetcherTest, APartOfARunThatMeetsAChangingMapIsTriedAgain) {
  Start(FaultPolicy::kPoison);
  kernel_->QueueResult({EAGAIN, 2 * kPageSize});
  kernel_->QueueResult({EAGAIN, 0});
  kernel_->QueueResult({EAGAIN, kPageSize});
  kernel_->QueueResult({EAGAIN, 0});
  fetcher_->Demand({PageIndex(10), PageCount(5)});
  timers_.Advance(std::chrono::milliseconds(50));
  for (uint64_t page = 10; page < 15; ++page) EXPECT_EQ(PageAt(page), TestPage(page));
}

TEST_F(FetcherTest, APageDiscardedWhileItIsOnItsWayBecomesZero) {
  Start(FaultPolicy::kPoison);
  source_->Hold();
  Fault(2);
  {
    ExclusiveLock lock(memory_->space.map_changing_lock());
    memory_->table->Set(PageIndex(2), PageState::kZero);
  }
  source_->Release();
  EXPECT_EQ(PageAt(2), std::string(kPageSize, '\0'));
}

TEST_F(FetcherTest, ATargetThatIsGoneIsToldOnce) {
  Start(FaultPolicy::kPoison);
  kernel_->QueueResult({ESRCH, 0});
  Fault(1);
  EXPECT_EQ(target_.gone, 1);
  EXPECT_TRUE(target_.kills.empty());
}

TEST_F(FetcherTest, AnAnswerAfterStopFillsNothing) {
  Start(FaultPolicy::kPoison);
  source_->Hold();
  Fault(2);
  fetcher_->Stop();
  source_->Release();
  EXPECT_EQ(PageAt(2), "");
}

TEST_F(FetcherTest, WithAShareOfFetchesFailingEveryPageArrives) {
  Start(FaultPolicy::kPoison);
  source_->FailShare(0.3);
  for (uint64_t page = 0; page < 100; ++page) Fault(page);
  timers_.Advance(std::chrono::seconds(30));
  for (uint64_t page = 0; page < 100; ++page) ASSERT_EQ(PageAt(page), TestPage(page)) << page;
}

}  // namespace
}  // namespace faultline
