// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "client/evict/policies.h"
#include "client/simulate/access_pattern.h"
#include "client/simulate/access_trace.h"
#include "client/simulate/bounds.h"
#include "client/simulate/simulator.h"
#include "client/trace/trace_writer.h"

namespace faultline {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// "3" reads page 3, "3w" writes to it, "3d" discards it.
AccessSequence Sequence(const std::vector<std::string>& accesses) {
  AccessSequence sequence;
  sequence.volume = PageCount(1000);
  for (const std::string& access : accesses) {
    const AccessKind kind = access.back() == 'w'   ? AccessKind::kWrite
                            : access.back() == 'd' ? AccessKind::kDiscard
                                                   : AccessKind::kRead;
    sequence.accesses.emplace_back(PageIndex(std::stoull(access)), kind);
  }
  return sequence;
}

// Pages come as if from a few threads, some of which write and discard.
AccessSequence AnySequence(uint64_t seed, uint64_t pages, uint64_t accesses) {
  std::mt19937_64 random(seed);
  AccessSequence sequence;
  sequence.volume = PageCount(pages);
  for (uint64_t i = 0; i < accesses; ++i) {
    const uint64_t near = random() % 2 == 0 ? pages : std::max<uint64_t>(1, pages / 4);
    const uint64_t kind = random() % 16;
    sequence.accesses.emplace_back(PageIndex(random() % near), kind == 0   ? AccessKind::kDiscard
                                                               : kind <= 4 ? AccessKind::kWrite
                                                                           : AccessKind::kRead);
  }
  return sequence;
}

LocalMemory Local(uint64_t local, uint64_t victim_stage = 0, uint64_t batch = 1) {
  return {PageCount(local), PageCount(victim_stage), PageCount(batch)};
}

SimulationResult Simulated(const AccessSequence& sequence, const std::string& policy,
                           LocalMemory local, PrefetchPolicy prefetcher = PrefetchPolicy::kNone) {
  return Simulate(sequence, local, MakeEvictionPolicy(policy, local.mapped())->get(),
                  NewPrefetcher(prefetcher).get());
}

// Writes down what it is told, and evicts first in, first out.
class ListeningPolicy final : public EvictionPolicy {
 public:
  void OnFill(PageIndex page, FillCause cause) override {
    Heard(cause == FillCause::kDemand ? "fill" : "ahead", page);
    fifo_->OnFill(page, cause);
  }
  void OnWrite(PageIndex page) override { Heard("write", page); }
  void OnReturn(PageIndex page, bool wanted) override {
    Heard(wanted ? "wanted" : "busy", page);
    fifo_->OnReturn(page, wanted);
  }
  void OnDiscard(PageIndex page) override {
    Heard("discard", page);
    fifo_->OnDiscard(page);
  }
  void Choose(PageCount count, std::vector<PageIndex>* victims) override {
    heard.push_back("choose " + std::to_string(count.raw()));
    fifo_->Choose(count, victims);
  }
  PageCount resident() const override { return fifo_->resident(); }

  std::vector<std::string> heard;

 private:
  void Heard(const std::string& what, PageIndex page) {
    heard.push_back(what + " " + std::to_string(page.raw()));
  }
  const std::unique_ptr<EvictionPolicy> fifo_ = *MakeEvictionPolicy("fifo", PageCount(1));
};

// Page 1 is read twice and written to twice while it is there: only the first write is heard of.
TEST(Simulator, APolicyHearsWhatAnAgentHears) {
  ListeningPolicy policy;
  Simulate(Sequence({"1", "1", "1w", "1w", "1", "2", "3", "1", "1w", "2d", "2"}), Local(3, 1),
           &policy, nullptr);
  EXPECT_THAT(policy.heard,
              ElementsAre("fill 1", "write 1", "fill 2", "fill 3", "choose 1",  // 1 leaves
                          "wanted 1", "choose 1",                               // 2 leaves
                          "discard 2", "fill 2", "choose 1"));
}

TEST(Simulator, AWriteThatFillsIsNoFirstWriteSince) {
  ListeningPolicy policy;
  const SimulationResult result =
      Simulate(Sequence({"1w", "1w", "2", "3"}), Local(2), &policy, nullptr);
  EXPECT_THAT(policy.heard, ElementsAre("fill 1", "fill 2", "fill 3", "choose 1"));
  EXPECT_EQ(result.pages_out, 1u);
}

TEST(Simulator, CountsWhatMoves) {
  // First in, first out, two pages: 1w and 2 leave for 3 and 4, then 3 for 1.
  const SimulationResult result =
      Simulated(Sequence({"1w", "2", "3", "4", "1", "1", "4"}), "fifo", Local(2));
  EXPECT_EQ(result.accesses, 7u);
  EXPECT_EQ(result.misses, 5u);
  EXPECT_EQ(result.pages_in, 5u);
  EXPECT_EQ(result.pages_out, 1u);
  EXPECT_EQ(result.dropped_clean, 2u);
}

TEST(Simulator, TheVictimStageGivesPagesBackWithoutAMiss) {
  const AccessSequence sequence = Sequence({"1w", "2", "3", "1", "4", "2", "1"});
  // Two mapped, one waiting: 1 waits and returns, twice; 2 is gone when it is wanted.
  const SimulationResult result = Simulated(sequence, "fifo", Local(3, 1));
  EXPECT_EQ(result.victim_hits, 2u);
  EXPECT_EQ(result.misses, 5u);
  EXPECT_EQ(result.pages_out, 0u);
  EXPECT_EQ(result.dropped_clean, 2u);
}

TEST(Simulator, ADiscardedPageComesBackWithoutAMissAndHasToBeWritten) {
  const SimulationResult result =
      Simulated(Sequence({"1", "1d", "1", "2", "3", "1", "7d", "7"}), "fifo", Local(2));
  EXPECT_EQ(result.zero_fills, 2u);
  EXPECT_EQ(result.misses, 4u);  // 1, 2, 3, and 1 again, which has been written back
  EXPECT_EQ(result.pages_out, 1u);
}

TEST(Simulator, DiscardsReachTheVictimStage) {
  const SimulationResult result =
      Simulated(Sequence({"1w", "2", "3", "1d", "1"}), "fifo", Local(3, 1));
  EXPECT_EQ(result.victim_hits, 0u);
  EXPECT_EQ(result.zero_fills, 1u);
  EXPECT_EQ(result.pages_out + result.dropped_clean, 0u);
}

TEST(Simulator, GuessesOfAWalkSaveMisses) {
  const AccessSequence sequence = *GenerateAccesses("seq", {});
  const SimulationResult none = Simulated(sequence, "fifo", Local(4096));
  const SimulationResult ahead =
      Simulated(sequence, "fifo", Local(4096), PrefetchPolicy::kSequential);
  EXPECT_EQ(none.misses, none.accesses);
  EXPECT_LT(ahead.misses, none.misses / 50);
  EXPECT_GE(ahead.prefetch_hits, 1u);
  EXPECT_LE(ahead.pages_in, none.pages_in + 1024);
}

// What comes in stays, leaves clean or leaves dirty; nobody beats MIN; more memory is no harm to
// LRU and MIN.
TEST(Simulator, NothingIsLostAndNobodyBeatsMin) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const AccessSequence sequence = AnySequence(seed, 60 + seed * 10, 4000);
    uint64_t min_before = UINT64_MAX, lru_before = UINT64_MAX;
    for (const uint64_t local : {1, 2, 13, 40, 400}) {
      const uint64_t min = MinMisses(sequence, PageCount(local));
      const uint64_t lru = LruMisses(sequence, PageCount(local));
      EXPECT_LE(min, lru);
      EXPECT_LE(min, min_before);
      EXPECT_LE(lru, lru_before);
      min_before = min;
      lru_before = lru;
      for (const absl::string_view policy : kEvictionPolicyNames) {
        const SimulationResult r =
            Simulated(sequence, std::string(policy), Local(local, local / 4, 1 + seed % 4));
        EXPECT_GE(r.misses, min) << policy << " in " << local;
        EXPECT_EQ(r.pages_in, r.misses);
        const uint64_t came = r.pages_in + r.zero_fills;
        const uint64_t left = r.pages_out + r.dropped_clean;
        // The others are there, or were discarded.
        EXPECT_LE(left, came);
        EXPECT_LE(came - left, local + 4000 / 8);
        EXPECT_EQ(r,
                  Simulated(sequence, std::string(policy), Local(local, local / 4, 1 + seed % 4)));
      }
    }
    // Everything fits: only first touches miss.
    std::set<uint64_t> touched;
    uint64_t first = 0;
    for (const Access& access : sequence.accesses) {
      if (touched.insert(access.page().raw()).second)
        first += access.kind() != AccessKind::kDiscard;
    }
    EXPECT_EQ(MinMisses(sequence, PageCount(400)), first);
    EXPECT_EQ(LruMisses(sequence, PageCount(400)), first);
  }
}

// The best of all ways to evict, by trying them all.
uint64_t FewestMisses(const std::vector<Access>& accesses, size_t at, std::set<uint64_t> resident,
                      std::set<uint64_t> zero, uint64_t local) {
  uint64_t misses = 0;
  for (; at < accesses.size(); ++at) {
    const uint64_t page = accesses[at].page().raw();
    if (accesses[at].kind() == AccessKind::kDiscard) {
      resident.erase(page);
      zero.insert(page);
      continue;
    }
    if (resident.contains(page)) continue;
    if (zero.erase(page) == 0) ++misses;
    resident.insert(page);
    if (resident.size() <= local) continue;
    uint64_t best = UINT64_MAX;
    for (uint64_t leaves : resident) {
      std::set<uint64_t> rest = resident;
      rest.erase(leaves);
      best = std::min(best, FewestMisses(accesses, at + 1, std::move(rest), zero, local));
    }
    return misses + best;
  }
  return misses;
}

TEST(Bounds, MinIsTheBestOfAllWays) {
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    const AccessSequence sequence = AnySequence(seed, 5 + seed % 3, 16);
    for (uint64_t local = 1; local <= 3; ++local) {
      EXPECT_EQ(MinMisses(sequence, PageCount(local)),
                FewestMisses(sequence.accesses, 0, {}, {}, local))
          << "seed " << seed << ", local " << local;
    }
  }
}

TEST(Bounds, LruLetsTheOneLeaveThatWasNotUsedForLongest) {
  const AccessSequence sequence = Sequence({"1", "2", "1", "3", "1", "2"});
  EXPECT_EQ(LruMisses(sequence, PageCount(2)), 4u);
  EXPECT_EQ(MinMisses(sequence, PageCount(2)), 3u);
  EXPECT_EQ(LruMisses(Sequence({"1", "2", "3", "1", "2", "3"}), PageCount(2)), 6u);
  EXPECT_EQ(MinMisses(Sequence({"1", "2", "3", "1", "2", "3"}), PageCount(2)), 4u);
}

// What shared measurements of others say for these patterns, and the claim that is made of S3-FIFO.
TEST(Figures, AreThoseThatAreKnown) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    PatternOptions options;
    options.seed = seed;
    const AccessSequence zipf = *GenerateAccesses("zipf", options);
    const auto of_100 = [&](uint64_t misses) {
      return 100.0 * static_cast<double>(misses) / static_cast<double>(zipf.accesses.size());
    };
    const double fifo = of_100(Simulated(zipf, "fifo", Local(4096)).misses);
    EXPECT_NEAR(fifo, 24.3, 0.3);
    EXPECT_NEAR(of_100(Simulated(zipf, "fifo", Local(4096, 4096 * 15 / 100)).misses), 22.4, 0.3);
    EXPECT_NEAR(of_100(LruMisses(zipf, PageCount(4096))), 20.9, 0.3);
    for (const uint64_t batch : {1, 64}) {
      const double s3 =
          of_100(Simulated(zipf, "s3-fifo", Local(4096, 4096 * 15 / 100, batch)).misses);
      EXPECT_LT(s3, 0.85 * fifo);
    }
  }
}

TEST(Patterns, AreTheSameEachTime) {
  std::map<absl::string_view, uint64_t> distinct;
  for (const AccessPattern& pattern : kAccessPatterns) {
    PatternOptions options;
    options.pages = PageCount(5000);
    options.accesses = 20'000;
    const AccessSequence sequence = *GenerateAccesses(pattern.name, options);
    EXPECT_EQ(sequence.accesses.size(), 20'000u);
    std::set<uint64_t> pages;
    for (const Access& access : sequence.accesses) {
      ASSERT_LT(access.page(), PageIndex(5000)) << pattern.name;
      ASSERT_EQ(access.kind(), AccessKind::kRead);
      pages.insert(access.page().raw());
    }
    distinct[pattern.name] = pages.size();
    // Writes do not change which pages are touched.
    options.write_share = 0.25;
    const AccessSequence written = *GenerateAccesses(pattern.name, options);
    uint64_t writes = 0;
    for (size_t i = 0; i < 20'000; ++i) {
      ASSERT_EQ(written.accesses[i].page(), sequence.accesses[i].page());
      writes += written.accesses[i].kind() == AccessKind::kWrite;
    }
    EXPECT_NEAR(static_cast<double>(writes), 5000, 300);
    EXPECT_EQ(written.accesses, GenerateAccesses(pattern.name, options)->accesses);
  }
  EXPECT_EQ(distinct["seq"], 5000u);
  EXPECT_LT(distinct["zipf"], 4500u);
}

TEST(Patterns, WhatIsUnknownOrTooLargeIsRefused) {
  EXPECT_THAT(
      std::string(GenerateAccesses("zip", {}).status().message()),
      HasSubstr("unknown pattern \"zip\"; known are seq, reverse, stride, streams, runs, "));
  PatternOptions options;
  for (uint64_t pages : {uint64_t{0}, uint64_t{1} << 40}) {
    options.pages = PageCount(pages);
    EXPECT_EQ(GenerateAccesses("seq", options).status().code(), absl::StatusCode::kInvalidArgument);
  }
  options.pages = PageCount(1);
  for (const AccessPattern& pattern : kAccessPatterns) {
    EXPECT_TRUE(GenerateAccesses(pattern.name, options).ok()) << pattern.name;
  }
}

class AccessTraces : public testing::Test {
 protected:
  ~AccessTraces() override { unlink(path_.c_str()); }
  void Write(std::initializer_list<TraceRecord> records) {
    const auto writer = *TraceWriter::Create(path_, {64 << 10, WhenTraceIsFull::kStop, {}});
    for (const TraceRecord& record : records) writer->Append(record);
  }
  static TraceRecord Record(TraceKind kind, TraceOutcome outcome, uint64_t page,
                            uint32_t count = 1) {
    TraceRecord record;
    record.kind = kind;
    record.outcome = outcome;
    record.page = PageIndex(page);
    record.count = count;
    return record;
  }

  const std::string path_ = testing::TempDir() + "/accesses_" + std::to_string(getpid());
};

TEST_F(AccessTraces, GiveBackWhatWasSaved) {
  const AccessSequence sequence = AnySequence(5, 300, 5000);
  ASSERT_TRUE(SaveAccesses(sequence, path_).ok());
  const auto loaded = LoadAccesses(path_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->sequence.accesses, sequence.accesses);
  EXPECT_EQ(loaded->sequence.volume, sequence.volume);
  EXPECT_FALSE(loaded->is_of_faults);
  EXPECT_EQ(loaded->dropped + loaded->not_whole, 0u);
}

TEST_F(AccessTraces, RunsAreTakenApartAndFaultsLeftOutWhereThereAreAccesses) {
  Write({Record(TraceKind::kFault, TraceOutcome::kDemand, 9),
         Record(TraceKind::kAccess, TraceOutcome::kWrite, 3, 2),
         Record(TraceKind::kDiscard, TraceOutcome::kNone, 4)});
  const auto loaded = LoadAccesses(path_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->sequence.accesses, Sequence({"3w", "4w", "4d"}).accesses);
  EXPECT_EQ(loaded->sequence.volume, PageCount(5));  // the trace does not say
}

TEST_F(AccessTraces, FaultsStandForAccessesWhereThereAreNone) {
  Write({Record(TraceKind::kFault, TraceOutcome::kDemand, 9),
         Record(TraceKind::kFill, TraceOutcome::kAhead, 10),
         Record(TraceKind::kFault, TraceOutcome::kProtected, 9)});
  const auto loaded = LoadAccesses(path_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_TRUE(loaded->is_of_faults);
  EXPECT_EQ(loaded->sequence.accesses, Sequence({"9", "9w"}).accesses);
}

TEST_F(AccessTraces, WhatCannotBeSimulatedIsRefused) {
  Write({Record(TraceKind::kFill, TraceOutcome::kAhead, 10),
         Record(TraceKind::kDiscard, TraceOutcome::kNone, 4)});
  EXPECT_EQ(LoadAccesses(path_).status(),
            absl::InvalidArgumentError(path_ + " has neither accesses nor faults to simulate"));
  Write({Record(TraceKind::kAccess, TraceOutcome::kRead, 0, UINT32_MAX)});
  EXPECT_THAT(std::string(LoadAccesses(path_).status().message()),
              HasSubstr("has more than 268435456 accesses"));
  EXPECT_EQ(LoadAccesses("/nowhere").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace faultline
