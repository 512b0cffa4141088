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

constexpr uint64_t kNoLimit = UINT64_MAX;

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
  PageWindow::Client client(1, kNoLimit);
  FakeWaiter bulk;
  FakeWaiter demand;
  EXPECT_EQ(window.bulk_limit(), 70u);
  EXPECT_TRUE(window.Take(70, RequestLane::kBulk, &client, &bulk));
  EXPECT_TRUE(window.Take(10, RequestLane::kDemand, &client, &demand));
  EXPECT_EQ(window.pages_in_flight(), 80u);
  EXPECT_FALSE(window.Take(1, RequestLane::kDemand, &client, &demand));
  EXPECT_TRUE(window.Cancel(&demand));
  EXPECT_FALSE(window.Take(1, RequestLane::kBulk, &client, &bulk));
  window.Give(10, &client);
  EXPECT_EQ(bulk.admitted, 0) << "bulk work got what is kept for demand";
  window.Give(1, &client);
  EXPECT_EQ(bulk.admitted, 1);
  EXPECT_EQ(window.pages_in_flight(), 70u);
}

TEST(PageWindow, WaitersAreAdmittedInOrderDemandFirst) {
  PageWindow window(80);
  PageWindow::Client client(1, kNoLimit);
  std::vector<FakeWaiter*> order;
  FakeWaiter holder;
  FakeWaiter bulk1(&order);
  FakeWaiter bulk2(&order);
  FakeWaiter demand1(&order);
  FakeWaiter demand2(&order);
  ASSERT_TRUE(window.Take(70, RequestLane::kBulk, &client, &holder));
  ASSERT_TRUE(window.Take(10, RequestLane::kDemand, &client, &holder));
  EXPECT_FALSE(window.Take(30, RequestLane::kBulk, &client, &bulk1));
  EXPECT_FALSE(window.Take(1, RequestLane::kBulk, &client, &bulk2));
  EXPECT_FALSE(window.Take(10, RequestLane::kDemand, &client, &demand1));
  EXPECT_FALSE(window.Take(1, RequestLane::kDemand, &client, &demand2));
  window.Give(80, &client);
  EXPECT_EQ(order, (std::vector<FakeWaiter*>{&demand1, &demand2, &bulk1, &bulk2}));
  EXPECT_EQ(window.pages_in_flight(), 42u);
}

TEST(PageWindow, NobodyOvertakesALargeRequestThatWaits) {
  PageWindow window(80);
  PageWindow::Client client(1, kNoLimit);
  FakeWaiter holder;
  FakeWaiter large;
  FakeWaiter small;
  ASSERT_TRUE(window.Take(60, RequestLane::kBulk, &client, &holder));
  EXPECT_FALSE(window.Take(20, RequestLane::kBulk, &client, &large));
  EXPECT_FALSE(window.Take(1, RequestLane::kBulk, &client, &small));
  window.Give(5, &client);
  EXPECT_EQ(large.admitted + small.admitted, 0);
  window.Give(5, &client);
  EXPECT_EQ(large.admitted, 1);
  EXPECT_EQ(small.admitted, 0);
  window.Give(20, &client);
  EXPECT_EQ(small.admitted, 1);
}

TEST(PageWindow, OneThatWasCancelledIsNotAdmitted) {
  PageWindow window(80);
  PageWindow::Client client(1, kNoLimit);
  FakeWaiter holder;
  FakeWaiter waiter;
  ASSERT_TRUE(window.Take(70, RequestLane::kBulk, &client, &holder));
  EXPECT_FALSE(window.Take(70, RequestLane::kBulk, &client, &waiter));
  EXPECT_TRUE(window.Cancel(&waiter));
  EXPECT_FALSE(window.Cancel(&waiter));
  window.Give(70, &client);
  EXPECT_EQ(waiter.admitted, 0);
  EXPECT_EQ(window.pages_in_flight(), 0u);
}

TEST(PageWindow, ClientsThatWaitGetAsManyPagesAsEachOther) {
  PageWindow window(80);
  PageWindow::Client many(1, kNoLimit);
  PageWindow::Client few(2, kNoLimit);
  PageWindow::Client holder(3, kNoLimit);
  std::vector<FakeWaiter*> order;
  FakeWaiter held;
  std::vector<FakeWaiter> of_many(6, FakeWaiter(&order));
  std::vector<FakeWaiter> of_few(2, FakeWaiter(&order));
  ASSERT_TRUE(window.Take(70, RequestLane::kBulk, &holder, &held));
  for (FakeWaiter& one : of_many) EXPECT_FALSE(window.Take(10, RequestLane::kBulk, &many, &one));
  EXPECT_FALSE(window.Take(30, RequestLane::kBulk, &few, &of_few[0]));
  EXPECT_FALSE(window.Take(10, RequestLane::kBulk, &few, &of_few[1]));
  for (int i = 0; i < 7; ++i) window.Give(10, &holder);
  for (int i = 0; i < 2; ++i) window.Give(10, &many);
  EXPECT_EQ(order, (std::vector<FakeWaiter*>{&of_many[0], &of_few[0], &of_many[1], &of_many[2],
                                             &of_many[3], &of_few[1], &of_many[4]}));
}

TEST(PageWindow, AClientAtItsLimitWaitsAndHoldsUpNobodyElse) {
  PageWindow window(80);
  PageWindow::Client limited(1, 10);
  PageWindow::Client other(2, kNoLimit);
  FakeWaiter first, second, third;
  EXPECT_TRUE(window.Take(6, RequestLane::kDemand, &limited, &first));
  EXPECT_FALSE(window.Take(5, RequestLane::kDemand, &limited, &second));
  EXPECT_TRUE(window.Take(60, RequestLane::kBulk, &other, &third));
  // Its own do not overtake each other.
  EXPECT_FALSE(window.Take(1, RequestLane::kDemand, &limited, &third));
  window.Give(60, &other);
  EXPECT_EQ(second.admitted, 0);
  window.Give(6, &limited);
  EXPECT_EQ(second.admitted, 1);
  EXPECT_EQ(third.admitted, 1);
  window.Give(6, &limited);
  EXPECT_TRUE(window.Take(70, RequestLane::kBulk, &limited, &first)) << "the only one of a client";
  EXPECT_FALSE(window.Take(1, RequestLane::kDemand, &limited, &second));
  EXPECT_TRUE(window.Take(1, RequestLane::kDemand, &other, &third));
}

// Many threads, each a client, take, wait, cancel and give back; the limit holds and nothing is
// lost.
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
      PageWindow::Client client(t, t % 2 == 0 ? kNoLimit : 8);
      BlockingWaiter waiter;
      for (int i = 0; i < 3000; ++i) {
        const uint64_t pages = 1 + random() % window.bulk_limit();
        const RequestLane lane = random() % 2 == 0 ? RequestLane::kDemand : RequestLane::kBulk;
        if (!window.Take(pages, lane, &client, &waiter)) {
          if (random() % 4 == 0 && window.Cancel(&waiter)) continue;
          waiter.Wait();
        }
        if (held.fetch_add(pages) + pages > kLimit) exceeded = true;
        held.fetch_sub(pages);
        window.Give(pages, &client);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(exceeded);
  EXPECT_EQ(window.pages_in_flight(), 0u);
}

}  // namespace
}  // namespace faultline
