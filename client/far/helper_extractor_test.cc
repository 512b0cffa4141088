// SPDX-License-Identifier: Apache-2.0
#include "client/far/helper_extractor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "client/far/far_testing.h"
#include "client/races/race_testing.h"

namespace faultline {
namespace {

using testing::Test;

// A process with `kPages` pages of far memory, and an agent that serves it.
class HelperExtractorTest : public Test {
 protected:
  static constexpr size_t kPages = 1024;

  void SetUp() override {
    FAULTLINE_REQUIRE_UFFD();
    Begin();
  }
  void Begin(const std::string& option = "") {
    agent_.reset();
    process_ = std::make_unique<FarProcess>(kPages, option);
    agent_ = std::make_unique<FarAgent>(process_.get());
  }
  std::string Do(const std::string& verb, size_t first = 0, size_t count = 0) {
    return process_->Do(verb, first, count);
  }
  size_t Present(size_t first, size_t pages) {
    return process_->PagesPresent(process_->hello().memory_start + first * kPageSize, pages);
  }
  // Takes pages [first, first + pages), which must go well.
  FarAgent::Taken Take(size_t first, size_t pages) {
    FarAgent::Taken taken = agent_->TakePages(first, pages);
    EXPECT_TRUE(taken.status.ok()) << taken.status;
    return taken;
  }
  void ExpectAllTaken(size_t first, size_t pages) {
    EXPECT_EQ(Take(first, pages).count(Extraction::kTaken), ssize_t(pages));
    EXPECT_EQ(Present(first, pages), 0u);
  }
  // None of them is taken, and they stay as they are.
  void ExpectAllBusy(size_t first, size_t pages) {
    EXPECT_EQ(Take(first, pages).count(Extraction::kBusy), ssize_t(pages));
    EXPECT_EQ(Present(first, pages), pages);
  }
  // Mapped until the process of the test ends.
  CommandMemory* MapCommand() {
    const UniqueFd fd = process_->DuplicateCommand();
    void* const at =
        mmap(nullptr, sizeof(CommandMemory), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    EXPECT_NE(at, MAP_FAILED);
    return static_cast<CommandMemory*>(at);
  }
  // Nothing stays in the areas that the helper uses on the way.
  void ExpectNothingIsStaged() {
    EXPECT_TRUE(Eventually([this] {
      return process_->PagesPresent(process_->hello().staging_start, 2 * CommandMemory::kPages) ==
             0;
    }));
  }

  HangWatchdog watchdog_;
  std::unique_ptr<FarProcess> process_;
  std::unique_ptr<FarAgent> agent_;
};

TEST_F(HelperExtractorTest, WhatIsTakenIsGoneAndComesBackAsItWas) {
  EXPECT_EQ(Do("fill", 0, 600), "OK");
  ExpectAllTaken(0, 256);
  ExpectAllTaken(300, 1);
  EXPECT_EQ(Do("check", 0, 600), "0");
  ExpectNothingIsStaged();
}

TEST_F(HelperExtractorTest, ScatteredPagesAndHolesInARunAreToldApart) {
  EXPECT_EQ(Do("fill", 10, 5), "OK");
  EXPECT_EQ(Do("fill", 20, 1), "OK");
  const FarAgent::Taken taken = Take(0, 30);
  for (size_t i = 0; i < 30; ++i) {
    const bool filled = (i >= 10 && i < 15) || i == 20;
    EXPECT_EQ(taken.outcomes[i], filled ? Extraction::kTaken : Extraction::kMissing) << i;
  }
  EXPECT_EQ(Do("check", 10, 5), "0");
  EXPECT_EQ(Do("check", 20, 1), "0");
}

TEST_F(HelperExtractorTest, PagesThatWereOnlyReadAreTakenAsZeros) {
  EXPECT_EQ(Do("read", 0, 8), "OK");
  ExpectAllTaken(0, 8);
  EXPECT_EQ(Do("fill", 0, 8), "OK");
  ExpectAllTaken(0, 8);
  EXPECT_EQ(Do("check", 0, 8), "0");
}

TEST_F(HelperExtractorTest, HugePagesAreSplit) {
  Begin("huge");
  ExpectAllTaken(100, 200);
  ExpectAllTaken(600, 3);
  EXPECT_EQ(Do("check", 0, kPages), "0");
}

TEST_F(HelperExtractorTest, MemoryOfOtherProtectionIsBusyAndItsNeighboursAreNot) {
  EXPECT_EQ(Do("fill", 0, 64), "OK");
  EXPECT_EQ(Do("protect-read", 10, 5), "OK");
  EXPECT_EQ(Do("protect-none", 40, 1), "OK");
  EXPECT_EQ(Do("protect-execute", 50, 2), "OK");
  const FarAgent::Taken taken = Take(0, 64);
  for (size_t i = 0; i < 64; ++i) {
    const bool closed = (i >= 10 && i < 15) || i == 40 || i == 50 || i == 51;
    EXPECT_EQ(taken.outcomes[i], closed ? Extraction::kBusy : Extraction::kTaken) << i;
  }
  EXPECT_EQ(Do("protect-all", 0, 64), "OK");
  EXPECT_EQ(Do("check", 0, 64), "0");
}

TEST_F(HelperExtractorTest, GuardPagesAreLeftAlone) {
  EXPECT_EQ(Do("fill", 0, 64), "OK");
  const std::string guarded = Do("guard", 16, 2);
  if (guarded != "OK") GTEST_SKIP() << "no guard pages before Linux 6.13: " << guarded;
  const FarAgent::Taken taken = Take(0, 64);
  EXPECT_EQ(taken.count(Extraction::kTaken), 62);
  EXPECT_EQ(taken.outcomes[16], Extraction::kBusy);
  EXPECT_EQ(taken.outcomes[17], Extraction::kBusy);
  EXPECT_EQ(Do("check", 0, 16), "0");
  EXPECT_EQ(Do("check", 18, 46), "0");
}

TEST_F(HelperExtractorTest, LockedMemoryIsBusy) {
  EXPECT_EQ(Do("fill", 0, 64), "OK");
  EXPECT_EQ(Do("lock", 16, 16), "OK");
  EXPECT_EQ(Take(0, 16).count(Extraction::kTaken), 16);
  ExpectAllBusy(16, 16);
  EXPECT_EQ(Take(32, 32).count(Extraction::kTaken), 32);
  EXPECT_EQ(Do("check", 0, 64), "0");
}

// It fills the staging area, too, with zeros that were never any page's.
TEST_F(HelperExtractorTest, AProcessThatLocksAllItsMemoryKeepsItsPages) {
  EXPECT_EQ(Do("fill", 0, 64), "OK");
  EXPECT_EQ(Do("lockall"), "OK");
  EXPECT_EQ(agent_->TakePages(0, 64).count(Extraction::kTaken), 0);
  ExpectNothingIsStaged();
  ExpectAllBusy(0, 64);
  EXPECT_EQ(Do("check", 0, 64), "0");
}

TEST_F(HelperExtractorTest, PagesThatIoHoldsAreBusy) {
  EXPECT_EQ(Do("fill", 0, 64), "OK");
  const std::string pinned = Do("pin", 16, 16);
  if (pinned != "OK") GTEST_SKIP() << "no io_uring: " << pinned;
  EXPECT_EQ(Take(0, 16).count(Extraction::kTaken), 16);
  ExpectAllBusy(16, 16);
  EXPECT_EQ(Do("check", 0, 64), "0");
}

// Before it is taken, each of them becomes the parent's alone.
TEST_F(HelperExtractorTest, PagesThatAForkedChildSharesAreTakenAndTheChildKeepsItsOwn) {
  EXPECT_EQ(Do("fill", 0, 300), "OK");
  ExpectAllTaken(0, 20);
  EXPECT_EQ(Do("fork"), "OK");
  ExpectAllTaken(20, 200);
  EXPECT_EQ(Do("check", 0, 300), "0");
  EXPECT_EQ(Do("child", 0, 300), "OK");
  ExpectAllTaken(0, 256);
  EXPECT_EQ(Do("check", 0, 300), "0");
}

TEST_F(HelperExtractorTest, SwappedPagesAreTaken) {
  std::ifstream swaps("/proc/swaps");
  std::string line;
  std::getline(swaps, line);
  if (!std::getline(swaps, line)) GTEST_SKIP() << "no swap on this machine";
  EXPECT_EQ(Do("fill", 0, 64), "OK");
  EXPECT_EQ(Do("pageout", 0, 64), "OK");
  ExpectAllTaken(0, 64);
  EXPECT_EQ(Do("check", 0, 64), "0");
}

TEST_F(HelperExtractorTest, NothingIsTakenWhileAnEventIsUnread) {
  for (const char* verb : {"discard", "move", "unmap", "fork"}) {
    Begin();
    EXPECT_EQ(Do("fill", 0, 400), "OK");
    agent_->Hold();
    process_->Tell(verb, 300, 16);
    // Until the thread that was told to has raised its event.
    size_t page = 0;
    absl::Status status;
    EXPECT_TRUE(Eventually([&] {
      status = agent_->TakePages(page++ % 300, 1).status;
      return !status.ok();
    }));
    EXPECT_TRUE(absl::IsUnavailable(status)) << verb << ": " << status;
    EXPECT_EQ(agent_->TakePages(350, 50).count(Extraction::kBusy), 50);
    EXPECT_EQ(Present(350, 50), 50u);
    agent_->Release();
    EXPECT_EQ(process_->Answer(), "OK");
    EXPECT_TRUE(Eventually([&] { return agent_->TakePages(350, 50).status.ok(); }));
    EXPECT_EQ(Present(350, 50), 0u);
    EXPECT_EQ(Do("check", 0, 300), "0");
    EXPECT_EQ(Do("check", 316, 84), "0");
  }
}

TEST_F(HelperExtractorTest, AProgramThatClosesAllItsDescriptorsIsEvicted) {
  EXPECT_EQ(Do("fill", 0, 64), "OK");
  EXPECT_EQ(Do("closeall"), "OK");
  ExpectAllTaken(0, 64);
  EXPECT_EQ(Do("check", 0, 64), "0");
}

// In the end nothing may have been taken by a command that was given up.
TEST_F(HelperExtractorTest, ACommandToAStoppedProcessIsCancelledForGood) {
  EXPECT_EQ(Do("fill", 0, 64), "OK");
  ExpectAllTaken(32, 32);
  kill(process_->pid(), SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(process_->pid(), &status, WUNTRACED), process_->pid());
  const FarAgent::Taken taken = agent_->TakePages(0, 32);
  EXPECT_TRUE(absl::IsDeadlineExceeded(taken.status)) << taken.status;
  EXPECT_EQ(taken.count(Extraction::kBusy), 32);
  kill(process_->pid(), SIGCONT);
  EXPECT_EQ(Do("check", 32, 32), "0");
  EXPECT_EQ(Present(0, 32), 32u);
  ExpectAllTaken(0, 32);
  EXPECT_EQ(Do("check", 0, 64), "0");
}

// Stopped and continued at any instant, in the middle of commands, too.
TEST_F(HelperExtractorTest, StopsAtAnyTimeLoseNothing) {
  process_->Tell("count", 0, 3000);
  std::atomic<bool> done = false;
  std::thread stopper([&] {
    while (!done) {
      kill(process_->pid(), SIGSTOP);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      kill(process_->pid(), SIGCONT);
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
    }
  });
  std::string answer;
  std::thread asker([&] {
    answer = process_->Answer();
    done = true;
  });
  for (unsigned random = 1; !done; random = random * 1'103'515'245 + 12'345) {
    const absl::Status status = agent_->TakeAny(64, random >> 8).status;
    EXPECT_TRUE(status.ok() || absl::IsDeadlineExceeded(status)) << status;
  }
  asker.join();
  stopper.join();
  EXPECT_EQ(answer.substr(0, 2), "OK") << answer;
}

TEST_F(HelperExtractorTest, TheEndOfTheProcessIsNoticedInTheMiddle) {
  for (int i = 0; i < 20; ++i) {
    Begin();
    process_->Tell("count", 0, 60'000);
    std::thread killer([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20 + i));
      kill(process_->pid(), SIGKILL);
    });
    absl::Status status;
    for (unsigned random = 1; status.ok(); random = random * 1'103'515'245 + 12'345) {
      status = agent_->TakeAny(64, random >> 8).status;
    }
    killer.join();
    EXPECT_TRUE(absl::IsNotFound(status)) << status;
  }
}

TEST_F(HelperExtractorTest, AProcessThatExecutesAnotherProgramIsGone) {
  EXPECT_EQ(Do("fill", 0, 64), "OK");
  process_->Tell("exec");
  absl::Status status;
  EXPECT_TRUE(Eventually([&] {
    status = agent_->TakePages(0, 1).status;
    return !status.ok();
  }));
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_EQ(kill(process_->pid(), 0), 0);
}

// The one thing that can end it alone is a filter of the program's for all of its threads.
TEST_F(HelperExtractorTest, TheEndOfTheHelperAloneIsNoticed) {
  EXPECT_EQ(Do("fill", 0, 64), "OK");
  EXPECT_EQ(Do("sandbox"), "OK");
  EXPECT_TRUE(absl::IsDataLoss(agent_->TakePages(0, 64).status));
  EXPECT_TRUE(absl::IsFailedPrecondition(agent_->TakePages(0, 64).status));
  EXPECT_EQ(Do("check", 0, 64), "0");
}

// What an agent has posted before it died must not run once its successor reads events.
TEST_F(HelperExtractorTest, ASuccessorCancelsWhatWasPosted) {
  EXPECT_EQ(Do("fill", 0, 64), "OK");
  kill(process_->pid(), SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(process_->pid(), &status, WUNTRACED), process_->pid());
  CommandMemory* const command = MapCommand();
  command->count = 1;
  command->addresses[0] = process_->hello().memory_start;
  command->state = CommandState::kPosted;
  agent_->ReplaceExtractor(process_.get());
  EXPECT_TRUE(agent_->extractor().TakeLeftover().addresses.empty());
  kill(process_->pid(), SIGCONT);
  EXPECT_EQ(Do("check", 1, 63), "0");
  EXPECT_EQ(Present(0, 1), 1u);
  ExpectAllTaken(0, 64);
  EXPECT_EQ(Do("check", 0, 64), "0");
}

TEST_F(HelperExtractorTest, ASuccessorFindsWhatWasTakenLast) {
  EXPECT_EQ(Do("fill", 0, 64), "OK");
  ExpectAllTaken(10, 1);
  EXPECT_EQ(Take(8, 4).count(Extraction::kTaken), 3);  // of which 10 is not
  agent_->ReplaceExtractor(process_.get());
  const HelperExtractor::Leftover leftover = agent_->extractor().TakeLeftover();
  const uint64_t start = process_->hello().memory_start;
  EXPECT_EQ(leftover.addresses, (std::vector<uint64_t>{start + 8 * kPageSize, start + 9 * kPageSize,
                                                       start + 11 * kPageSize}));
  ASSERT_EQ(leftover.bytes.size(), 3 * kPageSize);
  uint64_t word;
  memcpy(&word, leftover.bytes.data() + 2 * kPageSize, sizeof word);
  EXPECT_EQ(word, 12 * uint64_t{1'000'003});
}

TEST_F(HelperExtractorTest, WhatIsNoCommandMemoryIsRefused) {
  const auto open = [&](UniqueFd fd) {
    return HelperExtractor::Open({std::move(fd), process_->OpenPidfd(), nullptr}).status();
  };
  EXPECT_TRUE(absl::IsInvalidArgument(open(UniqueFd(memfd_create("small", MFD_CLOEXEC)))));
  UniqueFd unsealed(memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(unsealed.get(), sizeof(CommandMemory)), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(open(UniqueFd(dup(unsealed.get())))));
  ASSERT_EQ(fcntl(unsealed.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(open(UniqueFd(dup(unsealed.get())))));
}

// Takes pages of a process that counts, until it answers.
class HelperStormTest : public HelperExtractorTest {
 protected:
  std::string TakeUntilAnswered(const std::function<FarAgent::Taken(unsigned random)>& take) {
    std::atomic<bool> done = false;
    std::string answer;
    std::thread asker([&] {
      answer = process_->Answer();
      done = true;
    });
    for (unsigned random = 1; !done; random = random * 1'103'515'245 + 12'345) {
      const FarAgent::Taken taken = take(random >> 8);
      // On a busy machine its thread may not come to run in time.
      EXPECT_TRUE(taken.status.ok() || absl::IsUnavailable(taken.status) ||
                  absl::IsDeadlineExceeded(taken.status))
          << taken.status;
      taken_ += taken.count(Extraction::kTaken);
    }
    asker.join();
    EXPECT_GT(taken_, 0);
    return answer;
  }
  std::string TakeAnyUntilAnswered(size_t batch) {
    return TakeUntilAnswered([&](unsigned random) { return agent_->TakeAny(batch, random); });
  }
  uint64_t taken_ = 0;
};

TEST_F(HelperStormTest, NoIncrementIsLost) {
  for (const size_t batch : {1, 64, 256}) {
    process_->Tell("count", 0, 2000);
    const std::string answer = TakeAnyUntilAnswered(batch);
    EXPECT_EQ(answer.substr(0, 2), "OK") << answer;
    printf("batches of %zu: %s, %lu pages taken so far\n", batch, answer.c_str(), taken_);
    Begin();  // with counters at 0
  }
}

// UFFDIO_MOVE says EEXIST of a page that it has moved where the processor sets the page's accessed
// bit in the middle. Reclaim clears these bits, and so does this test.
TEST_F(HelperStormTest, NoIncrementIsLostWhereThePageMovesAndTheCallFails) {
  const UniqueFd clear_refs(
      open(("/proc/" + std::to_string(process_->pid()) + "/clear_refs").c_str(), O_WRONLY));
  process_->Tell("meet", 0, 4000);
  const std::string answer = TakeUntilAnswered([&](unsigned) {
    EXPECT_EQ(write(clear_refs.get(), "1", 1), 1);
    return agent_->TakePages(0, 1);
  });
  EXPECT_EQ(answer.substr(0, 2), "OK") << answer;
  printf("%s, %lu pages taken, %u of them by calls that failed\n", answer.c_str(), taken_,
         MapCommand()->moved_despite_error.load());
}

TEST_F(HelperStormTest, NoOtherMemoryIsTakenWhileItMoves) {
  for (const size_t batch : {2, 8, 64}) {
    process_->Tell("churn", 0, 3000);
    const std::string answer = TakeUntilAnswered([&](unsigned random) {
      // Or the memory is away most of the time, and little moves.
      std::this_thread::sleep_for(std::chrono::microseconds(20 * batch));
      return agent_->TakeAny(batch, random);
    });
    EXPECT_EQ(answer.substr(0, 2), "OK") << answer;
    printf("batches of %zu: %s, %lu pages taken so far\n", batch, answer.c_str(), taken_);
    Begin();  // with all memory at its place
  }
}

}  // namespace
}  // namespace faultline
