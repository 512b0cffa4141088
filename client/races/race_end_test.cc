// SPDX-License-Identifier: Apache-2.0
//
// How things end: the pager's shutdown, targets that die inside a system call, two userfaultfds in
// one process.
#include <sched.h>

#include "client/races/forked_target.h"
#include "client/races/race_testing.h"

namespace faultline {
namespace {

class RaceEnd : public ParallelRaceTest {
 protected:
  AttachmentId AttachTarget(ForkedTarget* target, uint64_t page, uint64_t count,
                            const AttachmentOptions& options = {}) {
    AttachRequest request =
        Request(target->TakeUffd(), {MappingOf(arena_.Range(page, count), 0)}, options);
    request.pid = target->pid();
    auto id = pager_->Attach(std::move(request));
    EXPECT_TRUE(id.ok()) << id.status();
    return id.ok() ? *id : 0;
  }
};

// All that is started meanwhile, threads and processes, runs on one CPU.
class OneCpu {
 public:
  OneCpu() {
    EXPECT_EQ(sched_getaffinity(0, sizeof(all_), &all_), 0);
    cpu_set_t one;
    CPU_ZERO(&one);
    for (size_t cpu = 0; CPU_COUNT(&one) == 0; ++cpu) {
      if (CPU_ISSET(cpu, &all_)) CPU_SET(cpu, &one);
    }
    EXPECT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  }
  ~OneCpu() { EXPECT_EQ(sched_setaffinity(0, sizeof(all_), &all_), 0); }
  OneCpu(const OneCpu&) = delete;
  OneCpu& operator=(const OneCpu&) = delete;

 private:
  cpu_set_t all_;
};

TEST_P(RaceEnd, Race22_AfterADrainEverythingStaysWhenThePagerStops) {
  AttachmentOptions options;
  options.drain = true;
  const AttachmentId id = MapAndAttach(0, 2000, 0, options);
  ASSERT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.drained; }));
  EXPECT_EQ(Stats(id).present_pages, 2000u);
  pager_->Stop();
  EXPECT_TRUE(Holds(arena_.At(0), 0, 2000));
  ASSERT_TRUE(arena_.Advise(0, 8, MADV_DONTNEED));  // nobody has to read its event any more
  EXPECT_TRUE(anonymous() ? IsZero(arena_.At(0), 8) : Holds(arena_.At(0), 0, 8));
}

TEST_P(RaceEnd, Race22_WhatIsStillAtTheSourceWhenThePagerStopsGetsSigbusNeverZeros) {
  const AttachmentId id = MapAndAttach(0, 300);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 20));
  ASSERT_TRUE(arena_.Advise(8, 2, MADV_DONTNEED));
  source_->Hold();
  std::atomic<int> sigbus = 0;
  std::vector<std::unique_ptr<TargetThread>> waiters;
  for (uint64_t i = 0; i < 8; ++i) {
    waiters.push_back(std::make_unique<TargetThread>([&, i] {
      sigbus += SignalOf([&] { PageIsZero(arena_.At(100 + i * 10)); }) == SIGBUS ? 1 : 0;
    }));
  }
  ASSERT_TRUE(EventuallyWaiting(id, 8));
  pager_->Stop();
  waiters.clear();
  EXPECT_EQ(sigbus, 8);
  source_->Release();
  EXPECT_TRUE(Holds(arena_.At(0), 0, 8));
  EXPECT_TRUE(anonymous() ? IsZero(arena_.At(8), 2) : Holds(arena_.At(8), 8, 2));
  EXPECT_TRUE(Holds(arena_.At(10), 10, 10));
  for (uint64_t page = 20; page < 300; ++page) {
    EXPECT_EQ(SignalOf([&] { PageIsZero(arena_.At(page)); }), SIGBUS) << page;
  }
}

TEST_P(RaceEnd, Race22_StoppingBesideATargetThatChangesItsMemoryLeavesNoZerosAndNobodyWaiting) {
  for (int round = 0; round < 5; ++round) {
    auto pager = Pager::Create({.readers = 2});
    ASSERT_TRUE(pager.ok()) << pager.status();
    pager_ = *std::move(pager);
    const AttachmentId id = MapAndAttach(0, 512);
    std::atomic<bool> stop = false;
    uint64_t at = 256;  // of the last 128 pages that move
    TargetThread mover([&] {
      for (int moves = 1; !stop; ++moves) {
        const uint64_t to = at == 256 ? 1000 : 256;
        EXPECT_TRUE(arena_.Move(at, to, 128));
        at = to;
        // On one CPU nothing else would ever run while the memory stands still, and this process,
        // which is the agent's too, cannot be stopped for it.
        if (moves % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(20));
      }
    });
    std::atomic<int> wrong = 0;
    TargetThread reader([&] {
      for (uint64_t page = 0; page < 256; ++page) {
        bool right = false;
        const int signal = SignalOf([&] { right = PageHolds(arena_.At(page), page); });
        wrong += signal == SIGBUS || (signal == 0 && right) ? 0 : 1;
      }
    });
    ASSERT_TRUE(
        EventuallyStats(id, [](const auto& stats) { return stats.remap_events_total > 5; }));
    pager_->Stop();
    stop = true;
    mover.Join();
    reader.Join();
    EXPECT_EQ(wrong, 0);
    for (uint64_t page = 0; page < 128; ++page) {
      bool right = false;
      const int signal = SignalOf([&] { right = PageHolds(arena_.At(at + page), 256 + page); });
      EXPECT_TRUE(signal == SIGBUS || right) << "signal " << signal << " at page " << page;
    }
  }
}

// While it moves its memory on the only CPU, nobody else runs but when the kernel lets no fill
// pass.
TEST_P(RaceEnd, Race22_StoppingStopsATargetThatNeverPausesForAMomentRatherThanKillIt) {
  const OneCpu one_cpu;
  auto pager = Pager::Create({.readers = 1});
  ASSERT_TRUE(pager.ok()) << pager.status();
  pager_ = *std::move(pager);
  void* shared =
      mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  auto* stop = new (shared) std::atomic<bool>(false);
  ForkedTarget target(&arena_, GetParam(), 0, 512, [&] {
    for (uint64_t at = 256; !*stop;) {
      const uint64_t to = at == 256 ? 1000 : 256;
      if (!arena_.Move(at, to, 128)) return 1;
      at = to;
    }
    return PageIsZero(arena_.At(8)) ? 2 : 3;
  });
  const AttachmentId id = AttachTarget(&target, 0, 512);
  target.Go();
  ASSERT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.remap_events_total > 5; }));
  pager_->Stop();
  *stop = true;
  EXPECT_EQ(target.child().Wait(), 1000 + SIGBUS);
  munmap(shared, kPageSize);
}

TEST_P(RaceEnd, Race15_ATargetThatIsKilledWhileItWaitsEndsItsAttachment) {
  ForkedTarget target(&arena_, GetParam(), 0, 64, [&] { return WrongPages(arena_.At(0), 0, 64); });
  const AttachmentId id = AttachTarget(&target, 0, 64);
  source_->Hold();
  target.Go();
  ASSERT_TRUE(EventuallyWaiting(id, 1));
  target.child().Kill(SIGKILL);
  EXPECT_EQ(target.child().Wait(), 1000 + SIGKILL);
  source_->Release();
  EXPECT_TRUE(Eventually([&] { return pager_->Attachments().empty(); }));
}

TEST_P(RaceEnd, ATargetInAnotherProcessReadsItsBytesThroughAllItDoes) {
  ForkedTarget target(&arena_, GetParam(), 0, 256, [&] {
    if (WrongPages(arena_.At(0), 0, 32) != 0) return 1;
    if (!arena_.Move(64, 1000, 64) || WrongPages(arena_.At(1000), 64, 64) != 0) return 2;
    if (!arena_.Unmap(32, 32) || !arena_.Advise(128, 16, MADV_DONTNEED)) return 3;
    if (anonymous() && NonZeroPages(arena_.At(128), 16) != 0) return 4;
    const pid_t child = fork();
    if (child == 0) _exit(WrongPages(arena_.At(144), 144, 112));
    int status = 0;
    if (waitpid(child, &status, 0) != child || status != 0) return 5;
    return WrongPages(arena_.At(144), 144, 112);
  });
  AttachTarget(&target, 0, 256);
  target.Go();
  EXPECT_EQ(target.child().Wait(), 0);
  EXPECT_TRUE(Eventually([&] { return pager_->Attachments().empty(); }));
}

// What a thread that changes its memory all the time leaves behind when it is killed at any point:
// its event is gone, and it may have been the one that kept fills off.
TEST_P(RaceEnd, Race23_AWriterThatIsKilledInsideItsSystemCallEndsItsAttachmentAndNoOther) {
  const AttachmentId bystander = MapAndAttach(0, 2000);
  uint64_t read = 0;
  for (uint64_t round = 0; round < 40; ++round) {
    ForkedTarget target(&arena_, GetParam(), 3000, 512, [&] {
      for (uint64_t i = 0;; ++i) {
        arena_.Advise(3000 + i % 128, 1, MADV_DONTNEED);
        arena_.Move(i % 2 == 0 ? 3128 : 2500, i % 2 == 0 ? 2500 : 3128, 64);
        if (WrongPages(arena_.At(3256 + i % 256), 256 + i % 256, 1) != 0) return 1;
      }
    });
    AttachmentOptions options;
    options.drain = true;
    const AttachmentId id = AttachTarget(&target, 3000, 512, options);
    target.Go();
    EXPECT_TRUE(EventuallyStats(id, [&](const auto& stats) {
      return stats.remove_events_total + stats.remap_events_total > round;
    }));
    target.child().Kill(SIGKILL);
    EXPECT_EQ(target.child().Wait(), 1000 + SIGKILL);
    ASSERT_TRUE(Holds(arena_.At(read), read, 50));
    read += 50;
    EXPECT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.id == 0; }));
  }
  EXPECT_TRUE(Eventually([&] { return pager_->Attachments().size() == 1; }));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 2000));
  EXPECT_EQ(Stats(bystander).waiting_faults, 0u);
}

// A process that shares the memory (CLONE_VM) dies inside its madvise: the memory lives on.
TEST_P(RaceEnd, Race23_AKilledWriterWhoseMemoryLivesOnLeavesItServed) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "a process that shares the memory of another is not to ThreadSanitizer's mind";
#endif
  struct Shared {
    Arena* arena;
    std::atomic<uint64_t> discarded;
    alignas(16) char stack[1 << 16];
  };
  static Shared shared;
  shared.arena = &arena_;
  ForkedTarget target(&arena_, GetParam(), 0, 512, [&] {
    for (int round = 0; round < 20; ++round) {
      shared.discarded = 0;
      const pid_t writer = clone(
          [](void*) {
            for (uint64_t i = 0;; ++i) {
              shared.arena->Advise(2 * (i % 256), 1, MADV_DONTNEED);
              ++shared.discarded;
            }
            return 0;
          },
          shared.stack + sizeof(shared.stack), CLONE_VM | SIGCHLD, nullptr);
      if (writer < 0) return 1;
      while (shared.discarded < static_cast<uint64_t>(round) * 3 + 1) sched_yield();
      kill(writer, SIGKILL);
      if (waitpid(writer, nullptr, 0) != writer) return 2;
      for (uint64_t page = 0; page < 512; ++page) {
        const bool source = PageHolds(arena_.At(page), page);
        if (!source && (page % 2 == 1 || !PageIsZero(arena_.At(page)))) return 3;
      }
    }
    return 0;
  });
  AttachTarget(&target, 0, 512);
  target.Go();
  EXPECT_EQ(target.child().Wait(), 0);
}

// Fills through another userfaultfd of the same memory would succeed: each has to use its own.
TEST_P(RaceEnd, Race24_TwoUserfaultfdsInOneProcessFillTheirOwnOnly) {
  for (uint64_t i = 0; i < 8; ++i) MapAndAttach(i * 64, 64, 2048 - i * 64);
  std::vector<std::unique_ptr<TargetThread>> readers;
  std::atomic<int> wrong = 0;
  for (uint64_t i = 0; i < 8; ++i) {
    readers.push_back(std::make_unique<TargetThread>(
        [&, i] { wrong += WrongPages(arena_.At(i * 64), 2048 - i * 64, 48); }));
  }
  readers.clear();
  EXPECT_EQ(wrong, 0);
  // Two of them change places.
  ASSERT_TRUE(arena_.Move(64, 1000, 64));
  ASSERT_TRUE(arena_.Move(192, 64, 64));
  ASSERT_TRUE(arena_.Move(1000, 192, 64));
  EXPECT_TRUE(Holds(arena_.At(64), 2048 - 192, 64));
  EXPECT_TRUE(Holds(arena_.At(192), 2048 - 64, 64));
}

TEST_P(RaceEnd, Race24_AForkedChildHasOneAttachmentForEachOfItsParents) {
  const AttachmentId one = MapAndAttach(0, 64);
  const AttachmentId two = MapAndAttach(64, 64, 1000);
  Gate gate;
  Child child([&] {
    gate.Pass();
    return WrongPages(arena_.At(0), 0, 64) + WrongPages(arena_.At(64), 1000, 64);
  });
  EXPECT_TRUE(Eventually([&] { return Children(one).size() == 1 && Children(two).size() == 1; }));
  gate.Open();
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_TRUE(Eventually([&] { return pager_->Attachments().size() == 2; }));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 64));
  EXPECT_TRUE(Holds(arena_.At(64), 1000, 64));
}

FAULTLINE_RACES_ON_ALL_KINDS(RaceEnd);

}  // namespace
}  // namespace faultline
