// SPDX-License-Identifier: Apache-2.0
#include "server/fair_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

namespace faultline {
namespace {

std::string Drain(FairQueue<char>* queue) {
  std::string all;
  while (!queue->empty()) all += queue->Pop();
  return all;
}

TEST(FairQueue, TakesTurns) {
  FairQueue<char> queue;
  for (const char c : {'a', 'b', 'c', 'd'}) queue.Push(1, 1, c);
  for (const char c : {'x', 'y'}) queue.Push(2, 1, c);
  EXPECT_EQ(queue.size(), 6u);
  EXPECT_EQ(queue.size_of(1), 4u);
  EXPECT_EQ(Drain(&queue), "axbycd");
  EXPECT_EQ(queue.Next(), nullptr);
}

TEST(FairQueue, WhatCostsMoreComesLessOften) {
  FairQueue<char> queue;
  for (int i = 0; i < 3; ++i) queue.Push(1, 4, 'L');
  for (int i = 0; i < 12; ++i) queue.Push(2, 1, 's');
  EXPECT_EQ(Drain(&queue), "LssssLssssLssss");
}

// Neither by being idle nor by having one item at a time does a client get more than its share.
TEST(FairQueue, TimeWithoutItemsIsNotMadeUpForAndNotForgiven) {
  FairQueue<char> queue;
  for (int i = 0; i < 8; ++i) queue.Push(1, 1, 'a');
  for (int i = 0; i < 4; ++i) queue.Pop();
  for (int i = 0; i < 4; ++i) queue.Push(2, 1, 'b');
  EXPECT_EQ(Drain(&queue), "babababa");
  std::string served;
  for (int i = 0; i < 20; ++i) queue.Push(2, 1, 'b');
  for (int i = 0; i < 10; ++i) {
    if (queue.size_of(1) == 0) queue.Push(1, 4, 'A');
    served += queue.Pop();
  }
  EXPECT_EQ(served, "bAbbbbAbbb");
}

TEST(FairQueue, PassesOverClientsThatMayNotBeServed) {
  FairQueue<char> queue;
  queue.Push(1, 1, 'a');
  queue.Push(2, 1, 'b');
  const auto not_1 = [](ClientId client, char) { return client != 1; };
  ASSERT_NE(queue.Next(not_1), nullptr);
  EXPECT_EQ(*queue.Next(not_1), 'b');
  EXPECT_EQ(queue.Pop(not_1), 'b');
  EXPECT_EQ(queue.Next(not_1), nullptr);
  EXPECT_TRUE(queue.Remove([](char c) { return c == 'a'; }));
  EXPECT_FALSE(queue.Remove([](char c) { return c == 'a'; }));
  EXPECT_TRUE(queue.empty());
}

// Clients that always have something waiting get the same within the cost of one item.
TEST(FairQueue, SharesAreEqualWhateverItemsCost) {
  constexpr uint32_t kSeed = 11;
  constexpr uint64_t kMostCost = 100;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  FairQueue<std::pair<ClientId, uint64_t>> queue;
  std::map<ClientId, uint64_t> served;
  const auto push = [&](ClientId client) {
    const uint64_t cost = 1 + random() % (client * kMostCost / 5);
    queue.Push(client, cost, {client, cost});
  };
  for (ClientId client = 1; client <= 5; ++client) push(client), push(client);
  for (int i = 0; i < 10000; ++i) {
    const auto [client, cost] = queue.Pop();
    served[client] += cost;
    push(client);
  }
  for (const auto& [client, cost] : served) {
    EXPECT_LE(cost, served[1] + kMostCost) << client;
    EXPECT_GE(cost + kMostCost, served[1]) << client;
  }
}

}  // namespace
}  // namespace faultline
