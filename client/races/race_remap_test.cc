// SPDX-License-Identifier: Apache-2.0
//
// Memory that moves, grows, shrinks and is mapped anew while its pages are at the source.
#include <random>

#include "client/races/race_testing.h"

namespace faultline {
namespace {

class RaceRemap : public RaceTest {};

TEST_P(RaceRemap, MovedMemoryReadsItsPagesAndTheOldAddressesAreGone) {
  MapAndAttach(0, 64);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 16));
  ASSERT_TRUE(arena_.Move(0, 200, 64));
  EXPECT_TRUE(Holds(arena_.At(200), 0, 64));
  EXPECT_EQ(SignalOf([&] { PageIsZero(arena_.At(0)); }), SIGSEGV);
}

TEST_P(RaceRemap, MovedPartsReadTheirPages) {
  const AttachmentId id = MapAndAttach(0, 64);
  ASSERT_TRUE(arena_.Move(8, 500, 8));
  ASSERT_TRUE(arena_.Move(40, 300, 24));
  ASSERT_TRUE(arena_.Move(304, 8, 4));  // back into the gap, elsewhere
  EXPECT_TRUE(Holds(arena_.At(0), 0, 8));
  EXPECT_TRUE(Holds(arena_.At(500), 8, 8));
  EXPECT_TRUE(Holds(arena_.At(16), 16, 24));
  EXPECT_TRUE(Holds(arena_.At(300), 40, 4));
  EXPECT_TRUE(Holds(arena_.At(8), 44, 4));
  EXPECT_TRUE(Holds(arena_.At(308), 48, 16));
  EXPECT_EQ(Stats(id).tracked_pages, 64u);
  EXPECT_EQ(Stats(id).remap_events_total, 3u);
}

TEST_P(RaceRemap, WhatWasWrittenMovesAlong) {
  MapAndAttach(0, 16);
  for (uint64_t i = 0; i < kWordsPerPage; ++i) {
    reinterpret_cast<volatile uint64_t*>(arena_.At(5))[i] = PatternWord(900, i);
  }
  ASSERT_TRUE(arena_.Move(0, 100, 16));
  EXPECT_TRUE(Holds(arena_.At(105), 900));
  EXPECT_TRUE(Holds(arena_.At(106), 6, 10));
}

// Race 9: the kernel lets another thread use the addresses before the UNMAP event is read.
TEST_P(RaceRemap, Race09_ANewRegionAtAddressesWhoseUnmapIsUnreadIsKept) {
  constexpr uint64_t kPages = 16;
  for (int round = 0; round < 200; ++round) {
    const AttachmentId old = MapAndAttach(0, kPages);
    ASSERT_TRUE(Holds(arena_.At(3), 3));
    TargetThread unmapper([&] { EXPECT_TRUE(arena_.Unmap(0, kPages)); });
    // As soon as they are free: mostly before munmap() has returned.
    ASSERT_TRUE(Eventually([&] {
      return mmap(arena_.At(0), kPages * kPageSize, PROT_READ | PROT_WRITE,
                  MAP_FIXED_NOREPLACE | MAP_ANONYMOUS | (anonymous() ? MAP_PRIVATE : MAP_SHARED),
                  -1, 0) == arena_.At(0);
    }));
    const AttachmentId young = Attach(0, kPages, 1000);
    ASSERT_TRUE(Holds(arena_.At(0), 1000, kPages)) << "round " << round;
    unmapper.Join();
    ASSERT_TRUE(Holds(arena_.At(0), 1000, kPages)) << "round " << round;
    EXPECT_EQ(Stats(young).tracked_pages, kPages);
    ASSERT_TRUE(pager_->Detach(old).ok());
    ASSERT_TRUE(pager_->Detach(young).ok());
  }
}

TEST_P(RaceRemap, Race10_AfterDontunmapBothRangesReadWhatTheyHave) {
  const AttachmentId id = MapAndAttach(0, 32);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 8));
  ASSERT_TRUE(arena_.Move(0, 100, 32, MREMAP_DONTUNMAP));
  if (anonymous()) {
    EXPECT_TRUE(IsZero(arena_.At(0), 32));
    EXPECT_TRUE(Holds(arena_.At(100), 0, 32));
  } else {
    // The same pages of the same file are at both places now, wherever they are touched first.
    EXPECT_TRUE(Holds(arena_.At(0), 0, 16));
    EXPECT_TRUE(Holds(arena_.At(100), 0, 32));
    EXPECT_TRUE(Holds(arena_.At(16), 16, 16));
  }
  EXPECT_EQ(Stats(id).remap_events_total, 1u);
}

TEST_P(RaceRemap, Race10_AFetchInFlightFollowsItsPageThroughDontunmap) {
  const AttachmentId id = MapAndAttach(0, 8);
  source_->Hold();
  std::atomic<bool> zero = false, source = false;
  TargetThread waiter([&] {
    zero = PageIsZero(arena_.At(3));  // its page has moved away from under it
    source = PageHolds(arena_.At(3), 3);
  });
  ASSERT_TRUE(EventuallyWaiting(id, 1));
  ASSERT_TRUE(arena_.Move(0, 100, 8, MREMAP_DONTUNMAP));
  source_->Release();
  waiter.Join();
  EXPECT_EQ(zero, anonymous());
  EXPECT_EQ(source, !anonymous());
  EXPECT_TRUE(Holds(arena_.At(100), 0, 8));
}

TEST_P(RaceRemap, Race10_WhatDontunmapLeftBehindCanBeUnmappedAndReused) {
  MapAndAttach(0, 32);
  ASSERT_TRUE(arena_.Move(0, 100, 32, MREMAP_DONTUNMAP));
  ASSERT_TRUE(arena_.Unmap(0, 32));
  ASSERT_TRUE(arena_.Move(116, 0, 16));  // some of it comes back
  EXPECT_TRUE(Holds(arena_.At(0), 16, 16));
  EXPECT_TRUE(Holds(arena_.At(100), 0, 16));
}

TEST_P(RaceRemap, Race10_DontunmapAgainAndAgainMovesTheSourceAlong) {
  MapAndAttach(0, 8);
  for (uint64_t step = 1; step <= 10; ++step) {
    ASSERT_TRUE(arena_.Move((step - 1) * 10, step * 10, 8, MREMAP_DONTUNMAP));
    ASSERT_TRUE(Holds(arena_.At(step * 10), 0, step % 8));
  }
  EXPECT_TRUE(Holds(arena_.At(100), 0, 8));
  if (anonymous()) {
    for (uint64_t step = 0; step < 10; ++step) EXPECT_TRUE(IsZero(arena_.At(step * 10), 8));
  }
}

TEST_P(RaceRemap, Race11_MremapOntoRegisteredMemoryDropsWhatWasThere) {
  const AttachmentId id = MapAndAttach(0, 64);
  source_->Hold();
  TargetThread waiter([&] { SignalOf([&] { PageIsZero(arena_.At(35)); }); });
  ASSERT_TRUE(EventuallyWaiting(id, 1));
  ASSERT_TRUE(arena_.Move(0, 32, 16));  // onto pages 32 to 47, one of which is on its way
  source_->Release();
  waiter.Join();
  EXPECT_TRUE(Holds(arena_.At(32), 0, 16));
  EXPECT_TRUE(Holds(arena_.At(16), 16, 16));
  EXPECT_TRUE(Holds(arena_.At(48), 48, 16));
  EXPECT_EQ(Stats(id).tracked_pages, 48u);
}

TEST_P(RaceRemap, Race11_MremapOntoMemoryOfAnotherAttachmentDropsWhatWasThere) {
  MapAndAttach(0, 16);
  const AttachmentId other = MapAndAttach(100, 16, 1000);
  EXPECT_TRUE(Holds(arena_.At(100), 1000, 4));
  ASSERT_TRUE(arena_.Move(0, 104, 8));
  EXPECT_TRUE(Holds(arena_.At(100), 1000, 4));
  EXPECT_TRUE(Holds(arena_.At(104), 0, 8));
  EXPECT_TRUE(Holds(arena_.At(112), 1012, 4));
  EXPECT_EQ(Stats(other).tracked_pages, 8u);
}

TEST_P(RaceRemap, MapFixedOverRegisteredMemoryIsOrdinaryMemory) {
  const AttachmentId id = MapAndAttach(0, 16);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 8));
  ASSERT_TRUE(arena_.Map(MemoryKind::kAnonymous, 4, 8));
  EXPECT_TRUE(IsZero(arena_.At(4), 8));
  EXPECT_TRUE(Holds(arena_.At(12), 12, 4));
  EXPECT_EQ(Stats(id).tracked_pages, 8u);
}

// Nothing is filled between the two events, so that the first is still a recent one at the second,
// and the kernel has memory where something was unmapped: but none of ours.
TEST_P(RaceRemap, MapFixedOverMemoryThatHasJustMovedIsOrdinaryMemory) {
  const AttachmentId id = MapAndAttach(0, 32);
  ASSERT_TRUE(arena_.Move(0, 100, 32));
  ASSERT_TRUE(arena_.Map(MemoryKind::kAnonymous, 118, 14));
  EXPECT_TRUE(IsZero(arena_.At(118), 14));
  EXPECT_TRUE(Holds(arena_.At(100), 0, 18));
  EXPECT_TRUE(Eventually([&] { return Stats(id).tracked_pages == 18; }));
}

TEST_P(RaceRemap, ShrunkMemoryKeepsItsFrontAndLosesItsEnd) {
  const AttachmentId id = MapAndAttach(0, 32);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 4));
  ASSERT_EQ(mremap(arena_.At(0), 32 * kPageSize, 12 * kPageSize, 0), arena_.At(0));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 12));
  EXPECT_EQ(SignalOf([&] { PageIsZero(arena_.At(12)); }), SIGSEGV);
  EXPECT_EQ(Stats(id).tracked_pages, 12u);
}

TEST_P(RaceRemap, MemoryThatShrinksAndMovesAtOnceReadsWhatIsLeft) {
  const AttachmentId id = MapAndAttach(0, 32);
  ASSERT_EQ(mremap(arena_.At(0), 32 * kPageSize, 12 * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED,
                   arena_.At(100)),
            arena_.At(100));
  EXPECT_TRUE(Holds(arena_.At(100), 0, 12));
  EXPECT_EQ(SignalOf([&] { PageIsZero(arena_.At(112)); }), SIGSEGV);
  EXPECT_EQ(Stats(id).tracked_pages, 12u);
}

TEST_P(RaceRemap, PartialMunmapsLeaveTheRestServed) {
  const AttachmentId id = MapAndAttach(0, 64);
  for (uint64_t page = 1; page < 64; page += 8) ASSERT_TRUE(arena_.Unmap(page, 2));
  for (uint64_t page = 0; page < 64; ++page) {
    if (page % 8 == 1 || page % 8 == 2) {
      EXPECT_EQ(SignalOf([&] { PageIsZero(arena_.At(page)); }), SIGSEGV) << page;
    } else {
      EXPECT_TRUE(Holds(arena_.At(page), page));
    }
  }
  EXPECT_EQ(Stats(id).tracked_pages, 48u);
}

// The range of an UNMAP event is that of the system call, which may hold memory that is not ours.
TEST_P(RaceRemap, AMunmapOfMoreThanWasRegisteredEndsOnlyWhatWas) {
  MapAndAttach(100, 16);
  const AttachmentId other = MapAndAttach(300, 16, 1000);
  ASSERT_TRUE(arena_.Map(MemoryKind::kAnonymous, 80, 10));
  ASSERT_TRUE(arena_.Unmap(50, 60));
  EXPECT_TRUE(Holds(arena_.At(110), 10, 6));
  EXPECT_TRUE(Holds(arena_.At(300), 1000, 16));
  EXPECT_EQ(Stats(other).unmap_events_total, 0u);
}

TEST_P(RaceRemap, ProtectionChangesChangeNoBytes) {
  MapAndAttach(0, 32);
  ASSERT_TRUE(arena_.Protect(8, 8, PROT_READ));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 24));
  ASSERT_TRUE(arena_.Protect(16, 8, PROT_NONE));
  EXPECT_EQ(SignalOf([&] { PageIsZero(arena_.At(17)); }), SIGSEGV);
  ASSERT_TRUE(arena_.Protect(0, 32, PROT_READ | PROT_WRITE));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 32));
}

FAULTLINE_RACES_ON_ALL_KINDS(RaceRemap);

// Growth: no event tells of it. (Shared anonymous memory cannot grow: its file keeps its size.)
class RaceGrowth : public RaceTest {
 protected:
  // Makes room behind memory of `pages` pages at page 0.
  void MapToGrow(uint64_t pages) {
    id_ = MapAndAttach(0, pages);
    ASSERT_TRUE(arena_.Unmap(pages, 512));
    if (!anonymous()) {
      ASSERT_EQ(ftruncate(arena_.memfd(), static_cast<off_t>(512 * kPageSize)), 0);
    }
  }
  bool Resize(uint64_t from, uint64_t to) {
    return mremap(arena_.At(0), from * kPageSize, to * kPageSize, 0) == arena_.At(0);
  }

  AttachmentId id_ = 0;
};

TEST_P(RaceGrowth, GrowthInPlaceReadsZeros) {
  MapToGrow(16);
  ASSERT_TRUE(Resize(16, 48));
  EXPECT_TRUE(IsZero(arena_.At(16), 32));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 16));
  EXPECT_GE(Stats(id_).stray_faults_total, 1u);
}

TEST_P(RaceGrowth, WhatIsWrittenIntoGrownMemoryStaysAndMoves) {
  MapToGrow(16);
  ASSERT_TRUE(Resize(16, 48));
  for (uint64_t i = 0; i < kWordsPerPage; ++i) {
    reinterpret_cast<volatile uint64_t*>(arena_.At(20))[i] = PatternWord(900, i);
  }
  ASSERT_TRUE(arena_.Move(0, 600, 48));
  EXPECT_TRUE(Holds(arena_.At(600), 0, 16));
  EXPECT_TRUE(Holds(arena_.At(620), 900));
  EXPECT_TRUE(IsZero(arena_.At(621), 27));
  EXPECT_TRUE(IsZero(arena_.At(616), 4));
}

TEST_P(RaceGrowth, MoveAndGrowReadsZerosInTheGrownPart) {
  MapToGrow(16);
  ASSERT_EQ(mremap(arena_.At(0), 16 * kPageSize, 64 * kPageSize, MREMAP_MAYMOVE | MREMAP_FIXED,
                   arena_.At(600)),
            arena_.At(600));
  EXPECT_TRUE(IsZero(arena_.At(616), 48));
  EXPECT_TRUE(Holds(arena_.At(600), 0, 16));
}

// The part that was cut off and comes back is fresh memory; a file still has its pages.
TEST_P(RaceGrowth, WhatWasCutOffAndGrowsAgainReadsAsFreshMemory) {
  MapToGrow(32);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 24));
  ASSERT_TRUE(Resize(32, 16));
  if (!anonymous()) {
    ASSERT_EQ(ftruncate(arena_.memfd(), static_cast<off_t>(16 * kPageSize)), 0);
    ASSERT_EQ(ftruncate(arena_.memfd(), static_cast<off_t>(32 * kPageSize)), 0);
  }
  ASSERT_TRUE(Resize(16, 32));
  EXPECT_TRUE(IsZero(arena_.At(16), 16));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 16));
}

TEST_P(RaceGrowth, WhatGrowsWhereOtherMemoryWasMappedOverItReadsZeros) {
  MapToGrow(32);
  ASSERT_TRUE(arena_.Unmap(632, 32));
  ASSERT_TRUE(arena_.Move(0, 600, 32));
  ASSERT_TRUE(arena_.Map(MemoryKind::kAnonymous, 618, 14));
  // Once the agent has asked the kernel what is there.
  EXPECT_TRUE(Eventually([&] { return Stats(id_).tracked_pages == 18; }));
  ASSERT_TRUE(arena_.Unmap(618, 14));
  if (!anonymous()) {  // the file still has its pages
    ASSERT_EQ(ftruncate(arena_.memfd(), static_cast<off_t>(18 * kPageSize)), 0);
    ASSERT_EQ(ftruncate(arena_.memfd(), static_cast<off_t>(32 * kPageSize)), 0);
  }
  ASSERT_EQ(mremap(arena_.At(600), 18 * kPageSize, 32 * kPageSize, 0), arena_.At(600));
  EXPECT_TRUE(IsZero(arena_.At(618), 14));
  EXPECT_TRUE(Holds(arena_.At(600), 0, 18));
}

TEST_P(RaceGrowth, ManyThreadsInGrownMemoryReadZeros) {
  MapToGrow(16);
  ASSERT_TRUE(Resize(16, 512));
  std::atomic<int> wrong = 0;
  std::vector<std::unique_ptr<TargetThread>> readers;
  for (int i = 0; i < 4; ++i) {
    readers.push_back(
        std::make_unique<TargetThread>([&] { wrong += NonZeroPages(arena_.At(16), 496); }));
  }
  readers.clear();
  EXPECT_EQ(wrong, 0);
}

FAULTLINE_RACES_ON(RaceGrowth, MemoryKind::kAnonymous, MemoryKind::kMemfd);

// Section 4a of the kernel notes: UNMAP events come out of order with the REMAPs of other threads.
class RaceOrder : public RaceTest {};

// Each thread moves its slots with MREMAP_FIXED over fresh mappings, for which the kernel readily
// takes the addresses that another thread's mremap() has just left: its UNMAP may be read after the
// REMAP that brings something else there.
TEST_P(RaceOrder, UnmapsThatAreReadAfterLaterRemapsTakeNothingAway) {
  constexpr uint64_t kThreads = 4, kSlotPages = 32, kSlotsEach = 3, kMoves = 1500;
  constexpr uint64_t kSlotBytes = kSlotPages * kPageSize;
  MapAndAttach(0, kThreads * kSlotsEach * kSlotPages);
  std::atomic<int> wrong = 0;
  auto work = [&](uint64_t thread) {
    std::minstd_rand random(static_cast<unsigned>(thread + 1));
    char* slots[kSlotsEach];
    uint64_t first[kSlotsEach];  // in the volume
    for (uint64_t slot = 0; slot < kSlotsEach; ++slot) {
      first[slot] = (thread * kSlotsEach + slot) * kSlotPages;
      slots[slot] = arena_.At(first[slot]);
    }
    for (uint64_t move = 0; move < kMoves; ++move) {
      const uint64_t slot = random() % kSlotsEach;
      void* to =
          mmap(nullptr, kSlotBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (mremap(slots[slot], kSlotBytes, kSlotBytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to) {
        ++wrong;
      }
      slots[slot] = static_cast<char*>(to);
      const uint64_t page = random() % kSlotPages;
      if (!PageHolds(slots[slot] + page * kPageSize, first[slot] + page)) ++wrong;
    }
    for (uint64_t slot = 0; slot < kSlotsEach; ++slot) {
      wrong += WrongPages(slots[slot], first[slot], kSlotPages);
      munmap(slots[slot], kSlotBytes);
    }
  };
  std::vector<std::unique_ptr<TargetThread>> threads;
  for (uint64_t i = 0; i < kThreads; ++i) {
    threads.push_back(std::make_unique<TargetThread>([&, i] { work(i); }));
  }
  threads.clear();
  EXPECT_EQ(wrong, 0);
}

// As above, with the addresses handed on while the mover is still inside its mremap(): the other
// thread's REMAP onto them may even be read before the UNMAP of the first.
TEST_P(RaceOrder, AddressesThatAreTakenWhileTheirUnmapIsUnreadKeepWhatCame) {
  constexpr uint64_t kPages = 8, kRounds = 2000;
  MapAndAttach(0, 2 * kPages);  // A at 0, B behind it
  std::atomic<int> wrong = 0;
  uint64_t a = 0, b = kPages, spare = 100;
  for (uint64_t round = 0; round < kRounds && wrong == 0; ++round) {
    const uint64_t left = a;
    TargetThread mover([&] { wrong += arena_.Move(left, spare, kPages) ? 0 : 1; });
    // Free as soon as a mapping that must not replace anything succeeds there.
    if (!Eventually([&] {
          return mmap(arena_.At(left), kPages * kPageSize, PROT_READ,
                      MAP_FIXED_NOREPLACE | MAP_ANONYMOUS | MAP_PRIVATE, -1, 0) == arena_.At(left);
        })) {
      FAIL() << "the addresses were never left";
    }
    if (!arena_.Move(b, left, kPages)) ++wrong;
    const uint64_t page = round % kPages;
    if (!PageHolds(arena_.At(left + page), kPages + page)) ++wrong;
    mover.Join();
    if (!PageHolds(arena_.At(spare + page), page)) ++wrong;
    a = spare;
    spare = std::exchange(b, left);
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(Holds(arena_.At(a), 0, kPages));
  EXPECT_TRUE(Holds(arena_.At(b), kPages, kPages));
}

FAULTLINE_RACES_ON_ALL_KINDS(RaceOrder);

}  // namespace
}  // namespace faultline
