// SPDX-License-Identifier: Apache-2.0
#include "client/evict/local_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/evict/forked_source.h"
#include "client/evict/policies.h"
#include "client/source/memory_page_source.h"

namespace faultline {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr auto kNone = [](PageIndex) { return false; };

std::string Content(char c) { return std::string(kPageSize, c); }
const std::byte* Bytes(const std::string& content) {
  return reinterpret_cast<const std::byte*>(content.data());
}

TEST(FetchGrace, PassesOnceAllThatWasHeldIsGone) {
  FetchGrace grace;
  auto first = grace.Hold();
  const FetchGrace::Epoch epoch = grace.Begin();
  EXPECT_FALSE(grace.HasPassed(epoch));
  const auto later = grace.Hold();  // not of this grace
  {
    const auto copy = first;
    first = {};
    EXPECT_FALSE(grace.HasPassed(epoch));
  }
  EXPECT_TRUE(grace.HasPassed(epoch));
  EXPECT_FALSE(grace.HasPassed(grace.Begin()));
}

TEST(FetchGrace, PassesAtOnceWhereNothingIsHeld) {
  FetchGrace grace;
  EXPECT_TRUE(grace.HasPassed(grace.Begin()));
  EXPECT_TRUE(grace.HasPassed(grace.Begin()));
}

class LocalMemoryTest : public testing::Test {
 protected:
  static constexpr PageCount kBudget{256}, kStage{64};

  // Makes `page` resident, chooses it, and stages it with `content`.
  void Evict(uint64_t page, const std::string& content) {
    std::vector<PageIndex> victims;
    local_.Choose(PageCount(1), kNone, &victims);
    ASSERT_THAT(victims, ElementsAre(PageIndex(page)));
    local_.Stage(PageIndex(page), Bytes(content));
  }
  std::string Staged(uint64_t page) const {
    std::string bytes(kPageSize, '?');
    const bool found =
        local_.CopyStaged(PageIndex(page), reinterpret_cast<std::byte*>(bytes.data()));
    return found ? bytes : "";
  }
  // Writes all that is to be written, and says so.
  std::vector<PageIndex> Write(bool ok = true) {
    std::vector<PageIndex> pages;
    for (const PageToWrite& page : local_.TakeUnwritten(PageCount(100))) pages.push_back(page.page);
    local_.OnWritten(pages, ok);
    return pages;
  }

  LocalMemory local_{{kBudget.in_bytes(), 0}, *MakeEvictionPolicy("fifo", kBudget)};
};

TEST_F(LocalMemoryTest, WhatTheServerHasIsNotWritten) {
  const std::string old = Content('a'), changed = Content('b');
  local_.OnFetched({PageIndex(1), PageCount(1)}, Bytes(old), FillCause::kDemand);
  Evict(1, old);
  EXPECT_THAT(Write(), IsEmpty());
  EXPECT_EQ(Staged(1), old);
  local_.OnReturned(PageIndex(1));
  Evict(1, changed);
  EXPECT_THAT(Write(), ElementsAre(PageIndex(1)));
  local_.OnReturned(PageIndex(1));
  Evict(1, changed);  // as it was written
  EXPECT_THAT(Write(), IsEmpty());
}

// Through every way out of being staged.
TEST_F(LocalMemoryTest, WhatIsNotWrittenIsCounted) {
  const auto unwritten = [this] { return local_.Stats().unwritten_pages; };
  for (uint64_t page : {1, 2, 3}) {
    local_.OnZeroed(PageRange::Single(PageIndex(page)));
    Evict(page, Content('a'));
  }
  EXPECT_EQ(unwritten(), 3u);
  EXPECT_EQ(Write(/*ok=*/false).size(), 3u);
  EXPECT_EQ(unwritten(), 3u);
  EXPECT_EQ(local_.Stats().rewritten_pages_total, 3u);
  local_.OnReturned(PageIndex(1));
  EXPECT_EQ(unwritten(), 2u);
  local_.OnDiscarded({PageIndex(2), PageCount(1)}, PageCount(0));
  EXPECT_EQ(unwritten(), 1u);
  EXPECT_EQ(local_.Fork()->Stats().unwritten_pages, 1u);
  EXPECT_EQ(local_.TakeUnwritten(PageCount(10)).size(), 1u);
  EXPECT_EQ(unwritten(), 1u);  // until it is acknowledged
  local_.OnWritten({PageIndex(3)}, true);
  EXPECT_EQ(unwritten(), 0u);
  local_.OnReturned(PageIndex(3));
  EXPECT_EQ(unwritten(), 0u);
}

TEST_F(LocalMemoryTest, ZerosTakeNoMemoryAndAreWrittenAsSuch) {
  local_.OnZeroed(PageRange::Single(PageIndex(5)));
  Evict(5, Content('\0'));
  EXPECT_EQ(Staged(5), Content('\0'));
  const std::vector<PageToWrite> pages = local_.TakeUnwritten(PageCount(10));
  ASSERT_EQ(pages.size(), 1u);
  EXPECT_EQ(pages[0].bytes, nullptr);
  local_.OnWritten({PageIndex(5)}, true);
  ASSERT_THAT(local_.Droppable(PageCount(10)), ElementsAre(PageIndex(5)));
  EXPECT_EQ(local_.Drop(PageIndex(5)), LocalMemory::DropResult::kDroppedZero);
}

TEST_F(LocalMemoryTest, PinnedPagesAreNotChosen) {
  for (uint64_t page = 0; page < 4; ++page) local_.OnZeroed(PageRange::Single(PageIndex(page)));
  ASSERT_TRUE(local_.Pin({PageIndex(0), PageCount(2)}).ok());
  Evict(2, Content('x'));
  // One that is filled later stays, too.
  ASSERT_TRUE(local_.Pin({PageIndex(2), PageCount(1)}).ok());
  local_.OnReturned(PageIndex(2));
  std::vector<PageIndex> victims;
  local_.Choose(PageCount(9), kNone, &victims);
  EXPECT_THAT(victims, ElementsAre(PageIndex(3)));
  local_.PutBack(PageIndex(3));
  EXPECT_EQ(local_.Stats().resident_pages, 4u);
  EXPECT_EQ(local_.Stats().pinned_pages, 3u);
  local_.Unpin({PageIndex(0), PageCount(1)});
  victims.clear();
  local_.Choose(PageCount(9), kNone, &victims);
  EXPECT_THAT(victims, UnorderedElementsAre(PageIndex(0), PageIndex(3)));
}

TEST_F(LocalMemoryTest, PinsLeaveRoomForOthers) {
  // Of 192 pages beside the stage, four margins of 12.
  EXPECT_TRUE(local_.Pin({PageIndex(0), PageCount(144)}).ok());
  EXPECT_TRUE(local_.Pin({PageIndex(100), PageCount(44)}).ok());  // again
  const absl::Status refused = local_.Pin({PageIndex(143), PageCount(2)});
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_EQ(local_.Stats().pinned_pages, 144u);
  EXPECT_EQ(local_.RoomBesidePinned(), PageCount(48));
}

TEST_F(LocalMemoryTest, WhatCannotBeTakenOutIsNotChosenForAWhile) {
  for (uint64_t page = 0; page < 3; ++page) local_.OnZeroed(PageRange::Single(PageIndex(page)));
  std::vector<PageIndex> victims;
  local_.Choose(PageCount(2), kNone, &victims);
  ASSERT_THAT(victims, ElementsAre(PageIndex(0), PageIndex(1)));
  for (PageIndex page : victims) local_.SetAside(page);
  EXPECT_EQ(local_.Stats().resident_pages, 3u);
  victims.clear();
  local_.Choose(PageCount(9), kNone, &victims);
  EXPECT_THAT(victims, ElementsAre(PageIndex(2)));
  local_.PutBack(PageIndex(2));
  // What is discarded does not come back.
  local_.OnDiscarded({PageIndex(1), PageCount(1)}, PageCount(0));
  EXPECT_EQ(local_.Stats().resident_pages, 2u);
  const auto begun = std::chrono::steady_clock::now();
  do {
    for (PageIndex page : std::exchange(victims, {})) local_.PutBack(page);
    local_.Choose(PageCount(9), kNone, &victims);
  } while (victims.size() < 2 && std::chrono::steady_clock::now() < begun + std::chrono::hours(1));
  EXPECT_THAT(victims, UnorderedElementsAre(PageIndex(0), PageIndex(2)));
  EXPECT_GE(std::chrono::steady_clock::now() - begun, std::chrono::milliseconds(900));
}

TEST_F(LocalMemoryTest, WhatCannotBeTakenOutMayExceedTheBudget) {
  for (uint64_t page = 0; page < 192; ++page) local_.OnZeroed(PageRange::Single(PageIndex(page)));
  EXPECT_FALSE(local_.Admit(PageIndex(200)));
  std::vector<PageIndex> victims;
  local_.Choose(PageCount(192), kNone, &victims);
  ASSERT_EQ(victims.size(), 192u);
  for (size_t i = 0; i < 144; ++i) local_.SetAside(victims[i]);
  EXPECT_FALSE(local_.ExceedsBudget());
  for (size_t i = 144; i < 192; ++i) local_.SetAside(victims[i]);
  EXPECT_TRUE(local_.ExceedsBudget());
  EXPECT_TRUE(local_.Admit(PageIndex(200)));
  EXPECT_EQ(local_.Excess(), PageCount(0));
  EXPECT_TRUE(absl::IsResourceExhausted(local_.Pin({PageIndex(200), PageCount(1)})));
  // Once they are gone the budget is what it was.
  local_.OnDiscarded({PageIndex(0), PageCount(192)}, PageCount(0));
  EXPECT_FALSE(local_.ExceedsBudget());
}

TEST_F(LocalMemoryTest, WhatWillNotBeNeededIsChosenFirst) {
  for (uint64_t page = 0; page < 6; ++page) local_.OnZeroed(PageRange::Single(PageIndex(page)));
  local_.LeaveFirst({PageIndex(3), PageCount(3)});
  local_.OnFetched({PageIndex(4), PageCount(1)}, nullptr, FillCause::kDemand);  // filled anew
  std::vector<PageIndex> victims;
  local_.Choose(
      PageCount(2), [](PageIndex page) { return page == PageIndex(0); }, &victims);
  EXPECT_THAT(victims, ElementsAre(PageIndex(3), PageIndex(5)));
  victims.clear();
  local_.Choose(
      PageCount(1), [](PageIndex page) { return page == PageIndex(0); }, &victims);
  EXPECT_THAT(victims, ElementsAre(PageIndex(1)));
}

// What the server has is not known from when a write begins until it is acknowledged: a page that
// has become what it was before is none that the server has.
TEST_F(LocalMemoryTest, AWriteOfAPageThatStaysMakesItCleanOnceItIsAcknowledged) {
  using Standing = LocalMemory::Standing;
  const std::string old = Content('a'), changed = Content('b');
  const PageIndex page(1);
  local_.OnFetched({page, PageCount(1)}, Bytes(old), FillCause::kDemand);
  EXPECT_EQ(local_.BeginKeptWrite(page, Bytes(old)), Standing::kClean);
  EXPECT_TRUE(local_.IsQuiet());
  EXPECT_EQ(local_.BeginKeptWrite(page, Bytes(changed)), Standing::kDirty);
  EXPECT_EQ(local_.BeginKeptWrite(page, Bytes(old)), Standing::kBusy);
  EXPECT_FALSE(local_.IsQuiet());
  std::vector<PageIndex> victims;
  local_.Choose(PageCount(1), kNone, &victims);
  EXPECT_THAT(victims, IsEmpty());
  local_.EndKeptWrites({page}, false);
  EXPECT_EQ(local_.BeginKeptWrite(page, Bytes(old)), Standing::kDirty);
  local_.EndKeptWrites({page}, true);
  Evict(1, old);
  EXPECT_THAT(Write(), IsEmpty());
  EXPECT_TRUE(local_.IsQuiet());
}

TEST_F(LocalMemoryTest, WritesAreHeldUntilTheyAreReleased) {
  local_.OnZeroed(PageRange::Single(PageIndex(1)));
  Evict(1, Content('x'));
  EXPECT_FALSE(local_.IsQuiet());
  EXPECT_TRUE(local_.IsUnwritten(PageIndex(1)));
  local_.HoldWrites();
  EXPECT_FALSE(local_.HasUnwritten());
  EXPECT_THAT(Write(), IsEmpty());
  local_.ReleaseWrites();
  EXPECT_THAT(Write(), ElementsAre(PageIndex(1)));
  EXPECT_FALSE(local_.IsUnwritten(PageIndex(1)));
}

TEST_F(LocalMemoryTest, NothingIsDroppedBeforeItIsWrittenAndOlderFetchesHaveEnded) {
  local_.OnZeroed(PageRange::Single(PageIndex(1)));
  Evict(1, Content('x'));
  EXPECT_THAT(local_.Droppable(PageCount(10)), IsEmpty());
  auto fetch = local_.grace().Hold();
  EXPECT_THAT(Write(false), ElementsAre(PageIndex(1)));
  EXPECT_THAT(local_.Droppable(PageCount(10)), IsEmpty());
  EXPECT_THAT(Write(), ElementsAre(PageIndex(1)));
  EXPECT_THAT(local_.Droppable(PageCount(10)), IsEmpty());
  EXPECT_EQ(local_.Drop(PageIndex(1)), LocalMemory::DropResult::kStays);
  fetch = {};
  EXPECT_THAT(local_.Droppable(PageCount(10)), ElementsAre(PageIndex(1)));
  EXPECT_EQ(local_.Drop(PageIndex(1)), LocalMemory::DropResult::kDropped);
  EXPECT_EQ(Staged(1), "");
}

TEST_F(LocalMemoryTest, APageHasOneWriteUnderWayAtATime) {
  local_.OnZeroed(PageRange::Single(PageIndex(1)));
  Evict(1, Content('x'));
  ASSERT_EQ(local_.TakeUnwritten(PageCount(10)).size(), 1u);
  local_.OnReturned(PageIndex(1));  // and is written to
  std::vector<PageIndex> victims;
  local_.Choose(PageCount(1), kNone, &victims);
  EXPECT_THAT(victims, IsEmpty());
  local_.OnWritten({PageIndex(1)}, true);
  Evict(1, Content('y'));
  EXPECT_THAT(Write(), ElementsAre(PageIndex(1)));
}

TEST_F(LocalMemoryTest, WhatIsDiscardedIsForgotten) {
  local_.OnZeroed(PageRange::Single(PageIndex(1)));
  Evict(1, Content('x'));
  local_.OnDiscarded({PageIndex(0), PageCount(4)}, PageCount(0));
  EXPECT_EQ(Staged(1), "");
  EXPECT_THAT(Write(), IsEmpty());
  EXPECT_EQ(local_.Stats().resident_pages, 0u);
}

TEST_F(LocalMemoryTest, FaultsAreDeferredWhereThereIsNoRoom) {
  uint64_t page = 0;
  while (local_.Admit(PageIndex(page))) local_.OnZeroed(PageRange::Single(PageIndex(page++)));
  EXPECT_EQ(page, (kBudget - kStage).raw());
  EXPECT_THAT(local_.TakeDeferred(), IsEmpty());
  EXPECT_GT(local_.Excess(), PageCount(0));
  EXPECT_FALSE(local_.HasRoomAhead());
  Evict(0, Content('x'));
  EXPECT_THAT(local_.TakeDeferred(), ElementsAre(PageIndex(page)));
}

TEST_F(LocalMemoryTest, APartIsOfWhatIsTouchedAndNotGivenUp) {
  LocalMemory quarter({0, 25}, *MakeEvictionPolicy("fifo", kBudget));
  uint64_t page = 0;
  for (; page < 4000; ++page) quarter.OnZeroed(PageRange::Single(PageIndex(page)));
  EXPECT_EQ(quarter.Stats().budget_pages, 1000u);
  const PageCount excess = quarter.Excess();
  EXPECT_GT(excess, PageCount(4000 - 1000));
  EXPECT_LT(excess, PageCount(4000 - 600));
  quarter.OnDiscarded({PageIndex(0), PageCount(2000)}, PageCount(0));
  EXPECT_EQ(quarter.Stats().budget_pages, 500u);
}

TEST(ParseLocalMemory, KnowsSizesAndParts) {
  EXPECT_EQ(ParseLocalMemory("64MiB")->bytes, uint64_t{64} << 20);
  EXPECT_EQ(ParseLocalMemory("64MiB")->percent, 0u);
  EXPECT_EQ(ParseLocalMemory("25%")->percent, 25u);
  for (const char* text : {"64MiB", "58880KiB", "25%"}) {
    EXPECT_EQ(ParseLocalMemory(text)->ToString(), text);
  }
  for (const char* text : {"0%", "101%", "%", "-5%", "much"}) {
    EXPECT_FALSE(ParseLocalMemory(text).ok()) << text;
  }
}

TEST_F(LocalMemoryTest, AForkHasItsOwnCopies) {
  local_.OnZeroed(PageRange::Single(PageIndex(1)));
  local_.OnZeroed(PageRange::Single(PageIndex(2)));
  Evict(1, Content('x'));
  Evict(2, Content('\0'));
  const std::unique_ptr<LocalMemory> child = local_.Fork();
  local_.OnReturned(PageIndex(1));
  std::string bytes(kPageSize, '?');
  auto* const to = reinterpret_cast<std::byte*>(bytes.data());
  EXPECT_TRUE(child->CopyStaged(PageIndex(1), to));
  EXPECT_EQ(bytes, Content('x'));
  EXPECT_TRUE(child->CopyStaged(PageIndex(2), to));
  EXPECT_EQ(bytes, Content('\0'));
  child->OnReturned(PageIndex(1));
  EXPECT_FALSE(child->CopyStaged(PageIndex(1), to));
  EXPECT_TRUE(child->Admit(PageIndex(3)));
  EXPECT_FALSE(local_.CopyStaged(PageIndex(1), to));
}

TEST(ForkedSource, IsFrozenForTheFirstFetchAndAsksAgainWhereThatFails) {
  ThreadTimers timers(1);
  const auto volume = std::make_shared<MemoryPageSource>(Content('n'));  // of now
  const auto frozen = std::make_shared<MemoryPageSource>(Content('f'));
  std::atomic<int> asked = 0;
  const auto source = std::make_shared<ForkedSource>(
      volume,
      [&]() -> absl::StatusOr<std::shared_ptr<PageSource>> {
        if (++asked < 3) return absl::UnavailableError("not yet");
        return std::shared_ptr<PageSource>(frozen);
      },
      &timers);
  EXPECT_FALSE(source->IsFrozen());
  EXPECT_EQ(asked, 0);
  std::atomic<int> answers = 0;
  for (int i = 0; i < 2; ++i) {
    source->Fetch({PageIndex(0), PageCount(1)}, FetchLane::kDemand, absl::InfiniteFuture(),
                  [&](absl::StatusOr<std::span<const FetchedRun>> runs) {
                    EXPECT_EQ(std::string(reinterpret_cast<const char*>((*runs)[0].bytes), 4),
                              "ffff");
                    ++answers;
                  });
  }
  while (answers < 2) std::this_thread::yield();
  EXPECT_TRUE(source->IsFrozen());
  EXPECT_EQ(asked, 3);
}

}  // namespace
}  // namespace faultline
