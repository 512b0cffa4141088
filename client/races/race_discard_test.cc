// SPDX-License-Identifier: Apache-2.0
//
// Races between fills and a target that discards its memory with madvise.
#include "client/races/race_testing.h"

namespace faultline {
namespace {

class RaceDiscard : public RaceTest {};

TEST_P(RaceDiscard, Race05_AFetchInFlightIsDiscardedByRemove) {
  const AttachmentId id = MapAndAttach(0, 8);
  source_->Hold();
  std::atomic<bool> zero = false, source = false;
  TargetThread waiter([&] {
    zero = PageIsZero(arena_.At(3));
    source = PageHolds(arena_.At(3), 3);
  });
  ASSERT_TRUE(EventuallyWaiting(id, 1));
  ASSERT_TRUE(arena_.Advise(3, 1, MADV_DONTNEED));
  source_->Release();
  waiter.Join();
  // Shared memory keeps what it has, and what it has not is at the source.
  EXPECT_EQ(zero, anonymous());
  EXPECT_EQ(source, !anonymous());
  EXPECT_TRUE(Holds(arena_.At(4), 4, 4));
  EXPECT_GE(Stats(id).remove_events_total, 1u);
}

TEST_P(RaceDiscard, Race05_AFetchOfManyPagesInFlightIsDiscardedInPart) {
  AttachmentOptions options;
  options.drain = true;
  source_->Hold();
  const AttachmentId id = MapAndAttach(0, 512, 0, options);
  ASSERT_TRUE(Eventually([&] { return source_->pending() > 0; }));
  ASSERT_TRUE(arena_.Advise(7, 1, MADV_DONTNEED));
  ASSERT_TRUE(arena_.Advise(100, 100, MADV_DONTNEED));
  source_->Release();
  EXPECT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.drained; }));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 7));
  EXPECT_TRUE(Holds(arena_.At(8), 8, 92));
  EXPECT_TRUE(Holds(arena_.At(200), 200, 312));
  if (anonymous()) {
    EXPECT_TRUE(IsZero(arena_.At(7)));
    EXPECT_TRUE(IsZero(arena_.At(100), 100));
  } else {
    EXPECT_TRUE(Holds(arena_.At(0), 0, 512));
  }
}

TEST_P(RaceDiscard, DiscardedPagesThatMoveStayDiscarded) {
  MapAndAttach(0, 16);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 4));
  ASSERT_TRUE(arena_.Advise(2, 6, MADV_DONTNEED));
  ASSERT_TRUE(arena_.Move(0, 100, 16));
  EXPECT_TRUE(Holds(arena_.At(100), 0, 2));
  EXPECT_TRUE(anonymous() ? IsZero(arena_.At(102), 6) : Holds(arena_.At(102), 2, 6));
  EXPECT_TRUE(Holds(arena_.At(108), 8, 8));
}

TEST_P(RaceDiscard, MadvFreeReadsAsWhatWasThereOrZero) {
  if (!anonymous()) GTEST_SKIP() << "MADV_FREE is for private anonymous memory";
  MapAndAttach(0, 16);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 8));
  ASSERT_TRUE(arena_.Advise(4, 8, MADV_FREE));
  for (uint64_t page = 4; page < 8; ++page) {
    EXPECT_TRUE(PageIsZero(arena_.At(page)) || PageHolds(arena_.At(page), page)) << page;
  }
  EXPECT_TRUE(IsZero(arena_.At(8), 4));  // never was there, so nothing is left to be freed late
  EXPECT_TRUE(Holds(arena_.At(12), 12, 4));
}

TEST_P(RaceDiscard, WhatIsWrittenAfterADiscardStays) {
  AttachmentOptions options;
  options.drain = true;
  source_->Hold();
  const AttachmentId id = MapAndAttach(0, 64, 0, options);
  ASSERT_TRUE(Eventually([&] { return source_->pending() > 0; }));
  ASSERT_TRUE(arena_.Advise(0, 64, MADV_DONTNEED));
  TargetThread writer([&] {
    for (uint64_t page = 0; page < 64; ++page) {
      for (uint64_t i = 0; i < kWordsPerPage; ++i) {
        reinterpret_cast<volatile uint64_t*>(arena_.At(page))[i] = PatternWord(500 + page, i);
      }
    }
  });
  source_->Release();
  writer.Join();
  EXPECT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.drained; }));
  EXPECT_TRUE(Holds(arena_.At(0), 500, 64));
}

FAULTLINE_RACES_ON_ALL_KINDS(RaceDiscard);

class RaceAnonymousDiscard : public RaceTest {};

// The event is readable before the pages go, so a zero that the pager fills on its account may be
// dropped by it. The next fault has to bring another.
TEST_P(RaceAnonymousDiscard, Race06_AZeroThatIsZappedByItsOwnRemoveIsFilledAgain) {
  MapAndAttach(0, 64);
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0;
  TargetThread reader([&] {
    while (!stop) {
      for (uint64_t page = 0; page < 64 && !stop; ++page) {
        // Torn between two fills is legal, other bytes are not.
        const auto* words = reinterpret_cast<const volatile uint64_t*>(arena_.At(page));
        for (uint64_t i = 0; i < kWordsPerPage; i += 64) {
          const uint64_t word = words[i];
          wrong += word == 0 || word == PatternWord(page, i) ? 0 : 1;
        }
      }
    }
  });
  for (int round = 0; round < 2000; ++round) {
    ASSERT_TRUE(arena_.Advise(0, 64, MADV_DONTNEED));
    const uint64_t page = static_cast<uint64_t>(round) % 64;
    ASSERT_TRUE(IsZero(arena_.At(page))) << "round " << round;
  }
  stop = true;
  reader.Join();
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(IsZero(arena_.At(0), 64));
}

TEST_P(RaceAnonymousDiscard, Race07_OldBytesThatAFaultBroughtBeforeTheRemoveAreGoneAfterIt) {
  constexpr uint64_t kPages = 4096;
  MapAndAttach(0, kPages);
  std::atomic<uint64_t> next = 0;
  std::vector<std::unique_ptr<TargetThread>> readers;
  for (int i = 0; i < 2; ++i) {
    readers.push_back(std::make_unique<TargetThread>([&] {
      // Right at, and a little ahead of, what is being discarded.
      for (uint64_t page = next; page < kPages; page = next + 1) {
        static_cast<void>(*reinterpret_cast<volatile char*>(arena_.At(std::min(page, kPages - 1))));
      }
    }));
  }
  for (uint64_t page = 0; page < kPages; ++page) {
    next = page;
    ASSERT_TRUE(arena_.Advise(page, 1, MADV_DONTNEED));
    ASSERT_TRUE(IsZero(arena_.At(page))) << page;
  }
  next = kPages;
  readers.clear();
  EXPECT_TRUE(IsZero(arena_.At(0), kPages));
}

FAULTLINE_RACES_ON(RaceAnonymousDiscard, MemoryKind::kAnonymous);

class RaceSharedDiscard : public RaceTest {
 protected:
  AttachmentOptions Discard(SharedDiscard discard) const {
    AttachmentOptions options;
    options.shared_discard = discard;
    return options;
  }
};

TEST_P(RaceSharedDiscard, AHolePunchedIntoFilledMemoryReadsZeros) {
  for (SharedDiscard discard : {SharedDiscard::kKeep, SharedDiscard::kZero}) {
    const AttachmentId id = MapAndAttach(0, 16, 0, Discard(discard));
    EXPECT_TRUE(Holds(arena_.At(0), 0, 16));
    ASSERT_TRUE(arena_.Advise(3, 5, MADV_REMOVE));
    EXPECT_TRUE(IsZero(arena_.At(3), 5));
    EXPECT_TRUE(Holds(arena_.At(0), 0, 3));
    EXPECT_TRUE(Holds(arena_.At(8), 8, 8));
    ASSERT_TRUE(pager_->Detach(id).ok());
  }
}

TEST_P(RaceSharedDiscard, WhatWasNeverFilledAndIsDiscardedReadsAsTheOptionSays) {
  for (int advice : {MADV_DONTNEED, MADV_REMOVE}) {
    AttachmentId id = MapAndAttach(0, 16, 0, Discard(SharedDiscard::kKeep));
    ASSERT_TRUE(arena_.Advise(3, 5, advice));
    EXPECT_TRUE(Holds(arena_.At(0), 0, 16));
    ASSERT_TRUE(pager_->Detach(id).ok());

    id = MapAndAttach(0, 16, 0, Discard(SharedDiscard::kZero));
    ASSERT_TRUE(arena_.Advise(3, 5, advice));
    EXPECT_TRUE(IsZero(arena_.At(3), 5));
    EXPECT_TRUE(Holds(arena_.At(8), 8, 8));
    ASSERT_TRUE(pager_->Detach(id).ok());
  }
}

TEST_P(RaceSharedDiscard, Race05_AFetchInFlightWhosePageIsPunchedReadsAsTheOptionSays) {
  for (SharedDiscard discard : {SharedDiscard::kKeep, SharedDiscard::kZero}) {
    const AttachmentId id = MapAndAttach(0, 8, 0, Discard(discard));
    source_->Hold();
    std::atomic<bool> zero = false, source = false;
    TargetThread waiter([&] {
      zero = PageIsZero(arena_.At(3));
      source = PageHolds(arena_.At(3), 3);
    });
    ASSERT_TRUE(EventuallyWaiting(id, 1));
    ASSERT_TRUE(arena_.Advise(3, 1, MADV_REMOVE));
    source_->Release();
    waiter.Join();
    EXPECT_EQ(zero, discard == SharedDiscard::kZero);
    EXPECT_EQ(source, discard == SharedDiscard::kKeep);
    ASSERT_TRUE(pager_->Detach(id).ok());
  }
}

// The pages stay in the page cache: no fault is to be expected, and no fill can change them.
TEST_P(RaceSharedDiscard, DiscardingWhatWasWrittenKeepsIt) {
  AttachmentOptions options;
  options.drain = true;
  const AttachmentId id = MapAndAttach(0, 64, 0, options);
  for (uint64_t page = 0; page < 64; ++page) {
    for (uint64_t i = 0; i < kWordsPerPage; ++i) {
      reinterpret_cast<volatile uint64_t*>(arena_.At(page))[i] = PatternWord(500 + page, i);
    }
  }
  ASSERT_TRUE(arena_.Advise(0, 64, MADV_DONTNEED));
  EXPECT_TRUE(Holds(arena_.At(0), 500, 64));
  EXPECT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.drained; }));
  EXPECT_TRUE(Holds(arena_.At(0), 500, 64));
}

FAULTLINE_RACES_ON(RaceSharedDiscard, MemoryKind::kShmem, MemoryKind::kMemfd);

}  // namespace
}  // namespace faultline
