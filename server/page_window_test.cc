// SPDX-License-Identifier: Apache-2.0
#include "server/page_window.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

namespace faultline {
namespace {

class FakeWaiter final : public PageWindow::Waiter {
 public:
  explicit FakeWaiter(std::vector<FakeWaiter*>* order = nullptr) : order_(order) {}
  void OnAdmitted() override {
    ++admitted;
    if (order_ != nullptr) order_->push_back(this);
  }
  int admitted = 0;

 private:
  std::vector<FakeWaiter*>* const order_;
};

TEST(PageWindow, AnEighthIsForDemandAlone) {
  PageWindow window(80);
  FakeWaiter bulk;
  FakeWaiter demand;
  EXPECT_EQ(window.bulk_limit(), 70u);
  EXPECT_TRUE(window.Take(70, RequestLane::kBulk, &bulk));
  EXPECT_TRUE(window.Take(10, RequestLane::kDemand, &demand));
  EXPECT_EQ(window.pages_in_flight(), 80u);
  EXPECT_FALSE(window.Take(1, RequestLane::kDemand, &demand));
  EXPECT_TRUE(window.Cancel(&demand));
  EXPECT_FALSE(window.Take(1, RequestLane::kBulk, &bulk));
  window.Give(10);
  EXPECT_EQ(bulk.admitted, 0) << "bulk work got what is kept for demand";
  window.Give(1);
  EXPECT_EQ(bulk.admitted, 1);
  EXPECT_EQ(window.pages_in_flight(), 70u);
}

TEST(PageWindow, WaitersAreAdmittedInOrderDemandFirst) {
  PageWindow window(80);
  std::vector<FakeWaiter*> order;
  FakeWaiter holder;
  FakeWaiter bulk1(&order);
  FakeWaiter bulk2(&order);
  FakeWaiter demand1(&order);
  FakeWaiter demand2(&order);
  ASSERT_TRUE(window.Take(70, RequestLane::kBulk, &holder));
  ASSERT_TRUE(window.Take(10, RequestLane::kDemand, &holder));
  EXPECT_FALSE(window.Take(30, RequestLane::kBulk, &bulk1));
  EXPECT_FALSE(window.Take(1, RequestLane::kBulk, &bulk2));
  EXPECT_FALSE(window.Take(10, RequestLane::kDemand, &demand1));
  EXPECT_FALSE(window.Take(1, RequestLane::kDemand, &demand2));
  window.Give(80);
  EXPECT_EQ(order, (std::vector<FakeWaiter*>{&demand1, &demand2, &bulk1, &bulk2}));
  EXPECT_EQ(window.pages_in_flight(), 42u);
}

TEST(PageWindow, NobodyOvertakesALargeRequestThatWaits) {
  PageWindow window(80);
  FakeWaiter holder;
  FakeWaiter large;
  FakeWaiter small;
  ASSERT_TRUE(window.Take(60, RequestLane::kBulk, &holder));
  EXPECT_FALSE(window.Take(20, RequestLane::kBulk, &large));
  EXPECT_FALSE(window.Take(1, RequestLane::kBulk, &small));
  window.Give(5);
  EXPECT_EQ(large.admitted + small.admitted, 0);
  window.Give(5);
  EXPECT_EQ(large.admitted, 1);
  EXPECT_EQ(small.admitted, 0);
  window.Give(20);
  EXPECT_EQ(small.admitted, 1);
}

TEST(PageWindow, OneThatWasCancelledIsNotAdmitted) {
  PageWindow window(80);
  FakeWaiter holder;
  FakeWaiter waiter;
  ASSERT_TRUE(window.Take(70, RequestLane::kBulk, &holder));
  EXPECT_FALSE(window.Take(70, RequestLane::kBulk, &waiter));
  EXPECT_TRUE(window.Cancel(&waiter));
  EXPECT_FALSE(window.Cancel(&waiter));
  window.Give(70);
  EXPECT_EQ(waiter.admitted, 0);
  EXPECT_EQ(window.pages_in_flight(), 0u);
}

// Many threads take, wait, cancel and give back; the limit holds and nothing is lost.
TEST(PageWindow, HoldsItsLimitUnderConcurrency) {
  constexpr uint64_t kLimit = 64;
  constexpr uint32_t kSeed = 7;
  SCOPED_TRACE(kSeed);
  PageWindow window(kLimit);
  class BlockingWaiter final : public PageWindow::Waiter {
   public:
    void OnAdmitted() override { admitted_.store(true, std::memory_order_release); }
    void Wait() {
      while (!admitted_.exchange(false, std::memory_order_acquire)) std::this_thread::yield();
    }

   private:
    std::atomic<bool> admitted_{false};
  };
  std::atomic<uint64_t> held{0};
  std::atomic<bool> exceeded{false};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(kSeed + t);
      BlockingWaiter waiter;
      for (int i = 0; i < 3000; ++i) {
        const uint64_t pages = 1 + random() % window.bulk_limit();
        const RequestLane lane = random() % 2 == 0 ? RequestLane::kDemand : RequestLane::kBulk;
        if (!window.Take(pages, lane, &waiter)) {
          if (random() % 4 == 0 && window.Cancel(&waiter)) continue;
          waiter.Wait();
        }
        if (held.fetch_add(pages) + pages > kLimit) exceeded = true;
        held.fetch_sub(pages);
        window.Give(pages);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(exceeded);
  EXPECT_EQ(window.pages_in_flight(), 0u);
}

}  // namespace
}  // namespace faultline
