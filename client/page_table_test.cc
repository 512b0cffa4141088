// SPDX-License-Identifier: Apache-2.0
#include "client/page_table.h"

#include <gtest/gtest.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <random>
#include <string>
#include <thread>

#include "proto/page_testing.h"

namespace faultline {
namespace {

std::unique_ptr<PageTable> NewTable(uint64_t first, uint64_t count,
                                    std::vector<PageRange> shared = {}) {
  return *PageTable::Create(Pages(first, count), std::move(shared));
}

// Bytes of this process that are in memory.
int64_t ResidentBytes() {
  unsigned long long size = 0, resident = 0;
  FILE* file = fopen("/proc/self/statm", "re");
  EXPECT_NE(file, nullptr);
  EXPECT_EQ(fscanf(file, "%llu %llu", &size, &resident), 2);
  fclose(file);
  return static_cast<int64_t>(resident) * sysconf(_SC_PAGESIZE);
}

TEST(PageTable, FreshPagesAreAbsent) {
  auto table = NewTable(100, 50);
  for (uint64_t i = 100; i < 150; ++i) EXPECT_EQ(table->Get(PageIndex(i)), PageState::kAbsent);
}

TEST(PageTable, LegalChangesAreMadeAndCounted) {
  auto table = NewTable(0, 10);
  EXPECT_TRUE(table->Set(PageIndex(1), PageState::kPresent));
  EXPECT_TRUE(table->Set(PageIndex(2), PageState::kPresent));
  EXPECT_TRUE(table->Set(PageIndex(2), PageState::kZero));
  EXPECT_TRUE(table->Set(PageIndex(3), PageState::kPoisoned));
  EXPECT_EQ(table->CountOf(PageState::kPresent), PageCount(1));
  EXPECT_EQ(table->CountOf(PageState::kZero), PageCount(1));
  EXPECT_EQ(table->CountOf(PageState::kPoisoned), PageCount(1));
}

TEST(PageTable, IllegalChangesLeaveThePageAsItIs) {
  auto table = NewTable(0, 10);
  ASSERT_TRUE(table->Set(PageIndex(1), PageState::kPresent));
  EXPECT_FALSE(table->Set(PageIndex(1), PageState::kPoisoned));
  EXPECT_FALSE(table->Set(PageIndex(1), PageState::kAbsent));
  EXPECT_EQ(table->Get(PageIndex(1)), PageState::kPresent);
}

TEST(PageTable, RunsEndWhereTheStateChanges) {
  auto table = NewTable(5, 10);
  ASSERT_TRUE(table->Set(PageIndex(8), PageState::kZero));
  EXPECT_EQ(table->RunOfSameState(Pages(5, 10)), PageCount(3));
  EXPECT_EQ(table->RunOfSameState(Pages(8, 7)), PageCount(1));
  EXPECT_EQ(table->RunOfSameState(Pages(9, 2)), PageCount(2));
}

TEST(PageTable, CountsTheStatesOfAnyPages) {
  auto table = NewTable(1000, 20'000, {Pages(9000, 100)});
  table->SetAll(Pages(3000, 7000), PageState::kPresent);
  table->Set(PageIndex(5001), PageState::kZero);
  const auto count = [&](PageRange pages, uint64_t stride) {
    PageStateCounts counts = {};
    table->AddStates(pages, stride, &counts);
    return counts;
  };
  for (const PageRange pages : {Pages(1000, 20'000), Pages(2999, 1), Pages(2999, 13),
                                Pages(5000, 3), Pages(8990, 150), Pages(9997, 4001)}) {
    PageStateCounts expected = {};
    for (PageIndex page = pages.first; page < pages.end(); ++page) {
      ++expected[static_cast<size_t>(table->Get(page))];
    }
    EXPECT_EQ(count(pages, 1), expected) << pages.first.raw();
  }
  // By a sample, which has not seen the page that differs: all of them, nonetheless.
  const PageStateCounts sampled = count(Pages(4096, 4096), 512);
  EXPECT_EQ(sampled[static_cast<size_t>(PageState::kPresent)], 4096u);
}

TEST(PageTable, RunsGoOnOverChunksThatWereNeverChanged) {
  auto table = NewTable(3, 1 << 20);
  ASSERT_TRUE(table->Set(PageIndex(3 + 900'000), PageState::kPresent));
  EXPECT_EQ(table->RunOfSameState(Pages(10, 1'000'000)), PageCount(900'003 - 10));
}

TEST(PageTable, SettingAllLeavesPagesWhoseChangeIsNotLegal) {
  auto table = NewTable(0, 10'000);
  table->SetAll(Pages(5000, 7), PageState::kPresent);
  ASSERT_TRUE(table->Set(PageIndex(5100), PageState::kZero));
  table->SetAll(Pages(0, 10'000), PageState::kPoisoned);
  EXPECT_EQ(table->CountOf(PageState::kPresent), PageCount(7));
  EXPECT_EQ(table->CountOf(PageState::kZero), PageCount(0));
  EXPECT_EQ(table->CountOf(PageState::kPoisoned), PageCount(10'000 - 7));
  EXPECT_EQ(table->RunOfSameState(Pages(0, 10'000)), PageCount(5000));
  EXPECT_EQ(table->RunOfSameState(Pages(5000, 5000)), PageCount(7));
}

TEST(PageTable, ChangesAfterACloneAreSeenByTheOneThatMadeThem) {
  auto parent = NewTable(0, 10'000);
  parent->SetAll(Pages(0, 100), PageState::kPresent);
  auto child = *parent->Clone();
  ASSERT_TRUE(parent->Set(PageIndex(1), PageState::kZero));
  ASSERT_TRUE(child->Set(PageIndex(2), PageState::kZero));
  child->SetAll(Pages(200, 9000), PageState::kPresent);
  EXPECT_EQ(parent->Get(PageIndex(1)), PageState::kZero);
  EXPECT_EQ(parent->Get(PageIndex(2)), PageState::kPresent);
  EXPECT_EQ(parent->Get(PageIndex(5000)), PageState::kAbsent);
  EXPECT_EQ(parent->CountOf(PageState::kPresent), PageCount(99));
  EXPECT_EQ(child->Get(PageIndex(1)), PageState::kPresent);
  EXPECT_EQ(child->Get(PageIndex(2)), PageState::kZero);
  EXPECT_EQ(child->Get(PageIndex(5000)), PageState::kPresent);
  EXPECT_EQ(child->CountOf(PageState::kPresent), PageCount(9099));
}

TEST(PageTable, ACloneOutlivesItsParent) {
  auto parent = NewTable(0, 10'000);
  parent->SetAll(Pages(10, 20), PageState::kPresent);
  auto child = *parent->Clone();
  auto grandchild = *child->Clone();
  ASSERT_TRUE(child->Set(PageIndex(10), PageState::kZero));
  parent.reset();
  child.reset();
  EXPECT_EQ(grandchild->RunOfSameState(Pages(10, 100)), PageCount(20));
  ASSERT_TRUE(grandchild->Set(PageIndex(10), PageState::kZero));
  EXPECT_EQ(grandchild->CountOf(PageState::kPresent), PageCount(19));
}

TEST(PageTable, PagesOfSharedMemoryHaveOneStateInAllClones) {
  auto parent = NewTable(1000, 20'000, {Pages(1010, 10), Pages(5000, 6000)});
  ASSERT_TRUE(parent->Set(PageIndex(1010), PageState::kPresent));
  auto child = *parent->Clone();
  // From private memory into shared memory and out of it again.
  child->SetAll(Pages(1005, 20), PageState::kZero);
  ASSERT_TRUE(parent->Set(PageIndex(5001), PageState::kPresent));
  EXPECT_EQ(parent->Get(PageIndex(1009)), PageState::kAbsent);
  EXPECT_EQ(parent->Get(PageIndex(1010)), PageState::kZero);
  EXPECT_EQ(parent->Get(PageIndex(1019)), PageState::kZero);
  EXPECT_EQ(parent->Get(PageIndex(1020)), PageState::kAbsent);
  EXPECT_EQ(child->Get(PageIndex(5001)), PageState::kPresent);
  EXPECT_EQ(parent->CountOf(PageState::kZero), PageCount(10));
  EXPECT_EQ(child->CountOf(PageState::kZero), PageCount(20));
  EXPECT_EQ(child->CountOf(PageState::kPresent), PageCount(1));
  EXPECT_EQ(child->RunOfSameState(Pages(1005, 100)), PageCount(20));
  EXPECT_EQ(parent->RunOfSameState(Pages(1020, 10'000)), PageCount(5001 - 1020));
}

TEST(PageTable, ATableForAHugeVolumeCostsOnlyWhatIsTouched) {
  const int64_t before = ResidentBytes();
  constexpr uint64_t kPages = uint64_t{1} << 36;  // 256 TiB of volume
  auto table = NewTable(0, kPages, {Pages(kPages - 10, 5)});
  ASSERT_TRUE(table->Set(PageIndex(kPages - 1), PageState::kPresent));
  ASSERT_TRUE(table->Set(PageIndex(kPages - 10), PageState::kPresent));
  for (uint64_t i = 0; i < 100; ++i) {
    ASSERT_TRUE(table->Set(PageIndex(i * (kPages / 100)), PageState::kPresent));
  }
  auto clone = *table->Clone();
  EXPECT_EQ(clone->CountOf(PageState::kPresent), PageCount(102));
  EXPECT_LT(ResidentBytes() - before, 16 << 20);
}

TEST(PageTable, DiscardingATebibyteCostsNoByteForEachPage) {
  const int64_t before = ResidentBytes();
  constexpr uint64_t kPages = uint64_t{1} << 28;
  auto table = NewTable(0, kPages);
  ASSERT_TRUE(table->Set(PageIndex(kPages / 2), PageState::kPresent));
  EXPECT_EQ(table->RunOfSameState(Pages(0, kPages)), PageCount(kPages / 2));
  table->SetAll(Pages(1, kPages - 1), PageState::kZero);
  EXPECT_EQ(table->CountOf(PageState::kZero), PageCount(kPages - 1));
  EXPECT_EQ(table->RunOfSameState(Pages(1, kPages - 1)), PageCount(kPages - 1));
  EXPECT_LT(ResidentBytes() - before, 32 << 20);  // of 256 MiB
}

// A table and what it should hold, kept in the plainest way.
struct Modelled {
  std::unique_ptr<PageTable> table;
  std::vector<PageState> own;
};

class PageTableModel : public testing::TestWithParam<uint32_t> {
 protected:
  static constexpr uint64_t kFirst = 777;
  static constexpr uint64_t kCount = 5 * 4096 + 300;

  PageTableModel() : random_(GetParam()) {
    tables_.push_back({NewTable(kFirst, kCount, shared_ranges_),
                       std::vector<PageState>(kCount, PageState::kAbsent)});
  }

  uint64_t Below(uint64_t limit) { return random_() % limit; }

  // Where the state of page `slot` is kept.
  PageState& At(Modelled& modelled, uint64_t slot) {
    const PageIndex page(kFirst + slot);
    const bool is_shared =
        std::any_of(shared_ranges_.begin(), shared_ranges_.end(),
                    [&](const PageRange& shared) { return shared.Contains(page); });
    return is_shared ? shared_[slot] : modelled.own[slot];
  }

  // Often all of one chunk, or of several.
  PageRange AnyRange() {
    uint64_t first = Below(kCount), count = Below(kCount - first) + 1;
    if (Below(2) == 0) {
      first = Below(5) * 4096;
      count = (1 + Below((kCount - first) / 4096)) * 4096;
    }
    return Pages(kFirst + first, count);
  }

  void SetAll(Modelled& modelled) {
    const PageRange range = AnyRange();
    const auto state = static_cast<PageState>(Below(kPageStates));
    modelled.table->SetAll(range, state);
    for (uint64_t i = 0; i < range.count.raw(); ++i) {
      PageState& at = At(modelled, range.first.raw() - kFirst + i);
      if (IsLegalChange(at, state)) at = state;
    }
  }

  void SetSome(Modelled& modelled) {
    for (int i = 0; i < 50; ++i) {
      const uint64_t slot = Below(kCount);
      const auto state = static_cast<PageState>(Below(kPageStates));
      PageState& at = At(modelled, slot);
      const bool legal = IsLegalChange(at, state);
      ASSERT_EQ(modelled.table->Set(PageIndex(kFirst + slot), state), legal);
      if (legal) at = state;
    }
  }

  void CloneOrDrop() {
    const uint64_t which = Below(tables_.size());
    if (tables_.size() < 4) {
      tables_.push_back({*tables_[which].table->Clone(), tables_[which].own});
    } else {
      tables_.erase(tables_.begin() + static_cast<ptrdiff_t>(which));
    }
  }

  void Check(Modelled& modelled) {
    std::array<uint64_t, kPageStates> counts = {};
    for (uint64_t slot = 0; slot < kCount; ++slot) {
      const PageState expected = At(modelled, slot);
      ASSERT_EQ(modelled.table->Get(PageIndex(kFirst + slot)), expected) << slot;
      ++counts[static_cast<size_t>(expected)];
    }
    for (size_t state = 1; state < kPageStates; ++state) {
      EXPECT_EQ(modelled.table->CountOf(static_cast<PageState>(state)), PageCount(counts[state]));
    }
    const PageRange range = AnyRange();
    const uint64_t slot = range.first.raw() - kFirst;
    uint64_t run = 1;
    while (run < range.count.raw() && At(modelled, slot + run) == At(modelled, slot)) ++run;
    EXPECT_EQ(modelled.table->RunOfSameState(range), PageCount(run));
  }

  std::mt19937_64 random_;
  const std::vector<PageRange> shared_ranges_ = {Pages(kFirst + 10, 3), Pages(kFirst + 4000, 200),
                                                 Pages(kFirst + 8192, 4096)};
  std::vector<PageState> shared_ = std::vector<PageState>(kCount, PageState::kAbsent);
  std::vector<Modelled> tables_;
};

TEST_P(PageTableModel, ClonesBehaveAsPlainVectors) {
  SCOPED_TRACE("seed " + std::to_string(GetParam()));
  for (int step = 0; step < 400 && !HasFailure(); ++step) {
    Modelled& modelled = tables_[Below(tables_.size())];
    switch (Below(5)) {
      case 0:
        CloneOrDrop();
        break;
      case 1:
        SetAll(modelled);
        break;
      default:
        SetSome(modelled);
    }
    if (step % 8 == 0) {
      for (Modelled& each : tables_) Check(each);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, PageTableModel, testing::Values(1, 2, 3, 4, 5));

// Several threads for each of two clones change all pages, each page by one thread of a clone, so
// that all of them meet in chunks that both clones still have in common.
TEST(PageTable, ThreadsOfSeveralClonesMayChangeTheSameChunksAtATime) {
  constexpr uint64_t kPages = 3 * 4096, kThreads = 3;
  auto parent = NewTable(0, kPages, {Pages(4096, 100)});
  parent->SetAll(Pages(0, 5000), PageState::kPoisoned);
  std::unique_ptr<PageTable> child;
  for (int round = 0; round < 8; ++round) {
    child = *parent->Clone();
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < kThreads; ++t) {
      for (PageTable* table : {parent.get(), child.get()}) {
        // The parent's pages end as `even` or as `odd`, the child's the other way round.
        const bool flip = (table == child.get()) != (round % 2 == 0);
        threads.emplace_back([=] {
          for (uint64_t page = t; page < kPages; page += kThreads) {
            const PageState now = table->Get(PageIndex(page));
            ASSERT_LT(static_cast<int>(now), kPageStates);
            const bool zero = (page % 2 == 0) != flip;
            ASSERT_TRUE(table->Set(PageIndex(page), zero ? PageState::kZero : PageState::kPresent));
          }
        });
      }
    }
    for (std::thread& thread : threads) thread.join();
    for (PageTable* table : {parent.get(), child.get()}) {
      const bool flip = (table == child.get()) != (round % 2 == 0);
      uint64_t present = 0;
      for (uint64_t page = 0; page < kPages; ++page) {
        const PageState now = table->Get(PageIndex(page));
        present += now == PageState::kPresent;
        if (page >= 4096 && page < 4196) continue;  // shared: whichever thread came last
        const bool zero = (page % 2 == 0) != flip;
        ASSERT_EQ(now, zero ? PageState::kZero : PageState::kPresent) << page;
      }
      EXPECT_EQ(table->CountOf(PageState::kPresent), PageCount(present));
      EXPECT_EQ(table->CountOf(PageState::kZero), PageCount(kPages - present));
      EXPECT_EQ(table->CountOf(PageState::kPoisoned), PageCount(0));
    }
    if (round % 3 == 2) parent = std::move(child);
  }
}

TEST(PageTable, CountsAreRightAfterThreadsHaveRacedForTheSamePages) {
  constexpr uint64_t kPages = 4 * 4096;
  auto table = NewTable(0, kPages);
  auto clone = *table->Clone();
  std::vector<std::thread> threads;
  for (PageState state : {PageState::kZero, PageState::kPresent, PageState::kPoisoned}) {
    threads.emplace_back([&, state] {
      for (uint64_t i = 0; i < 50; ++i) table->SetAll(Pages(i * 7, kPages - i * 11), state);
    });
    threads.emplace_back([&, state] {
      std::mt19937 random(static_cast<uint32_t>(state));
      for (int i = 0; i < 20'000; ++i) table->Set(PageIndex(random() % kPages), state);
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::array<uint64_t, kPageStates> counts = {};
  for (uint64_t page = 0; page < kPages; ++page) {
    ++counts[static_cast<size_t>(table->Get(PageIndex(page)))];
  }
  for (size_t state = 1; state < kPageStates; ++state) {
    EXPECT_EQ(table->CountOf(static_cast<PageState>(state)), PageCount(counts[state]));
  }
  EXPECT_EQ(clone->RunOfSameState(Pages(0, kPages)), PageCount(kPages));
}

// Shared pages change under whoever looks at them: a clone is another process's.
TEST(PageTableShared, ARunIsNeverEmptyWhileAnotherCloneChangesItsFirstPage) {
  const PageRange range{PageIndex(0), PageCount(64)};
  auto table = *PageTable::Create(range, {range});
  auto clone = *table->Clone();
  std::atomic<bool> stop = false;
  std::thread changer([&] {
    for (int i = 0; !stop; ++i) {
      clone->Set(PageIndex(0), i % 2 == 0 ? PageState::kZero : PageState::kPresent);
    }
  });
  for (int i = 0; i < 200'000; ++i) ASSERT_GE(table->RunOfSameState(range), PageCount(1));
  stop = true;
  changer.join();
}

}  // namespace
}  // namespace faultline
