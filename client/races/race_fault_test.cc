// SPDX-License-Identifier: Apache-2.0
//
// Races between a fault, or the fetch that it began, and what becomes of its page meanwhile.
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>

#include "client/races/race_testing.h"

namespace faultline {
namespace {

constexpr int kMadvCollapse = 25;  // Linux 6.1

class RaceFault : public RaceTest {};

TEST_P(RaceFault, Race01_FaultReadThenMunmapWakesTheWaiter) {
  const AttachmentId id = MapAndAttach(0, 8);
  source_->Hold();
  std::atomic<int> signal = 0;
  TargetThread waiter([&] { signal = SignalOf([&] { PageHolds(arena_.At(3), 3); }); });
  ASSERT_TRUE(EventuallyWaiting(id, 1));
  ASSERT_TRUE(arena_.Unmap(3, 1));
  waiter.Join();
  EXPECT_EQ(signal, SIGSEGV);

  // What another mapping has at the address by the time the page arrives is not touched.
  ASSERT_TRUE(arena_.Map(MemoryKind::kAnonymous, 3, 1));
  source_->Release();
  EXPECT_TRUE(EventuallyWaiting(id, 0));
  EXPECT_TRUE(IsZero(arena_.At(3)));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 3));
  EXPECT_TRUE(Holds(arena_.At(4), 4, 4));
  EXPECT_EQ(Stats(id).tracked_pages, 7u);
}

TEST_P(RaceFault, Race01_EveryWaiterInAnUnmappedRangeIsWoken) {
  const AttachmentId id = MapAndAttach(0, 64);
  source_->Hold();
  std::atomic<int> segv = 0;
  std::vector<std::unique_ptr<TargetThread>> waiters;
  for (uint64_t i = 0; i < 16; ++i) {
    waiters.push_back(std::make_unique<TargetThread>(
        [&, i] { segv += SignalOf([&] { PageHolds(arena_.At(i * 4), 0); }) == SIGSEGV ? 1 : 0; }));
  }
  ASSERT_TRUE(EventuallyWaiting(id, 16));
  ASSERT_TRUE(arena_.Unmap(0, 64));
  waiters.clear();
  EXPECT_EQ(segv, 16);
  source_->Release();
  EXPECT_TRUE(EventuallyWaiting(id, 0));
}

TEST_P(RaceFault, Race02_FaultAtTheOldAddressThenMremapWakesTheWaiter) {
  const AttachmentId id = MapAndAttach(0, 8);
  source_->Hold();
  std::atomic<int> signal = 0;
  TargetThread waiter([&] { signal = SignalOf([&] { PageHolds(arena_.At(3), 3); }); });
  ASSERT_TRUE(EventuallyWaiting(id, 1));
  ASSERT_TRUE(arena_.Move(0, 100, 8));
  waiter.Join();
  EXPECT_EQ(signal, SIGSEGV);
  source_->Release();
  EXPECT_TRUE(Holds(arena_.At(100), 0, 8));
}

TEST_P(RaceFault, Race02_AWaiterWhoseAddressGetsOtherMemoryReadsThat) {
  const AttachmentId id = MapAndAttach(0, 16);
  source_->Hold();
  std::atomic<bool> right = false;
  TargetThread waiter([&] { right = PageHolds(arena_.At(3), 8 + 3); });
  ASSERT_TRUE(EventuallyWaiting(id, 1));
  ASSERT_TRUE(arena_.Move(8, 0, 8));  // over the memory that it waits for
  // It looks again, and now waits for the page that has come to where it reads.
  ASSERT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.faults_total >= 2; }));
  source_->Release();
  waiter.Join();
  EXPECT_TRUE(right);
  EXPECT_TRUE(Holds(arena_.At(0), 8, 8));
}

// The kernel returns a fault at the new address before the REMAP event that tells of it.
TEST_P(RaceFault, Race03_AFaultAtTheNewAddressIsReadBeforeItsRemap) {
  constexpr uint64_t kPages = 512;
  MapAndAttach(0, kPages);
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> home = 0;  // hint for the reader: where the memory is, or is about to be
  std::atomic<int> wrong = 0;
  std::atomic<uint64_t> read = 0;
  TargetThread reader([&] {
    for (uint64_t page = 0; page < kPages && !stop;) {
      bool right = false;
      if (SignalOf([&] { right = PageHolds(arena_.At(home + page), page); }) != 0) continue;
      wrong += right ? 0 : 1;
      ++page;
      ++read;
    }
  });
  for (uint64_t to = 1024; read < kPages && !reader.done(); to = to == 0 ? 1024 : 0) {
    const uint64_t from = home;
    home = to;
    const uint64_t before = read;
    EXPECT_TRUE(arena_.Move(from, to, kPages));
    Eventually([&] { return read != before || reader.done(); });
  }
  stop = true;
  reader.Join();
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(Holds(arena_.At(home), 0, kPages));
}

TEST_P(RaceFault, Race04_AFetchInFlightLandsWhereItsMemoryHasMoved) {
  const AttachmentId id = MapAndAttach(0, 8);
  source_->Hold();
  TargetThread first([&] { SignalOf([&] { PageHolds(arena_.At(3), 3); }); });
  ASSERT_TRUE(EventuallyWaiting(id, 1));
  ASSERT_TRUE(Eventually([&] { return source_->pending() == 1; }));
  ASSERT_TRUE(arena_.Move(0, 100, 8));
  ASSERT_TRUE(arena_.Move(100, 200, 8));
  first.Join();
  std::atomic<bool> right = false;
  TargetThread second([&] { right = PageHolds(arena_.At(203), 3); });
  ASSERT_TRUE(
      EventuallyStats(id, [](const auto& stats) { return stats.joined_faults_total == 1; }));
  source_->Release();
  second.Join();
  EXPECT_TRUE(right);
  EXPECT_EQ(FetchesOf(3), 1u);  // the page that was under way, not another one
  EXPECT_TRUE(Holds(arena_.At(200), 0, 8));
}

TEST_P(RaceFault, Race04_AFetchInFlightDoesNotLandInWhatIsAtItsOldAddressNow) {
  const AttachmentId id = MapAndAttach(0, 16);
  source_->Hold();
  TargetThread waiter([&] { SignalOf([&] { PageHolds(arena_.At(3), 3); }); });
  ASSERT_TRUE(Eventually([&] { return source_->pending() == 1; }));
  ASSERT_TRUE(arena_.Move(0, 100, 8));
  ASSERT_TRUE(arena_.Move(8, 0, 8));  // other memory comes to where the fetch began
  source_->Release();
  waiter.Join();
  EXPECT_TRUE(Holds(arena_.At(0), 8, 8));
  EXPECT_TRUE(Holds(arena_.At(100), 0, 8));
  EXPECT_TRUE(EventuallyWaiting(id, 0));
}

TEST_P(RaceFault, Race08_AFillOfManyPagesStraddlesAPartialMunmap) {
  AttachmentOptions options;
  options.drain = true;
  source_->Hold();
  const AttachmentId id = MapAndAttach(0, 256, 0, options);
  ASSERT_TRUE(Eventually([&] { return source_->pending() > 0; }));
  ASSERT_TRUE(arena_.Unmap(5, 1));
  ASSERT_TRUE(arena_.Unmap(100, 56));
  ASSERT_TRUE(arena_.Map(MemoryKind::kAnonymous, 120, 8));
  source_->Release();
  EXPECT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.drained; }));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 5));
  EXPECT_TRUE(Holds(arena_.At(6), 6, 94));
  EXPECT_TRUE(Holds(arena_.At(156), 156, 100));
  EXPECT_TRUE(IsZero(arena_.At(120), 8));
  EXPECT_EQ(Stats(id).present_pages, 256u - 57);
  EXPECT_EQ(Stats(id).tracked_pages, 256u - 57);
}

TEST_P(RaceFault, Race08_AFillOfManyPagesStraddlesAPartialMove) {
  AttachmentOptions options;
  options.drain = true;
  source_->Hold();
  const AttachmentId id = MapAndAttach(0, 256, 0, options);
  ASSERT_TRUE(Eventually([&] { return source_->pending() > 0; }));
  ASSERT_TRUE(arena_.Move(64, 1000, 32));
  ASSERT_TRUE(arena_.Move(200, 64, 32));
  source_->Release();
  EXPECT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.drained; }));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 64));
  EXPECT_TRUE(Holds(arena_.At(64), 200, 32));
  EXPECT_TRUE(Holds(arena_.At(96), 96, 104));
  EXPECT_TRUE(Holds(arena_.At(232), 232, 24));
  EXPECT_TRUE(Holds(arena_.At(1000), 64, 32));
  EXPECT_EQ(Stats(id).present_pages, 256u);
}

TEST_P(RaceFault, Race16_AllThreadsThatWaitForOnePageGetTheOneFetch) {
  const AttachmentId id = MapAndAttach(0, 8);
  source_->Hold();
  std::atomic<int> right = 0;
  std::vector<std::unique_ptr<TargetThread>> waiters;
  for (int i = 0; i < 8; ++i) {
    waiters.push_back(
        std::make_unique<TargetThread>([&] { right += PageHolds(arena_.At(3), 3) ? 1 : 0; }));
  }
  ASSERT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.faults_total == 8; }));
  EXPECT_TRUE(
      EventuallyStats(id, [](const auto& stats) { return stats.joined_faults_total == 7; }));
  EXPECT_EQ(Stats(id).waiting_faults, 1u);
  source_->Release();
  waiters.clear();
  EXPECT_EQ(right, 8);
  EXPECT_EQ(FetchesOf(3), 1u);
}

TEST_P(RaceFault, Race16_ASignalMakesAThreadFaultTwiceAndItIsFetchedOnce) {
  const AttachmentId id = MapAndAttach(0, 8);
  signal(SIGUSR1, [](int) {});
  source_->Hold();
  std::atomic<bool> right = false;
  TargetThread waiter([&] { right = PageHolds(arena_.At(3), 3); });
  for (uint64_t faults = 1; faults <= 5; ++faults) {
    ASSERT_TRUE(EventuallyStats(id, [&](const auto& stats) {
      return stats.faults_total >= faults && stats.waiting_faults == 1;
    }));
    ASSERT_EQ(pthread_kill(waiter.handle(), SIGUSR1), 0);
  }
  source_->Release();
  waiter.Join();
  EXPECT_TRUE(right);
  EXPECT_EQ(FetchesOf(3), 1u);
}

TEST_P(RaceFault, Race21_AnMprotectSplitsWhatIsBeingFilled) {
  AttachmentOptions options;
  options.drain = true;
  source_->Hold();
  const AttachmentId id = MapAndAttach(0, 256, 0, options);
  ASSERT_TRUE(Eventually([&] { return source_->pending() > 0; }));
  ASSERT_TRUE(arena_.Protect(3, 1, PROT_READ));
  ASSERT_TRUE(arena_.Protect(60, 10, PROT_NONE));
  ASSERT_TRUE(arena_.Protect(130, 100, PROT_READ));
  source_->Release();
  EXPECT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.drained; }));
  EXPECT_EQ(Stats(id).present_pages, 256u);  // what cannot be accessed is filled as well
  ASSERT_TRUE(arena_.Protect(0, 256, PROT_READ | PROT_WRITE));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 256));
}

// The target may give a part back behind the pager's back, with the descriptor that it kept.
TEST_P(RaceFault, Race21_WhatTheTargetUnregistersIsNoLongerFilled) {
  AttachmentOptions options;
  options.drain = true;
  source_->Hold();
  ASSERT_TRUE(arena_.Map(GetParam(), 0, 256));
  UniqueFd uffd = *OpenUffd();
  const UniqueFd kept(fcntl(uffd.get(), F_DUPFD_CLOEXEC, 0));
  const auto id =
      pager_->Attach(Request(std::move(uffd), {MappingOf(arena_.Range(0, 256), 0)}, options));
  ASSERT_TRUE(id.ok()) << id.status();
  ASSERT_TRUE(Eventually([&] { return source_->pending() > 0; }));
  uffdio_range part{arena_.Address(100), 50 * kPageSize};
  ASSERT_EQ(ioctl(kept.get(), UFFDIO_UNREGISTER, &part), 0);
  source_->Release();
  EXPECT_TRUE(EventuallyStats(*id, [](const auto& stats) { return stats.present_pages == 206; }));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 100));
  EXPECT_TRUE(IsZero(arena_.At(100), 50));
  EXPECT_TRUE(Holds(arena_.At(150), 150, 106));
}

TEST_P(RaceFault, ChangesOfSomethingElseDoNotDelayAnyone) {
  MapAndAttach(0, 1024);
  std::atomic<bool> stop = false;
  TargetThread churner([&] {
    while (!stop) {
      arena_.Map(MemoryKind::kAnonymous, 2048, 16);
      arena_.At(2050)[0] = 1;
      arena_.Unmap(2048, 16);
    }
  });
  EXPECT_TRUE(Holds(arena_.At(0), 0, 1024));
  stop = true;
}

FAULTLINE_RACES_ON_ALL_KINDS(RaceFault);

// Of memory that has a second mapping, which the pager does not know.
class RacePageCache : public RaceTest {
 protected:
  void MapWithAlias(uint64_t pages) {
    ASSERT_TRUE(arena_.Map(GetParam(), 0, pages));
    alias_ = arena_.At(2000);
    ASSERT_EQ(mmap(alias_, pages * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                   arena_.memfd(), 0),
              alias_);
  }

  char* alias_ = nullptr;
};

TEST_P(RacePageCache, Race18_APageThatIsInThePageCacheAlreadyWakesItsWaiter) {
  MapWithAlias(8);
  const AttachmentId id = Attach(0, 8);
  source_->Hold();
  std::atomic<bool> right = false;
  TargetThread waiter([&] { right = PageHolds(arena_.At(3), 77); });
  ASSERT_TRUE(EventuallyWaiting(id, 1));
  for (uint64_t i = 0; i < kWordsPerPage; ++i) {
    reinterpret_cast<volatile uint64_t*>(alias_ + 3 * kPageSize)[i] = PatternWord(77, i);
  }
  source_->Release();
  waiter.Join();
  EXPECT_TRUE(right);
  EXPECT_GE(Stats(id).fill_eexist_total, 1u);
  EXPECT_TRUE(Holds(arena_.At(4), 4, 4));
}

// Punching a hole raises no event where it is done through the descriptor.
TEST_P(RacePageCache, Race19_APageThatIsPunchedBetweenItsFaultAndItsFillIsFilled) {
  MapWithAlias(8);
  const AttachmentId id = Attach(0, 8);
  source_->Hold();
  std::atomic<bool> right = false;
  TargetThread waiter([&] { right = PageHolds(arena_.At(3), 3); });
  ASSERT_TRUE(EventuallyWaiting(id, 1));
  alias_[3 * kPageSize] = 1;
  ASSERT_EQ(fallocate(arena_.memfd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * kPageSize,
                      kPageSize),
            0);
  source_->Release();
  waiter.Join();
  EXPECT_TRUE(right);
}

TEST_P(RacePageCache, AFilledPageThatIsPunchedThroughTheDescriptorReadsZeros) {
  MapWithAlias(8);
  Attach(0, 8);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 8));
  ASSERT_EQ(fallocate(arena_.memfd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * kPageSize,
                      kPageSize),
            0);
  EXPECT_TRUE(IsZero(arena_.At(3)));
  EXPECT_TRUE(Holds(arena_.At(4), 4, 4));
}

// EFAULT for fills behind the end of the file; who reads there gets SIGBUS, as without a pager.
TEST_P(RacePageCache, AFileThatShrinksUnderAFetchReleasesItsWaiterWithSigbus) {
  MapWithAlias(8);
  const AttachmentId id = Attach(0, 8);
  source_->Hold();
  std::atomic<int> signal = 0;
  TargetThread waiter([&] { signal = SignalOf([&] { PageHolds(arena_.At(6), 6); }); });
  ASSERT_TRUE(EventuallyWaiting(id, 1));
  ASSERT_EQ(ftruncate(arena_.memfd(), 4 * kPageSize), 0);
  source_->Release();
  waiter.Join();
  EXPECT_EQ(signal, SIGBUS);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 4));
}

FAULTLINE_RACES_ON(RacePageCache, MemoryKind::kMemfd);

class RaceAnonymousFault : public RaceTest {};

TEST_P(RaceAnonymousFault, Race20_ACollapseIntoHugePagesLosesNothing) {
  const uint64_t aligned = (arena_.Address(0) % (512 * kPageSize)) / kPageSize;
  const uint64_t first = aligned == 0 ? 0 : 512 - aligned;
  const AttachmentId id = MapAndAttach(first, 1024);
  ASSERT_TRUE(arena_.Advise(first, 1024, MADV_HUGEPAGE));
  // Fills all but a few pages, between attempts to collapse them: refused or not, no page that is
  // still at the source may become zero.
  for (uint64_t page = 0; page < 1024; ++page) {
    if (page % 128 == 7) continue;
    ASSERT_TRUE(Holds(arena_.At(first + page), page)) << page;
    if (page % 128 == 127) arena_.Advise(first, 1024, kMadvCollapse);
  }
  EXPECT_TRUE(Holds(arena_.At(first), 0, 1024));
  arena_.Advise(first, 1024, kMadvCollapse);
  EXPECT_TRUE(Holds(arena_.At(first), 0, 1024));
  // A fill that meets a huge page: whole ones are there already, and stay.
  ASSERT_TRUE(arena_.Advise(first, 512, MADV_DONTNEED));
  EXPECT_TRUE(IsZero(arena_.At(first), 512));
  EXPECT_TRUE(Holds(arena_.At(first + 512), 512, 512));
  EXPECT_EQ(Stats(id).tracked_pages, 1024u);
}

// MADV_GUARD_INSTALL (6.13) drops pages without an event. What was filled reads as zero once the
// guard is gone, as it would without a pager; what never was is still at the source.
TEST_P(RaceAnonymousFault, PagesUnderAGuardThatWereFilledReadZerosAfterwards) {
  constexpr int kGuardInstall = 102, kGuardRemove = 103;
  MapAndAttach(0, 8);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 6));
  if (!arena_.Advise(2, 2, kGuardInstall)) GTEST_SKIP() << "MADV_GUARD_INSTALL needs Linux 6.13";
  EXPECT_EQ(SignalOf([&] { PageIsZero(arena_.At(2)); }), SIGSEGV);
  EXPECT_TRUE(Holds(arena_.At(4), 4, 4));
  ASSERT_TRUE(arena_.Advise(2, 2, kGuardRemove));
  EXPECT_TRUE(IsZero(arena_.At(2), 2));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 2));
}

TEST_P(RaceAnonymousFault, SystemCallsThatReadTheMemoryFaultAsWell) {
  MapAndAttach(0, 16);
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  const UniqueFd out(pipe_ends[0]), in(pipe_ends[1]);
  ASSERT_TRUE(arena_.Map(MemoryKind::kAnonymous, 100, 16));
  for (uint64_t page = 0; page < 16; ++page) {
    ASSERT_EQ(write(in.get(), arena_.At(page), kPageSize), static_cast<ssize_t>(kPageSize));
    ASSERT_EQ(read(out.get(), arena_.At(100 + page), kPageSize), static_cast<ssize_t>(kPageSize));
  }
  EXPECT_TRUE(Holds(arena_.At(100), 0, 16));
}

FAULTLINE_RACES_ON(RaceAnonymousFault, MemoryKind::kAnonymous);

}  // namespace
}  // namespace faultline
