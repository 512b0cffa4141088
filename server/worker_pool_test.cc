// SPDX-License-Identifier: Apache-2.0
#include "server/worker_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
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
  WorkerPool pool("test", {.threads = 4, .max_queued = 100, .max_queued_of_client = 100});
  for (int i = 0; i < 4; ++i) {
    EXPECT_TRUE(
        pool.Submit(/*client=*/1, /*cost=*/1, [&all_running] { all_running.arrive_and_wait(); }));
  }
  all_running.wait();
}

TEST(WorkerPool, OneThreadKeepsTheOrder) {
  std::vector<int> order;
  {
    WorkerPool pool("test", {.threads = 1, .max_queued = 100, .max_queued_of_client = 100});
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(pool.Submit(/*client=*/1, /*cost=*/1, [&order, i] { order.push_back(i); }));
    }
  }
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(WorkerPool, AClientWithManyTasksDoesNotKeepAnotherWaiting) {
  std::vector<int> order;
  std::latch release(1);
  {
    WorkerPool pool("test", {.threads = 1, .max_queued = 100, .max_queued_of_client = 50});
    ASSERT_TRUE(pool.Submit(/*client=*/3, /*cost=*/1, [&release] { release.wait(); }));
    for (int i = 0; i < 50; ++i) {
      ASSERT_TRUE(pool.Submit(/*client=*/1, /*cost=*/1, [&order] { order.push_back(1); }));
    }
    EXPECT_FALSE(pool.Submit(/*client=*/1, /*cost=*/1, [] { ADD_FAILURE(); }));
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(pool.Submit(/*client=*/2, /*cost=*/1, [&order] { order.push_back(2); }));
    }
    release.count_down();
  }
  ASSERT_EQ(order.size(), 53u);
  EXPECT_EQ(std::count(order.begin(), order.begin() + 6, 2), 3);
}

TEST(WorkerPool, RefusesWhatItCannotQueueAndDropsIt) {
  std::latch started(1);
  std::latch release(1);
  WorkerPool pool("test", {.threads = 1, .max_queued = 2, .max_queued_of_client = 2});
  ASSERT_TRUE(pool.Submit(/*client=*/1, /*cost=*/1, [&] {
    started.count_down();
    release.wait();
  }));
  started.wait();
  EXPECT_TRUE(pool.Submit(/*client=*/1, /*cost=*/1, [] {}));
  EXPECT_TRUE(pool.Submit(/*client=*/1, /*cost=*/1, [] {}));
  auto owned = std::make_shared<int>(1);
  EXPECT_FALSE(
      pool.Submit(/*client=*/1, /*cost=*/1, [owned] { ADD_FAILURE() << "a refused task ran"; }));
  EXPECT_EQ(owned.use_count(), 1);
  release.count_down();
}

TEST(WorkerPool, DestructionRunsWhatIsQueuedAlsoWhatTasksQueue) {
  std::atomic<int> ran{0};
  {
    WorkerPool pool("test", {.threads = 2, .max_queued = 1000, .max_queued_of_client = 1000});
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(pool.Submit(/*client=*/1, /*cost=*/1, [&] {
        ++ran;
        EXPECT_TRUE(pool.Submit(/*client=*/1, /*cost=*/1, [&ran] { ++ran; }));
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
