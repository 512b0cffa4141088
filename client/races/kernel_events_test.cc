// SPDX-License-Identifier: Apache-2.0
//
// What the pager builds upon, asked of the kernel itself: the rows of its own selftest
// (tools/testing/selftests/mm/uffd-unit-tests.c) that are about what we use, and the facts about
// events, through Uffd or the plain ioctls.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

#include "client/races/forked_target.h"
#include "client/races/race_testing.h"

namespace faultline {
namespace {

constexpr uint64_t kAllEvents =
    uapi::kFeatureEventRemap | uapi::kFeatureEventRemove | uapi::kFeatureEventUnmap;

class KernelEvents : public testing::TestWithParam<MemoryKind> {
 protected:
  void SetUp() override {
    FAULTLINE_REQUIRE_UFFD();
    watchdog_ = std::make_unique<HangWatchdog>();
    for (uint64_t i = 0; i < bytes_.size() / kPageSize; ++i) {
      for (uint64_t word = 0; word < kWordsPerPage; ++word) {
        const uint64_t value = PatternWord(i, word);
        memcpy(bytes_.data() + (i * kWordsPerPage + word) * sizeof(value), &value, sizeof(value));
      }
    }
  }

  bool anonymous() const { return GetParam() == MemoryKind::kAnonymous; }
  // Past UFFDIO_API, with pages [0, count) of the arena mapped and registered.
  std::unique_ptr<Uffd> Registered(uint64_t count, uint64_t features = kAllEvents) {
    EXPECT_TRUE(arena_.Map(GetParam(), 0, count));
    auto uffd = AdoptFreshUffd(*OpenUffd(), features);
    EXPECT_TRUE(uffd.ok()) << uffd.status();
    EXPECT_TRUE((*uffd)->Register(arena_.Range(0, count)).ok());
    return *std::move(uffd);
  }
  std::span<const std::byte> Pages(uint64_t first, uint64_t count) const {
    return {reinterpret_cast<const std::byte*>(bytes_.data()) + first * kPageSize,
            count * kPageSize};
  }
  static bool EventuallyReadable(const Uffd& uffd) {
    pollfd readable{uffd.fd(), POLLIN, 0};
    return poll(&readable, 1, 30000) == 1;
  }
  // What has come: at least `count` events.
  static std::vector<UffdEvent> ReadAtLeast(Uffd* uffd, size_t count) {
    std::vector<UffdEvent> events;
    while (events.size() < count && EventuallyReadable(*uffd)) {
      if (!uffd->Read(&events).ok()) break;
    }
    return events;
  }
  template <typename Fill>
  static bool EventuallyFills(Fill fill) {
    return Eventually([&] { return fill().error != EAGAIN; });
  }

  std::string bytes_ = std::string(16 * kPageSize, '\0');
  Arena arena_{256};
  std::unique_ptr<HangWatchdog> watchdog_;
};

TEST_P(KernelEvents, RegisterTellsTheIoctlsThatServeTheRange) {
  ASSERT_TRUE(arena_.Map(GetParam(), 0, 4));
  const UniqueFd fd = *OpenUffd();
  uffdio_api api{};
  api.api = UFFD_API;
  ASSERT_EQ(ioctl(fd.get(), UFFDIO_API, &api), 0);
  uffdio_register request{};
  request.range = {arena_.Address(0), 4 * kPageSize};
  request.mode = UFFDIO_REGISTER_MODE_MISSING;
  ASSERT_EQ(ioctl(fd.get(), UFFDIO_REGISTER, &request), 0);
  for (unsigned number : {_UFFDIO_WAKE, _UFFDIO_COPY, _UFFDIO_ZEROPAGE}) {
    EXPECT_NE(request.ioctls & (uint64_t{1} << number), 0u) << number;
  }
  EXPECT_EQ(request.ioctls & (uint64_t{1} << _UFFDIO_CONTINUE), 0u);  // not without MINOR
}

TEST_P(KernelEvents, RegisterRefusesWhatCannotBeServed) {
  ASSERT_TRUE(arena_.Map(GetParam(), 0, 4));
  const UniqueFd fd = *OpenUffd();
  uffdio_api api{};
  api.api = UFFD_API;
  ASSERT_EQ(ioctl(fd.get(), UFFDIO_API, &api), 0);
  auto refused = [&](uint64_t address, uint64_t length, uint64_t mode) {
    uffdio_register request{};
    request.range = {address, length};
    request.mode = mode;
    return ioctl(fd.get(), UFFDIO_REGISTER, &request) == -1 && errno == EINVAL;
  };
  const uint64_t at = arena_.Address(0);
  EXPECT_TRUE(refused(at, 4 * kPageSize, 0));
  EXPECT_TRUE(refused(at, 4 * kPageSize, uint64_t{1} << 60));
  EXPECT_TRUE(refused(at, 0, UFFDIO_REGISTER_MODE_MISSING));
  EXPECT_TRUE(refused(at + 1, kPageSize, UFFDIO_REGISTER_MODE_MISSING));
  EXPECT_TRUE(refused(at, kPageSize + 1, UFFDIO_REGISTER_MODE_MISSING));
  EXPECT_EQ(refused(at, 4 * kPageSize, UFFDIO_REGISTER_MODE_MINOR), anonymous());
}

TEST_P(KernelEvents, ASecondZeropageGivesEexistAndChangesNothing) {
  auto uffd = Registered(4);
  ASSERT_EQ(uffd->Zero(arena_.Range(0, 2)).error, 0);
  EXPECT_TRUE(IsZero(arena_.At(0), 2));
  arena_.At(1)[7] = 'x';
  EXPECT_EQ(uffd->Zero(arena_.Range(1, 1)).error, EEXIST);
  EXPECT_EQ(uffd->Copy(arena_.Address(1), Pages(5, 1)).error, EEXIST);
  EXPECT_EQ(arena_.At(1)[7], 'x');
}

TEST_P(KernelEvents, OddPagesAreCopiedAndEvenOnesPoisoned) {
  auto uffd = Registered(16);
  for (uint64_t page = 0; page < 16; ++page) {
    if (page % 2 == 1) {
      ASSERT_EQ(uffd->Copy(arena_.Address(page), Pages(page, 1)).error, 0);
    } else if (const int error = uffd->Poison(arena_.Range(page, 1)).error; error != 0) {
      ASSERT_EQ(error, EINVAL);
      GTEST_SKIP() << "UFFDIO_POISON needs Linux 6.6";
    }
  }
  for (uint64_t page = 0; page < 16; ++page) {
    bool right = false;
    const int signal = SignalOf([&] { right = PageHolds(arena_.At(page), page); });
    EXPECT_EQ(signal, page % 2 == 1 ? 0 : SIGBUS) << page;
    EXPECT_EQ(right, page % 2 == 1) << page;
  }
  // Poison is no hole to the zeros of private memory. Those of shared memory replace it, as copies
  // do.
  EXPECT_EQ(uffd->Zero(arena_.Range(2, 1)).error, anonymous() ? EEXIST : 0);
}

// A thread that waits inside madvise until its event is read holds off every fill.
TEST_P(KernelEvents, WhileAnEventIsUnreadEveryFillIsToldToTryAgain) {
  auto uffd = Registered(16);
  TargetThread writer([&] { EXPECT_TRUE(arena_.Advise(0, 4, MADV_DONTNEED)); });
  ASSERT_TRUE(EventuallyReadable(*uffd));
  for (int round = 0; round < 100; ++round) {
    for (const FillResult& result :
         {uffd->Copy(arena_.Address(8), Pages(8, 2)), uffd->Zero(arena_.Range(8, 2)),
          uffd->Poison(arena_.Range(8, 2))}) {
      EXPECT_EQ(result.error, EAGAIN);
      EXPECT_EQ(result.bytes_done, 0u);
    }
  }
  // As the ioctl has it: nothing done, or the error itself (6.15 and stable kernels).
  uffdio_copy copy{};
  copy.dst = arena_.Address(8);
  copy.src = reinterpret_cast<uint64_t>(bytes_.data());
  copy.len = kPageSize;
  EXPECT_EQ(ioctl(uffd->fd(), UFFDIO_COPY, &copy), -1);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_TRUE(copy.copy == 0 || copy.copy == -EAGAIN) << copy.copy;

  const std::vector<UffdEvent> events = ReadAtLeast(uffd.get(), 1);
  ASSERT_EQ(events.size(), 1u);
  const auto* remove = std::get_if<RemoveEvent>(&events[0]);
  ASSERT_NE(remove, nullptr);
  EXPECT_EQ(remove->range, arena_.Range(0, 4));
  writer.Join();
  EXPECT_TRUE(EventuallyFills([&] { return uffd->Copy(arena_.Address(8), Pages(8, 2)); }));
  EXPECT_TRUE(Holds(arena_.At(8), 8, 2));
}

TEST_P(KernelEvents, AMoveRaisesTheUnmapOfItsTargetThenRemapThenTheUnmapOfItsSource) {
  auto uffd = Registered(16);
  TargetThread mover([&] { EXPECT_TRUE(arena_.Move(0, 8, 8)); });
  const std::vector<UffdEvent> events = ReadAtLeast(uffd.get(), 3);
  mover.Join();
  ASSERT_EQ(events.size(), 3u);
  const auto* target = std::get_if<UnmapEvent>(&events[0]);
  const auto* remap = std::get_if<RemapEvent>(&events[1]);
  const auto* source = std::get_if<UnmapEvent>(&events[2]);
  ASSERT_TRUE(target != nullptr && remap != nullptr && source != nullptr);
  EXPECT_EQ(target->range, arena_.Range(8, 8));
  EXPECT_EQ(remap->from, arena_.Address(0));
  EXPECT_EQ(remap->to, arena_.Address(8));
  EXPECT_EQ(remap->length, 8 * kPageSize);
  EXPECT_EQ(source->range, arena_.Range(0, 8));
}

TEST_P(KernelEvents, DontunmapRaisesNoUnmapAndLeavesItsSourceRegistered) {
  auto uffd = Registered(8);
  TargetThread mover([&] { EXPECT_TRUE(arena_.Move(0, 100, 8, MREMAP_DONTUNMAP)); });
  ASSERT_EQ(ReadAtLeast(uffd.get(), 1).size(), 1u);
  mover.Join();
  std::vector<UffdEvent> more;
  EXPECT_EQ(*uffd->Read(&more), 0u);
  EXPECT_TRUE(EventuallyFills([&] { return uffd->Copy(arena_.Address(100), Pages(1, 1)); }));
  EXPECT_EQ(uffd->Zero(arena_.Range(1, 1)).error, 0);
  EXPECT_TRUE(Holds(arena_.At(100), 1));
  EXPECT_TRUE(IsZero(arena_.At(1)));
}

TEST_P(KernelEvents, AFillAcrossAProtectionBorderGivesEnoentThoughBothSidesAreRegistered) {
  auto uffd = Registered(8);
  ASSERT_TRUE(arena_.Protect(4, 4, PROT_READ));
  EXPECT_EQ(uffd->Copy(arena_.Address(2), Pages(2, 4)).error, ENOENT);
  EXPECT_EQ(uffd->Copy(arena_.Address(2), Pages(2, 2)).error, 0);
  EXPECT_EQ(uffd->Copy(arena_.Address(4), Pages(4, 2)).error, 0);  // where nobody may write
  EXPECT_TRUE(Holds(arena_.At(2), 2, 4));
}

TEST_P(KernelEvents, OnlyAWakeReleasesWhoWaitsWhereMemoryWasUnmapped) {
  auto uffd = Registered(8);
  std::atomic<int> signal = 0;
  TargetThread waiter([&] { signal = SignalOf([&] { PageIsZero(arena_.At(3)); }); });
  ASSERT_EQ(ReadAtLeast(uffd.get(), 1).size(), 1u);
  TargetThread unmapper([&] { EXPECT_TRUE(arena_.Unmap(3, 1)); });
  ASSERT_EQ(ReadAtLeast(uffd.get(), 1).size(), 1u);
  unmapper.Join();
  FillResult fill;
  EXPECT_TRUE(EventuallyFills([&] { return fill = uffd->Zero(arena_.Range(3, 1)); }));
  EXPECT_EQ(fill.error, ENOENT);
  EXPECT_FALSE(waiter.done());
  uffd->Wake(arena_.Range(3, 1));
  waiter.Join();
  EXPECT_EQ(signal, SIGSEGV);
}

// Race 15, from the kernel's side.
TEST_P(KernelEvents, FillsOfAProcessThatHasEndedGiveEsrch) {
  ForkedTarget target(&arena_, GetParam(), 0, 8, [] { return 0; });
  auto uffd = AdoptFreshUffd(target.TakeUffd(), kAllEvents);
  ASSERT_TRUE(uffd.ok()) << uffd.status();
  ASSERT_TRUE((*uffd)->Register(arena_.Range(0, 8)).ok());
  EXPECT_EQ((*uffd)->Zero(arena_.Range(0, 1)).error, 0);
  target.Go();
  EXPECT_EQ(target.child().Wait(), 0);
  EXPECT_EQ((*uffd)->Zero(arena_.Range(1, 1)).error, ESRCH);
  EXPECT_EQ((*uffd)->Copy(arena_.Address(1), Pages(1, 1)).error, ESRCH);
}

// Race 23, from the kernel's side.
TEST_P(KernelEvents, TheEventOfAWriterThatIsKilledIsNeverRead) {
  ForkedTarget target(&arena_, GetParam(), 0, 8,
                      [&] { return arena_.Advise(0, 4, MADV_DONTNEED) ? 0 : 1; });
  auto uffd = AdoptFreshUffd(target.TakeUffd(), kAllEvents);
  ASSERT_TRUE(uffd.ok()) << uffd.status();
  ASSERT_TRUE((*uffd)->Register(arena_.Range(0, 8)).ok());
  target.Go();
  ASSERT_TRUE(EventuallyReadable(**uffd));
  EXPECT_EQ((*uffd)->Zero(arena_.Range(6, 1)).error, EAGAIN);
  target.child().Kill(SIGKILL);
  EXPECT_EQ(target.child().Wait(), 1000 + SIGKILL);
  std::vector<UffdEvent> events;
  EXPECT_EQ(*(*uffd)->Read(&events), 0u);
  EXPECT_EQ((*uffd)->Zero(arena_.Range(6, 1)).error, ESRCH);
}

// Race 13, from the kernel's side: a fill that came before the fork is in both, and none comes
// between.
TEST_P(KernelEvents, AForkHoldsOffFillsUntilItIsReadAndItsChildHasWhatWasFilled) {
  auto parent = Registered(16, kAllEvents | uapi::kFeatureEventFork);
  ASSERT_NE(parent->features() & uapi::kFeatureEventFork, 0u) << "CAP_SYS_PTRACE is missing";
  ASSERT_EQ(parent->Copy(arena_.Address(0), Pages(0, 4)).error, 0);
  std::atomic<int> status = -2;
  TargetThread forker([&] {
    Child child([&] { return WrongPages(arena_.At(0), 0, 8); });
    status = child.Wait();
  });
  ASSERT_TRUE(EventuallyReadable(*parent));
  EXPECT_EQ(parent->Copy(arena_.Address(4), Pages(4, 4)).error, EAGAIN);
  std::vector<UffdEvent> events;
  ASSERT_EQ(*parent->Read(&events), 1u);
  auto* fork_event = std::get_if<ForkEvent>(&events[0]);
  ASSERT_NE(fork_event, nullptr);
  uffdio_copy copy{};
  copy.dst = arena_.Address(4);
  copy.src = reinterpret_cast<uint64_t>(bytes_.data()) + 4 * kPageSize;
  copy.len = 4 * kPageSize;
  EXPECT_TRUE(Eventually(
      [&] { return ioctl(fork_event->uffd.get(), UFFDIO_COPY, &copy) == 0 || errno != EAGAIN; }));
  forker.Join();
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(EventuallyFills([&] { return parent->Copy(arena_.Address(4), Pages(4, 4)); }));
  EXPECT_TRUE(Holds(arena_.At(0), 0, 8));
}

FAULTLINE_RACES_ON_ALL_KINDS(KernelEvents);

}  // namespace
}  // namespace faultline
