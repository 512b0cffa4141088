// SPDX-License-Identifier: Apache-2.0
#include "client/remote/call_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <memory>
#include <random>

namespace faultline {
namespace {

using Owned = std::unique_ptr<int>;

std::vector<int> Values(CallQueue<Owned>* queue) {
  std::vector<int> values;
  for (const Owned& value : *queue) values.push_back(*value);
  return values;
}

TEST(CallQueue, GivesOutWhatCameFirst) {
  CallQueue<Owned> queue;
  EXPECT_TRUE(queue.empty());
  for (int i = 0; i < 3; ++i) queue.push_back(std::make_unique<int>(i));
  EXPECT_EQ(queue.size(), 3u);
  EXPECT_EQ(*queue.front(), 0);
  EXPECT_EQ(*queue[2], 2);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(*queue.pop_front(), i);
  EXPECT_TRUE(queue.empty());
}

TEST(CallQueue, FrontTakesElementsWhereNoneWereTakenOut) {
  CallQueue<Owned> queue;
  for (int i = 0; i < 3; ++i) queue.push_front(std::make_unique<int>(i));
  EXPECT_EQ(Values(&queue), (std::vector<int>{2, 1, 0}));
  queue.pop_front();
  queue.push_front(std::make_unique<int>(7));
  EXPECT_EQ(Values(&queue), (std::vector<int>{7, 1, 0}));
}

TEST(CallQueue, LosesItsTail) {
  CallQueue<Owned> queue;
  for (int i = 0; i < 6; ++i) queue.push_back(std::make_unique<int>(i));
  queue.pop_front();
  const auto tail = std::stable_partition(queue.begin(), queue.end(),
                                          [](const Owned& value) { return *value % 2 == 0; });
  queue.erase_from(tail);
  EXPECT_EQ(Values(&queue), (std::vector<int>{2, 4}));
  queue.erase_from(queue.begin());
  EXPECT_TRUE(queue.empty());
  queue.push_back(std::make_unique<int>(9));
  EXPECT_EQ(Values(&queue), (std::vector<int>{9}));
}

TEST(CallQueue, KeepsItsMemoryHoweverManyPassThrough) {
  CallQueue<int> queue;
  queue.push_back(0);
  queue.pop_front();
  const size_t lone = queue.capacity();
  for (int i = 0; i < 1000; ++i) {
    queue.push_back(i);
    EXPECT_EQ(queue.pop_front(), i);
  }
  EXPECT_EQ(queue.capacity(), lone);
  for (int i = 0; i < 100; ++i) queue.push_back(i);
  // Those taken out make room for those to come.
  for (int i = 100; i < 10'000; ++i) {
    queue.push_back(i);
    EXPECT_EQ(queue.pop_front(), i - 100);
  }
  EXPECT_LE(queue.capacity(), 4 * 100u);
}

TEST(CallQueue, DoesWhatADequeDoes) {
  const unsigned seed = testing::UnitTest::GetInstance()->random_seed();
  std::printf("seed %u (--gtest_random_seed)\n", seed);
  std::mt19937 random(seed);
  CallQueue<Owned> queue;
  std::deque<int> model;
  for (int i = 0; i < 100'000; ++i) {
    switch (random() % 8) {
      case 0:
        queue.push_front(std::make_unique<int>(i));
        model.push_front(i);
        break;
      case 1:
      case 2:
      case 3:
        queue.push_back(std::make_unique<int>(i));
        model.push_back(i);
        break;
      default:
        if (model.empty()) break;
        ASSERT_EQ(*queue.pop_front(), model.front());
        model.pop_front();
    }
    if (random() % 1000 == 0 && !model.empty()) {
      const auto kept = static_cast<std::ptrdiff_t>(random() % model.size());
      queue.erase_from(queue.begin() + kept);
      model.erase(model.begin() + kept, model.end());
    }
    if (random() % 5000 == 0) {
      queue.clear();
      model.clear();
    }
    ASSERT_EQ(queue.size(), model.size());
    if (model.empty()) continue;
    const size_t at = random() % model.size();
    ASSERT_EQ(*queue[at], model[at]);
  }
}

}  // namespace
}  // namespace faultline
