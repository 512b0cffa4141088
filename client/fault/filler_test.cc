// SPDX-License-Identifier: Apache-2.0
//
// The errno table of filler.h, row by row, on a scripted kernel.
#include "client/fault/filler.h"

#include <errno.h>
#include <gtest/gtest.h>

#include "client/fault/fault_testing.h"
#include "proto/page_testing.h"

namespace faultline {
namespace {

class FillerTest : public testing::Test {
 protected:
  PageState StateOf(uint64_t page) { return memory_->table->Get(PageIndex(page)); }

  FakeMemory fake_{{{kBase, 256 * kPageSize, 0}}};
  std::shared_ptr<PagedMemory> memory_ = fake_.memory;
  FakeUffd* kernel_ = fake_.kernel;
  Filler filler_{memory_.get()};
  const std::string volume_ = TestVolume(256);
};

TEST_F(FillerTest, BytesLandWhereTheirPagesAreMapped) {
  const FillReport report = filler_.Fill(Pages(3, 2), AsBytes(volume_) + 3 * kPageSize);
  EXPECT_EQ(report.end, FillEnd::kDone);
  EXPECT_EQ(report.done, PageCount(2));
  EXPECT_EQ(kernel_->PageAt(kBase + 3 * kPageSize), TestPage(3));
  EXPECT_EQ(kernel_->PageAt(kBase + 4 * kPageSize), TestPage(4));
  EXPECT_EQ(StateOf(3), PageState::kPresent);
  EXPECT_EQ(StateOf(5), PageState::kAbsent);
}

TEST_F(FillerTest, NoFillIsLargerThanOneChunk) {
  filler_.Fill(Pages(0, 200), AsBytes(volume_));
  ASSERT_EQ(kernel_->calls().size(), 4u);
  for (const FakeUffd::Call& call : kernel_->calls()) {
    EXPECT_LE(call.range.length, kMaxFillChunk.in_bytes());
  }
  EXPECT_EQ(kernel_->PageAt(kBase + 199 * kPageSize), TestPage(199));
}

TEST_F(FillerTest, PagesThatTheTargetDiscardedAreZeroWhateverWasFetched) {
  memory_->table->Set(PageIndex(1), PageState::kZero);
  memory_->queue.Join(PageIndex(1), SteadyClock::now());
  filler_.Fill(Pages(0, 3), AsBytes(volume_));
  EXPECT_EQ(kernel_->PageAt(kBase), TestPage(0));
  EXPECT_EQ(kernel_->PageAt(kBase + kPageSize), std::string(kPageSize, '\0'));
  EXPECT_EQ(kernel_->PageAt(kBase + 2 * kPageSize), TestPage(2));
}

TEST_F(FillerTest, DiscardedPagesAreLeftAloneWhereNoFaultWaits) {
  memory_->table->Set(PageIndex(1), PageState::kZero);
  filler_.Fill(Pages(0, 3), AsBytes(volume_));
  EXPECT_EQ(kernel_->PageAt(kBase + kPageSize), "");
  EXPECT_EQ(StateOf(1), PageState::kZero);
  EXPECT_EQ(kernel_->PageAt(kBase + 2 * kPageSize), TestPage(2));
}

TEST_F(FillerTest, AHoleIsFilledWhereAFaultWaitsAndNowhereElse) {
  filler_.Fill(Pages(4, 1), AsBytes(volume_) + 4 * kPageSize);
  memory_->queue.Join(PageIndex(6), SteadyClock::now());
  filler_.NoteHole(Pages(3, 5'000'000));
  EXPECT_EQ(StateOf(2), PageState::kAbsent);
  EXPECT_EQ(StateOf(3), PageState::kZero);
  EXPECT_EQ(StateOf(4), PageState::kPresent);
  EXPECT_EQ(StateOf(255), PageState::kZero);
  // What was on its way for the fault still serves it.
  filler_.Fill(Pages(5, 2), nullptr);
  EXPECT_EQ(kernel_->PageAt(kBase + 5 * kPageSize), "");
  EXPECT_EQ(kernel_->PageAt(kBase + 6 * kPageSize), std::string(kPageSize, '\0'));
}

TEST_F(FillerTest, APageThatWasFilledAndFaultsAgainIsZeroWhateverWasFetched) {
  memory_->table->Set(PageIndex(1), PageState::kPresent);
  memory_->queue.Join(PageIndex(1), SteadyClock::now());
  filler_.Fill(Pages(1, 1), AsBytes(volume_) + kPageSize);
  EXPECT_EQ(kernel_->PageAt(kBase + kPageSize), std::string(kPageSize, '\0'));
}

TEST_F(FillerTest, MemoryInNoRegionIsFilledWithZeros) {
  kernel_->AddRegistered({0x900000, kPageSize});
  std::optional<PageIndex> page;
  EXPECT_EQ(filler_.FillStray(0x900000, &page).end, FillEnd::kDone);
  EXPECT_FALSE(page);
  EXPECT_EQ(kernel_->PageAt(0x900000), std::string(kPageSize, '\0'));
}

TEST_F(FillerTest, AnAddressThatIsInARegionByNowIsNoStray) {
  std::optional<PageIndex> page;
  EXPECT_EQ(filler_.FillStray(kBase + 5 * kPageSize, &page).end, FillEnd::kDone);
  EXPECT_EQ(page, PageIndex(5));
  EXPECT_TRUE(kernel_->calls().empty());
}

TEST_F(FillerTest, AFillThatIsNotHeldOffSettlesTheAddressSpace) {
  {
    ExclusiveLock lock(memory_->space.map_changing_lock());
    memory_->space.Remap(kBase, 0x900000, 4 * kPageSize);
  }
  const auto settle = [this] {
    ExclusiveLock lock(memory_->space.map_changing_lock());
    memory_->space.Settle();
    return !memory_->space.unsettled();
  };
  kernel_->QueueResult({EAGAIN, 0});
  filler_.Fill(Pages(10, 1), AsBytes(volume_) + 10 * kPageSize);
  EXPECT_FALSE(settle());
  filler_.Fill(Pages(10, 1), AsBytes(volume_) + 10 * kPageSize);
  EXPECT_TRUE(settle());
}

TEST_F(FillerTest, EagainWithProgressGoesOnBehindIt) {
  kernel_->QueueResult({EAGAIN, 2 * kPageSize});
  const FillReport report = filler_.Fill(Pages(0, 4), AsBytes(volume_));
  EXPECT_EQ(report.end, FillEnd::kDone);
  EXPECT_EQ(report.done, PageCount(4));
  for (uint64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(kernel_->PageAt(kBase + i * kPageSize), TestPage(i));
  }
}

TEST_F(FillerTest, EagainWithoutProgressIsLeftForLaterAndTheFaultStaysQueued) {
  memory_->queue.Join(PageIndex(0), SteadyClock::now());
  kernel_->QueueResult({EAGAIN, 0});
  const FillReport report = filler_.Fill(Pages(0, 1), AsBytes(volume_));
  EXPECT_EQ(report.end, FillEnd::kTryAgain);
  EXPECT_EQ(report.done, PageCount(0));
  EXPECT_EQ(memory_->queue.size(), 1u);
  EXPECT_EQ(memory_->counters.eagain, 1u);
  EXPECT_EQ(kernel_->PageAt(kBase), "");
}

TEST_F(FillerTest, EveryFaultOfARunThatWasHeldOffIsServedThoughItsPagesWereDiscardedMeanwhile) {
  memory_->queue.Join(PageIndex(0), SteadyClock::now());
  memory_->queue.Join(PageIndex(1), SteadyClock::now());
  kernel_->QueueResult({EAGAIN, 0});
  filler_.Fill(Pages(0, 2), AsBytes(volume_));
  EXPECT_EQ(memory_->queue.size(), 2u);
  memory_->table->SetAll(Pages(0, 2), PageState::kZero);
  filler_.Fill(Pages(0, 2), AsBytes(volume_));
  EXPECT_EQ(memory_->queue.size(), 0u);
  EXPECT_EQ(kernel_->PageAt(kBase), std::string(kPageSize, '\0'));
  EXPECT_EQ(kernel_->PageAt(kBase + kPageSize), std::string(kPageSize, '\0'));
}

TEST_F(FillerTest, APageThatIsThereAlreadyIsNotWrittenButWoken) {
  kernel_->SetPage(kBase + kPageSize, "the target's own");
  const FillReport report = filler_.Fill(Pages(0, 3), AsBytes(volume_));
  EXPECT_EQ(report.end, FillEnd::kDone);
  EXPECT_EQ(kernel_->PageAt(kBase), TestPage(0));
  EXPECT_EQ(kernel_->PageAt(kBase + kPageSize), "the target's own");
  EXPECT_EQ(kernel_->PageAt(kBase + 2 * kPageSize), TestPage(2));
  EXPECT_TRUE(kernel_->WasWoken(kBase + kPageSize));
  EXPECT_EQ(StateOf(1), PageState::kPresent);
  EXPECT_EQ(memory_->counters.eexist, 1u);
}

TEST_F(FillerTest, ARunThatCrossesTheEndOfAVmaIsFilledPageByPage) {
  kernel_->RemoveRegistered({kBase, 256 * kPageSize});
  kernel_->AddRegistered({kBase, 2 * kPageSize});
  kernel_->AddRegistered({kBase + 2 * kPageSize, 2 * kPageSize});
  const FillReport report = filler_.Fill(Pages(0, 4), AsBytes(volume_));
  EXPECT_EQ(report.end, FillEnd::kDone);
  for (uint64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(kernel_->PageAt(kBase + i * kPageSize), TestPage(i));
  }
}

TEST_F(FillerTest, AnUnmappedPageIsDroppedAndItsWaiterWoken) {
  memory_->queue.Join(PageIndex(1), SteadyClock::now());
  kernel_->RemoveRegistered({kBase, 256 * kPageSize});
  kernel_->AddRegistered({kBase, kPageSize});
  const FillReport report = filler_.Fill(Pages(0, 2), AsBytes(volume_));
  EXPECT_EQ(report.end, FillEnd::kDone);
  EXPECT_EQ(kernel_->PageAt(kBase), TestPage(0));
  EXPECT_TRUE(kernel_->WasWoken(kBase + kPageSize));
  EXPECT_EQ(memory_->counters.enoent, 1u);
  EXPECT_EQ(memory_->queue.size(), 0u);
}

TEST_F(FillerTest, APageThatHasLeftWhileItWasFilledIsTriedAgain) {
  memory_->queue.Join(PageIndex(0), SteadyClock::now());
  kernel_->QueueResult({ENOENT, 0});
  kernel_->SetState(SpaceState::kChanging);
  EXPECT_EQ(filler_.Fill(Pages(0, 1), AsBytes(volume_)).end, FillEnd::kTryAgain);
  EXPECT_EQ(memory_->queue.size(), 1u);
}

TEST_F(FillerTest, APageThatNoRegionHoldsAnyMoreIsDropped) {
  {
    ExclusiveLock lock(memory_->space.map_changing_lock());
    memory_->space.Forget({kBase, kPageSize});
  }
  const FillReport report = filler_.Fill(Pages(0, 2), AsBytes(volume_));
  EXPECT_EQ(report.end, FillEnd::kDone);
  EXPECT_EQ(kernel_->PageAt(kBase), "");
  EXPECT_EQ(kernel_->PageAt(kBase + kPageSize), TestPage(1));
}

TEST_F(FillerTest, APageInFlightLandsWhereItsMemoryHasMovedTo) {
  kernel_->AddRegistered({0x900000, 4 * kPageSize});
  {
    ExclusiveLock lock(memory_->space.map_changing_lock());
    memory_->space.Remap(kBase, 0x900000, 4 * kPageSize);
  }
  filler_.Fill(Pages(2, 1), AsBytes(volume_) + 2 * kPageSize);
  EXPECT_EQ(kernel_->PageAt(0x900000 + 2 * kPageSize), TestPage(2));
  EXPECT_EQ(kernel_->PageAt(kBase + 2 * kPageSize), "");
}

TEST_F(FillerTest, BeyondTheEndOfSharedMemoryTheWaiterIsWoken) {
  kernel_->QueueResult({EFAULT, 0});
  EXPECT_EQ(filler_.Fill(Pages(0, 1), AsBytes(volume_)).end, FillEnd::kDone);
  EXPECT_TRUE(kernel_->WasWoken(kBase));
}

TEST_F(FillerTest, AFullCgroupIsLeftForLater) {
  for (int error : {ENOMEM, ENOSPC}) {
    kernel_->QueueResult({error, 0});
    const FillReport report = filler_.Fill(Pages(0, 1), AsBytes(volume_));
    EXPECT_EQ(report.end, FillEnd::kTryAgain);
    EXPECT_EQ(report.error, error);
  }
}

TEST_F(FillerTest, ATargetThatIsGoneIsReported) {
  kernel_->QueueResult({ESRCH, 0});
  EXPECT_EQ(filler_.Fill(Pages(0, 1), AsBytes(volume_)).end, FillEnd::kTargetGone);
  EXPECT_EQ(memory_->counters.esrch, 1u);
}

TEST_F(FillerTest, AnErrorThatOnlyABugExplainsIsReportedNotRetried) {
  kernel_->QueueResult({EINVAL, 0});
  const FillReport report = filler_.Fill(Pages(0, 1), AsBytes(volume_));
  EXPECT_EQ(report.end, FillEnd::kFailed);
  EXPECT_EQ(report.error, EINVAL);
}

TEST_F(FillerTest, PoisonLeavesFilledPagesAlone) {
  filler_.Fill(Pages(1, 1), AsBytes(volume_) + kPageSize);
  EXPECT_EQ(filler_.Poison(Pages(0, 3)).end, FillEnd::kDone);
  EXPECT_EQ(kernel_->PageAt(kBase), FakeUffd::kPoisoned);
  EXPECT_EQ(kernel_->PageAt(kBase + kPageSize), TestPage(1));
  EXPECT_EQ(kernel_->PageAt(kBase + 2 * kPageSize), FakeUffd::kPoisoned);
  EXPECT_EQ(StateOf(0), PageState::kPoisoned);
  EXPECT_EQ(StateOf(1), PageState::kPresent);
}

TEST_F(FillerTest, TheLatencyOfAFaultIsRecordedOnceItsPageIsFilled) {
  memory_->queue.Join(PageIndex(0), SteadyClock::now() - std::chrono::milliseconds(10));
  filler_.Fill(Pages(0, 1), AsBytes(volume_));
  EXPECT_GE(memory_->counters.fault_latency[0].MaxMicros(), 10000);
  EXPECT_EQ(memory_->queue.size(), 0u);
}

TEST_F(FillerTest, FaultsAreToldApartByWhatTheyHaveWaitedFor) {
  const auto now = SteadyClock::now();
  memory_->table->Set(PageIndex(1), PageState::kZero);
  for (uint64_t page : {0, 1, 2, 3}) memory_->queue.Join(PageIndex(page), now);
  memory_->queue.Defer(PageIndex(3));
  filler_.Fill(Pages(0, 1), AsBytes(volume_));
  filler_.FillLocal(Pages(1, 1));
  filler_.Fill(Pages(2, 1), AsBytes(volume_) + 2 * kPageSize, FaultClass::kStaged);
  filler_.Fill(Pages(3, 2), AsBytes(volume_) + 3 * kPageSize);  // nobody waits for the second
  for (const LatencyHistogram& one : memory_->counters.fault_latency) {
    EXPECT_EQ(one.Counts().total(), 1u);
  }
}

}  // namespace
}  // namespace faultline
