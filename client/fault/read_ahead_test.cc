// SPDX-License-Identifier: Apache-2.0
#include "client/fault/read_ahead.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "client/fault/fault_reader.h"
#include "client/fault/fault_testing.h"
#include "client/source/faulty_page_source.h"
#include "client/source/memory_page_source.h"
#include "proto/page_testing.h"

namespace faultline {
namespace {

using testing::ElementsAre;

constexpr uint64_t kPages = 4096;

// Guesses what it was told to guess.
class FakePrefetcher final : public Prefetcher {
 public:
  struct Seen {
    uint64_t page;
    TouchKind kind;
    friend bool operator==(const Seen&, const Seen&) = default;
  };

  void OnTouch(PageIndex page, TouchKind kind, std::vector<Guess>* ahead) override {
    touches.push_back({page.raw(), kind});
    for (const Guess& guess : guesses[page.raw()]) ahead->push_back(guess);
  }
  void OnWaste(PageIndex page) override { waste.push_back(page.raw()); }

  std::map<uint64_t, std::vector<Guess>> guesses;  // by the page that is touched
  std::vector<Seen> touches;
  std::vector<uint64_t> waste;
};

class ReadAheadTest : public testing::Test {
 protected:
  ~ReadAheadTest() override { fetcher_->Stop(); }

  void Touch(std::initializer_list<uint64_t> pages) {
    std::vector<UffdEvent> events;
    for (uint64_t page : pages) events.emplace_back(FaultEvent{kBase + page * P});
    kernel_->QueueEvents(std::move(events));
    ASSERT_TRUE(reader_.Drain().ok());
  }
  void Discard(uint64_t page) {
    std::vector<UffdEvent> events;
    events.emplace_back(RemoveEvent{{kBase + page * P, P}});
    kernel_->QueueEvents(std::move(events));
    ASSERT_TRUE(reader_.Drain().ok());
  }
  std::string PageAt(uint64_t page) { return kernel_->PageAt(kBase + page * P); }

  FakeMemory fake_{{{kBase, kPages* P, 0}}};
  std::shared_ptr<PagedMemory> memory_ = fake_.memory;
  FakeUffd* kernel_ = fake_.kernel;
  std::shared_ptr<FaultyPageSource> source_ = std::make_shared<FaultyPageSource>(
      std::make_shared<MemoryPageSource>(TestVolume(kPages)), /*seed=*/1);
  FakeTimers timers_;
  FakeTarget target_;
  std::shared_ptr<Fetcher> fetcher_ = std::make_shared<Fetcher>(
      memory_, source_, &timers_, &target_, AttachmentOptions(), FetchLimits());
  FakeHost host_;
  FakePrefetcher* prefetcher_ = new FakePrefetcher;
  std::shared_ptr<ReadAhead> ahead_ = std::make_shared<ReadAhead>(
      memory_, fetcher_, source_->max_fetch(), std::unique_ptr<Prefetcher>(prefetcher_));
  FaultReader reader_{memory_.get(), fetcher_, {ahead_, nullptr},
                      &target_,      &host_,   SharedDiscard::kKeep};
};

TEST_F(ReadAheadTest, MappedGuessIsFilledBeforeItIsTouched) {
  prefetcher_->guesses[5] = {{Pages(6, 3), Placement::kMapped}};
  Touch({5});
  for (uint64_t page : {5, 6, 7, 8}) EXPECT_EQ(PageAt(page), TestPage(page));
  EXPECT_EQ(PageAt(9), "");
  EXPECT_THAT(source_->fetched(), ElementsAre(Pages(5, 1), Pages(6, 3)));
  EXPECT_EQ(memory_->counters.prefetched_pages, 3u);
}

TEST_F(ReadAheadTest, StagedGuessIsFilledByItsFaultWithoutAFetch) {
  prefetcher_->guesses[5] = {{Pages(6, 2), Placement::kStaged}};
  Touch({5});
  EXPECT_EQ(PageAt(6), "");
  Touch({7});
  EXPECT_EQ(PageAt(7), TestPage(7));
  EXPECT_THAT(source_->fetched(), ElementsAre(Pages(5, 1), Pages(6, 2)));
  EXPECT_THAT(prefetcher_->touches, ElementsAre(FakePrefetcher::Seen{5, TouchKind::kMiss},
                                                FakePrefetcher::Seen{7, TouchKind::kHit}));
  EXPECT_EQ(memory_->counters.prefetch_hits, 1u);
}

TEST_F(ReadAheadTest, MarkerAndTheRestOfItsWindowTravelTogether) {
  prefetcher_->guesses[5] = {{Pages(6, 1), Placement::kStaged}, {Pages(7, 31), Placement::kMapped}};
  Touch({5});
  EXPECT_THAT(source_->fetched(), ElementsAre(Pages(5, 1), Pages(6, 32)));
  EXPECT_EQ(PageAt(6), "");
  EXPECT_EQ(PageAt(7), TestPage(7));
  EXPECT_EQ(PageAt(37), TestPage(37));
}

TEST_F(ReadAheadTest, FaultOfAPageOnItsWayIsServedByItsArrival) {
  prefetcher_->guesses[5] = {{Pages(6, 1), Placement::kStaged}, {Pages(7, 3), Placement::kMapped}};
  source_->Hold();
  Touch({5});
  Touch({6, 8});
  EXPECT_EQ(source_->pending(), 2u);  // page 5, and the guess
  source_->Release();
  EXPECT_EQ(PageAt(6), TestPage(6));
  EXPECT_EQ(PageAt(8), TestPage(8));
  EXPECT_EQ(memory_->queue.size(), 0u);
  EXPECT_EQ(memory_->counters.prefetch_hits, 2u);
}

TEST_F(ReadAheadTest, FaultThatWaitsForAGuessThatFailsIsFetchedByItself) {
  prefetcher_->guesses[20] = {{Pages(21, 4), Placement::kMapped}};
  source_->FailPage(PageIndex(22), absl::UnavailableError("down"));
  source_->Hold();
  Touch({20});
  Touch({23});
  source_->Release();
  EXPECT_EQ(PageAt(23), TestPage(23));
  EXPECT_EQ(PageAt(22), "");
  EXPECT_EQ(memory_->queue.size(), 0u);
}

TEST_F(ReadAheadTest, StagedPageThatWasDiscardedReadsZero) {
  prefetcher_->guesses[5] = {{Pages(6, 2), Placement::kStaged}};
  Touch({5});
  Discard(6);
  Touch({6});
  EXPECT_EQ(PageAt(6), std::string(P, '\0'));
}

TEST_F(ReadAheadTest, PageThatIsDiscardedOnItsWayReadsZero) {
  prefetcher_->guesses[5] = {{Pages(6, 2), Placement::kMapped}};
  source_->Hold();
  Touch({5});
  Discard(6);
  source_->Release();
  EXPECT_EQ(PageAt(6), "");
  Touch({6});
  EXPECT_EQ(PageAt(6), std::string(P, '\0'));
  EXPECT_EQ(PageAt(7), TestPage(7));
}

TEST_F(ReadAheadTest, WhatIsThereStagedOrOnItsWayIsNotFetchedAgain) {
  Touch({7});
  prefetcher_->guesses[5] = {{Pages(6, 4), Placement::kMapped}};
  prefetcher_->guesses[20] = {{Pages(21, 2), Placement::kStaged}};
  prefetcher_->guesses[30] = {{Pages(19, 6), Placement::kMapped}};
  Touch({5});
  Touch({20});
  Touch({30});
  EXPECT_THAT(source_->fetched(),
              ElementsAre(Pages(7, 1), Pages(5, 1), Pages(6, 1), Pages(8, 2), Pages(20, 1),
                          Pages(21, 2), Pages(30, 1), Pages(19, 1), Pages(23, 2)));
}

TEST_F(ReadAheadTest, GuessesBeyondTheMemoryAreLeftOut) {
  prefetcher_->guesses[kPages - 2] = {{Pages(kPages - 1, 8), Placement::kMapped},
                                      {Pages(kPages + 100, 8), Placement::kStaged}};
  Touch({kPages - 2});
  EXPECT_THAT(source_->fetched(), ElementsAre(Pages(kPages - 2, 1), Pages(kPages - 1, 1)));
}

TEST_F(ReadAheadTest, StagedPagesThatMakeRoomAreReportedAsWaste) {
  prefetcher_->guesses[0] = {{Pages(1, 512), Placement::kStaged}};
  prefetcher_->guesses[1000] = {{Pages(1001, 512), Placement::kStaged}};
  prefetcher_->guesses[2000] = {{Pages(2001, 2), Placement::kStaged}};
  Touch({0});
  Touch({1000});
  Touch({2000});
  EXPECT_TRUE(prefetcher_->waste.empty());
  Touch({3000});
  EXPECT_THAT(prefetcher_->waste, ElementsAre(1, 2));
  EXPECT_EQ(memory_->counters.prefetch_waste, 2u);
}

TEST_F(ReadAheadTest, LongWindowsTravelInFlightsThatAreFilledOneByOne) {
  prefetcher_->guesses[0] = {{Pages(1, 200), Placement::kMapped}};
  Touch({0});
  EXPECT_THAT(source_->fetched(),
              ElementsAre(Pages(0, 1), Pages(1, 64), Pages(65, 64), Pages(129, 64), Pages(193, 8)));
}

TEST_F(ReadAheadTest, AfterStopNothingIsFetchedAhead) {
  prefetcher_->guesses[5] = {{Pages(6, 2), Placement::kMapped}};
  fetcher_->Stop();
  Touch({5});
  EXPECT_TRUE(source_->fetched().empty());
}

TEST_F(ReadAheadTest, FaultsForWhatWasFetchedAheadAreOfTheirOwnClass) {
  prefetcher_->guesses[5] = {{Pages(6, 1), Placement::kStaged}};
  Touch({5});
  Touch({6});
  const auto& latency = memory_->counters.fault_latency;
  EXPECT_EQ(latency[static_cast<size_t>(FaultClass::kDemand)].Counts().total(), 1u);
  EXPECT_EQ(latency[static_cast<size_t>(FaultClass::kStaged)].Counts().total(), 1u);
  EXPECT_EQ(memory_->counters.fetched_pages, 2u);
}

}  // namespace
}  // namespace faultline
