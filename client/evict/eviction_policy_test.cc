// SPDX-License-Identifier: Apache-2.0
//
// What every eviction policy has to keep to, and what each does beyond that.
#include "client/evict/eviction_policy.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <random>
#include <set>
#include <string>
#include <unordered_set>

#include "client/evict/policies.h"

namespace {
std::atomic<uint64_t> allocations = 0;
std::atomic<int64_t> allocated_bytes = 0;

void* Allocate(size_t bytes) {
  void* const memory = malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) abort();
  allocations.fetch_add(1, std::memory_order_relaxed);
  allocated_bytes.fetch_add(static_cast<int64_t>(malloc_usable_size(memory)));
  return memory;
}

void Free(void* memory) {
  allocated_bytes.fetch_sub(static_cast<int64_t>(malloc_usable_size(memory)));
  free(memory);
}
}  // namespace

void* operator new(size_t bytes) { return Allocate(bytes); }
void* operator new[](size_t bytes) { return Allocate(bytes); }
void operator delete(void* memory) noexcept { Free(memory); }
void operator delete[](void* memory) noexcept { Free(memory); }
void operator delete(void* memory, size_t) noexcept { Free(memory); }
void operator delete[](void* memory, size_t) noexcept { Free(memory); }

namespace faultline {
namespace {

const char kExample[] = FAULTLINE_PLUGIN_DIRECTORY "/clock_policy.so";

std::unique_ptr<EvictionPolicy> Make(const std::string& name, PageCount capacity) {
  auto policy = MakeEvictionPolicy(name, capacity);
  EXPECT_TRUE(policy.ok()) << policy.status();
  return *std::move(policy);
}

std::vector<uint64_t> Choose(EvictionPolicy* policy, uint64_t count) {
  std::vector<PageIndex> victims;
  policy->Choose(PageCount(count), &victims);
  std::vector<uint64_t> pages;
  for (PageIndex page : victims) pages.push_back(page.raw());
  return pages;
}

void Fill(EvictionPolicy* policy, std::initializer_list<uint64_t> pages,
          FillCause cause = FillCause::kDemand) {
  for (uint64_t page : pages) policy->OnFill(PageIndex(page), cause);
}

class AnyPolicy : public testing::TestWithParam<std::string> {};

// One random call, the same for the same state of `random`; any call, sensible or not.
void AnyCall(std::mt19937_64* random, uint64_t pages, EvictionPolicy* policy,
             std::vector<PageIndex>* victims) {
  const PageIndex page((*random)() % pages * (kMaxVolumePages / pages));
  const uint64_t detail = (*random)();
  switch ((*random)() % 16) {
    default:
      return policy->OnFill(page, detail % 4 == 0 ? FillCause::kAhead : FillCause::kDemand);
    case 8:
    case 9:
      return policy->OnWrite(page);
    case 10:
    case 11:
      return policy->OnReturn(page, detail % 2 == 0);
    case 12:
      return policy->OnDiscard(page);
    case 13:
    case 14:
    case 15:
      policy->Choose(PageCount(detail % 8), victims);
  }
}

// Calls that a model of residency hears of too.
class Model {
 public:
  explicit Model(EvictionPolicy* policy) : policy_(policy) {}

  void Fill(uint64_t page) {
    policy_->OnFill(PageIndex(page), page % 4 == 0 ? FillCause::kAhead : FillCause::kDemand);
    resident_.insert(page);
  }
  void Return(uint64_t page, bool wanted) {
    policy_->OnReturn(PageIndex(page), wanted);
    resident_.insert(page);
  }
  void Discard(uint64_t page) {
    policy_->OnDiscard(PageIndex(page));
    resident_.erase(page);
  }
  // Checks what was chosen, and returns it.
  std::vector<uint64_t> Choose(uint64_t count) {
    const uint64_t before = resident_.size();
    std::vector<uint64_t> victims = faultline::Choose(policy_, count);
    EXPECT_EQ(victims.size(), std::min(count, before));
    for (uint64_t page : victims) {
      // Also where it has been chosen twice.
      EXPECT_EQ(resident_.erase(page), 1u) << "page " << page << " was not resident";
    }
    return victims;
  }
  uint64_t resident() const { return resident_.size(); }
  bool Has(uint64_t page) const { return resident_.contains(page); }

 private:
  EvictionPolicy* const policy_;
  std::unordered_set<uint64_t> resident_;
};

TEST_P(AnyPolicy, ChoosesWhatIsResidentAndEachPageOnce) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const auto policy = Make(GetParam(), PageCount(seed % 3 == 0 ? 0 : 400));
    Model model(policy.get());
    std::vector<uint64_t> chosen;
    for (int i = 0; i < 20'000 && !HasFailure(); ++i) {
      const uint64_t page = random() % 1500;
      const uint64_t was = chosen.empty() ? page : chosen[random() % chosen.size()];
      switch (random() % 12) {
        default:
          model.Fill(page);
          break;
        case 5:
          policy->OnWrite(PageIndex(page));
          break;
        case 6:
          model.Return(was, true);
          break;
        case 7:
          model.Return(random() % 8 == 0 ? page : was, false);
          break;
        case 8:
          model.Discard(page);
          break;
        case 9:
        case 10:
        case 11:
          chosen = model.Choose(model.resident() > 400 ? 64 : random() % 4);
      }
      ASSERT_EQ(policy->resident(), PageCount(model.resident()));
    }
    model.Choose(model.resident() + 1);
    EXPECT_EQ(policy->resident(), PageCount(0));
    EXPECT_TRUE(Choose(policy.get(), 8).empty());
  }
}

TEST_P(AnyPolicy, TheSameCallsGiveTheSameVictims) {
  std::vector<PageIndex> victims[2];
  for (auto& v : victims) {
    std::mt19937_64 random(3);
    const auto policy = Make(GetParam(), PageCount(500));
    for (int i = 0; i < 50'000; ++i) AnyCall(&random, 2000, policy.get(), &v);
  }
  EXPECT_GT(victims[0].size(), 1000u);
  EXPECT_EQ(victims[0], victims[1]);
}

TEST_P(AnyPolicy, AddsToWhatWasChosenBefore) {
  const auto policy = Make(GetParam(), PageCount(10));
  Fill(policy.get(), {1, 2});
  std::vector<PageIndex> victims = {PageIndex(77)};
  policy->Choose(PageCount(1), &victims);
  ASSERT_EQ(victims.size(), 2u);
  EXPECT_EQ(victims[0], PageIndex(77));
}

// A page that was discarded and filled again is a new one: it leaves once, like any other.
TEST_P(AnyPolicy, ADiscardedPageIsForgotten) {
  const auto policy = Make(GetParam(), PageCount(10));
  Fill(policy.get(), {1, 2, 3});
  policy->OnDiscard(PageIndex(2));
  policy->OnDiscard(PageIndex(99));
  EXPECT_EQ(policy->resident(), PageCount(2));
  policy->OnFill(PageIndex(2), FillCause::kDemand);
  std::vector<uint64_t> victims = Choose(policy.get(), 9);
  std::sort(victims.begin(), victims.end());
  EXPECT_EQ(victims, (std::vector<uint64_t>{1, 2, 3}));
}

// What is never used again does not stay for ever, whatever is wanted back meanwhile.
TEST_P(AnyPolicy, EveryPageLeavesAtSomeTime) {
  const auto policy = Make(GetParam(), PageCount(100));
  Model model(policy.get());
  for (uint64_t page = 0; page < 100; ++page) model.Fill(page);
  for (uint64_t page = 0; page < 100; ++page) policy->OnWrite(PageIndex(page));
  for (uint64_t i = 0; i < 3000; ++i) {
    model.Fill(100 + i % 450);
    for (uint64_t victim : model.Choose(model.resident() - 100)) {
      if (victim >= 500) model.Return(victim, true);
    }
  }
  for (uint64_t page = 0; page < 100; ++page) EXPECT_FALSE(model.Has(page)) << page;
}

// A stream of pages that never come again, through a memory of fixed size: what is tracked does not
// grow with it, and nothing is allocated once the memory has been full for a while.
TEST_P(AnyPolicy, MemoryIsBoundedAndNothingIsAllocatedInTheSteadyState) {
  constexpr uint64_t kCapacity = 100'000;
  std::vector<PageIndex> victims;
  victims.reserve(64);
  const int64_t bytes_before = allocated_bytes;
  const auto policy = Make(GetParam(), PageCount(kCapacity));
  uint64_t page = 0;
  const auto run = [&](uint64_t fills) {
    for (uint64_t i = 0; i < fills; ++i) {
      policy->OnFill(PageIndex(page++ * 977 % kMaxVolumePages), FillCause::kDemand);
      if (page % 3 == 0) policy->OnWrite(PageIndex(page * 977 / 2 % kMaxVolumePages));
      if (policy->resident() < PageCount(kCapacity)) continue;
      victims.clear();
      policy->Choose(PageCount(64), &victims);
      policy->OnReturn(victims[page % 64], page % 2 == 0);
      policy->OnDiscard(victims[page % 64]);
    }
  };
  run(3 * kCapacity);
  const int64_t bytes = allocated_bytes - bytes_before;
  // At most 27 bytes for each page that is resident or remembered, and blocks that are begun.
  EXPECT_LT(bytes, static_cast<int64_t>(kCapacity * 2 * 27 + 200'000));
  const uint64_t allocations_before = allocations;
  run(10 * kCapacity);
  EXPECT_EQ(allocations, allocations_before);
}

std::vector<std::string> AllPolicies() {
  std::vector<std::string> names(std::begin(kEvictionPolicyNames), std::end(kEvictionPolicyNames));
  names.push_back(kExample);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Policies, AnyPolicy, testing::ValuesIn(AllPolicies()),
                         [](const auto& policy) {
                           std::string name = policy.param == kExample ? "plugin" : policy.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(EvictionPolicies, AreFoundByTheirNames) {
  EXPECT_EQ(MakeEvictionPolicy("lru", PageCount(1)).status(),
            absl::InvalidArgumentError(
                "unknown eviction policy \"lru\"; known are fifo, second-chance, s3-fifo and the "
                "path of a shared object"));
  std::string form;
  for (absl::string_view name : kEvictionPolicyNames) form += std::string(name) + "|";
  EXPECT_EQ(form + "PATH.so", kEvictionPolicyForm);
}

TEST(Fifo, PagesLeaveInTheOrderInWhichTheyCame) {
  const auto policy = Make("fifo", PageCount(4));
  Fill(policy.get(), {4, 2, 8});
  Fill(policy.get(), {2});  // is resident: nothing new
  policy->OnWrite(PageIndex(4));
  EXPECT_EQ(Choose(policy.get(), 1), (std::vector<uint64_t>{4}));
  policy->OnReturn(PageIndex(4), /*wanted=*/true);
  EXPECT_EQ(Choose(policy.get(), 9), (std::vector<uint64_t>{2, 8, 4}));
}

TEST(SecondChance, WhatWasWantedBackStaysForOneRoundMore) {
  const auto policy = Make("second-chance", PageCount(4));
  Fill(policy.get(), {1, 2});
  EXPECT_EQ(Choose(policy.get(), 2), (std::vector<uint64_t>{1, 2}));
  policy->OnReturn(PageIndex(1), /*wanted=*/true);
  policy->OnReturn(PageIndex(2), /*wanted=*/false);
  Fill(policy.get(), {3, 4});
  EXPECT_EQ(Choose(policy.get(), 3), (std::vector<uint64_t>{2, 3, 4}));
  Fill(policy.get(), {5});
  EXPECT_EQ(Choose(policy.get(), 2), (std::vector<uint64_t>{1, 5}));
}

TEST(S3Fifo, WhatIsUsedOnceLeavesBeforeWhatWasWantedBack) {
  const auto policy = Make("s3-fifo", PageCount(20));
  Fill(policy.get(), {1, 2});
  EXPECT_EQ(Choose(policy.get(), 2), (std::vector<uint64_t>{1, 2}));
  policy->OnReturn(PageIndex(1), /*wanted=*/true);   // out of the victim stage
  policy->OnFill(PageIndex(2), FillCause::kDemand);  // its ghost is still known
  Fill(policy.get(), {11, 12, 13, 14});
  EXPECT_EQ(Choose(policy.get(), 4), (std::vector<uint64_t>{11, 12, 13, 14}));
  // Of those two, the one whose use was seen has a round more.
  EXPECT_EQ(Choose(policy.get(), 2), (std::vector<uint64_t>{2, 1}));
}

TEST(S3Fifo, AGuessIsNoUse) {
  const auto policy = Make("s3-fifo", PageCount(20));
  Fill(policy.get(), {1, 2});
  Choose(policy.get(), 2);
  policy->OnFill(PageIndex(1), FillCause::kAhead);
  policy->OnFill(PageIndex(2), FillCause::kDemand);
  EXPECT_EQ(Choose(policy.get(), 1), (std::vector<uint64_t>{1}));
}

TEST(S3Fifo, AWriteIsWorthOneRoundMoreInTheMainQueueOnly) {
  const auto policy = Make("s3-fifo", PageCount(20));
  Fill(policy.get(), {1, 2});
  Choose(policy.get(), 2);
  Fill(policy.get(), {1, 2});  // both in the main queue now
  policy->OnWrite(PageIndex(1));
  Fill(policy.get(), {3});
  policy->OnWrite(PageIndex(3));
  EXPECT_EQ(Choose(policy.get(), 3), (std::vector<uint64_t>{3, 2, 1}));
}

TEST(S3Fifo, TheGhostQueueForgetsTheOldest) {
  const auto policy = Make("s3-fifo", PageCount(4));  // knows of three
  Fill(policy.get(), {1, 2, 3, 4});
  EXPECT_EQ(Choose(policy.get(), 4).size(), 4u);
  Fill(policy.get(), {1, 4});  // 4 comes into the main queue, 1 is new
  EXPECT_EQ(Choose(policy.get(), 2), (std::vector<uint64_t>{1, 4}));
}

}  // namespace
}  // namespace faultline
