// SPDX-License-Identifier: Apache-2.0
#include "client/prefetch/prefetcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <random>

#include "client/evict/policies.h"
#include "client/prefetch/cluster_prefetcher.h"
#include "client/simulate/access_pattern.h"
#include "client/simulate/simulator.h"
#include "proto/page_testing.h"

namespace faultline {
namespace {

constexpr PrefetchPolicy kAll[] = {PrefetchPolicy::kSequential, PrefetchPolicy::kMajority,
                                   PrefetchPolicy::kStreams, PrefetchPolicy::kCluster};

struct Ratios {
  double misses, moved;  // both relative to no prefetch
};

// In a memory of a quarter of all pages, first in, first out.
SimulationResult Run(const AccessSequence& sequence, PrefetchPolicy policy) {
  const LocalMemory local{PageCount(sequence.volume.raw() / 4), PageCount(0), PageCount(1)};
  return Simulate(sequence, local, MakeEvictionPolicy("fifo", local.mapped())->get(),
                  NewPrefetcher(policy).get());
}

// By policy and pattern; printed once, for the README.
std::map<absl::string_view, Ratios> RatiosOf(PrefetchPolicy policy) {
  std::map<absl::string_view, Ratios> ratios;
  for (const AccessPattern& pattern : kAccessPatterns) {
    const AccessSequence sequence = *GenerateAccesses(pattern.name, {});
    const SimulationResult none = Run(sequence, PrefetchPolicy::kNone);
    const SimulationResult result = Run(sequence, policy);
    const auto by = [](uint64_t a, uint64_t b) {
      return static_cast<double>(a) / static_cast<double>(b);
    };
    ratios[pattern.name] = {by(result.misses, none.misses), by(result.pages_in, none.pages_in)};
    printf("| %-10s | %-11s | %4.2f | %4.2f | %4.2f |\n",
           std::string(PrefetchPolicyName(policy)).c_str(), std::string(pattern.name).c_str(),
           ratios[pattern.name].misses, ratios[pattern.name].moved,
           by(result.prefetch_hits, none.misses));
  }
  return ratios;
}

TEST(Prefetchers, SequentialFollowsRunsAndLeavesTheRestAlone) {
  auto ratios = RatiosOf(PrefetchPolicy::kSequential);
  EXPECT_LT(ratios["seq"].misses, 0.02);
  EXPECT_LT(ratios["seq"].moved, 1.05);
  EXPECT_LT(ratios["runs"].misses, 0.5);
  for (const char* trace : {"random", "zipf"}) {
    EXPECT_LT(ratios[trace].misses, 1.02) << trace;
    EXPECT_LT(ratios[trace].moved, 1.05) << trace;
  }
}

TEST(Prefetchers, MajorityFollowsAnyStride) {
  auto ratios = RatiosOf(PrefetchPolicy::kMajority);
  for (const char* trace : {"seq", "reverse", "stride"}) {
    EXPECT_LT(ratios[trace].misses, 0.05) << trace;
    EXPECT_LT(ratios[trace].moved, 1.05) << trace;
  }
  for (const char* trace : {"random", "zipf"}) {
    EXPECT_LT(ratios[trace].misses, 1.02) << trace;
    EXPECT_LT(ratios[trace].moved, 1.05) << trace;
  }
}

TEST(Prefetchers, StreamsFollowsSeveralPlacesAtOnce) {
  auto ratios = RatiosOf(PrefetchPolicy::kStreams);
  for (const char* trace : {"seq", "reverse", "stride", "streams"}) {
    EXPECT_LT(ratios[trace].misses, 0.05) << trace;
    EXPECT_LT(ratios[trace].moved, 1.05) << trace;
  }
  EXPECT_LT(ratios["scan-zipf"].misses, 0.75);
  for (const char* trace : {"random", "zipf"}) {
    EXPECT_LT(ratios[trace].misses, 1.02) << trace;
    EXPECT_LT(ratios[trace].moved, 1.05) << trace;
  }
}

TEST(Prefetchers, ClusterFollowsStridesAndFindsWhatIsUsedTogether) {
  auto ratios = RatiosOf(PrefetchPolicy::kCluster);
  for (const char* trace : {"seq", "reverse", "stride"}) {
    EXPECT_LT(ratios[trace].misses, 0.05) << trace;
    EXPECT_LT(ratios[trace].moved, 1.05) << trace;
  }
  for (const char* trace : {"random", "zipf"}) {
    EXPECT_LT(ratios[trace].misses, 1) << trace;
    EXPECT_LT(ratios[trace].moved, 1.15) << trace;
  }
}

// Pages of a volume, in an order without any stride.
std::vector<PageIndex> Shuffled(uint64_t pages, uint64_t seed) {
  std::vector<PageIndex> order;
  for (uint64_t page = 0; page < pages; ++page) order.emplace_back(page);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
  return order;
}

TEST(ClusterPrefetcher, WhoWalksIsFoundToWalkAlsoWhereClustersAreLarge) {
  ClusterPrefetcher prefetcher;
  std::vector<Guess> guesses;
  const auto touch = [&](PageIndex page, TouchKind kind) {
    guesses.clear();
    prefetcher.OnTouch(page, kind, &guesses);
  };
  for (PageIndex page : Shuffled(8192, 1)) {
    touch(page, TouchKind::kMiss);
    if (!guesses.empty()) touch(guesses.front().pages.first, TouchKind::kHit);
  }
  ASSERT_EQ(prefetcher.cluster(), 16u);
  touch(PageIndex(160'000), TouchKind::kMiss);
  ASSERT_FALSE(guesses.empty());
  touch(guesses.front().pages.first, TouchKind::kHit);
  touch(PageIndex(160'016), TouchKind::kMiss);
  // The first window of a walk, not the next cluster.
  ASSERT_FALSE(guesses.empty());
  EXPECT_EQ(guesses.front().pages, Pages(160'017, 4));
}

TEST(ClusterPrefetcher, GrowsWhereNeighboursAreTouchedAndShrinksWhereTheyAreNot) {
  ClusterPrefetcher prefetcher;
  std::vector<Guess> guesses;
  // All neighbours are touched, soon or late.
  for (PageIndex page : Shuffled(8192, 1)) {
    guesses.clear();
    prefetcher.OnTouch(page, TouchKind::kMiss, &guesses);
    for (const Guess& guess : guesses) {
      if (guess.placement != Placement::kStaged) continue;
      std::vector<Guess> none;
      prefetcher.OnTouch(guess.pages.first, TouchKind::kHit, &none);
      EXPECT_TRUE(none.empty());
    }
  }
  EXPECT_EQ(prefetcher.cluster(), 16u);
  guesses.clear();
  prefetcher.OnTouch(PageIndex(100'003), TouchKind::kMiss, &guesses);
  PageCount pages(0), staged(0);
  for (const Guess& guess : guesses) {
    EXPECT_EQ(guess.pages.first.raw() / 16, 100'003u / 16);
    EXPECT_EQ((guess.pages.end().raw() - 1) / 16, 100'003u / 16);
    pages += guess.pages.count;
    if (guess.placement == Placement::kStaged) staged += guess.pages.count;
  }
  EXPECT_EQ(pages, PageCount(15));
  EXPECT_EQ(staged, PageCount(1));
  // And from here on none is.
  uint64_t fetched = 0;
  for (PageIndex page : Shuffled(8192, 2)) {
    guesses.clear();
    prefetcher.OnTouch(PageIndex(page.raw() + 200'000), TouchKind::kMiss, &guesses);
    for (const Guess& guess : guesses) {
      fetched += guess.pages.count.raw();
      if (guess.placement == Placement::kStaged) prefetcher.OnWaste(guess.pages.first);
    }
  }
  EXPECT_EQ(prefetcher.cluster(), 1u);
  EXPECT_LT(fetched, 8192u / 8);
}

TEST(Prefetchers, PoliciesAreFoundByTheirNames) {
  for (PrefetchPolicy policy : kAll) {
    EXPECT_EQ(*ParsePrefetchPolicy(PrefetchPolicyName(policy)), policy);
    EXPECT_NE(NewPrefetcher(policy), nullptr);
  }
  EXPECT_EQ(*ParsePrefetchPolicy("none"), PrefetchPolicy::kNone);
  EXPECT_EQ(NewPrefetcher(PrefetchPolicy::kNone), nullptr);
  EXPECT_EQ(ParsePrefetchPolicy("oracle").status().message(),
            "unknown prefetch policy \"oracle\"; known are none, sequential, majority, streams and "
            "cluster");
}

class AnyPrefetcher : public testing::TestWithParam<PrefetchPolicy> {};

// Touches, hits and waste of no program: walks, jumps, ends of the volume.
TEST_P(AnyPrefetcher, GuessesStayWithinTheirBoundsWhateverHappens) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const std::unique_ptr<Prefetcher> prefetcher = NewPrefetcher(GetParam());
    std::vector<Guess> guesses;
    std::vector<PageIndex> staged;
    uint64_t page = 0;
    int64_t stride = 1;
    for (int i = 0; i < 3000; ++i) {
      if (random() % 50 == 0) stride = static_cast<int64_t>(random() % 19) - 9;
      if (random() % 40 == 0) stride = static_cast<int64_t>(random() % kMaxVolumePages);
      if (random() % 30 == 0) {
        const uint64_t edges[] = {0, kMaxVolumePages - 1, random() % kMaxVolumePages};
        page = edges[random() % 3];
      }
      page = (page + static_cast<uint64_t>(stride)) % kMaxVolumePages;
      const bool predicted = !staged.empty() && random() % 4 == 0;
      if (predicted) page = staged[random() % staged.size()].raw();
      if (!staged.empty() && random() % 16 == 0) prefetcher->OnWaste(staged.front());
      guesses.clear();
      prefetcher->OnTouch(PageIndex(page), predicted ? TouchKind::kHit : TouchKind::kMiss,
                          &guesses);
      ASSERT_LE(guesses.size(), kMaxGuesses);
      PageCount pages(0);
      staged.clear();
      for (size_t a = 0; a < guesses.size(); ++a) {
        const PageRange range = guesses[a].pages;
        ASSERT_FALSE(range.empty());
        ASSERT_TRUE(IsWithin(range.first.raw(), range.count.raw(), PageCount(kMaxVolumePages)));
        ASSERT_FALSE(range.Contains(PageIndex(page)));
        for (size_t b = 0; b < a; ++b) ASSERT_FALSE(range.Overlaps(guesses[b].pages));
        pages += range.count;
        if (guesses[a].placement == Placement::kStaged) staged.push_back(range.first);
      }
      ASSERT_LE(pages, kMaxPrefetchWindow);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, AnyPrefetcher, testing::ValuesIn(kAll), [](const auto& policy) {
  return std::string(PrefetchPolicyName(policy.param));
});

}  // namespace
}  // namespace faultline
