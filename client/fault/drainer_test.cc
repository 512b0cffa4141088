// SPDX-License-Identifier: Apache-2.0
#include "client/fault/drainer.h"

#include <gtest/gtest.h>

#include "client/fault/fault_testing.h"
#include "client/source/memory_page_source.h"

namespace faultline {
namespace {

class DrainerTest : public testing::Test {
 protected:
  static constexpr uint64_t kPages = 100;

  ~DrainerTest() override { fetcher_->Stop(); }

  std::shared_ptr<Drainer> Start() {
    auto drainer = std::make_shared<Drainer>(memory_, fetcher_, &timers_, PageCount(16), nullptr,
                                             [this](uint64_t, const DrainWindow&) { ++drained_; });
    drainer->Run();
    return drainer;
  }
  // A page has moved to where nothing was; the kernel has not said that this is all.
  void Move() {
    const uint64_t to = kBase + 2 * kPages * P;
    fake_.kernel->AddRegistered({to, P});
    ExclusiveLock lock(memory_->space.map_changing_lock());
    memory_->space.Remap(kBase, to, P);
  }
  void Settle() {
    ExclusiveLock lock(memory_->space.map_changing_lock());
    memory_->space.NoteSettled();
    memory_->space.Settle();
  }

  FakeMemory fake_{{{kBase, kPages* kPageSize, 0}}};
  std::shared_ptr<PagedMemory> memory_ = fake_.memory;
  FakeTimers timers_;
  FakeTarget target_;
  int drained_ = 0;
  std::shared_ptr<Fetcher> fetcher_ =
      std::make_shared<Fetcher>(memory_, std::make_shared<MemoryPageSource>(TestVolume(kPages)),
                                &timers_, &target_, AttachmentOptions(), FetchLimits());
};

TEST_F(DrainerTest, EverythingIsFilled) {
  Start();
  timers_.Advance(std::chrono::seconds(1));
  EXPECT_EQ(drained_, 1);
  EXPECT_EQ(memory_->table->CountOf(PageState::kPresent), PageCount(kPages));
}

TEST_F(DrainerTest, GoesRoundUntilTheAddressSpaceIsSettled) {
  Move();
  Start();
  timers_.Advance(std::chrono::seconds(1));
  EXPECT_EQ(drained_, 0);
  Settle();
  timers_.Advance(std::chrono::seconds(1));
  EXPECT_EQ(drained_, 1);
}

// It would keep all of the attachment, and look at it for ever.
TEST_F(DrainerTest, EndsWithTheFetcherThoughTheAddressSpaceIsNeverSettled) {
  Move();
  std::weak_ptr<Drainer> drainer = Start();
  timers_.Advance(std::chrono::seconds(1));
  EXPECT_FALSE(drainer.expired());
  EXPECT_EQ(memory_->table->CountOf(PageState::kPresent), PageCount(kPages));
  fetcher_->Stop();
  timers_.Advance(std::chrono::seconds(1));
  EXPECT_TRUE(drainer.expired());
  EXPECT_EQ(timers_.pending(), 0u);
  EXPECT_EQ(drained_, 0);
}

}  // namespace
}  // namespace faultline
