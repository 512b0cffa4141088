// SPDX-License-Identifier: Apache-2.0
#include "client/fault/fault_reader.h"

#include <errno.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "client/fault/fault_testing.h"
#include "client/source/faulty_page_source.h"
#include "client/source/memory_page_source.h"
#include "proto/page_testing.h"

namespace faultline {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<UffdEvent> Faults(std::initializer_list<uint64_t> pages) {
  std::vector<UffdEvent> events;
  for (uint64_t page : pages) events.emplace_back(FaultEvent{kBase + page * P});
  return events;
}

class FaultReaderTest : public testing::Test {
 protected:
  ~FaultReaderTest() override { fetcher_->Stop(); }

  void Drain() { ASSERT_TRUE(reader_.Drain().ok()); }
  std::string PageAt(uint64_t address) { return kernel_->PageAt(address); }

  FakeMemory fake_{{{kBase, 100 * P, 0}}};
  std::shared_ptr<PagedMemory> memory_ = fake_.memory;
  FakeUffd* kernel_ = fake_.kernel;
  std::shared_ptr<FaultyPageSource> source_ = std::make_shared<FaultyPageSource>(
      std::make_shared<MemoryPageSource>(TestVolume(100)), /*seed=*/1);
  FakeTimers timers_;
  FakeTarget target_;
  std::shared_ptr<Fetcher> fetcher_ = std::make_shared<Fetcher>(
      memory_, source_, &timers_, &target_, AttachmentOptions(), FetchLimits());
  FakeHost host_;
  FaultReader reader_{memory_.get(), fetcher_, {}, &target_, &host_, SharedDiscard::kKeep};
};

TEST_F(FaultReaderTest, EachFaultIsServedWithItsPage) {
  kernel_->QueueEvents(Faults({5, 50}));
  kernel_->QueueEvents(Faults({7}));
  Drain();
  EXPECT_EQ(PageAt(kBase + 5 * P), TestPage(5));
  EXPECT_EQ(PageAt(kBase + 50 * P), TestPage(50));
  EXPECT_EQ(PageAt(kBase + 7 * P), TestPage(7));
  EXPECT_EQ(memory_->counters.faults, 3u);
}

TEST_F(FaultReaderTest, NeighboursAreFetchedTogetherAndDuplicatesOnce) {
  kernel_->QueueEvents(Faults({8, 5, 6, 5, 7, 20}));
  Drain();
  EXPECT_THAT(source_->fetched(), ElementsAre(PageRange{PageIndex(5), PageCount(4)},
                                              PageRange{PageIndex(20), PageCount(1)}));
  EXPECT_EQ(memory_->counters.joined_faults, 1u);
}

TEST_F(FaultReaderTest, AFaultForAPageThatIsOnItsWayIsNotFetchedAgain) {
  source_->Hold();
  kernel_->QueueEvents(Faults({5}));
  Drain();
  kernel_->QueueEvents(Faults({5}));
  Drain();
  EXPECT_EQ(source_->pending(), 1u);
  source_->Release();
  EXPECT_EQ(PageAt(kBase + 5 * P), TestPage(5));
}

TEST_F(FaultReaderTest, AFaultForAPageThatIsThereEndsInAnIoctlAndAWake) {
  kernel_->QueueEvents(Faults({5}));
  Drain();
  kernel_->QueueEvents(Faults({5}));  // the message of a second thread, read after the fill
  Drain();
  EXPECT_TRUE(kernel_->WasWoken(kBase + 5 * P));
  EXPECT_EQ(PageAt(kBase + 5 * P), TestPage(5));
}

TEST_F(FaultReaderTest, TheMapChangingLockIsHeldAcrossRead) {
  // While the reader is inside read(), a fill must wait; it sees the map after the event.
  kernel_->AddRegistered({0x900000, 100 * P});
  std::promise<void> started;
  std::thread fill;
  kernel_->OnRead([&] {
    fill = std::thread([&] {
      started.set_value();
      Filler(memory_.get()).Fill(PageRange::Single(PageIndex(3)), AsBytes(TestVolume(4)) + 3 * P);
    });
    started.get_future().wait();
  });
  kernel_->QueueEvents([] {
    std::vector<UffdEvent> events;
    events.emplace_back(RemapEvent{kBase, 0x900000, 100 * P});
    return events;
  }());
  Drain();
  fill.join();
  EXPECT_EQ(PageAt(kBase + 3 * P), "");
  EXPECT_EQ(PageAt(0x900000 + 3 * P), TestPage(3));
}

TEST_F(FaultReaderTest, AFaultIsResolvedAgainstTheMapAfterTheEventsOfItsBatch) {
  // The kernel returns a fault at the new address before the remap that explains it.
  kernel_->AddRegistered({0x900000, 100 * P});
  std::vector<UffdEvent> events;
  events.emplace_back(FaultEvent{0x900000 + 2 * P});
  events.emplace_back(RemapEvent{kBase, 0x900000, 100 * P});
  kernel_->QueueEvents(std::move(events));
  Drain();
  EXPECT_EQ(PageAt(0x900000 + 2 * P), TestPage(2));
  EXPECT_TRUE(kernel_->WasWoken(kBase + 2 * P));
}

TEST_F(FaultReaderTest, AFaultAfterADiscardReadsZerosAndIsNotFetched) {
  std::vector<UffdEvent> events;
  events.emplace_back(RemoveEvent{{kBase + 4 * P, 2 * P}});
  kernel_->QueueEvents(std::move(events));
  kernel_->QueueEvents(Faults({4, 6}));
  Drain();
  EXPECT_EQ(PageAt(kBase + 4 * P), std::string(P, '\0'));
  EXPECT_EQ(PageAt(kBase + 6 * P), TestPage(6));
  EXPECT_THAT(source_->fetched(), ElementsAre(PageRange::Single(PageIndex(6))));
}

TEST(FaultReaderOnSharedMemory, ADiscardedPageIsZeroOnlyIfItWasFilledBefore) {
  FakeMemory fake({{kBase, 10 * P, 0, /*shared=*/true}});
  FakeTimers timers;
  FakeTarget target;
  auto fetcher =
      std::make_shared<Fetcher>(fake.memory, std::make_shared<MemoryPageSource>(TestVolume(10)),
                                &timers, &target, AttachmentOptions(), FetchLimits());
  FakeHost host;
  FaultReader reader(fake.memory.get(), fetcher, {}, &target, &host, SharedDiscard::kKeep);
  fake.memory->table->Set(PageIndex(1), PageState::kPresent);
  std::vector<UffdEvent> events;
  events.emplace_back(RemoveEvent{{kBase, 10 * P}});
  fake.kernel->QueueEvents(std::move(events));
  fake.kernel->QueueEvents(Faults({1, 2}));
  ASSERT_TRUE(reader.Drain().ok());
  EXPECT_EQ(fake.kernel->PageAt(kBase + P), std::string(P, '\0'));
  EXPECT_EQ(fake.kernel->PageAt(kBase + 2 * P), TestPage(2));
  fetcher->Stop();
}

// Shared memory of a parent, with a reader of its events, and of its forked child.
class ForkedSharedMemory : public testing::Test {
 protected:
  ~ForkedSharedMemory() override { fetcher_->Stop(); }

  static std::shared_ptr<PagedMemory> Make(std::unique_ptr<PageTable> table, FakeUffd** kernel) {
    auto uffd = std::make_unique<FakeUffd>();
    uffd->AddRegistered({kBase, 10 * P});
    *kernel = uffd.get();
    return std::make_shared<PagedMemory>(std::move(uffd),
                                         std::vector<Mapping>{{kBase, 10 * P, 0, /*shared=*/true}},
                                         std::move(table));
  }
  static void FillPage1(PagedMemory* memory) {
    Filler(memory).Fill(Pages(1, 1), AsBytes(TestVolume(2)) + P);
  }
  // Whether `done` has become true, within as much time as what need not wait would take.
  static bool ComesTrue(const std::atomic<bool>& done) {
    for (int i = 0; i < 50 && !done; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return done;
  }

  FakeUffd* kernel_ = nullptr;
  FakeUffd* child_kernel_ = nullptr;
  std::shared_ptr<PagedMemory> parent_ =
      Make(*PageTable::Create(Pages(0, 10), {Pages(0, 10)}), &kernel_);
  std::shared_ptr<PagedMemory> child_ = Make(*parent_->table->Clone(), &child_kernel_);
  FakeTimers timers_;
  FakeTarget target_;
  FakeHost host_;
  std::shared_ptr<Fetcher> fetcher_ =
      std::make_shared<Fetcher>(parent_, std::make_shared<MemoryPageSource>(TestVolume(10)),
                                &timers_, &target_, AttachmentOptions(), FetchLimits());
  FaultReader reader_{parent_.get(), fetcher_, {}, &target_, &host_, SharedDiscard::kKeep};
};

TEST_F(ForkedSharedMemory, AnEventOfTheParentIsReadBeforeOrAfterAFillOfTheChild) {
  std::vector<UffdEvent> events;
  events.emplace_back(RemoveEvent{{kBase + P, P}});
  kernel_->QueueEvents(std::move(events));
  std::atomic<bool> told = false;
  kernel_->OnRead([&] { told = true; });
  std::thread drain;
  child_kernel_->OnFill([&] {
    drain = std::thread([&] { EXPECT_TRUE(reader_.Drain().ok()); });
    EXPECT_FALSE(ComesTrue(told)) << "and the parent goes on, and its page comes back";
  });
  FillPage1(child_.get());
  drain.join();
  EXPECT_TRUE(told);
  EXPECT_EQ(parent_->table->Get(PageIndex(1)), PageState::kZero) << "it was filled, and punched";
}

TEST_F(ForkedSharedMemory, APageIsFilledByOneAtATime) {
  parent_->queue.Join(PageIndex(1), SteadyClock::now());
  std::atomic<bool> filled = false;
  std::thread other;
  child_kernel_->OnFill([&] {
    other = std::thread([&] {
      FillPage1(parent_.get());
      filled = true;
    });
    EXPECT_FALSE(ComesTrue(filled)) << "and its target may punch what it was told is there";
  });
  FillPage1(child_.get());
  other.join();
  // The second finds the first's page noted: where it is missing again, it was punched.
  EXPECT_EQ(kernel_->PageAt(kBase + P), std::string(P, '\0'));
}

TEST_F(FaultReaderTest, UnmapWakesWhoWaitsThere) {
  source_->Hold();
  kernel_->QueueEvents(Faults({4}));
  Drain();
  std::vector<UffdEvent> events;
  events.emplace_back(UnmapEvent{{kBase, 10 * P}});
  kernel_->QueueEvents(std::move(events));
  Drain();
  EXPECT_TRUE(kernel_->WasWoken(kBase + 4 * P));
  source_->Release();
  EXPECT_EQ(PageAt(kBase + 4 * P), "");
}

class UndeclaredMemoryTest : public FaultReaderTest {
 protected:
  UndeclaredMemoryTest() {
    kernel_->AddRegistered({0x700000, 2 * P});
    ExclusiveLock lock(memory_->space.map_changing_lock());
    memory_->space.SetUndeclared({{0x700000, P}});
  }
  void FaultAt(uint64_t address) {
    std::vector<UffdEvent> events;
    events.emplace_back(FaultEvent{address});
    kernel_->QueueEvents(std::move(events));
    Drain();
  }
};

TEST_F(UndeclaredMemoryTest, AFaultInMemoryThatNoMappingNamedGetsSigbusNotZeros) {
  FaultAt(0x700000);
  EXPECT_EQ(PageAt(0x700000), FakeUffd::kPoisoned);
}

TEST_F(UndeclaredMemoryTest, ItsTargetIsKilledWhereTheKernelCannotPoison) {
  kernel_->QueueResult({EINVAL, 0});
  FaultAt(0x700000);
  ASSERT_EQ(target_.kills.size(), 1u);
  EXPECT_THAT(target_.kills[0], HasSubstr("0x700000"));
}

TEST_F(UndeclaredMemoryTest, MemoryThatAMappingHasGrownByReadsZeros) {
  FaultAt(0x701000);
  EXPECT_EQ(PageAt(0x701000), std::string(P, '\0'));
  EXPECT_EQ(memory_->counters.stray_faults, 1u);
}

TEST_F(UndeclaredMemoryTest, AStrayFaultThatIsHeldOffIsServedOnceAnEventHasExplainedIt) {
  kernel_->QueueResult({EAGAIN, 0});
  FaultAt(0x701000);
  EXPECT_EQ(PageAt(0x701000), "");
  std::vector<UffdEvent> events;
  events.emplace_back(RemapEvent{kBase + 4 * P, 0x701000, P});
  kernel_->QueueEvents(std::move(events));
  Drain();
  timers_.Advance(std::chrono::seconds(0));  // not the back-off: the event has kicked it
  EXPECT_EQ(PageAt(0x701000), TestPage(4));
}

TEST_F(FaultReaderTest, AForkedChildHasThePagesAsTheyAreAtItsFork) {
  std::vector<UffdEvent> events;
  events.emplace_back(RemoveEvent{{kBase, P}});
  events.emplace_back(ForkEvent{UniqueFd(eventfd(0, EFD_CLOEXEC))});
  events.emplace_back(RemoveEvent{{kBase + P, P}});
  kernel_->QueueEvents(std::move(events));
  Drain();
  EXPECT_TRUE(host_.children.empty());  // events may be outstanding of what came before the fork
  {
    SharedLock lock(memory_->space.map_changing_lock());
    memory_->space.NoteSettled();
  }
  Drain();
  ASSERT_EQ(host_.children.size(), 1u);
  PagedMemory& child = *host_.children[0];
  EXPECT_EQ(child.table->Get(PageIndex(0)), PageState::kZero);
  EXPECT_EQ(child.table->Get(PageIndex(1)), PageState::kAbsent);
  EXPECT_EQ(memory_->table->Get(PageIndex(1)), PageState::kZero);
  SharedLock lock(child.space.map_changing_lock());
  EXPECT_EQ(child.space.PageAt(kBase + 7 * P), PageIndex(7));
}

}  // namespace
}  // namespace faultline
