// SPDX-License-Identifier: Apache-2.0
#include "client/address_space.h"

#include <gtest/gtest.h>
#include <string.h>

#include <array>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <map>
#include <random>
#include <set>

namespace faultline {
namespace {

constexpr uint64_t P = kPageSize;

uint32_t FirstSeed() {
  const char* seed = getenv("FAULTLINE_SEED");
  return seed != nullptr ? static_cast<uint32_t>(strtoul(seed, nullptr, 10)) : 1;
}

class AddressSpaceTest : public testing::Test {
 protected:
  // Two regions with a hole between them: pages 10 to 13 at 0x10000, pages 20 and 21 at 0x20000.
  AddressSpace space_{{{0x10000, 4 * P, 10 * P}, {0x20000, 2 * P, 20 * P}}};

  std::optional<PageIndex> PageAt(uint64_t address) {
    SharedLock lock(space_.map_changing_lock());
    return space_.PageAt(address);
  }
  std::optional<AddressSpace::Located> Locate(uint64_t first, uint64_t count) {
    SharedLock lock(space_.map_changing_lock());
    return space_.Locate({PageIndex(first), PageCount(count)});
  }
  void Remap(uint64_t from, uint64_t to, uint64_t length) {
    ExclusiveLock lock(space_.map_changing_lock());
    space_.Remap(from, to, length);
  }
  void Unmap(uint64_t start, uint64_t length) {
    ExclusiveLock lock(space_.map_changing_lock());
    space_.Unmap({start, length}, [this](AddressRange) { return mapped_; });
  }
  void Settle() {
    ExclusiveLock lock(space_.map_changing_lock());
    space_.NoteSettled();
    space_.Settle();
    EXPECT_FALSE(space_.unsettled());
  }

  std::vector<AddressRange> mapped_;  // what the kernel says when it is asked
};

TEST_F(AddressSpaceTest, WhatTheKernelSaysOfSharedMemoryReplacesWhatWasTakenForIt) {
  AddressSpace space({{0x10000, 4 * P, 10 * P, true}, {0x20000, 2 * P, 20 * P}});
  ExclusiveLock lock(space.map_changing_lock());
  space.Remap(0x10000, 0x40000, 2 * P);  // leaves aliases, and something to be unmapped
  ASSERT_EQ(space.PageAt(0x10000), PageIndex(10));
  space.SetShared({{{0x30000, 3 * P}, PageIndex(10), true},
                   {{0x50000, 4 * P}, PageIndex(12), true}});  // 12 is there twice, 14 is new
  EXPECT_FALSE(space.unsettled());
  space.AwaitSettling();
  space.SetShared(
      {{{0x30000, 3 * P}, PageIndex(10), true}, {{0x50000, 4 * P}, PageIndex(12), true}});
  EXPECT_TRUE(space.unsettled()) << "a child of its own waits";
  for (const uint64_t gone : {0x10000, 0x12000, 0x40000}) {
    EXPECT_EQ(space.PageAt(gone), std::nullopt) << gone;
  }
  EXPECT_EQ(space.PageAt(0x20000), PageIndex(20)) << "private memory stays";
  EXPECT_EQ(space.PageAt(0x32000), PageIndex(12));
  EXPECT_EQ(space.PageAt(0x50000), PageIndex(12));
  EXPECT_EQ(space.PageAt(0x53fff), PageIndex(15));
  EXPECT_EQ(space.Locate({PageIndex(12), PageCount(1)})->address, 0x32000u);
  EXPECT_EQ(space.Locate({PageIndex(13), PageCount(1)})->address, 0x51000u);
  ASSERT_EQ(space.aliases().size(), 1u);
  EXPECT_EQ(space.aliases()[0].range, (AddressRange{0x50000, P}));
}

TEST_F(AddressSpaceTest, AddressesInsideRegionsHavePagesAndOthersHaveNone) {
  EXPECT_EQ(PageAt(0x10000), PageIndex(10));
  EXPECT_EQ(PageAt(0x13fff), PageIndex(13));
  EXPECT_EQ(PageAt(0x14000), std::nullopt);
  EXPECT_EQ(PageAt(0xffff), std::nullopt);
  EXPECT_EQ(PageAt(0x21000), PageIndex(21));
  EXPECT_EQ(PageAt(~uint64_t{0}), std::nullopt);
}

TEST_F(AddressSpaceTest, LocateReturnsTheLongestRunInOnePiece) {
  auto located = Locate(11, 100);
  ASSERT_TRUE(located);
  EXPECT_EQ(located->address, 0x11000u);
  EXPECT_EQ(located->count, PageCount(3));
  EXPECT_FALSE(Locate(14, 6));
  EXPECT_FALSE(Locate(9, 6));
}

TEST_F(AddressSpaceTest, UnmapInTheMiddleLeavesBothEnds) {
  Unmap(0x11000, 2 * P);
  EXPECT_EQ(PageAt(0x10000), PageIndex(10));
  EXPECT_EQ(PageAt(0x11000), std::nullopt);
  EXPECT_EQ(PageAt(0x12000), std::nullopt);
  EXPECT_EQ(PageAt(0x13000), PageIndex(13));
  EXPECT_FALSE(Locate(11, 1));
  EXPECT_EQ(Locate(13, 1)->address, 0x13000u);
}

TEST_F(AddressSpaceTest, RemapMovesPagesToTheirNewAddress) {
  Remap(0x11000, 0x50000, 2 * P);
  EXPECT_EQ(PageAt(0x11000), std::nullopt);
  EXPECT_EQ(PageAt(0x50000), PageIndex(11));
  EXPECT_EQ(PageAt(0x51000), PageIndex(12));
  EXPECT_EQ(Locate(12, 1)->address, 0x51000u);
  EXPECT_EQ(PageAt(0x13000), PageIndex(13));
}

TEST_F(AddressSpaceTest, RemapOntoARegionReplacesIt) {
  Unmap(0x20000, 2 * P);  // as the kernel reports MREMAP_FIXED
  Remap(0x10000, 0x20000, 2 * P);
  Unmap(0x10000, 2 * P);
  EXPECT_EQ(PageAt(0x20000), PageIndex(10));
  EXPECT_EQ(PageAt(0x21000), PageIndex(11));
  EXPECT_FALSE(Locate(20, 2));
  Settle();
  EXPECT_EQ(PageAt(0x20000), PageIndex(10));
}

TEST_F(AddressSpaceTest, AnUnmapThatIsReadLateDoesNotHitWhatWasMovedThere) {
  Remap(0x10000, 0x50000, 4 * P);  // its UNMAP is still to come
  Remap(0x20000, 0x10000, 2 * P);  // another thread's
  Unmap(0x10000, 4 * P);
  Unmap(0x20000, 2 * P);
  EXPECT_EQ(PageAt(0x10000), PageIndex(20));
  EXPECT_EQ(PageAt(0x50000), PageIndex(10));
  EXPECT_EQ(space_.late_unmaps(), 1u);
  EXPECT_EQ(space_.ambiguous(), 0u);
}

TEST_F(AddressSpaceTest, ARemapThatIsReadLateMovesWhatWasThereBefore) {
  Remap(0x20000, 0x10000, 2 * P);  // onto addresses that are still taken: those have moved before
  Remap(0x10000, 0x50000, 2 * P);
  EXPECT_EQ(PageAt(0x10000), PageIndex(20));
  EXPECT_EQ(PageAt(0x50000), PageIndex(10));
  Unmap(0x10000, 2 * P);
  Unmap(0x20000, 2 * P);
  EXPECT_EQ(PageAt(0x10000), PageIndex(20));
  EXPECT_EQ(PageAt(0x11000), PageIndex(21));
  EXPECT_EQ(PageAt(0x12000), PageIndex(12));
}

TEST_F(AddressSpaceTest, AMunmapThatIsReadLateDropsWhatWasThereBefore) {
  Remap(0x20000, 0x10000, 2 * P);
  Unmap(0x10000, 4 * P);  // of the pages 10 to 13
  EXPECT_EQ(PageAt(0x10000), PageIndex(20));
  EXPECT_EQ(PageAt(0x12000), std::nullopt);
  EXPECT_FALSE(Locate(10, 1));
}

TEST_F(AddressSpaceTest, TheUnmapThatDontunmapNeverSendsIsForgottenOnceSettled) {
  Remap(0x10000, 0x50000, 4 * P);  // MREMAP_DONTUNMAP
  Settle();
  Remap(0x20000, 0x10000, 2 * P);
  Unmap(0x20000, 2 * P);
  Settle();
  Unmap(0x10000, 2 * P);  // a real one
  EXPECT_EQ(PageAt(0x10000), std::nullopt);
}

TEST_F(AddressSpaceTest, TheKernelIsAskedWhereTheEventsDoNotTell) {
  // Something was moved to where nothing was known to be; an UNMAP from there may be of memory that
  // never was ours and was unmapped before, or of what was moved there.
  Remap(0x10000, 0x50000, 4 * P);
  mapped_ = {{0x50000, P}};
  Unmap(0x50000, 4 * P);
  EXPECT_EQ(PageAt(0x50000), PageIndex(10));
  EXPECT_EQ(PageAt(0x51000), std::nullopt);
}

TEST_F(AddressSpaceTest, WhatAnUnmapHasTakenDoesNotComeBackOnceSomethingElseIsThere) {
  Remap(0x10000, 0x50000, 2 * P);
  Unmap(0x10000, 2 * P);
  Unmap(0x50000, 2 * P);  // the kernel has nothing there: it is gone, or has moved on
  Remap(0x20000, 0x50000, 2 * P);
  Remap(0x50000, 0x60000, 2 * P);
  EXPECT_EQ(PageAt(0x60000), PageIndex(20));
}

TEST_F(AddressSpaceTest, WhatAnUnmapSeemsToHaveTakenMayHaveMovedOn) {
  Remap(0x10000, 0x50000, 2 * P);
  Unmap(0x10000, 2 * P);
  Unmap(0x50000, 2 * P);  // of memory that was there before and was in no region
  Remap(0x50000, 0x60000, 2 * P);
  EXPECT_EQ(PageAt(0x60000), PageIndex(10));
}

TEST_F(AddressSpaceTest, AnUnmapThatTheKernelContradictedWasAboutWhatIsReplaced) {
  Remap(0x10000, 0x50000, 2 * P);
  Unmap(0x10000, 2 * P);
  mapped_ = {{0x50000, 2 * P}};
  Unmap(0x50000, 2 * P);  // the kernel has memory there: the next one's, as it turns out
  Remap(0x20000, 0x50000, 2 * P);
  Remap(0x50000, 0x60000, 2 * P);
  EXPECT_EQ(PageAt(0x60000), PageIndex(20));
}

TEST_F(AddressSpaceTest, NextPagesFindsEachRegionInTheOrderOfTheVolume) {
  SharedLock lock(space_.map_changing_lock());
  EXPECT_EQ(space_.NextPages(PageIndex(0)), (PageRange{PageIndex(10), PageCount(4)}));
  EXPECT_EQ(space_.NextPages(PageIndex(12)), (PageRange{PageIndex(12), PageCount(2)}));
  EXPECT_EQ(space_.NextPages(PageIndex(14)), (PageRange{PageIndex(20), PageCount(2)}));
  EXPECT_EQ(space_.NextPages(PageIndex(22)), std::nullopt);
}

TEST_F(AddressSpaceTest, AfterASecondMappingOfSharedMemoryStrayAddressesAreUndeclared) {
  Remap(0x10000, 0x50000, 0);
  SharedLock lock(space_.map_changing_lock());
  EXPECT_TRUE(space_.IsUndeclared(0x50000));
}

TEST_F(AddressSpaceTest, RangesBeyondTwoGiBAreHandledExactly) {
  constexpr uint64_t kBig = uint64_t{3} << 30;
  AddressSpace space({{uint64_t{1} << 40, kBig, 0}});
  ExclusiveLock lock(space.map_changing_lock());
  space.Remap(uint64_t{1} << 40, uint64_t{2} << 40, kBig);
  EXPECT_EQ(space.PageAt((uint64_t{2} << 40) + kBig - 1), PageIndex(kBig / P - 1));
  space.NoteSettled();
  space.Settle();
  space.Unmap({uint64_t{2} << 40, kBig - P},
              [](AddressRange) { return std::vector<AddressRange>(); });
  EXPECT_EQ(space.Locate({PageIndex(kBig / P - 1), PageCount(1)})->address,
            (uint64_t{2} << 40) + kBig - P);
  EXPECT_FALSE(space.Locate({PageIndex(0), PageCount(1)}));
}

// A kernel in which threads move and unmap memory one after the other, while the events that each
// of them raises are read in any order that keeps each thread's own, a thread waiting for its own.
class ReorderingKernel {
 public:
  static constexpr uint64_t kBase = 0x100000;
  static constexpr uint64_t kSlots = 40;  // of one page
  static constexpr size_t kThreads = 4;
  static constexpr uint64_t kNoPage = ~uint64_t{0};

  ReorderingKernel(uint32_t seed, uint64_t pages) : random_(seed) {
    for (uint64_t i = 0; i < pages; ++i) truth_[i] = i;
  }

  // One step of anyone: a thread acts, or the oldest event of one is read into `space`.
  void Step(AddressSpace& space) {
    const size_t thread = random_() % kThreads;
    std::deque<Event>& events = pending_[thread];
    if (events.empty()) {
      Act(thread);
      return;
    }
    Deliver(space, events.front());
    events.pop_front();
  }
  void DeliverAll(AddressSpace& space) {
    for (std::deque<Event>& events : pending_) {
      for (const Event& event : events) Deliver(space, event);
      events.clear();
    }
  }
  // Nothing is outstanding.
  void NoteSettled() {
    left_.clear();
    for (const auto& [slot, page] : truth_) {
      if (page == kNoPage) left_.insert(slot);
    }
  }
  // Slot -> page, now; kNoPage for registered memory that was moved away from.
  const std::map<uint64_t, uint64_t>& truth() const { return truth_; }

 private:
  struct Event {
    bool remap;
    uint64_t slot, to, count;
  };

  static AddressRange RangeOf(uint64_t slot, uint64_t count) {
    return {kBase + slot * P, count * P};
  }
  bool Taken(uint64_t slot, uint64_t count) const {
    const auto next = truth_.lower_bound(slot);
    return next != truth_.end() && next->first < slot + count;
  }

  // Whether someone has all of the range's memory at his disposal.
  bool IsSettled(uint64_t slot, uint64_t count) const {
    for (uint64_t i = slot; i < slot + count; ++i) {
      const auto mover = mover_.find(i);
      if (mover != mover_.end() && !pending_[mover->second].empty()) return false;
    }
    return true;
  }

  void Act(size_t thread) {
    std::deque<Event>* const events = &pending_[thread];
    const uint64_t count = 1 + random_() % 3;
    const uint64_t from = random_() % (kSlots - count), to = random_() % (kSlots - count);
    // Each op as mremap and munmap do it: all of the change at once, and then the events.
    for (uint64_t i = 0; i < count; ++i) {
      const auto slot = truth_.find(from + i);
      if (slot == truth_.end()) return;
      // Memory that was left behind is told from what comes after it once that is settled.
      if (slot->second == kNoPage && left_.count(from + i) == 0) return;
    }
    if (!IsSettled(from, count) || (Taken(to, count) && !IsSettled(to, count))) return;
    const bool overlap = from < to + count && to < from + count;
    if (random_() % 16 == 0 && truth_.size() > 8) {
      events->push_back({false, from, 0, count});
      for (uint64_t i = 0; i < count; ++i) truth_.erase(from + i);
    } else if (!overlap) {
      if (Taken(to, count)) events->push_back({false, to, 0, count});  // MREMAP_FIXED
      const bool dontunmap = random_() % 4 == 0;
      for (uint64_t i = 0; i < count; ++i) {
        truth_[to + i] = truth_[from + i];
        truth_.erase(from + i);
        left_.erase(from + i);
        left_.erase(to + i);
        if (dontunmap) truth_[from + i] = kNoPage;
        mover_[to + i] = mover_[from + i] = thread;
      }
      events->push_back({true, from, to, count});
      if (!dontunmap) events->push_back({false, from, 0, count});
    }
  }

  void Deliver(AddressSpace& space, const Event& event) {
    ExclusiveLock lock(space.map_changing_lock());
    space.Settle();
    if (event.remap) {
      space.Remap(RangeOf(event.slot, 1).start, RangeOf(event.to, 1).start, event.count * P);
    } else {
      space.Unmap(RangeOf(event.slot, event.count), [&](AddressRange range) {
        std::vector<AddressRange> mapped;
        for (uint64_t at = range.start; at < range.end(); at += P) {
          if (truth_.count((at - kBase) / P) > 0) mapped.push_back({at, P});
        }
        return mapped;
      });
    }
  }

  std::mt19937 random_;
  std::map<uint64_t, uint64_t> truth_;
  std::set<uint64_t> left_;           // slots of memory without pages that the monitor knows of
  std::map<uint64_t, size_t> mover_;  // slot -> the thread whose call moved memory there
  std::array<std::deque<Event>, kThreads> pending_;
};

// Of an agent that starts where another has died.
std::unique_ptr<AddressSpace> Successor(AddressSpace& space) {
  auto successor = std::make_unique<AddressSpace>(std::vector<Mapping>());
  SharedLock lock(space.map_changing_lock());
  ExclusiveLock successor_lock(successor->map_changing_lock());
  EXPECT_TRUE(successor->Decode(space.Encode()));
  return successor;
}

TEST(AddressSpaceModel, EventsOfSeveralThreadsInAnyOrderLeadToTheTrueMap) {
  const uint32_t first = FirstSeed();
  int compared = 0, ambiguous = 0;
  for (uint32_t seed = first; seed < first + 2000; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    constexpr uint64_t kPages = 24;
    auto owned = std::make_unique<AddressSpace>(
        std::vector<Mapping>{{ReorderingKernel::kBase, kPages * P, 0}});
    ReorderingKernel kernel(seed, kPages);
    for (int round = 0; round < 10; ++round) {
      for (int step = 0; step < 20; ++step) {
        kernel.Step(*owned);
        // Some agents die between two events, and others go on.
        if (seed % 2 == 0 && step % 7 == 3 && owned->ambiguous() == 0) owned = Successor(*owned);
      }
      AddressSpace& space = *owned;
      kernel.DeliverAll(space);
      // The events did not tell everything: such runs are counted, and can be told from the rest.
      if (space.ambiguous() > 0) break;
      {
        ExclusiveLock lock(space.map_changing_lock());
        space.NoteSettled();
        space.Settle();
        kernel.NoteSettled();
        for (uint64_t slot = 0; slot < ReorderingKernel::kSlots; ++slot) {
          const auto actual = space.PageAt(ReorderingKernel::kBase + slot * P);
          const auto expected = kernel.truth().find(slot);
          const bool has_page =
              expected != kernel.truth().end() && expected->second != ReorderingKernel::kNoPage;
          ASSERT_EQ(actual.has_value(), has_page) << "slot " << slot << " round " << round;
          if (actual) {
            ASSERT_EQ(actual->raw(), expected->second) << "slot " << slot;
          }
        }
      }
      ++compared;
    }
    ambiguous += owned->ambiguous() > 0;
  }
  EXPECT_GT(compared, 1000);
  std::cout << compared << " maps compared, " << ambiguous << " of 2000 runs ambiguous\n";
}

TEST_F(AddressSpaceTest, BytesThatAreNoMapChangeNothing) {
  Remap(0x10000, 0x30000, 2 * P);
  ExclusiveLock lock(space_.map_changing_lock());
  const std::string bytes = space_.Encode();
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(space_.Decode(bytes.substr(0, length))) << length;
  }
  EXPECT_FALSE(space_.Decode(bytes + std::string(8, '\0')));
  EXPECT_FALSE(space_.Decode(std::string(bytes.size(), '\xff')));
  EXPECT_EQ(space_.Encode(), bytes);
}

TEST_F(AddressSpaceTest, RegionsThatCannotBeAreNoMap) {
  const AddressSpace two({{0x10000, 2 * P, 0}, {0x20000, P, 9 * P}});
  SharedLock lock_two(two.map_changing_lock());
  const std::string bytes = two.Encode();
  ExclusiveLock lock(space_.map_changing_lock());
  const std::string before = space_.Encode();
  // Behind their number, each region is its start, length, first page, and whether it is shared.
  constexpr size_t kSecond = 5;
  const auto with = [&bytes](size_t word, uint64_t value) {
    std::string changed = bytes;
    memcpy(changed.data() + word * sizeof value, &value, sizeof value);
    return changed;
  };
  EXPECT_FALSE(space_.Decode(with(kSecond, 0x11000))) << "overlaps";
  EXPECT_FALSE(space_.Decode(with(kSecond, 0x0))) << "not ascending";
  EXPECT_FALSE(space_.Decode(with(kSecond, 0x20001))) << "not aligned";
  EXPECT_FALSE(space_.Decode(with(kSecond + 1, 0))) << "empty";
  EXPECT_FALSE(space_.Decode(with(kSecond + 1, -P))) << "around the end of all addresses";
  EXPECT_FALSE(space_.Decode(with(kSecond + 2, kMaxVolumePages))) << "no such page";
  EXPECT_EQ(space_.Encode(), before);
  EXPECT_TRUE(space_.Decode(with(kSecond, 0x12000)));
}

// Against a plain map from page address to page index.
TEST(AddressSpaceModel, RandomRemapsAndUnmapsAgreeWithAFlatMap) {
  const uint32_t seed = FirstSeed();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  AddressSpace space({{0x100000, 32 * P, 0}, {0x200000, 32 * P, 64 * P}});
  std::map<uint64_t, uint64_t> model;
  for (uint64_t i = 0; i < 32; ++i) model[0x100000 + i * P] = i, model[0x200000 + i * P] = 64 + i;

  for (int step = 0; step < 2000; ++step) {
    const uint64_t from = 0x100000 + random() % 400 * P;
    const uint64_t to = 0x100000 + random() % 400 * P;
    const uint64_t pages = 1 + random() % 40;
    ExclusiveLock lock(space.map_changing_lock());
    space.NoteSettled();
    space.Settle();
    if (random() % 4 == 0 && model.size() > 16) {
      space.Unmap({from, (pages % 3 + 1) * P}, [](AddressRange range) {
        ADD_FAILURE() << "asked for 0x" << std::hex << range.start;
        return std::vector<AddressRange>();
      });
      for (uint64_t i = 0; i < pages % 3 + 1; ++i) model.erase(from + i * P);
    } else {
      if (from < to + pages * P && to < from + pages * P) continue;  // mremap refuses overlap
      space.Remap(from, to, pages * P);
      for (uint64_t i = 0; i < pages; ++i) {
        model.erase(to + i * P);
        if (auto node = model.extract(from + i * P)) {
          node.key() = to + i * P;
          model.insert(std::move(node));
        }
      }
    }
    for (uint64_t i = 0; i < 500; ++i) {
      const uint64_t address = 0x100000 + i * P;
      const auto expected = model.find(address);
      const auto actual = space.PageAt(address);
      ASSERT_EQ(actual.has_value(), expected != model.end()) << "step " << step;
      if (!actual) continue;
      ASSERT_EQ(actual->raw(), expected->second) << "step " << step;
      ASSERT_EQ(space.Locate(PageRange::Single(*actual))->address, address) << "step " << step;
    }
  }
}

}  // namespace
}  // namespace faultline
