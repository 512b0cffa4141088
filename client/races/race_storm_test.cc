// SPDX-License-Identifier: Apache-2.0
//
// Drains and faults beside a target that changes its memory all the time, and ranges beyond 2 GiB.
#include <random>

#include "client/races/race_testing.h"

namespace faultline {
namespace {

class RaceStorm : public ParallelRaceTest {};

// Every fault that meets the unread event of another thread has to be tried again: this is the way
// that fills go when the address space changes all the time, and it has to end.
TEST_P(RaceStorm, FillsThatMeetUnreadEventsAreParkedAndAllEnd) {
  constexpr uint64_t kPages = 2048;
  uint64_t eagain = 0;
  for (int round = 0; round < 200 && eagain < 100; ++round) {
    const uint64_t first = round % 2 == 0 ? 0 : 2048;
    AttachmentOptions options;
    options.drain = true;
    const AttachmentId id = MapAndAttach(first, kPages, 0, options);
    TargetThread discarder([&] {
      for (uint64_t page = 0; page < kPages; page += 2)
        arena_.Advise(first + page, 1, MADV_DONTNEED);
    });
    std::atomic<int> wrong = 0;
    TargetThread reader([&] {
      for (uint64_t page = 1; page < kPages; page += 2) {
        wrong += PageHolds(arena_.At(first + page), page) ? 0 : 1;
      }
    });
    discarder.Join();
    reader.Join();
    EXPECT_EQ(wrong, 0);
    EXPECT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.drained; }));
    EXPECT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.parked_fills == 0; }));
    for (uint64_t page = 0; page < kPages; page += 2) {
      ASSERT_TRUE(anonymous() ? IsZero(arena_.At(first + page))
                              : Holds(arena_.At(first + page), page));
    }
    const AttachmentStats stats = Stats(id);
    EXPECT_EQ(stats.waiting_faults, 0u);
    EXPECT_GE(stats.remove_events_total, kPages / 2);
    EXPECT_GE(stats.parks_total, stats.fill_eagain_total > stats.fill_partial_total ? 1u : 0u);
    eagain += stats.fill_eagain_total;
    ASSERT_TRUE(pager_->Detach(id).ok());
  }
  EXPECT_GT(eagain, 0u);
}

TEST_P(RaceStorm, ADrainFillsEverythingWithNobodyAsking) {
  AttachmentOptions options;
  options.drain = true;
  const AttachmentId id = MapAndAttach(0, kArenaPages, 0, options);
  ASSERT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.drained; }));
  const AttachmentStats stats = Stats(id);
  EXPECT_EQ(stats.present_pages, kArenaPages);
  EXPECT_EQ(stats.drained_pages_total, kArenaPages);
  EXPECT_EQ(stats.faults_total, 0u);
  EXPECT_TRUE(Holds(arena_.At(0), 0, kArenaPages));
  EXPECT_EQ(Stats(id).faults_total, 0u);
}

TEST_P(RaceStorm, ADrainEndsThoughFetchesFailNowAndThen) {
  source_->FailShare(0.2);
  AttachmentOptions options;
  options.drain = true;
  const AttachmentId id = MapAndAttach(0, kArenaPages, 0, options);
  ASSERT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.drained; }));
  ASSERT_TRUE(pager_->Detach(id).ok());
  EXPECT_TRUE(Holds(arena_.At(0), 0, kArenaPages));
}

TEST_P(RaceStorm, ADrainLeavesOutOnlyTheDamagedPage) {
  source_->FailPage(PageIndex(77), absl::DataLossError("checksum does not match"));
  AttachmentOptions options;
  options.drain = true;
  const AttachmentId id = MapAndAttach(0, 512, 0, options);
  EXPECT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.present_pages == 511; }));
  EXPECT_EQ(SignalOf([&] { PageIsZero(arena_.At(77)); }), SIGBUS);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 77));
  EXPECT_TRUE(Holds(arena_.At(78), 78, 512 - 78));
}

TEST_P(RaceStorm, ADrainEndsBesideFaultsMovesAndProtectionChanges) {
  AttachmentOptions options;
  options.drain = true;
  source_->Hold();
  const AttachmentId id = MapAndAttach(0, 2048, 0, options);
  std::atomic<bool> stop = false;
  uint64_t at = 1024;
  TargetThread mover([&] {
    while (!stop) {
      const uint64_t to = at == 1024 ? 3000 : 1024;
      EXPECT_TRUE(arena_.Move(at, to, 512));
      at = to;
    }
  });
  TargetThread protector([&] {
    for (uint64_t i = 0; !stop; ++i) {
      EXPECT_TRUE(arena_.Protect(1536 + i % 512, 1, i % 3 == 0 ? PROT_READ : PROT_NONE));
      EXPECT_TRUE(arena_.Protect(1536 + i % 512, 1, PROT_READ | PROT_WRITE));
    }
  });
  std::atomic<int> wrong = 0;
  TargetThread reader([&] {
    for (uint64_t i = 0; i < 1024; ++i) {
      const uint64_t page = (i * 389) % 1024;
      wrong += PageHolds(arena_.At(page), page) ? 0 : 1;
    }
  });
  source_->Release();
  EXPECT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.drained; }));
  reader.Join();
  stop = true;
  mover.Join();
  protector.Join();
  EXPECT_EQ(wrong, 0);
  // Pages that were on the move all the time may be left to their faults.
  EXPECT_TRUE(Holds(arena_.At(0), 0, 1024));
  EXPECT_TRUE(Holds(arena_.At(at), 1024, 512));
  EXPECT_TRUE(Holds(arena_.At(1536), 1536, 512));
  EXPECT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.present_pages == 2048; }));
  EXPECT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.parked_fills == 0; }));
}

FAULTLINE_RACES_ON_ALL_KINDS(RaceStorm);

class RaceAnonymousStorm : public ParallelRaceTest {};

// The protocol of the pager: the exclusive lock is held across read() and what it leads to. With a
// handler that takes it after read(), 4 to 28 % of these pages are stale.
TEST_P(RaceAnonymousStorm, Race07_NoDiscardedPageIsStaleBesideADrain) {
  uint64_t racing = 0;
  for (int round = 0; round < 4; ++round) {
    AttachmentOptions options;
    options.drain = true;
    const AttachmentId id = MapAndAttach(0, kArenaPages, 0, options);
    std::vector<uint64_t> stale;
    for (uint64_t i = 0; i < kArenaPages; ++i) {
      const uint64_t page = (i * 1021) % kArenaPages;
      ASSERT_TRUE(arena_.Advise(page, 1, MADV_DONTNEED));
      if (!PageIsZero(arena_.At(page))) stale.push_back(page);
    }
    EXPECT_EQ(stale.size(), 0u) << "the first is page " << stale.at(0);
    EXPECT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.drained; }));
    EXPECT_TRUE(IsZero(arena_.At(0), kArenaPages));
    racing += Stats(id).drained_pages_total;
    ASSERT_TRUE(pager_->Detach(id).ok());
  }
  EXPECT_GT(racing, 0u);  // the drain did take part
}

FAULTLINE_RACES_ON(RaceAnonymousStorm, MemoryKind::kAnonymous);

// Volumes and ranges whose sizes do not fit into 32 bits.
class RaceLarge : public RaceTest {
 protected:
  static constexpr uint64_t kGiB = (uint64_t{1} << 30) / kPageSize;  // in pages
  static constexpr uint64_t kPages = 5 * kGiB;

  void SetUp() override {
    RaceTest::SetUp();
    UseSource(std::make_shared<PatternPageSource>(PageCount(kPages)), 0);
  }

  AttachmentId MapAndAttachLarge(const AttachmentOptions& options = {}) {
    EXPECT_TRUE(large_.Map(GetParam(), 0, kPages));
    auto id =
        pager_->Attach(Request(*OpenUffd(), {MappingOf(large_.Range(0, kPages), 0)}, options));
    EXPECT_TRUE(id.ok()) << id.status();
    return id.ok() ? *id : 0;
  }
  // Pages around all the borders that matter.
  static std::vector<uint64_t> Borders() {
    std::vector<uint64_t> pages = {0, 1, kPages - 2, kPages - 1};
    for (uint64_t border : {kGiB, 2 * kGiB, 3 * kGiB, 4 * kGiB}) {
      for (uint64_t page = border - 2; page < border + 2; ++page) pages.push_back(page);
    }
    return pages;
  }

  Arena large_{2 * kPages + 16};
};

TEST_P(RaceLarge, OneDiscardOfMoreThanTwoGibIsAppliedToAllOfItAndNoMore) {
  MapAndAttachLarge();
  for (uint64_t page : Borders()) ASSERT_TRUE(Holds(large_.At(page), page));
  ASSERT_TRUE(large_.Advise(1, kPages - 2, MADV_DONTNEED));
  for (uint64_t page : Borders()) {
    const bool kept = !anonymous() || page == 0 || page == kPages - 1;
    EXPECT_TRUE(kept ? Holds(large_.At(page), page) : IsZero(large_.At(page))) << page;
  }
  // And to what was never there before.
  for (uint64_t page : {kGiB / 2, 3 * kGiB + 77, 4 * kGiB + 9}) {
    EXPECT_TRUE(anonymous() ? IsZero(large_.At(page)) : Holds(large_.At(page), page)) << page;
  }
}

TEST_P(RaceLarge, OneMoveOfMoreThanFourGibTakesAllPagesAlong) {
  const AttachmentId id = MapAndAttachLarge();
  for (uint64_t page : Borders()) {
    if (page % 2 != 0) continue;
    ASSERT_TRUE(Holds(large_.At(page), page));
  }
  ASSERT_TRUE(large_.Move(0, kPages + 8, kPages));
  for (uint64_t page : Borders()) {
    EXPECT_TRUE(Holds(large_.At(kPages + 8 + page), page)) << page;
    EXPECT_EQ(SignalOf([&] { PageIsZero(large_.At(page)); }), SIGSEGV) << page;
  }
  EXPECT_EQ(Stats(id).tracked_pages, kPages);
}

TEST_P(RaceLarge, OneUnmapOfMoreThanTwoGibEndsAllOfItAndNoMore) {
  const AttachmentId id = MapAndAttachLarge();
  ASSERT_TRUE(large_.Unmap(kGiB, 3 * kGiB));
  EXPECT_EQ(Stats(id).tracked_pages, 2 * kGiB);
  for (uint64_t page : Borders()) {
    if (page < kGiB || page >= 4 * kGiB) {
      EXPECT_TRUE(Holds(large_.At(page), page)) << page;
    } else {
      EXPECT_EQ(SignalOf([&] { PageIsZero(large_.At(page)); }), SIGSEGV) << page;
    }
  }
}

TEST_P(RaceLarge, AForkedChildOfLargeMemoryReadsItsPages) {
  MapAndAttachLarge();
  for (uint64_t page : Borders()) {
    if (page % 2 != 0) continue;
    ASSERT_TRUE(Holds(large_.At(page), page));
  }
  const std::vector<uint64_t> borders = Borders();
  Child child([&] {
    int wrong = 0;
    for (uint64_t page : borders) wrong += PageHolds(large_.At(page), page) ? 0 : 1;
    return wrong;
  });
  EXPECT_EQ(child.Wait(), 0);
}

FAULTLINE_RACES_ON_ALL_KINDS(RaceLarge);

// A balloon that inflates while everything is being fetched: discards of single pages, by the ten
// thousands.
class RaceBalloon : public RaceTest {
 protected:
  static constexpr uint64_t kPages = 100000, kDiscards = 80000;

  void SetUp() override {
    RaceTest::SetUp();
    UseSource(std::make_shared<PatternPageSource>(PageCount(kPages)), 4);
  }
};

TEST_P(RaceBalloon, AStormOfSinglePageDiscardsBesideADrainLeavesEveryByteRight) {
  Arena balloon(kPages);
  ASSERT_TRUE(balloon.Map(GetParam(), 0, kPages));
  AttachmentOptions options;
  options.drain = true;
  source_->Hold();
  const auto id =
      pager_->Attach(Request(*OpenUffd(), {MappingOf(balloon.Range(0, kPages), 0)}, options));
  ASSERT_TRUE(id.ok()) << id.status();
  TargetThread releaser([&] { source_->Release(); });
  std::vector<bool> discarded(kPages);
  for (uint64_t i = 0; i < kDiscards; ++i) {
    const uint64_t page = (i * 7919) % kPages;
    ASSERT_TRUE(balloon.Advise(page, 1, MADV_DONTNEED));
    discarded[page] = true;
  }
  releaser.Join();
  EXPECT_TRUE(EventuallyStats(*id, [](const auto& stats) { return stats.drained; }));
  for (uint64_t page = 0; page < kPages; ++page) {
    ASSERT_TRUE(discarded[page] && anonymous() ? IsZero(balloon.At(page))
                                               : Holds(balloon.At(page), page))
        << page;
  }
  const AttachmentStats stats = Stats(*id);
  EXPECT_EQ(stats.remove_events_total, kDiscards);
  EXPECT_EQ(stats.waiting_faults, 0u);
  pager_->Stop();
}

FAULTLINE_RACES_ON_ALL_KINDS(RaceBalloon);

}  // namespace
}  // namespace faultline
