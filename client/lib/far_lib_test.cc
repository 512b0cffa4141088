// SPDX-License-Identifier: Apache-2.0
//
// Far memory of the library against the real programs: a page server on RocksDB and two agents.
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "client/lib/far_lib_testing.h"

namespace faultline {
namespace {

using testing::HasSubstr;

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

// More of it than there is room for: it is evicted all the same.
TEST_F(FarLibTest, ARegionThatIsLockedLosesNothing) {
  const Far far = Create("locked");
  ASSERT_NE(far, nullptr);
  const std::string content = Content(kSeed);
  memcpy(BytesOf(far), content.data(), kSize / 2);
  ASSERT_EQ(mlock(BytesOf(far), kSize), 0) << strerror(errno);
  memcpy(BytesOf(far) + kSize / 2, &content[kSize / 2], kSize / 2);
  EXPECT_LE(CountHere(far, 0, kPages), kBudgetPages + 8);
  EXPECT_EQ(memcmp(BytesOf(far), content.data(), kSize), 0) << "seed " << kSeed;
  ASSERT_EQ(munlock(BytesOf(far), kSize), 0);
  EXPECT_EQ(memcmp(BytesOf(far), content.data(), kSize), 0) << "seed " << kSeed;
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
  EXPECT_EQ(create([](auto* o) { o->policy = "/nowhere/policy.so"; }), -EREMOTEIO);
  EXPECT_THAT(error_.message, HasSubstr("\"/nowhere/policy.so\" is no policy that this agent has"));
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
