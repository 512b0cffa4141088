// SPDX-License-Identifier: Apache-2.0
#include "client/timers.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <future>
#include <memory>
#include <vector>

namespace faultline {
namespace {

TEST(ThreadTimers, TasksRunInTheOrderInWhichTheyFallDue) {
  std::vector<int> order;  // only the timers' thread touches it before the promise is kept
  std::promise<void> done;
  ThreadTimers timers;
  timers.After(std::chrono::milliseconds(20), [&] {
    order.push_back(2);
    done.set_value();
  });
  timers.After(std::chrono::milliseconds(1), [&] { order.push_back(1); });
  done.get_future().wait();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(ThreadTimers, TasksThatAreNotDueAreDroppedAtTheEnd) {
  bool ran = false;
  {
    ThreadTimers().After(std::chrono::hours(1), [&] { ran = true; });
  }
  EXPECT_FALSE(ran);
}

TEST(ThreadTimers, TasksThatAreDueTogetherRunAtTheSameTime) {
  // Each task ends only when all have begun.
  std::array<std::promise<void>, 3> begun;
  std::array<std::promise<bool>, 3> ended;
  std::vector<std::shared_future<void>> all;
  for (auto& promise : begun) all.push_back(promise.get_future().share());
  ThreadTimers timers(3);
  for (size_t i = 0; i < begun.size(); ++i) {
    timers.After(std::chrono::milliseconds(1), [&, i] {
      begun[i].set_value();
      bool met = true;
      for (const auto& other : all) {
        met = met && other.wait_for(std::chrono::seconds(60)) == std::future_status::ready;
      }
      ended[i].set_value(met);
    });
  }
  for (auto& promise : ended) EXPECT_TRUE(promise.get_future().get());
}

TEST(ThreadTimers, ATaskThatFallsDueWhileAnotherRunsIsTakenByAnotherThread) {
  std::promise<void> later_ran;
  std::promise<bool> met;
  ThreadTimers timers(2);
  timers.After(std::chrono::hours(1), [] {});
  timers.After(std::chrono::milliseconds(1), [&] {
    met.set_value(later_ran.get_future().wait_for(std::chrono::seconds(60)) ==
                  std::future_status::ready);
  });
  timers.After(std::chrono::milliseconds(20), [&] { later_ran.set_value(); });
  EXPECT_TRUE(met.get_future().get());
}

TEST(ThreadTimers, NoTaskIsLostOrRunTwiceWhereSeveralThreadsAddAndServe) {
  constexpr int kTasks = 2000;
  std::vector<std::atomic<int>> ran(3 * kTasks);
  std::atomic<int> left = 3 * kTasks;
  std::promise<void> done;
  {
    ThreadTimers timers(4);
    std::vector<std::thread> adders;
    for (int adder = 0; adder < 3; ++adder) {
      adders.emplace_back([&, adder] {
        for (int i = 0; i < kTasks; ++i) {
          timers.After(std::chrono::microseconds(i * 37 % 5000), [&, at = adder * kTasks + i] {
            ++ran[static_cast<size_t>(at)];
            if (--left == 0) done.set_value();
          });
        }
      });
    }
    for (std::thread& adder : adders) adder.join();
    done.get_future().wait();
  }
  for (size_t i = 0; i < ran.size(); ++i) EXPECT_EQ(ran[i], 1) << i;
}

TEST(ThreadTimers, DestructionDropsWhatIsNotDueWhateverTheNumberOfThreads) {
  const auto held = std::make_shared<int>(0);
  {
    ThreadTimers timers(3);
    for (int i = 0; i < 10; ++i) timers.After(std::chrono::hours(1), [held] { ++*held; });
  }
  EXPECT_EQ(*held, 0);
  EXPECT_EQ(held.use_count(), 1);  // the tasks themselves are gone too
}

TEST(FakeTimers, TasksRunOnlyWhenTheClockIsMoved) {
  FakeTimers timers;
  int ran = 0;
  timers.After(std::chrono::seconds(1), [&] {
    ++ran;
    timers.After(std::chrono::seconds(1), [&] { ++ran; });
  });
  timers.Advance(std::chrono::milliseconds(999));
  EXPECT_EQ(ran, 0);
  timers.Advance(std::chrono::milliseconds(1));
  EXPECT_EQ(ran, 1);
  timers.Advance(std::chrono::seconds(5));
  EXPECT_EQ(ran, 2);
  EXPECT_EQ(timers.pending(), 0u);
}

}  // namespace
}  // namespace faultline
