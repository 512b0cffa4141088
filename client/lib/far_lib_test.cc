// SPDX-License-Identifier: Apache-2.0
//
// Far memory of the library against the real programs: a page server on RocksDB and two agents.
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "client/bench/local_stack.h"
#include "client/lib/faultline.h"
#include "client/uffd/test_memory.h"
#include "proto/page.h"

namespace faultline {
namespace {

using testing::HasSubstr;

constexpr uint64_t kPages = 4096;  // of a region
constexpr uint64_t kSize = kPages * kPageSize;
constexpr uint64_t kBudgetPages = 1024;
constexpr uint64_t kBudget = kBudgetPages * kPageSize;
constexpr uint64_t kSeed = 20261128;

struct Abandon {
  void operator()(faultline_far* far) const { faultline_far_abandon(far); }
};
using Far = std::unique_ptr<faultline_far, Abandon>;

class FarLibTest : public testing::Test {
 protected:
  void SetUp() override {
    FAULTLINE_REQUIRE_UFFD();
    absl::StatusOr<TemporaryDirectory> directory = TemporaryDirectory::Create(testing::TempDir());
    ASSERT_TRUE(directory.ok()) << directory.status();
    directory_.emplace(*std::move(directory));
    absl::StatusOr<LocalStack> stack = LocalStack::Start(directory_->path(), Transport::kUnix);
    ASSERT_TRUE(stack.ok()) << stack.status();
    stack_.emplace(*std::move(stack));
  }

  // Another agent, as on another host.
  std::string OtherAgent() {
    absl::StatusOr<AgentProcess> agent = stack_->StartAgent("other", {});
    EXPECT_TRUE(agent.ok()) << agent.status();
    other_.emplace(*std::move(agent));
    return other_->socket;
  }

  // Valid as long as `socket` and `volume` are.
  static faultline_far_options Options(const std::string& socket, const char* volume) {
    faultline_far_options options = FAULTLINE_FAR_OPTIONS_INIT;
    options.socket_path = socket.c_str();
    options.volume = volume;
    options.local_memory = kBudget;
    options.on_agent_loss = FAULTLINE_ON_AGENT_LOSS_WAIT;
    options.timeout_ms = 300'000;
    return options;
  }
  Far Create(const char* volume, const char* policy = nullptr) {
    faultline_far_options options = Options(stack_->agent_socket(), volume);
    options.size = kSize;
    options.policy = policy;
    faultline_far* far = nullptr;
    EXPECT_EQ(faultline_far_create(&options, &far, &error_), 0) << error_.message;
    return Far(far);
  }
  Far Open(const std::string& socket, const char* volume) {
    const faultline_far_options options = Options(socket, volume);
    faultline_far* far = nullptr;
    EXPECT_EQ(faultline_far_open(&options, &far, &error_), 0) << error_.message;
    return Far(far);
  }
  Far Restore(const std::string& socket, const char* snapshot, const char* volume) {
    faultline_far_options options = Options(socket, volume);
    options.snapshot = snapshot;
    faultline_far* far = nullptr;
    EXPECT_EQ(faultline_far_restore(&options, &far, &error_), 0) << error_.message;
    return Far(far);
  }
  int Advise(const Far& far, uint64_t page, uint64_t count, int advice) {
    return faultline_far_advise(far.get(), page * kPageSize, count * kPageSize, advice, &error_);
  }

  static std::atomic<uint64_t>& Word(const Far& far, uint64_t page, uint64_t index = 0) {
    char* const base = static_cast<char*>(faultline_far_address(far.get()));
    return *reinterpret_cast<std::atomic<uint64_t>*>(base + page * kPageSize + index * 8);
  }
  static char* BytesOf(const Far& far) {
    return static_cast<char*>(faultline_far_address(far.get()));
  }
  // Random, but for some pages of zeros.
  static std::string Content(uint64_t seed) {
    std::mt19937_64 random(seed);
    std::string content(kSize, '\0');
    for (uint64_t i = 0; i < kSize; i += 8) {
      const uint64_t word = random();
      if (i / kPageSize % 7 != 3) memcpy(&content[i], &word, 8);
    }
    return content;
  }
  // Which pages are here.
  static std::vector<unsigned char> Here(const Far& far) {
    std::vector<unsigned char> here(kPages);
    EXPECT_EQ(mincore(faultline_far_address(far.get()), kSize, here.data()), 0);
    return here;
  }
  static uint64_t CountHere(const Far& far, uint64_t first, uint64_t count) {
    const std::vector<unsigned char> here = Here(far);
    uint64_t n = 0;
    for (uint64_t page = first; page < first + count; ++page) n += here[page] & 1;
    return n;
  }

  std::optional<TemporaryDirectory> directory_;
  std::optional<LocalStack> stack_;
  std::optional<AgentProcess> other_;
  faultline_error error_ = {};
};

TEST_F(FarLibTest, WhatHasNoRoomHereComesBackAsItWas) {
  const Far far = Create("big");
  ASSERT_NE(far, nullptr);
  EXPECT_EQ(faultline_far_size(far.get()), kSize);
  const std::string content = Content(kSeed);
  EXPECT_EQ(memcmp(BytesOf(far), std::string(kSize, '\0').data(), kSize), 0);
  memcpy(BytesOf(far), content.data(), kSize);
  EXPECT_LE(CountHere(far, 0, kPages), kBudgetPages + 8);
  EXPECT_EQ(memcmp(BytesOf(far), content.data(), kSize), 0) << "seed " << kSeed;
  EXPECT_LE(CountHere(far, 0, kPages), kBudgetPages + 8);
}

TEST_F(FarLibTest, AnotherProcessOpensWhatOneHasClosed) {
  Far far = Create("kept");
  ASSERT_NE(far, nullptr);
  const std::string content = Content(kSeed);
  memcpy(BytesOf(far), content.data(), kSize);
  ASSERT_EQ(faultline_far_close(far.release(), &error_), 0) << error_.message;
  const Far again = Open(OtherAgent(), "kept");
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(memcmp(BytesOf(again), content.data(), kSize), 0) << "seed " << kSeed;
}

TEST_F(FarLibTest, WhatWasFlushedOutlivesAnAgentThatIsKilled) {
  Far far = Create("flushed");
  ASSERT_NE(far, nullptr);
  std::string content = Content(kSeed);
  memcpy(BytesOf(far), content.data(), kSize);
  ASSERT_EQ(faultline_far_flush(far.get(), &error_), 0) << error_.message;
  // Also what was changed, and changed back or to zeros, since it was written.
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < 2000; ++i) {
    const uint64_t page = random() % kPages;
    const char byte = static_cast<char>(i);
    content.replace(page * kPageSize, kPageSize, kPageSize, i % 3 == 0 ? '\0' : byte);
    memset(BytesOf(far) + page * kPageSize, i % 3 == 0 ? 0 : byte, kPageSize);
  }
  ASSERT_EQ(faultline_far_flush(far.get(), &error_), 0) << error_.message;
  ASSERT_EQ(kill(stack_->agent_pid(), SIGKILL), 0);
  const Far again = Open(OtherAgent(), "flushed");
  ASSERT_NE(again, nullptr);
  for (uint64_t page = 0; page < kPages; ++page) {
    ASSERT_EQ(memcmp(BytesOf(again) + page * kPageSize, &content[page * kPageSize], kPageSize), 0)
        << "page " << page << ", seed " << kSeed;
  }
  // The one that has lost its agent is told so.
  EXPECT_LT(faultline_far_flush(far.get(), &error_), 0);
  EXPECT_THAT(error_.message, HasSubstr("start faultline-agent"));
}

TEST_F(FarLibTest, FlushesOfManyThreadsHaveAllThatEachHasWritten) {
  Far far = Create("threads");
  ASSERT_NE(far, nullptr);
  std::array<std::atomic<uint64_t>, 4> flushed = {};
  std::atomic<bool> stop = false, fenced = false;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < flushed.size(); ++t) {
    threads.emplace_back([&, t] {
      faultline_error error = {};
      for (uint64_t n = 1; !stop; ++n) {
        for (uint64_t page = t; page < kPages; page += 37) Word(far, page, t) = n;
        if (faultline_far_flush(far.get(), &error) != 0) {
          EXPECT_TRUE(fenced) << error.message;
          return;
        }
        flushed[t] = n;
      }
    });
  }
  std::array<uint64_t, 4> told = {};
  for (uint64_t t = 0; t < told.size(); ++t) {
    while ((told[t] = flushed[t]) < 2 && !testing::Test::HasFailure()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  // From when it is open nothing more reaches the volume.
  const std::string other = OtherAgent();
  fenced = true;
  const Far again = Open(other, "threads");
  stop = true;
  for (std::thread& thread : threads) thread.join();
  ASSERT_NE(again, nullptr);
  for (uint64_t t = 0; t < told.size(); ++t) {
    EXPECT_GE(told[t], 2u);
    for (uint64_t page = t; page < kPages; page += 37) {
      ASSERT_GE(Word(again, page, t), told[t]) << "page " << page << ", thread " << t;
    }
  }
}

TEST_F(FarLibTest, WhatWillBeNeededIsFetched) {
  const Far far = Create("needed");
  ASSERT_NE(far, nullptr);
  memcpy(BytesOf(far), Content(kSeed).data(), kSize);
  ASSERT_LT(CountHere(far, 0, 256), 200u);
  ASSERT_EQ(Advise(far, 0, 256, FAULTLINE_FAR_WILL_NEED), 0) << error_.message;
  // Pages that are on their way out come back by a fault only, and so do zeros.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (CountHere(far, 0, 256) < 200 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_GE(CountHere(far, 0, 256), 200u);
  EXPECT_LE(CountHere(far, 0, kPages), kBudgetPages + 8);
}

TEST_F(FarLibTest, WhatWillNotBeNeededLeavesFirst) {
  const Far far = Create("unneeded", "fifo");
  ASSERT_NE(far, nullptr);
  // As much as there is room for, so that nothing has left.
  for (uint64_t page = 0; page < 800; ++page) Word(far, page) = page + 1;
  ASSERT_EQ(CountHere(far, 0, 800), 800u);
  ASSERT_EQ(Advise(far, 400, 300, FAULTLINE_FAR_WILL_NOT_NEED), 0) << error_.message;
  for (uint64_t page = 1000; page < 1150; ++page) Word(far, page) = page + 1;
  // The oldest would have left otherwise.
  EXPECT_EQ(CountHere(far, 0, 400), 400u);
  EXPECT_EQ(CountHere(far, 700, 100), 100u);
  EXPECT_LT(CountHere(far, 400, 300), 300u);
  for (uint64_t page = 0; page < 800; ++page) ASSERT_EQ(Word(far, page), page + 1);
}

TEST_F(FarLibTest, WhatIsPinnedStays) {
  const Far far = Create("pinned", "fifo");
  ASSERT_NE(far, nullptr);
  for (uint64_t page = 0; page < kPages; ++page) Word(far, page) = page + 1;
  ASSERT_LT(CountHere(far, 100, 400), 400u);
  ASSERT_EQ(Advise(far, 100, 400, FAULTLINE_FAR_PIN), 0) << error_.message;
  EXPECT_EQ(CountHere(far, 100, 400), 400u);
  for (int lap = 0; lap < 3; ++lap) {
    for (uint64_t page = 600; page < kPages; ++page) Word(far, page, 1) = page + 1;
    ASSERT_EQ(CountHere(far, 100, 400), 400u);
    ASSERT_LE(CountHere(far, 0, kPages), kBudgetPages + 8);
  }
  // More than there is room for; what was pinned stays so.
  EXPECT_EQ(Advise(far, 1000, 600, FAULTLINE_FAR_PIN), -EREMOTEIO);
  EXPECT_THAT(error_.message, HasSubstr("pinning 2457600 bytes does not fit: of the budget of "
                                        "4194304 bytes "));
  ASSERT_EQ(Advise(far, 100, 400, FAULTLINE_FAR_UNPIN), 0) << error_.message;
  for (uint64_t page = 600; page < kPages; ++page) Word(far, page, 2) = page + 1;
  EXPECT_LT(CountHere(far, 100, 400), 400u);
  for (uint64_t page = 0; page < kPages; ++page) ASSERT_EQ(Word(far, page), page + 1);
}

// Each thread counts in one page and then in another, over many pairs of its own.
class PairWriters {
 public:
  static constexpr uint64_t kThreads = 4;
  // Pages of pairs: all of the region, so that most are evicted now and then, or a part.
  PairWriters(char* base, uint64_t pages) : base_(base) {
    std::vector<uint64_t> order(pages);
    for (uint64_t i = 0; i < pages; ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), std::mt19937_64(kSeed));
    for (uint64_t i = 0; i + 1 < pages; i += 2) pairs_.push_back({order[i], order[i + 1]});
  }
  void Start() {
    for (uint64_t t = 0; t < kThreads; ++t) {
      threads_.emplace_back([this, t] { Run(t); });
    }
  }
  void Stop() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }
  uint64_t rounds() const { return rounds_; }
  double longest_us() const { return longest_us_; }
  void ResetLongest() { longest_us_ = 0; }

  // In an image of the region.
  void Check(const std::string& image) const {
    uint64_t counted = 0, apart = 0;
    for (const auto& [a, b] : pairs_) {
      uint64_t first, second;
      memcpy(&first, &image[a * kPageSize], 8);
      memcpy(&second, &image[b * kPageSize], 8);
      ASSERT_TRUE(first == second || first == second + 1)
          << "pages " << a << " and " << b << ": " << first << " and " << second << ", seed "
          << kSeed;
      counted += first;
      apart += first != second;
    }
    EXPECT_GT(counted, 0u);
    EXPECT_LE(apart, kThreads);
  }

 private:
  void Run(uint64_t t) {
    std::mt19937_64 random(kSeed + t);
    while (!stop_) {
      const auto& [a, b] = pairs_[random() % (pairs_.size() / kThreads) * kThreads + t];
      const auto begun = std::chrono::steady_clock::now();
      for (uint64_t page : {a, b}) {
        auto& word = *reinterpret_cast<std::atomic<uint64_t>*>(base_ + page * kPageSize);
        word.store(word.load(std::memory_order_relaxed) + 1, std::memory_order_release);
      }
      const double took =
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begun)
              .count();
      double longest = longest_us_;
      while (took > longest && !longest_us_.compare_exchange_weak(longest, took)) continue;
      ++rounds_;
    }
  }

  char* const base_;
  std::vector<std::pair<uint64_t, uint64_t>> pairs_;
  std::vector<std::thread> threads_;
  std::atomic<bool> stop_ = false;
  std::atomic<uint64_t> rounds_ = 0;
  std::atomic<double> longest_us_ = 0;
};

// Checkpoints of a region of which `pages` are written to all the time.
class CheckpointTest : public FarLibTest, public testing::WithParamInterface<uint64_t> {};

TEST_P(CheckpointTest, IsOfOneMoment) {
  const Far far = Create("counted");
  ASSERT_NE(far, nullptr);
  const std::string other = OtherAgent();
  PairWriters writers(BytesOf(far), GetParam());
  writers.Start();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  for (int i = 0; i < 5; ++i) {
    const std::string snapshot = absl::StrCat("moment", i);
    writers.ResetLongest();
    const uint64_t before = writers.rounds();
    const auto begun = std::chrono::steady_clock::now();
    ASSERT_EQ(faultline_far_checkpoint(far.get(), snapshot.c_str(), &error_), 0) << error_.message;
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begun;
    printf(
        "checkpoint of %lu pages written to: %.1f ms, meanwhile %lu pairs written, the longest in "
        "%.0f us\n",
        GetParam(), took.count(), writers.rounds() - before, writers.longest_us());
  }
  writers.Stop();
  for (int i = 0; i < 5; ++i) {
    const Far image =
        Restore(other, absl::StrCat("moment", i).c_str(), absl::StrCat("clone", i).c_str());
    ASSERT_NE(image, nullptr);
    writers.Check(std::string(BytesOf(image), kSize));  // in order, as it is fetched
  }
  // What is here has gone on.
  writers.Check(std::string(BytesOf(far), kSize));
}

INSTANTIATE_TEST_SUITE_P(Pages, CheckpointTest, testing::Values(700, kPages));

TEST_F(FarLibTest, ACheckpointHasWhatWasThereAndNothingLater) {
  const Far far = Create("before");
  ASSERT_NE(far, nullptr);
  const std::string content = Content(kSeed), later = Content(kSeed + 1);
  memcpy(BytesOf(far), content.data(), kSize);
  ASSERT_EQ(faultline_far_checkpoint(far.get(), "then", &error_), 0) << error_.message;
  memcpy(BytesOf(far), later.data(), kSize);
  EXPECT_EQ(faultline_far_checkpoint(far.get(), "then", &error_), -EREMOTEIO);
  EXPECT_THAT(error_.message, HasSubstr("then"));
  const std::string other = OtherAgent();
  const Far image = Restore(other, "then", "clone");
  ASSERT_NE(image, nullptr);
  EXPECT_EQ(memcmp(BytesOf(image), content.data(), kSize), 0) << "seed " << kSeed;
  EXPECT_EQ(memcmp(BytesOf(far), later.data(), kSize), 0) << "seed " << kSeed;
}

TEST_F(FarLibTest, ASecondWriterFencesTheFirst) {
  const Far far = Create("one");
  ASSERT_NE(far, nullptr);
  Word(far, 0) = 1;
  const Far second = Open(OtherAgent(), "one");
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(faultline_far_flush(far.get(), &error_), -EREMOTEIO);
  EXPECT_THAT(error_.message, HasSubstr("epoch"));
  EXPECT_EQ(faultline_far_checkpoint(far.get(), "none", &error_), -EREMOTEIO);
  Word(second, 0) = 2;
  EXPECT_EQ(faultline_far_flush(second.get(), &error_), 0) << error_.message;
}

TEST_F(FarLibTest, WhatCannotBeIsRefused) {
  const std::string& socket = stack_->agent_socket();
  faultline_far* far = nullptr;
  const auto create = [&](auto change) {
    faultline_far_options options = Options(socket, "refused");
    options.size = kSize;
    change(&options);
    return faultline_far_create(&options, &far, &error_);
  };
  EXPECT_EQ(create([](auto* o) { o->local_memory = 0; }), -EINVAL);
  EXPECT_THAT(error_.message, HasSubstr("local_memory is 0"));
  EXPECT_EQ(create([](auto* o) { o->local_memory = 2 * kSize; }), -EINVAL);
  EXPECT_THAT(error_.message, HasSubstr("more than the region's"));
  EXPECT_EQ(create([](auto* o) { o->size = 5; }), -EINVAL);
  EXPECT_EQ(create([](auto* o) { o->size = 0; }), -EINVAL);
  EXPECT_EQ(create([](auto* o) { o->policy = "best"; }), -EREMOTEIO);
  EXPECT_EQ(create([](auto* o) { o->durability = "maybe"; }), -EREMOTEIO);
  EXPECT_THAT(error_.message, HasSubstr("unknown durability"));
  EXPECT_EQ(create([](auto* o) { o->local_memory = kPageSize; }), -EREMOTEIO);
  EXPECT_THAT(error_.message, HasSubstr("too little"));
  EXPECT_EQ(far, nullptr);
  // What was refused has left no volume behind.
  const std::string volumes = *stack_->Faultline({"volume", "list", "--output=json"});
  EXPECT_FALSE(absl::StrContains(volumes, "refused")) << volumes;

  const Far there = Create("there");
  ASSERT_NE(there, nullptr);
  faultline_far_options options = Options(socket, "there");
  options.size = kSize;
  EXPECT_EQ(faultline_far_create(&options, &far, &error_), -EREMOTEIO);  // it is there
  options.size = 2 * kSize;
  EXPECT_EQ(faultline_far_open(&options, &far, &error_), -EINVAL);
  EXPECT_THAT(error_.message, HasSubstr("not the 33554432 bytes"));
  EXPECT_EQ(faultline_far_restore(&options, &far, &error_), -EINVAL);
  options = Options(socket, "nowhere");
  EXPECT_EQ(faultline_far_open(&options, &far, &error_), -EREMOTEIO);
  EXPECT_EQ(faultline_far_advise(there.get(), 1, kPageSize, FAULTLINE_FAR_PIN, &error_), -EINVAL);
  EXPECT_EQ(faultline_far_advise(there.get(), kSize, kPageSize, FAULTLINE_FAR_PIN, &error_),
            -EINVAL);
  EXPECT_EQ(Advise(there, 0, 1, 9), -EINVAL);
  EXPECT_EQ(Advise(there, 0, kPages, FAULTLINE_FAR_PIN), -EREMOTEIO);  // all of it
  EXPECT_EQ(faultline_far_checkpoint(there.get(), "../x", &error_), -EREMOTEIO);
  EXPECT_EQ(faultline_far_flush(nullptr, &error_), -EINVAL);
  EXPECT_EQ(far, nullptr);
}

TEST_F(FarLibTest, TheExamplesWork) {
  const auto run = [](const std::string& command) {
    std::array<char, 64> line{};
    FILE* const program = popen(command.c_str(), "r");
    EXPECT_NE(fgets(line.data(), line.size(), program), nullptr);
    EXPECT_EQ(pclose(program), 0) << command;
    return std::string(line.data());
  };
  const std::string sum =
      run(absl::StrCat(FAULTLINE_FAR_CHECKPOINT, " ", stack_->agent_socket(), " numbers noon"));
  uint64_t expected = 0;
  for (uint64_t i = 0; i < (uint64_t{32} << 20) / 8; ++i) expected += i * i;
  EXPECT_EQ(sum, absl::StrCat(expected, "\n"));
  EXPECT_EQ(run(absl::StrCat(FAULTLINE_FAR_RESTORE, " ", OtherAgent(), " noon numbers2")), sum);
}

}  // namespace
}  // namespace faultline
