// SPDX-License-Identifier: Apache-2.0
//
// Targets that fork while pages are at the source or on their way. The children are plain forks of
// this process and call async-signal-safe functions only.
#include <spawn.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "client/races/race_testing.h"

extern char** environ;

namespace faultline {
namespace {

class RaceFork : public RaceTest {
 protected:
  static void Fill(char* at, uint64_t volume_page) {
    for (uint64_t i = 0; i < kWordsPerPage; ++i) {
      reinterpret_cast<volatile uint64_t*>(at)[i] = PatternWord(volume_page, i);
    }
  }
  // That every child's attachment ends with it.
  bool EventuallyAlone(AttachmentId id) {
    return Eventually([&] {
      const auto attachments = pager_->Attachments();
      return attachments.size() == 1 && attachments[0].id == id;
    });
  }
};

TEST_P(RaceFork, Race12_AForkedChildAndItsParentDemandTheSamePages) {
  const AttachmentId id = MapAndAttach(0, 256);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 32));
  Gate gate;
  Child late([&] {
    gate.Pass();
    return WrongPages(arena_.At(0), 0, 256);
  });
  Child early([&] { return WrongPages(arena_.At(0), 0, 256); });
  EXPECT_EQ(early.Wait(), 0);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 256));
  gate.Open();
  EXPECT_EQ(late.Wait(), 0);
  EXPECT_EQ(Stats(id).fork_events_total, 2u);
  EXPECT_TRUE(EventuallyAlone(id));
}

TEST_P(RaceFork, Race12_WithPagesInFlightBothGetTheBytes) {
  const AttachmentId id = MapAndAttach(0, 64);
  source_->Hold();
  std::atomic<bool> right = false;
  TargetThread waiter([&] { right = PageHolds(arena_.At(3), 3); });
  ASSERT_TRUE(EventuallyWaiting(id, 1));
  Child child([&] { return WrongPages(arena_.At(0), 0, 64); });
  ASSERT_TRUE(Eventually([&] { return Children(id).size() == 1; }));
  ASSERT_TRUE(Eventually([&] { return Children(id)[0].faults_total >= 1; }));
  EXPECT_EQ(Children(id)[0].parent, id);
  source_->Release();
  waiter.Join();
  EXPECT_TRUE(right);
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 64));
}

TEST_P(RaceFork, Race13_ForksBesideFillsLoseNoPage) {
  for (int round = 0; round < 10; ++round) {
    AttachmentOptions options;
    options.drain = true;
    const AttachmentId id = MapAndAttach(0, 1024, 0, options);
    std::vector<std::unique_ptr<Child>> children;
    for (int i = 0; i < 4; ++i) {
      children.push_back(
          std::make_unique<Child>([&] { return WrongPages(arena_.At(0), 0, 1024); }));
    }
    for (auto& child : children) EXPECT_EQ(child->Wait(), 0);
    EXPECT_TRUE(Holds(arena_.At(0), 0, 1024));
    EXPECT_TRUE(EventuallyAlone(id));
    ASSERT_TRUE(pager_->Detach(id).ok());
  }
}

// A page that was filled, and not yet marked so when the fork was read, is there in the child too.
TEST_P(RaceFork, Race14_PagesThatAreFilledWhileTheForkIsReadAreInBoth) {
  for (uint64_t round = 0; round < 20; ++round) {
    const AttachmentId id = MapAndAttach(0, 256);
    source_->Hold();
    std::vector<std::unique_ptr<TargetThread>> readers;
    std::atomic<int> wrong = 0;
    for (uint64_t i = 0; i < 8; ++i) {
      readers.push_back(std::make_unique<TargetThread>([&, i] {
        for (uint64_t page = i * 32; page < (i + 1) * 32; ++page) {
          wrong += PageHolds(arena_.At(page), page) ? 0 : 1;
        }
      }));
    }
    ASSERT_TRUE(EventuallyWaiting(id, 8));
    TargetThread releaser([&] { source_->Release(); });
    Child child([&] { return WrongPages(arena_.At(0), 0, 256); });
    EXPECT_EQ(child.Wait(), 0);
    readers.clear();
    EXPECT_EQ(wrong, 0);
    releaser.Join();
    EXPECT_TRUE(EventuallyAlone(id));
    ASSERT_TRUE(pager_->Detach(id).ok());
  }
}

TEST_P(RaceFork, Race15_AChildThatExitsEndsItsAttachment) {
  const AttachmentId id = MapAndAttach(0, 64);
  Child touched([&] { return WrongPages(arena_.At(0), 0, 8); });
  EXPECT_EQ(touched.Wait(), 0);
  EXPECT_TRUE(EventuallyAlone(id));
  Child untouched([] { return 0; });  // whose pid no fault has told
  EXPECT_EQ(untouched.Wait(), 0);
  EXPECT_TRUE(EventuallyAlone(id));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 64));
}

TEST_P(RaceFork, Race15_AChildThatIsKilledWithFillsQueuedEndsItsAttachment) {
  const AttachmentId id = MapAndAttach(0, 64);
  source_->Hold();
  Child child([&] { return WrongPages(arena_.At(0), 0, 64); });
  ASSERT_TRUE(
      Eventually([&] { return Children(id).size() == 1 && Children(id)[0].waiting_faults == 1; }));
  child.Kill(SIGKILL);
  EXPECT_EQ(child.Wait(), 1000 + SIGKILL);
  source_->Release();
  EXPECT_TRUE(EventuallyAlone(id));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 64));
}

TEST_P(RaceFork, Race15_AChildThatExecsWithFillsQueuedEndsItsAttachment) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "ThreadSanitizer holds the signal back while the child waits for its page";
#endif
  const AttachmentId id = MapAndAttach(0, 64);
  source_->Hold();
  Child child([&] {
    signal(SIGUSR1, [](int) {
      char path[] = "/bin/sleep", name[] = "sleep", time[] = "1000";
      char* arguments[] = {name, time, nullptr};
      execv(path, arguments);
      _exit(1);
    });
    return WrongPages(arena_.At(0), 0, 64);
  });
  ASSERT_TRUE(
      Eventually([&] { return Children(id).size() == 1 && Children(id)[0].waiting_faults == 1; }));
  child.Kill(SIGUSR1);
  source_->Release();
  // It goes on living, as another program: its end is not what ends the attachment.
  EXPECT_TRUE(EventuallyAlone(id));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 64));
  child.Kill(SIGKILL);
  EXPECT_EQ(child.Wait(), 1000 + SIGKILL);
}

TEST_P(RaceFork, Race15_AChildThatExecsBeforeItsFirstFaultEndsItsAttachment) {
  const AttachmentId id = MapAndAttach(0, 64);
  Child child([&] {
    char path[] = "/bin/sleep", name[] = "sleep", time[] = "1000";
    char* arguments[] = {name, time, nullptr};
    return execv(path, arguments);
  });
  ASSERT_TRUE(EventuallyStats(id, [](const auto& stats) { return stats.fork_events_total == 1; }));
  EXPECT_TRUE(EventuallyAlone(id));
  child.Kill(SIGKILL);
  EXPECT_EQ(child.Wait(), 1000 + SIGKILL);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 64));
}

TEST_P(RaceFork, AGrandchildReadsItsPages) {
  const AttachmentId id = MapAndAttach(0, 128);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 16));
  Child child([&] {
    if (WrongPages(arena_.At(16), 16, 16) != 0) return 1;
    const pid_t grandchild = fork();
    if (grandchild == 0) _exit(WrongPages(arena_.At(0), 0, 96));
    if (WrongPages(arena_.At(32), 32, 96) != 0) return 2;
    int status = 0;
    if (waitpid(grandchild, &status, 0) != grandchild || status != 0) return 3;
    return WrongPages(arena_.At(0), 0, 128);
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 128));
  EXPECT_TRUE(EventuallyAlone(id));
}

TEST_P(RaceFork, AnOrphanedGrandchildIsServedOn) {
  const AttachmentId id = MapAndAttach(0, 64);
  Gate orphaned, done;
  Child child([&] {
    if (fork() == 0) {
      orphaned.Pass();
      if (WrongPages(arena_.At(0), 0, 64) == 0) done.Open();
      _exit(0);
    }
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  orphaned.Open();
  done.Pass();
  EXPECT_TRUE(EventuallyAlone(id));
}

TEST_P(RaceFork, TheChildsChangesOfItsAddressSpaceAreItsOwn) {
  MapAndAttach(0, 64);
  Gate changed, check;
  Child child([&] {
    if (!arena_.Move(0, 200, 16)) return 1;
    if (!arena_.Unmap(16, 16)) return 2;
    if (!arena_.Advise(32, 16, MADV_DONTNEED)) return 3;
    changed.Open();
    check.Pass();
    if (WrongPages(arena_.At(200), 0, 16) != 0) return 4;
    if (anonymous() && NonZeroPages(arena_.At(32), 16) != 0) return 5;
    if (!anonymous() && WrongPages(arena_.At(32), 32, 16) != 0) return 6;
    return WrongPages(arena_.At(48), 48, 16);
  });
  changed.Pass();
  EXPECT_TRUE(Holds(arena_.At(0), 0, 32));
  check.Open();
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 64));
}

TEST_P(RaceFork, TheParentsChangesAfterTheForkAreNotTheChilds) {
  MapAndAttach(0, 64);
  Gate gate;
  Child child([&] {
    gate.Pass();
    return WrongPages(arena_.At(0), 0, 64);
  });
  ASSERT_TRUE(arena_.Move(0, 200, 16));
  ASSERT_TRUE(arena_.Unmap(16, 16));
  ASSERT_TRUE(arena_.Advise(32, 8, MADV_DONTNEED));
  EXPECT_TRUE(Holds(arena_.At(200), 0, 16));
  EXPECT_TRUE(anonymous() ? IsZero(arena_.At(32), 8) : Holds(arena_.At(32), 32, 8));
  EXPECT_TRUE(Holds(arena_.At(48), 48, 4));
  gate.Open();
  EXPECT_EQ(child.Wait(), 0);
}

// What was discarded before the fork is so in both.
TEST_P(RaceFork, TheChildInheritsWhatWasDiscardedMovedAndWritten) {
  MapAndAttach(0, 64);
  ASSERT_TRUE(arena_.Advise(8, 8, MADV_DONTNEED));
  ASSERT_TRUE(arena_.Move(16, 300, 16));
  Fill(arena_.At(2), 900);
  Child child([&] {
    if (!PageHolds(arena_.At(2), 900)) return 1;
    if (anonymous() && NonZeroPages(arena_.At(8), 8) != 0) return 2;
    if (!anonymous() && WrongPages(arena_.At(8), 8, 8) != 0) return 3;
    if (WrongPages(arena_.At(300), 16, 16) != 0) return 4;
    return WrongPages(arena_.At(32), 32, 32);
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_TRUE(Holds(arena_.At(300), 16, 16));
  EXPECT_TRUE(Holds(arena_.At(2), 900));
}

TEST_P(RaceFork, WrittenPagesAreSharedOrPrivateAsTheirMemoryIs) {
  MapAndAttach(0, 16);
  Gate written;
  Child child([&] {
    Fill(arena_.At(3), 900);
    written.Open();
    return 0;
  });
  written.Pass();
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_TRUE(Holds(arena_.At(3), anonymous() ? 3 : 900));
  EXPECT_TRUE(Holds(arena_.At(4), 4, 12));
}

TEST_P(RaceFork, AChildThatDiscardsAPageInFlightDoesNotTakeItFromItsParent) {
  const AttachmentId id = MapAndAttach(0, 16);
  source_->Hold();
  std::atomic<bool> right = false;
  TargetThread waiter([&] { right = PageHolds(arena_.At(3), 3); });
  ASSERT_TRUE(EventuallyWaiting(id, 1));
  Gate discarded;
  Child child([&] {
    if (!arena_.Advise(3, 1, MADV_DONTNEED)) return 1;
    discarded.Open();
    return (anonymous() ? PageIsZero(arena_.At(3)) : PageHolds(arena_.At(3), 3)) ? 0 : 2;
  });
  discarded.Pass();
  source_->Release();
  waiter.Join();
  EXPECT_TRUE(right);
  EXPECT_EQ(child.Wait(), 0);
}

TEST_P(RaceFork, AChildOfADontforkRangeGetsSigsegvThere) {
  const AttachmentId id = MapAndAttach(0, 32);
  ASSERT_TRUE(arena_.Advise(8, 8, MADV_DONTFORK));
  Child reads_the_rest(
      [&] { return WrongPages(arena_.At(0), 0, 8) + WrongPages(arena_.At(16), 16, 16); });
  EXPECT_EQ(reads_the_rest.Wait(), 0);
  Child reads_it([&] { return PageHolds(arena_.At(9), 9) ? 0 : 1; });
  EXPECT_EQ(reads_it.Wait(), 1000 + SIGSEGV);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 32));
  EXPECT_TRUE(EventuallyAlone(id));
}

TEST_P(RaceFork, VforkAndPosixSpawnRaiseNoEventAndTakeNothing) {
  const AttachmentId id = MapAndAttach(0, 32);
  char path[] = "/bin/true";
  char* arguments[] = {path, nullptr};
  for (int i = 0; i < 5; ++i) {
    pid_t pid = 0;
    ASSERT_EQ(posix_spawn(&pid, path, nullptr, nullptr, arguments, environ), 0);
    int status = -1;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(Stats(id).fork_events_total, 0u);
  EXPECT_EQ(pager_->Attachments().size(), 1u);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 32));
}

TEST_P(RaceFork, ForksOfSeveralThreadsBesideMovesAndDiscards) {
  const AttachmentId id = MapAndAttach(0, 512);
  std::atomic<bool> stop = false;
  TargetThread mover([&] {
    for (uint64_t round = 0; !stop; ++round) {
      arena_.Move(round % 2 == 0 ? 256 : 1000, round % 2 == 0 ? 1000 : 256, 128);
      arena_.Advise(400, 16, MADV_DONTNEED);
    }
  });
  std::atomic<int> wrong = 0;
  std::vector<std::unique_ptr<TargetThread>> forkers;
  for (int i = 0; i < 2; ++i) {
    forkers.push_back(std::make_unique<TargetThread>([&] {
      for (int round = 0; round < 15; ++round) {
        Child child(
            [&] { return WrongPages(arena_.At(0), 0, 256) + WrongPages(arena_.At(416), 416, 96); });
        wrong += child.Wait() == 0 ? 0 : 1;
      }
    }));
  }
  forkers.clear();
  stop = true;
  mover.Join();
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 256));
  EXPECT_EQ(Stats(id).fork_events_total, 30u);
  EXPECT_TRUE(EventuallyAlone(id));
}

TEST_P(RaceFork, ADamagedPageGetsSigbusInTheChildToo) {
  source_->FailPage(PageIndex(3), absl::DataLossError("checksum does not match"));
  MapAndAttach(0, 8);
  Child child([&] { return PageHolds(arena_.At(3), 3) ? 0 : 1; });
  EXPECT_EQ(child.Wait(), 1000 + SIGBUS);
  EXPECT_EQ(SignalOf([&] { PageIsZero(arena_.At(3)); }), SIGBUS);
  Child neighbours([&] { return WrongPages(arena_.At(4), 4, 4); });
  EXPECT_EQ(neighbours.Wait(), 0);
}

// As the kernel's own selftest for events does.
TEST_P(RaceFork, TheKernelsEventsTestRunsInAChild) {
  const AttachmentId id = MapAndAttach(0, 256);
  Child child([&] {
    for (uint64_t page = 0; page < 128; ++page) {
      if (!PageHolds(arena_.At(page), page)) return 1;
    }
    if (!arena_.Move(0, 1000, 256)) return 2;
    for (uint64_t page = 128; page < 256; ++page) {
      if (!PageHolds(arena_.At(1000 + page), page)) return 3;
    }
    if (WrongPages(arena_.At(1000), 0, 256) != 0) return 4;
    if (!arena_.Advise(1000, 256, anonymous() ? MADV_DONTNEED : MADV_REMOVE)) return 5;
    return NonZeroPages(arena_.At(1000), 256) == 0 ? 0 : 6;
  });
  EXPECT_EQ(child.Wait(), 0);
  // The parent's part: private memory is as it was, the hole in shared memory is everybody's.
  EXPECT_TRUE(anonymous() ? Holds(arena_.At(0), 0, 256) : IsZero(arena_.At(0), 256));
  EXPECT_TRUE(EventuallyAlone(id));
}

// Its own missing pages have to be poisoned as its parent's are.
TEST_P(RaceFork, StoppingThePagerLeavesTheChildNoZeros) {
  const AttachmentId id = MapAndAttach(0, 64);
  Gate gate;
  Child child([&] {
    if (WrongPages(arena_.At(0), 0, 8) != 0) return 1;
    gate.Pass();
    if (WrongPages(arena_.At(0), 0, 8) != 0) return 2;
    static_cast<void>(PageIsZero(arena_.At(40)));
    return 3;
  });
  ASSERT_TRUE(
      Eventually([&] { return Children(id).size() == 1 && Children(id)[0].present_pages >= 8; }));
  pager_->Stop();
  gate.Open();
  EXPECT_EQ(child.Wait(), 1000 + SIGBUS);
}

FAULTLINE_RACES_ON_ALL_KINDS(RaceFork);

class RaceAnonymousFork : public RaceTest {};

// Stays registered in the child: its faults arrive, and no event says that they are for zeros.
TEST_P(RaceAnonymousFork, AWipeonforkChildReadsZeros) {
  const AttachmentId id = MapAndAttach(0, 32);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 12));
  ASSERT_TRUE(arena_.Advise(8, 8, MADV_WIPEONFORK));
  Child child([&] {
    return NonZeroPages(arena_.At(8), 8) + WrongPages(arena_.At(0), 0, 8) +
           WrongPages(arena_.At(16), 16, 16);
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 32));
  EXPECT_TRUE(Eventually([&] { return pager_->Attachments().size() == 1; }));
  EXPECT_EQ(Stats(id).fork_events_total, 1u);
}

// Lowers the limit of open files to what is open, until it goes.
class NoMoreDescriptors {
 public:
  NoMoreDescriptors() {
    EXPECT_EQ(getrlimit(RLIMIT_NOFILE, &before_), 0);
    const int lowest_free = dup(0);
    close(lowest_free);
    rlimit none = before_;
    none.rlim_cur = static_cast<rlim_t>(lowest_free);
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    EXPECT_EQ(dup(0), -1);
  }
  ~NoMoreDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
  NoMoreDescriptors(const NoMoreDescriptors&) = delete;
  NoMoreDescriptors& operator=(const NoMoreDescriptors&) = delete;

 private:
  rlimit before_;
};

TEST_P(RaceAnonymousFork, EmfileAtForkIsSurvivedByTheReserve) {
  const AttachmentId id = MapAndAttach(0, 64);
  std::unique_ptr<Child> child;
  {
    NoMoreDescriptors none;
    child = std::make_unique<Child>([&] { return WrongPages(arena_.At(0), 0, 64); });
    EXPECT_EQ(child->Wait(), 0);
    EXPECT_TRUE(Holds(arena_.At(0), 0, 64));
  }
  EXPECT_EQ(Stats(id).fork_events_total, 1u);
}

// However large the reserve is, there are more children. Their forks end at the latest when
// descriptors are to be had again.
TEST_P(RaceAnonymousFork, ForksBeyondTheReserveEndOnceDescriptorsAreFree) {
  constexpr int kChildren = 48;
  const AttachmentId id = MapAndAttach(0, 64);
  Gate gate;
  std::atomic<int> forked = 0, right = 0;
  auto none = std::make_unique<NoMoreDescriptors>();
  TargetThread forker([&] {  // stays as long as its children do: they die with it
    std::vector<std::unique_ptr<Child>> children;
    for (int i = 0; i < kChildren; ++i) {
      children.push_back(std::make_unique<Child>([&] {
        gate.Pass();
        return WrongPages(arena_.At(0), 0, 64);
      }));
      ++forked;
    }
    for (int i = 0; i < kChildren; ++i) gate.Open();
    for (auto& child : children) right += child->Wait() == 0 ? 1 : 0;
  });
  EXPECT_TRUE(Eventually([&] { return forked >= 1; }));
  none.reset();
  forker.Join();
  EXPECT_EQ(right, kChildren);
  EXPECT_TRUE(Holds(arena_.At(0), 0, 64));
  EXPECT_EQ(Stats(id).fork_events_total, static_cast<uint64_t>(kChildren));
  EXPECT_TRUE(Eventually([&] { return pager_->Attachments().size() == 1; }));
}

FAULTLINE_RACES_ON(RaceAnonymousFork, MemoryKind::kAnonymous);

}  // namespace
}  // namespace faultline
