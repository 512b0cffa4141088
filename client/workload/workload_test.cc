// SPDX-License-Identifier: Apache-2.0
#include "client/workload/workload.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <set>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "client/churn/random.h"
#include "client/workload/flags.h"
#include "client/workload/report.h"
#include "proto/page.h"

namespace faultline::workload {
namespace {

constexpr uint64_t kBytes = uint64_t{1} << 20;
constexpr uint64_t kPages = kBytes / kPageSize;

WorkloadOptions Small(const std::string& name) {
  WorkloadOptions options;
  options.name = name;
  options.size_bytes = kBytes;
  if (name == "allocator-churn") options.operations = 300;
  return options;
}

// What one access to the memory may do, or count.
class Sink final : public AccessSink {
 public:
  explicit Sink(std::function<void(uint64_t page, AccessKind)> then) : then_(std::move(then)) {}
  void OnAccess(unsigned, uint64_t page, AccessKind kind) override { then_(page, kind); }

 private:
  std::function<void(uint64_t, AccessKind)> then_;
};

// Whether a report tells in which page, or block, what was wrong is.
bool NamesPage(const Failure& failure, uint64_t page) {
  return failure.message.find("page " + std::to_string(page) + " of the memory") !=
         std::string::npos;
}

class EveryWorkload : public ::testing::TestWithParam<std::string> {
 protected:
  const std::string name_ = GetParam();
  WorkloadOptions options_ = Small(name_);
  WorkloadHooks hooks_;
  WorkloadResult result_;

  bool AllocatesByItself() const { return name_ == "allocator-churn"; }
};

std::vector<std::string> AllBut(const std::set<std::string>& others) {
  std::vector<std::string> names;
  for (const std::string& name : WorkloadNames()) {
    if (others.count(name) == 0) names.push_back(name);
  }
  return names;
}
std::string TestName(const ::testing::TestParamInfo<std::string>& param) {
  std::string name = param.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Workload, EveryWorkload, ::testing::ValuesIn(WorkloadNames()), TestName);

// Those whose memory is one block, all the time.
using EveryBlock = EveryWorkload;
INSTANTIATE_TEST_SUITE_P(Workload, EveryBlock, ::testing::ValuesIn(AllBut({"allocator-churn"})),
                         TestName);

// Those that go on, or end by themselves, when their memory changes under them. std::sort may leave
// its array then: a crash, which is found, too.
using EveryBearing = EveryWorkload;
INSTANTIATE_TEST_SUITE_P(Workload, EveryBearing,
                         ::testing::ValuesIn(AllBut({"allocator-churn", "sort"})), TestName);

TEST_P(EveryWorkload, FindsAllBytesRight) {
  const Failure failure = RunWorkload(options_, {}, &result_);
  ASSERT_TRUE(failure.ok()) << failure.message;
  EXPECT_GT(result_.operations, 0u);
  EXPECT_GT(result_.seconds, 0);
  EXPECT_GT(result_.max_rss_bytes, kBytes / 2);
  EXPECT_TRUE(result_.options.operations || result_.options.passes);
  const nlohmann::ordered_json json = ResultToJson(result_);
  EXPECT_EQ(json["workload"], name_);
  EXPECT_EQ(json["operations"], result_.operations);
  EXPECT_NE(FormatResult(result_).find("all bytes right"), std::string::npos);
}

TEST_P(EveryWorkload, HasOneChecksumForASeedOnAnyNumberOfThreads) {
  std::set<uint64_t> checksums;
  for (const unsigned threads : {1, 2, 4, 7}) {
    options_.threads = threads;
    const Failure failure = RunWorkload(options_, {}, &result_);
    ASSERT_TRUE(failure.ok()) << threads << " threads: " << failure.message;
    checksums.insert(result_.checksum);
  }
  EXPECT_EQ(checksums.size(), 1u);
  options_.seed = 2;
  ASSERT_TRUE(RunWorkload(options_, {}, &result_).ok());
  checksums.insert(result_.checksum);
  EXPECT_EQ(checksums.size(), 2u);
}

// One bit, anywhere, before the work and after it.
TEST_P(EveryWorkload, FindsEveryByteThatIsChangedBehindItsBack) {
  churn::Random random({1});
  for (int i = 0; i < 40; ++i) {
    for (const bool before : {true, false}) {
      uint64_t page = 0;
      WorkloadHooks hooks;
      (before ? hooks.after_initialisation : hooks.after_work) = [&](std::span<std::byte> memory) {
        const uint64_t at = random.Below(memory.size());
        page = at / kPageSize;
        memory[at] ^= static_cast<std::byte>(1 << random.Below(8));
      };
      const Failure failure = RunWorkload(options_, hooks, &result_);
      EXPECT_EQ(failure.code, EBADMSG) << "page " << page << (before ? " before" : " after");
      EXPECT_NE(failure.message.find("wrong content: "), std::string::npos) << failure.message;
      // What was damaged before it was sorted, searched or looked up shows elsewhere.
      const bool moves = name_ == "hash-table" || name_ == "bfs" || (before && name_ == "sort");
      if (!AllocatesByItself() && !moves) {
        EXPECT_TRUE(NamesPage(failure, page)) << "page " << page << ": " << failure.message;
      }
    }
  }
}

TEST_P(EveryWorkload, FindsAPageThatWasLost) {
  churn::Random random({2});
  for (int i = 0; i < 10; ++i) {
    uint64_t page = 0;
    hooks_.after_work = [&](std::span<std::byte> memory) {
      page = random.Below(memory.size() / kPageSize);
      memset(memory.data() + page * kPageSize, 0, kPageSize);
    };
    const Failure failure = RunWorkload(options_, hooks_, &result_);
    EXPECT_EQ(failure.code, EBADMSG) << "page " << page;
    if (name_ != "hash-table" && name_ != "bfs" && name_ != "sort") {
      EXPECT_NE(failure.message.find("the page was lost"), std::string::npos) << failure.message;
    }
  }
}

// What the work has written is gone, and what was there before it is back.
TEST_P(EveryBlock, FindsAnOlderCopyOfAPage) {
  churn::Random random({3});
  for (int i = 0; i < 10; ++i) {
    std::vector<std::byte> old;
    uint64_t page = 0;
    hooks_.after_initialisation = [&](std::span<std::byte> memory) {
      old.assign(memory.begin(), memory.end());
    };
    hooks_.after_work = [&](std::span<std::byte> memory) {
      std::vector<uint64_t> changed;
      for (uint64_t p = 0; p < memory.size() / kPageSize; ++p) {
        if (memcmp(&memory[p * kPageSize], &old[p * kPageSize], kPageSize) != 0) {
          changed.push_back(p);
        }
      }
      ASSERT_FALSE(changed.empty());
      page = changed[random.Below(changed.size())];
      memcpy(&memory[page * kPageSize], &old[page * kPageSize], kPageSize);
    };
    options_.seed = static_cast<uint64_t>(i);
    const Failure failure = RunWorkload(options_, hooks_, &result_);
    EXPECT_EQ(failure.code, EBADMSG) << "page " << page;
    if (name_ != "bfs" && name_ != "sort") {
      EXPECT_NE(failure.message.find("an older copy"), std::string::npos) << failure.message;
      EXPECT_TRUE(NamesPage(failure, page)) << "page " << page << ": " << failure.message;
    }
  }
}

// In the middle of the work, from within an access to some other page.
TEST_P(EveryBearing, FindsAPageThatIsLostMeanwhile) {
  churn::Random random({4});
  for (int i = 0; i < 10; ++i) {
    std::span<std::byte> memory;
    uint64_t until = 200 + random.Below(500);
    Sink sink([&](uint64_t page, AccessKind) {
      if (memory.empty() || until == 0 || --until > 0) return;
      uint64_t victim;
      do {
        victim = random.Below(memory.size() / kPageSize);
      } while (victim == page);
      memset(memory.data() + victim * kPageSize, 0, kPageSize);
    });
    hooks_.accesses = &sink;
    hooks_.after_initialisation = [&](std::span<std::byte> content) { memory = content; };
    const Failure failure = RunWorkload(options_, hooks_, &result_);
    EXPECT_EQ(until, 0u);
    EXPECT_EQ(failure.code, EBADMSG);
  }
}

TEST_P(EveryBlock, TouchesOnlyItsMemoryAndMostOfIt) {
  std::vector<std::atomic<uint64_t>> touched(kPages);
  std::atomic<uint64_t> outside = 0;
  Sink sink([&](uint64_t page, AccessKind) {
    if (page < kPages) {
      ++touched[page];
    } else {
      ++outside;
    }
  });
  hooks_.accesses = &sink;
  options_.threads = 3;
  // The work alone.
  hooks_.after_initialisation = [&](std::span<std::byte>) {
    for (auto& count : touched) count = 0;
  };
  ASSERT_TRUE(RunWorkload(options_, hooks_, &result_).ok());
  EXPECT_EQ(outside, 0u);
  const auto pages =
      std::count_if(touched.begin(), touched.end(), [](const auto& count) { return count > 0; });
  EXPECT_GT(pages, static_cast<long>(kPages) * 3 / 4);
}

// The pages that one thread touches in the work, with what it does there.
std::vector<std::pair<uint64_t, AccessKind>> AccessesOf(const WorkloadOptions& options) {
  std::vector<std::pair<uint64_t, AccessKind>> accesses;
  Sink sink([&](uint64_t page, AccessKind kind) { accesses.emplace_back(page, kind); });
  WorkloadHooks hooks;
  hooks.accesses = &sink;
  hooks.after_initialisation = [&](std::span<std::byte>) { accesses.clear(); };
  WorkloadResult result;
  const Failure failure = RunWorkload(options, hooks, &result);
  EXPECT_TRUE(failure.ok()) << failure.message;
  return accesses;
}

TEST(AccessPattern, SequentialGoesFromEndToEnd) {
  WorkloadOptions options = Small("sequential");
  options.passes = 3;
  const auto accesses = AccessesOf(options);
  ASSERT_EQ(accesses.size(), 3 * kPages);
  for (uint64_t i = 0; i < accesses.size(); ++i) EXPECT_EQ(accesses[i].first, i % kPages);
}

TEST(AccessPattern, AStrideMeetsEveryPageOnceInAPass) {
  WorkloadOptions options = Small("stride");
  for (const uint64_t stride : {1u, 7u, 16u, 100u, 255u, 256u}) {
    options.stride_pages = stride;
    options.passes = 1;
    const auto accesses = AccessesOf(options);
    std::set<uint64_t> pages;
    uint64_t steps = 0;
    for (uint64_t i = 0; i < accesses.size(); ++i) {
      pages.insert(accesses[i].first);
      steps += i > 0 && accesses[i].first == accesses[i - 1].first + stride;
    }
    EXPECT_EQ(accesses.size(), kPages) << stride;
    EXPECT_EQ(pages.size(), kPages) << stride;
    // All but where it starts anew.
    EXPECT_GE(steps, kPages - stride) << stride;
  }
}

TEST(AccessPattern, AChaseMeetsEveryPageOnceInAPassAndInNoOrder) {
  WorkloadOptions options = Small("pointer-chase");
  options.passes = 1;
  const auto accesses = AccessesOf(options);
  std::set<uint64_t> pages;
  uint64_t neighbours = 0;
  for (uint64_t i = 0; i < accesses.size(); ++i) {
    pages.insert(accesses[i].first);
    neighbours += i > 0 && accesses[i].first == accesses[i - 1].first + 1;
  }
  EXPECT_EQ(accesses.size(), kPages);
  EXPECT_EQ(pages.size(), kPages);
  EXPECT_LT(neighbours, 10u);
}

// As often as the law says; six standard deviations, and the seed is fixed.
TEST(AccessPattern, ZipfWantsFewPagesMostOfTheTime) {
  WorkloadOptions options = Small("zipf");
  options.operations = 100'000;
  std::map<uint64_t, double> counts;
  for (const auto& [page, kind] : AccessesOf(options)) ++counts[page];
  std::vector<double> sorted;
  for (const auto& [page, count] : counts) sorted.push_back(count);
  std::sort(sorted.rbegin(), sorted.rend());
  double all = 0;
  for (uint64_t k = 1; k <= kPages; ++k) all += std::pow(static_cast<double>(k), -0.99);
  for (const size_t rank : {0, 1, 9}) {
    const double share = std::pow(static_cast<double>(rank + 1), -0.99) / all;
    EXPECT_NEAR(sorted[rank], share * 100'000, 6 * std::sqrt(share * 100'000)) << rank;
  }
}

TEST(AccessPattern, GupsWantsAllPagesAlike) {
  WorkloadOptions options = Small("gups");
  options.operations = 100'000;
  std::map<uint64_t, double> counts;
  for (const auto& [page, kind] : AccessesOf(options)) {
    ++counts[page];
    EXPECT_EQ(kind, AccessKind::kWrite);
  }
  const double expected = 100'000.0 / kPages;
  EXPECT_EQ(counts.size(), kPages);
  for (const auto& [page, count] : counts) {
    EXPECT_NEAR(count, expected, 6 * std::sqrt(expected)) << page;
  }
}

TEST(AccessPattern, WritesAreTheShareThatWasAskedFor) {
  for (const char* const name : {"sequential", "stride", "pointer-chase", "zipf"}) {
    for (const double share : {0.0, 0.2, 0.5, 1.0}) {
      WorkloadOptions options = Small(name);
      options.write_share = share;
      (options.name == "zipf" ? options.operations : options.passes) =
          options.name == "zipf" ? 20'000 : 80;
      const auto accesses = AccessesOf(options);
      const auto writes = std::count_if(accesses.begin(), accesses.end(), [](const auto& access) {
        return access.second == AccessKind::kWrite;
      });
      EXPECT_NEAR(static_cast<double>(writes), share * static_cast<double>(accesses.size()),
                  share > 0 && share < 1 ? 0.02 * static_cast<double>(accesses.size()) : 0)
          << name;
    }
  }
}

TEST(AllocatorChurn, AChildThatFindsAWrongByteSaysWhere) {
  WorkloadOptions options = Small("allocator-churn");
  WorkloadHooks hooks;
  hooks.in_child = [](std::span<std::byte> block) { block[block.size() / 2] ^= std::byte{1}; };
  WorkloadResult result;
  const Failure failure = RunWorkload(options, hooks, &result);
  EXPECT_EQ(failure.code, EBADMSG);
  EXPECT_NE(failure.message.find("in a forked child, block "), std::string::npos)
      << failure.message;
}

TEST(Bfs, AUniformGraphIsSearchedToo) {
  WorkloadOptions options = Small("bfs");
  WorkloadResult kronecker, uniform;
  ASSERT_TRUE(RunWorkload(options, {}, &kronecker).ok());
  options.graph = "uniform";
  ASSERT_TRUE(RunWorkload(options, {}, &uniform).ok());
  EXPECT_NE(kronecker.checksum, uniform.checksum);
  // Of three roots, nearly everything is reached: most of the memory is edges of 4 bytes.
  EXPECT_GT(uniform.operations, 3 * kBytes / 4 * 7 / 10);
  EXPECT_GT(kronecker.operations, 3 * kBytes / 4 * 7 / 10);
}

TEST(Options, WhatMeansNothingIsRefusedWithWhatToDo) {
  const struct {
    std::function<void(WorkloadOptions*)> change;
    const char* message;
  } cases[] = {
      {[](auto* o) { o->name = "quicksort"; }, "there is no workload \"quicksort\"; known are seq"},
      {[](auto* o) { o->size_bytes = 5000; }, "--size=5000: give a multiple of 4KiB, from 1MiB"},
      {[](auto* o) { o->size_bytes = 4096; }, "from 1MiB to 8TiB"},
      {[](auto* o) { o->size_bytes = uint64_t{1} << 60; }, "from 1MiB to 8TiB"},
      {[](auto* o) { o->operations = o->passes = 1; }, "leave one of them out"},
      {[](auto* o) { o->passes = 0; }, "give at least 1"},
      {[](auto* o) { o->operations = ~uint64_t{0}; }, "give fewer, or a larger --size"},
      {[](auto* o) { o->passes = ~uint64_t{0}; }, "give fewer, or a larger --size"},
      {[](auto* o) { o->write_share = 1.5; }, "give a number from 0 to 1"},
      {[](auto* o) { o->write_share = -0.1; }, "give a number from 0 to 1"},
      {[](auto* o) { o->write_share = NAN; }, "give a number from 0 to 1"},
      {[](auto* o) { o->threads = 0; }, "--threads=0: give 1 to 64"},
      {[](auto* o) { o->threads = 65; }, "--threads=65: give 1 to 64"},
      {[](auto* o) { o->stride_pages = 3; }, "--stride is for the workload stride"},
      {[](auto* o) { o->graph = "uniform"; }, "--graph is for the workload bfs"},
      {[](auto* o) { o->name = "stride", o->stride_pages = 0; }, "--stride=0: give 1 to 256"},
      {[](auto* o) { o->name = "stride", o->stride_pages = 257; }, "--stride=257: give 1 to 256"},
      {[](auto* o) { o->name = "bfs", o->graph = "grid"; }, "known are kronecker and uniform"},
      {[](auto* o) { o->name = "bfs", o->operations = 5; }, "give --passes in place of"},
      {[](auto* o) { o->name = "gups", o->passes = 5; }, "give --operations in place of"},
      {[](auto* o) { o->name = "sort", o->write_share = 0.5; }, "leave --write-share out"},
  };
  for (const auto& [change, message] : cases) {
    WorkloadOptions options = Small("sequential");
    change(&options);
    WorkloadResult result;
    const Failure failure = RunWorkload(options, {}, &result);
    EXPECT_EQ(failure.code, EINVAL) << message;
    EXPECT_NE(failure.message.find(message), std::string::npos) << failure.message;
  }
}

TEST(Options, MemoryThatIsNotThereIsNoWrongByte) {
  WorkloadOptions options = Small("sequential");
  options.size_bytes = uint64_t{8} << 40;
  WorkloadResult result;
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &limit), 0);
  rlimit less = limit;
  less.rlim_cur = uint64_t{1} << 40;
  ASSERT_EQ(setrlimit(RLIMIT_AS, &less), 0);
  const Failure failure = RunWorkload(options, {}, &result);
  ASSERT_EQ(setrlimit(RLIMIT_AS, &limit), 0);
  EXPECT_EQ(failure.code, ENOMEM);
  EXPECT_NE(failure.message.find("give a smaller --size"), std::string::npos) << failure.message;
}

WorkloadOptions Parse(const std::vector<std::string>& arguments) {
  CLI::App app;
  WorkloadOptions options;
  AddWorkloadFlags(&app, &options);
  app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  return options;
}

TEST(Flags, ArgumentsAreReadAsWhatTheyWereMadeOf) {
  const std::vector<std::vector<std::string>> lines = {
      {"zipf", "--operations=12", "--write-share=0.1", "--seed=18446744073709551615"},
      {"stride", "--passes=3", "--stride=9", "--threads=4", "--pin-cpu"},
      {"bfs", "--graph=uniform", "--size=1G"},
  };
  for (const auto& line : lines) {
    const std::vector<std::string> arguments = WorkloadArguments(Parse(line));
    EXPECT_EQ(WorkloadArguments(Parse(arguments)), arguments);
    EXPECT_EQ(arguments.size(), line[0] == "stride" ? 7u : line[0] == "zipf" ? 6u : 5u);
  }
  EXPECT_EQ(Parse({"bfs", "--size=1G"}).size_bytes, uint64_t{1} << 30);
  EXPECT_EQ(Parse({"bfs", "--size=3MiB"}).size_bytes, uint64_t{3} << 20);
  EXPECT_EQ(Parse({"bfs", "--size=4096"}).size_bytes, 4096u);
  EXPECT_THROW(Parse({"bfs", "--size=1.5MiB"}), CLI::ParseError);
  EXPECT_THROW(Parse({"bfs", "--size=3parsecs"}), CLI::ParseError);
  EXPECT_THROW(Parse({"bfs", "--size=-1"}), CLI::ParseError);
  EXPECT_THROW(Parse({"bfs", "--size=99999999999G"}), CLI::ParseError);
  EXPECT_THROW(Parse({"bfs", "--size=M"}), CLI::ParseError);
  EXPECT_THROW(Parse({"bubblesort"}), CLI::ParseError);
  EXPECT_THROW(Parse({}), CLI::ParseError);
}

}  // namespace
}  // namespace faultline::workload
