// SPDX-License-Identifier: Apache-2.0
#include "server/worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <memory>
#include <thread>
#include <vector>

#include "server/call_set.h"

namespace faultline {
namespace {

TEST(WorkerPool, TasksRunAtTheSameTimeOnEveryThread) {
  // Passed only when four tasks are running. Outlives the threads, which may look at it until they
  // end.
  std::latch all_running(4);
  WorkerPool pool("test", 4, 100);
  for (int i = 0; i < 4; ++i) {
    EXPECT_TRUE(pool.Submit([&all_running] { all_running.arrive_and_wait(); }));
  }
  all_running.wait();
}

TEST(WorkerPool, OneThreadKeepsTheOrder) {
  std::vector<int> order;
  {
    WorkerPool pool("test", 1, 100);
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(pool.Submit([&order, i] { order.push_back(i); }));
    }
  }
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(WorkerPool, RefusesWhatItCannotQueueAndDropsIt) {
  std::latch started(1);
  std::latch release(1);
  WorkerPool pool("test", 1, 2);
  ASSERT_TRUE(pool.Submit([&] {
    started.count_down();
    release.wait();
  }));
  started.wait();
  EXPECT_TRUE(pool.Submit([] {}));
  EXPECT_TRUE(pool.Submit([] {}));
  auto owned = std::make_shared<int>(1);
  EXPECT_FALSE(pool.Submit([owned] { ADD_FAILURE() << "a refused task ran"; }));
  EXPECT_EQ(owned.use_count(), 1);
  release.count_down();
}

TEST(WorkerPool, DestructionRunsWhatIsQueuedAlsoWhatTasksQueue) {
  std::atomic<int> ran{0};
  {
    WorkerPool pool("test", 2, 1000);
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(pool.Submit([&] {
        ++ran;
        EXPECT_TRUE(pool.Submit([&ran] { ++ran; }));
      }));
    }
  }
  EXPECT_EQ(ran, 200);
}

class FakeCall final : public CallSet::Call {
 public:
  void Drain() override { ++drains; }
  int drains = 0;
};

TEST(CallSet, ADrainAsksEveryCallAndRefusesNewOnes) {
  CallSet calls;
  FakeCall present;
  FakeCall gone;
  FakeCall late;
  EXPECT_TRUE(calls.Add(&present));
  EXPECT_TRUE(calls.Add(&gone));
  calls.Remove(&gone);
  calls.Drain();
  EXPECT_EQ(present.drains, 1);
  EXPECT_EQ(gone.drains, 0);
  EXPECT_FALSE(calls.Add(&late));
  calls.Remove(&late);
  EXPECT_FALSE(calls.WaitUntilEmpty(std::chrono::steady_clock::now()));
  calls.Remove(&present);
  EXPECT_TRUE(calls.WaitUntilEmpty(std::chrono::steady_clock::now()));
}

TEST(CallSet, TheLastCallToLeaveEndsTheWait) {
  CallSet calls;
  std::vector<FakeCall> many(50);
  for (FakeCall& call : many) ASSERT_TRUE(calls.Add(&call));
  calls.Drain();
  std::thread leaving([&] {
    for (FakeCall& call : many) calls.Remove(&call);
  });
  EXPECT_TRUE(calls.WaitUntilEmpty(std::chrono::steady_clock::now() + std::chrono::minutes(1)));
  leaving.join();
}

}  // namespace
}  // namespace faultline
