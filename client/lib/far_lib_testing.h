// SPDX-License-Identifier: Apache-2.0
//
// What the tests of the library's far memory share.
#ifndef FAULTLINE_CLIENT_LIB_FAR_LIB_TESTING_H_
#define FAULTLINE_CLIENT_LIB_FAR_LIB_TESTING_H_

#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/bench/local_stack.h"
#include "client/lib/faultline.h"
#include "client/uffd/test_memory.h"
#include "proto/page.h"

namespace faultline {

inline constexpr uint64_t kPages = 4096;  // of a region
inline constexpr uint64_t kSize = kPages * kPageSize;
inline constexpr uint64_t kBudgetPages = 1024;
inline constexpr uint64_t kBudget = kBudgetPages * kPageSize;
inline constexpr uint64_t kSeed = 20261128;

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
    absl::StatusOr<LocalStack> stack =
        LocalStack::Start(directory_->path(), Transport::kUnix, StackFlags());
    ASSERT_TRUE(stack.ok()) << stack.status();
    stack_.emplace(*std::move(stack));
  }

  virtual LocalStackFlags StackFlags() const { return {}; }

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
  ~PairWriters() { Stop(); }
  PairWriters(const PairWriters&) = delete;
  PairWriters& operator=(const PairWriters&) = delete;

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

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LIB_FAR_LIB_TESTING_H_
