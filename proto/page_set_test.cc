// SPDX-License-Identifier: Apache-2.0
#include "proto/page_set.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <set>
#include <string>
#include <utility>

#include "proto/page_testing.h"

namespace faultline {
namespace {

constexpr uint64_t kChunk = PageSet::kChunkPages.raw();

PageSet SetOf(uint64_t volume_pages, const std::vector<PageRange>& ranges = {}) {
  absl::StatusOr<PageSet> set = PageSet::Create(PageCount(volume_pages));
  EXPECT_TRUE(set.ok()) << set.status();
  for (const PageRange range : ranges) set->Insert(range);
  return *std::move(set);
}

// "FIRST+COUNT" for each run.
std::vector<std::string> Runs(const PageSet& set) {
  std::vector<std::string> runs;
  for (PageRange r = set.NextRun(PageIndex(0)); !r.empty(); r = set.NextRun(r.end())) {
    runs.push_back(std::to_string(r.first.raw()) + "+" + std::to_string(r.count.raw()));
  }
  return runs;
}

using Strings = std::vector<std::string>;

absl::StatusOr<PageSet> Decode(uint64_t volume_pages, const std::vector<uint64_t>& numbers) {
  return PageSet::DecodeRuns(PageCount(volume_pages), numbers);
}

TEST(PageSet, IsEmptyAtFirst) {
  for (const uint64_t pages : {uint64_t{0}, uint64_t{1}, kChunk, kMaxPageSetVolume.raw()}) {
    const PageSet set = SetOf(pages);
    EXPECT_TRUE(set.empty());
    EXPECT_EQ(set.volume_size(), PageCount(pages));
    EXPECT_EQ(set.CountRuns(), 0u);
    EXPECT_EQ(Runs(set), Strings());
  }
}

TEST(PageSet, OfAVolumeThatIsTooLargeIsRefused) {
  const auto set = PageSet::Create(kMaxPageSetVolume + PageCount(1));
  EXPECT_EQ(set.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(PageSet::Create(PageCount(kMax)).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(PageSet, TellsWhetherAPageIsNew) {
  PageSet set = SetOf(100);
  EXPECT_TRUE(set.Insert(PageIndex(99)));
  EXPECT_FALSE(set.Insert(PageIndex(99)));
  EXPECT_TRUE(set.Insert(PageIndex(0)));
  EXPECT_TRUE(set.Contains(PageIndex(99)));
  EXPECT_FALSE(set.Contains(PageIndex(98)));
  EXPECT_EQ(set.count(), PageCount(2));
}

TEST(PageSet, IsWalkedInAscendingRunsWhateverTheOrderOfInsertion) {
  PageSet set = SetOf(3 * kChunk);
  for (const uint64_t page : {kChunk + 1, uint64_t{5}, kChunk - 1, uint64_t{63}, uint64_t{64},
                              kChunk, uint64_t{4}, 3 * kChunk - 1}) {
    set.Insert(PageIndex(page));
  }
  EXPECT_EQ(Runs(set), (Strings{"4+2", "63+2", "32767+3", "98303+1"}));
  EXPECT_EQ(set.CountRuns(), 4u);
}

TEST(PageSet, ARunIsGivenFromThePageThatIsAskedForOn) {
  const PageSet set = SetOf(1000, {Pages(100, 50)});
  EXPECT_EQ(set.NextRun(PageIndex(100)), Pages(100, 50));
  EXPECT_EQ(set.NextRun(PageIndex(120)), Pages(120, 30));
  EXPECT_TRUE(set.NextRun(PageIndex(150)).empty());
  EXPECT_TRUE(set.NextRun(PageIndex(1000)).empty());
  EXPECT_TRUE(set.NextRun(PageIndex(kMax)).empty());
}

TEST(PageSet, HoldsAWholeVolumeAsOneRun) {
  for (const uint64_t pages : {uint64_t{1}, uint64_t{64}, uint64_t{65}, kChunk, 2 * kChunk + 3}) {
    PageSet set = SetOf(pages, {Pages(0, pages)});
    set.Insert(Pages(0, 0));
    EXPECT_EQ(set.count(), PageCount(pages));
    EXPECT_EQ(Runs(set), Strings{"0+" + std::to_string(pages)});
  }
}

TEST(PageSet, MergeIsTheUnion) {
  PageSet set = SetOf(2 * kChunk, {Pages(0, 10), Pages(kChunk + 7, 1)});
  set.Merge(SetOf(kChunk, {Pages(5, 10), Pages(50, 1)}));
  EXPECT_EQ(Runs(set), (Strings{"0+15", "50+1", "32775+1"}));
  EXPECT_EQ(set.count(), PageCount(17));
}

TEST(PageSet, ClearedItCanBeFilledAgain) {
  PageSet set = SetOf(2 * kChunk, {Pages(0, 2 * kChunk)});
  set.Clear();
  EXPECT_EQ(Runs(set), Strings());
  EXPECT_TRUE(set.empty());
  set.Insert(PageIndex(3));
  EXPECT_EQ(Runs(set), Strings{"3+1"});
}

// Random operations against std::set.
TEST(PageSet, AgreesWithAPlainSet) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const uint64_t pages = 1 + random() % (3 * kChunk);
    PageSet set = SetOf(pages);
    std::set<uint64_t> model;
    for (int i = 0; i < 300; ++i) {
      const uint64_t first = random() % pages;
      const uint64_t count = std::min(random() % 200, pages - first);
      if (i % 3 == 0) {
        set.Insert(Pages(first, count));
        for (uint64_t page = first; page < first + count; ++page) model.insert(page);
      } else {
        EXPECT_EQ(set.Insert(PageIndex(first)), model.insert(first).second);
      }
    }
    std::set<uint64_t> walked;
    size_t runs = 0;
    for (PageRange r = set.NextRun(PageIndex(0)); !r.empty(); r = set.NextRun(r.end())) {
      ++runs;
      for (PageIndex page = r.first; page < r.end(); ++page) walked.insert(page.raw());
    }
    EXPECT_EQ(walked, model);
    EXPECT_EQ(set.count().raw(), model.size());
    EXPECT_EQ(set.CountRuns(), runs);
    const auto numbers = set.EncodeRuns();
    ASSERT_TRUE(numbers.ok()) << numbers.status();
    const auto decoded = Decode(pages, *numbers);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    EXPECT_EQ(Runs(*decoded), Runs(set));
  }
}

TEST(PageSet, IsEncodedAsGapsAndCounts) {
  EXPECT_EQ(*SetOf(100).EncodeRuns(), std::vector<uint64_t>());
  EXPECT_EQ(*SetOf(100, {Pages(0, 2), Pages(5, 95)}).EncodeRuns(),
            (std::vector<uint64_t>{0, 2, 3, 95}));
  EXPECT_EQ(*SetOf(100, {Pages(7, 1)}).EncodeRuns(), (std::vector<uint64_t>{7, 1}));
}

TEST(PageSet, ReadsNoRunsThatAreNotInItsOwnForm) {
  for (const std::vector<uint64_t>& bad : std::vector<std::vector<uint64_t>>{
           {0}, {0, 1, 1}, {0, 0}, {5, 0}, {0, 1, 0, 1}, {0, 1, 1, 0}}) {
    EXPECT_EQ(Decode(100, bad).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(PageSet, ReadsNoRunsBeyondTheVolume) {
  EXPECT_TRUE(Decode(100, {99, 1}).ok());
  EXPECT_TRUE(Decode(100, {0, 100}).ok());
  for (const std::vector<uint64_t>& bad : std::vector<std::vector<uint64_t>>{{100, 1},
                                                                             {0, 101},
                                                                             {99, 2},
                                                                             {kMax, 1},
                                                                             {1, kMax},
                                                                             {kMax, kMax},
                                                                             {0, 1, kMax, 1},
                                                                             {0, 50, 1, kMax - 50},
                                                                             {0, 50, 50, 1}}) {
    const absl::Status status = Decode(100, bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange) << status;
  }
  EXPECT_EQ(Decode(0, {0, 1}).status().code(), absl::StatusCode::kOutOfRange);
}

// There is one form for each set, so what is accepted is written again as it was read.
TEST(PageSet, WhateverItReadsItWritesTheSameWay) {
  int accepted = 0;
  for (uint32_t seed = 1; seed <= 5000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    std::vector<uint64_t> numbers(random() % 9);
    for (uint64_t& number : numbers)
      number = random() >> (random() % 4 == 0 ? 0 : 50 + random() % 14);
    const uint64_t pages = random() % (2 * kChunk);
    const auto set = Decode(pages, numbers);
    if (!set.ok()) continue;
    ++accepted;
    EXPECT_EQ(*set->EncodeRuns(), numbers);
    EXPECT_LE(set->count(), PageCount(pages));
  }
  EXPECT_GT(accepted, 500) << "too few sets to have tested anything";
}

TEST(PageSet, AMillionRunsAreEncodedAndOneMoreIsRefused) {
  const uint64_t pages = 2 * kMaxPageSetRuns + 2;
  PageSet set = SetOf(pages);
  for (uint64_t i = 0; i < kMaxPageSetRuns; ++i) set.Insert(PageIndex(2 * i));
  const auto numbers = set.EncodeRuns();
  ASSERT_TRUE(numbers.ok()) << numbers.status();
  const auto decoded = Decode(pages, *numbers);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->count(), PageCount(kMaxPageSetRuns));
  set.Insert(PageIndex(2 * kMaxPageSetRuns));
  EXPECT_EQ(set.EncodeRuns().status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Decode(pages, std::vector<uint64_t>(2 * kMaxPageSetRuns + 2, 1)).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(PageSet, GoesThroughItsChunks) {
  const PageSet set = SetOf(3 * kChunk, {Pages(1, 1), Pages(8, 2), Pages(2 * kChunk, 64)});
  ASSERT_EQ(set.chunks(), 3u);
  EXPECT_FALSE(set.ChunkIsEmpty(0));
  EXPECT_TRUE(set.ChunkIsEmpty(1));
  EXPECT_FALSE(set.ChunkIsEmpty(2));
  EXPECT_EQ(set.Chunk(0)[0], std::byte{0x02});
  EXPECT_EQ(set.Chunk(0)[1], std::byte{0x03});
  PageSet copy = SetOf(3 * kChunk, {Pages(9, 2)});
  for (size_t chunk = 0; chunk < set.chunks(); ++chunk) {
    EXPECT_TRUE(copy.MergeChunk(chunk, set.Chunk(chunk)).ok());
  }
  EXPECT_EQ(Runs(copy), (Strings{"1+1", "8+3", "65536+64"}));
  EXPECT_EQ(copy.count(), PageCount(68));
}

TEST(PageSet, TakesNoChunkWithPagesBeyondTheVolume) {
  for (const uint64_t pages : {kChunk + 1, kChunk + 64, kChunk + 100}) {
    PageSet set = SetOf(pages);
    std::array<std::byte, kPageSize> bits{};
    const uint64_t last = pages - kChunk - 1;
    bits[last / 8] = static_cast<std::byte>(1 << last % 8);
    EXPECT_TRUE(set.MergeChunk(1, bits).ok());
    bits[(last + 1) / 8] |= static_cast<std::byte>(1 << (last + 1) % 8);
    EXPECT_EQ(set.MergeChunk(1, bits).code(), absl::StatusCode::kDataLoss);
    bits[(last + 1) / 8] = std::byte{0};
    bits[last / 8] = std::byte{0};
    bits[kPageSize - 1] = std::byte{0x80};
    EXPECT_EQ(set.MergeChunk(1, bits).code(), absl::StatusCode::kDataLoss);
    EXPECT_EQ(set.count(), PageCount(1));
  }
}

}  // namespace
}  // namespace faultline
