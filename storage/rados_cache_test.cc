// SPDX-License-Identifier: Apache-2.0
//
// What is answered out of memory: the cache of pages, and the lease that says whether that may be.
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "storage/rados_page_cache.h"
#include "storage/rados_testing.h"
#include "storage/volume_catalog.h"

namespace faultline {
namespace {

using std::chrono::steady_clock;

constexpr uint64_t kNumber = 5;  // of a RadosLayer

class RadosPageCacheTest : public testing::Test {
 protected:
  // What is cached of `range`, "-" for a page that is not there; "miss" where that is not known.
  std::string Found(PageRange range) {
    RadosPageCache::Pages pages;
    if (!cache_.Find(kNumber, range, &pages, &ticket_)) return "miss";
    std::string found(range.count.raw(), '-');
    const absl::Status status = pages.Visit([&](PageIndex page, absl::string_view encoded) {
      found[(page - range.first).raw()] = encoded[0];
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok());
    return found;
  }
  // As if read from the pool: 'x' for each page but those that are "-".
  void Add(PageRange range, const std::string& read) {
    RadosPageCache::Read pages;
    for (size_t i = 0; i < read.size(); ++i) {
      if (read[i] != '-') pages.emplace_back(range.first + PageCount(i), std::string(1, read[i]));
    }
    cache_.Add(kNumber, range, ticket_, std::move(pages));
  }

  RadosPageCache cache_{1 << 20};
  uint64_t ticket_ = 0;
};

TEST_F(RadosPageCacheTest, FindsWhatWasAddedAndThatAPageIsNotThere) {
  EXPECT_EQ(Found(Pages(10, 4)), "miss");
  Add(Pages(10, 4), "ab-d");
  EXPECT_EQ(Found(Pages(10, 4)), "ab-d");
  EXPECT_EQ(Found(Pages(11, 2)), "b-");
  EXPECT_EQ(Found(Pages(10, 5)), "miss");
  EXPECT_EQ(cache_.hits(), 6u);
  EXPECT_EQ(cache_.misses(), 4u);
}

TEST_F(RadosPageCacheTest, AWriteReplacesWhatItPutsAndForgetsWhatItDeletes) {
  EXPECT_EQ(Found(Pages(10, 4)), "miss");
  Add(Pages(10, 4), "abcd");
  const PageWrites::Put put{PageIndex(12), "z"};
  const ExtentChange change{.deletes = {Pages(13, 1)}, .puts = {&put}};
  {
    RadosPageCache::Write write(&cache_, kNumber, 0, change);
    EXPECT_EQ(Found(Pages(10, 1)), "miss") << "of an extent that is being written";
    write.Commit();
  }
  EXPECT_EQ(Found(Pages(10, 3)), "abz");
  EXPECT_EQ(Found(Pages(13, 1)), "miss");
}

TEST_F(RadosPageCacheTest, AWriteThatIsInDoubtLeavesNeitherTheOldNorTheNew) {
  EXPECT_EQ(Found(Pages(12, 1)), "miss");
  Add(Pages(12, 1), "a");
  const PageWrites::Put put{PageIndex(12), "z"};
  const ExtentChange change{.deletes = {}, .puts = {&put}};
  { const RadosPageCache::Write write(&cache_, kNumber, 0, change); }
  EXPECT_EQ(Found(Pages(12, 1)), "miss");
}

TEST_F(RadosPageCacheTest, WhatWasReadBeforeOrDuringAWriteIsNotAdded) {
  const PageWrites::Put put{PageIndex(12), "z"};
  const ExtentChange change{.deletes = {}, .puts = {&put}};
  EXPECT_EQ(Found(Pages(10, 2)), "miss");
  {
    const RadosPageCache::Write write(&cache_, kNumber, 0, change);
    Add(Pages(10, 2), "ab");
    EXPECT_EQ(Found(Pages(10, 2)), "miss");
  }
  { const RadosPageCache::Write write(&cache_, kNumber, 0, change); }
  Add(Pages(10, 2), "ab");
  {
    RadosPageCache::Write write(&cache_, kNumber, 0, change);
    EXPECT_EQ(Found(Pages(12, 1)), "miss");  // and is read before the write has come to the pool
    write.Commit();
  }
  Add(Pages(12, 1), "o");
  EXPECT_EQ(Found(Pages(12, 1)), "z");
  EXPECT_EQ(Found(Pages(10, 2)), "miss");
  Add(Pages(10, 2), "ab");
  EXPECT_EQ(Found(Pages(10, 2)), "ab");
}

TEST_F(RadosPageCacheTest, TakesNoMoreThanItMay) {
  for (uint64_t page = 0; page < 10000; ++page) {
    EXPECT_EQ(Found(Pages(page, 1)), "miss");
    cache_.Add(kNumber, Pages(page, 1), ticket_, {{PageIndex(page), std::string(4096, 'x')}});
    ASSERT_LE(cache_.bytes(), 1u << 20);
  }
  EXPECT_GT(cache_.bytes(), 1u << 19);
}

uint64_t VersionOf(const std::map<uint64_t, std::string>& pages, uint64_t page, uint64_t most) {
  for (uint64_t version = 1; version <= most; ++version) {
    if (pages.contains(page) && pages.at(page) == PatternEncoded(page, version)) return version;
  }
  return 0;
}

TEST(RadosCache, APageIsAskedOfThePoolOnce) {
  const auto store = OpenRados(NewLocation());
  ASSERT_STATUS_OK(Own(*store));
  ASSERT_STATUS_OK(WriteLayer(*store, kLayer, {{3, 1}, {70, 1}}));
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(SamePages(*ReadLayer(*store, kLayer, Pages(0, 128)),
                          {{3, PatternEncoded(3, 1)}, {70, PatternEncoded(70, 1)}}));
  }
  EXPECT_EQ(store->Stats().cache_misses, 128u);
  EXPECT_EQ(store->Stats().cache_hits, 256u);
  EXPECT_GT(store->Stats().cache_bytes, 8192u);
  ASSERT_STATUS_OK(WriteLayer(*store, kLayer, {{3, 2}}));
  EXPECT_TRUE(SamePages(*ReadLayer(*store, kLayer, Pages(3, 1)), {{3, PatternEncoded(3, 2)}}));
  EXPECT_EQ(store->Stats().cache_misses, 128u) << "what was written is cached";
}

TEST(RadosCache, ItKeepsToTheMemoryThatTheStoreMayUse) {
  PageStoreOptions options = RadosOptions();
  options.memory_bytes = uint64_t{1} << 20;
  const auto store = OpenPageStore(NewLocation(), options);
  ASSERT_STATUS_OK(store);
  ASSERT_STATUS_OK(Own(**store));
  for (uint64_t page = 0; page < 1024; page += 64) {
    std::map<uint64_t, uint64_t> pages;
    for (uint64_t i = 0; i < 64; ++i) pages[page + i] = 1;
    ASSERT_STATUS_OK(WriteLayer(**store, kLayer, pages));
    EXPECT_LE((*store)->Stats().cache_bytes, options.memory_bytes);
  }
}

// Two owners in turns, and threads that read through both all the time.
TEST(RadosCache, NeitherOwnerEverAnswersWithWhatTheOtherHasReplaced) {
  constexpr uint64_t kRounds = 12;
  const std::string location = NewLocation();
  const std::unique_ptr<PageStore> stores[] = {OpenRados(location), OpenRados(location)};
  std::atomic<uint64_t> acknowledged = 0;
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> reads = 0, older = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 4; ++i) {
    readers.emplace_back([&, i] {
      while (!stop) {
        const uint64_t least = acknowledged;
        const auto found = ReadLayer(*stores[i % 2], kLayer, Pages(0, 1));
        if (!found.ok()) continue;  // lost
        ++reads;
        if (VersionOf(*found, 0, kRounds) < least) ++older;
      }
    });
  }
  for (uint64_t version = 1; version <= kRounds; ++version) {
    PageStore& store = *stores[version % 2];
    EXPECT_TRUE(Own(store).ok());
    EXPECT_TRUE(WriteLayer(store, kLayer, {{0, version}}).ok());
    acknowledged = version;
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(older, 0u) << "of " << reads << " reads";
  EXPECT_GT(stores[0]->Stats().cache_hits, 1000u);
  EXPECT_GT(stores[1]->Stats().cache_hits, 1000u);
}

// Through catalogs, as servers use the store: the other one's metadata is under the lease, too.
TEST(RadosCache, AVolumeThatIsDeletedThroughOneServerIsGoneInTheOtherAtOnce) {
  const std::string location = NewLocation();
  const auto a = VolumeCatalog::Open(OpenRados(location));
  const auto b = VolumeCatalog::Open(OpenRados(location));
  ASSERT_STATUS_OK(a);
  ASSERT_STATUS_OK(b);
  for (int round = 0; round < 4; ++round) {
    ASSERT_STATUS_OK((*a)->Create("v", 1 << 24, Durability::kSync));
    const auto epoch = (*a)->TakeEpoch("v");
    ASSERT_STATUS_OK(epoch);
    ASSERT_STATUS_OK(WriteVolume(**(*a)->Find("v"), epoch->epoch, {{0, 1}}));
    ASSERT_STATUS_OK((*a)->Snapshot("v", "s"));
    const auto snapshot = (*b)->Find("s");
    ASSERT_STATUS_OK(snapshot);
    const uint64_t before = (*b)->store().Stats().cache_hits;
    // For longer than it takes to be granted a lease.
    const auto end = steady_clock::now() + std::chrono::milliseconds(300);
    while (steady_clock::now() < end) {
      const auto pages = ReadVolume(**snapshot, Pages(0, 1));
      ASSERT_STATUS_OK(pages);
      ASSERT_EQ(pages->at(0), PatternPage(0, 1));
    }
    EXPECT_GT((*b)->store().Stats().cache_hits, before + 100);
    ASSERT_STATUS_OK((*a)->Delete("s"));
    EXPECT_TRUE(
        FailsWith((*snapshot)->Read(
                      Pages(0, 1), [](PageIndex, absl::string_view) { return absl::OkStatus(); },
                      [](PageRange) { return absl::OkStatus(); }),
                  absl::StatusCode::kNotFound, "deleted"));
    ASSERT_STATUS_OK((*a)->Delete("v"));
  }
}

}  // namespace
}  // namespace faultline
