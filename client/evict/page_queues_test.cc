// SPDX-License-Identifier: Apache-2.0
#include "client/evict/page_queues.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>

namespace faultline {
namespace {

TEST(PageQueues, TheFrontIsTheOneThatHasBeenThereForLongest) {
  PageQueues pages;
  EXPECT_FALSE(pages.Front(0));
  for (uint64_t page : {5, 3, 9}) pages.Push(PageIndex(page), 0);
  pages.Push(PageIndex(1), 1);
  EXPECT_EQ(pages.page(*pages.Front(0)), PageIndex(5));
  pages.Move(*pages.Find(PageIndex(5)), 0);
  EXPECT_EQ(pages.page(*pages.Front(0)), PageIndex(3));
  pages.Move(*pages.Find(PageIndex(3)), 1);
  EXPECT_EQ(pages.page(*pages.Front(0)), PageIndex(9));
  EXPECT_EQ(pages.page(*pages.Front(1)), PageIndex(1));
  EXPECT_EQ(pages.size(1), PageCount(2));
}

TEST(PageQueues, AMarkStaysUntilThePageGoes) {
  PageQueues pages;
  pages.Mark(pages.Push(PageIndex(4), 0), true);
  pages.Move(*pages.Find(PageIndex(4)), 2);
  EXPECT_TRUE(pages.marked(*pages.Find(PageIndex(4))));
  pages.Remove(*pages.Find(PageIndex(4)));
  EXPECT_FALSE(pages.Find(PageIndex(4)));
  EXPECT_FALSE(pages.marked(pages.Push(PageIndex(4), 0)));
}

TEST(PageQueues, HasRoomForTheLastPageOfTheLargestVolume) {
  PageQueues pages;
  const PageIndex last(kMaxVolumePages - 1);
  pages.Push(last, 3);
  EXPECT_EQ(pages.page(*pages.Find(last)), last);
  EXPECT_EQ(pages.queue(*pages.Find(last)), 3u);
}

// Against plain containers, on pages that lie close together and on pages that lie anywhere.
TEST(PageQueues, AreWhatPlainQueuesAre) {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const uint64_t spread = seed % 2 == 0 ? 1 : kMaxVolumePages / 4096 - 1;
    PageQueues pages;
    std::deque<uint64_t> model[PageQueues::kMaxQueues];
    std::map<uint64_t, unsigned> queue_of;
    const auto forget = [&](uint64_t page) {
      std::deque<uint64_t>& queue = model[queue_of.at(page)];
      queue.erase(std::find(queue.begin(), queue.end(), page));
    };
    for (int i = 0; i < 30'000; ++i) {
      const uint64_t page = random() % 4096 * spread;
      const unsigned queue = random() % PageQueues::kMaxQueues;
      const auto entry = pages.Find(PageIndex(page));
      ASSERT_EQ(entry.has_value(), queue_of.contains(page));
      // Fuller and emptier by turns.
      const bool remove = random() % 8 < (i / 5000 % 2 == 0 ? 1u : 5u);
      if (entry) forget(page);
      if (entry && remove) {
        pages.Remove(*entry);
        queue_of.erase(page);
        continue;
      }
      entry ? pages.Move(*entry, queue) : static_cast<void>(pages.Push(PageIndex(page), queue));
      model[queue].push_back(page);
      queue_of[page] = queue;
      ASSERT_EQ(pages.size(), PageCount(queue_of.size()));
      ASSERT_EQ(pages.size(queue), PageCount(model[queue].size()));
      ASSERT_EQ(pages.page(*pages.Front(queue)), PageIndex(model[queue].front()));
    }
    for (const auto& [page, queue] : queue_of) {
      const auto entry = pages.Find(PageIndex(page));
      ASSERT_TRUE(entry);
      ASSERT_EQ(pages.page(*entry), PageIndex(page));
      ASSERT_EQ(pages.queue(*entry), queue);
    }
  }
}

}  // namespace
}  // namespace faultline
