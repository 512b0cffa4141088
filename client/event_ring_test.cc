// SPDX-License-Identifier: Apache-2.0
#include "client/event_ring.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace faultline {
namespace {

// Whose fields all follow from its number.
MemoryEvent Event(uint64_t n) {
  MemoryEvent event;
  event.kind = static_cast<MemoryEventKind>(n % kMemoryEventKinds);
  event.start = n * 3;
  event.length = n * 5;
  event.page = n * 7;
  event.when = std::chrono::system_clock::time_point(std::chrono::seconds(n));
  return event;
}

void ExpectWhole(const MemoryEvent& event) {
  const MemoryEvent expected = Event(event.sequence);
  EXPECT_EQ(event.kind, expected.kind);
  EXPECT_EQ(event.start, expected.start);
  EXPECT_EQ(event.length, expected.length);
  EXPECT_EQ(event.page, expected.page);
  EXPECT_EQ(event.when, expected.when);
}

TEST(EventRing, HandsOutWhatCameBehindANumber) {
  EventRing ring;
  EXPECT_EQ(ring.last(), 0u);
  EXPECT_TRUE(ring.After(0).empty());
  for (uint64_t n = 1; n <= 5; ++n) ring.Add(Event(n));
  const std::vector<MemoryEvent> events = ring.After(2);
  ASSERT_EQ(events.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(events[i].sequence, i + 3);
    ExpectWhole(events[i]);
  }
  EXPECT_TRUE(ring.After(5).empty());
  EXPECT_TRUE(ring.After(UINT64_MAX).empty());
}

TEST(EventRing, KeepsTheLastOnes) {
  EventRing ring;
  constexpr uint64_t kAll = 3 * EventRing::kCapacity + 17;
  for (uint64_t n = 1; n <= kAll; ++n) ring.Add(Event(n));
  const std::vector<MemoryEvent> events = ring.After(0);
  ASSERT_EQ(events.size(), EventRing::kCapacity);
  EXPECT_EQ(events.front().sequence, kAll - EventRing::kCapacity + 1);
  EXPECT_EQ(events.back().sequence, kAll);
}

// What is overwritten while it is read is left out, never torn.
TEST(EventRing, IsReadWhileItIsWritten) {
  EventRing ring;
  constexpr uint64_t kEnough = 20'000;
  std::atomic<bool> enough = false;
  std::thread writer([&] {
    for (uint64_t n = 1; !enough; ++n) ring.Add(Event(n));
  });
  uint64_t last = 0;
  for (uint64_t seen = 0; seen < kEnough;) {
    for (const MemoryEvent& event : ring.After(last)) {
      ExpectWhole(event);
      EXPECT_GT(event.sequence, last);
      last = event.sequence;
      ++seen;
    }
  }
  enough = true;
  writer.join();
}

}  // namespace
}  // namespace faultline
