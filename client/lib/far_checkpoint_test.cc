// SPDX-License-Identifier: Apache-2.0
//
// Checkpoints of far memory: they are of one moment, and where one does not come to its end,
// nothing is left of it, what was taken before stays as it was, and the region goes on.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "client/lib/far_lib_testing.h"
#include "client/unique_fd.h"

namespace faultline {
namespace {

using testing::HasSubstr;

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

// The way to the server is slow, so that a checkpoint takes its time.
class AbortedCheckpointTest : public FarLibTest {
 protected:
  static constexpr uint64_t kWritten = 700;  // pages that are written to, all of them here

  LocalStackFlags StackFlags() const override {
    LocalStackFlags flags;
    flags.agent = {"--inject=latency=10ms"};
    return flags;
  }

  bool IsThere(const std::string& volume) {
    return stack_->Faultline({"volume", "stat", volume}).ok();
  }
  // All that it has, without an agent.
  std::string Export(const std::string& volume) {
    absl::StatusOr<std::string> bytes = stack_->Faultline({"volume", "export", volume, "-"});
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    return bytes.ok() ? *bytes : std::string(kSize, '\0');
  }

  // Whether most pages of what is written to are write-protected.
  static bool IsProtected(const void* address) {
    const UniqueFd pagemap(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
    std::vector<uint64_t> entries(kPages);
    const size_t bytes = entries.size() * sizeof(uint64_t);
    const auto from = static_cast<off_t>(reinterpret_cast<uintptr_t>(address) / kPageSize * 8);
    EXPECT_EQ(pread(pagemap.get(), entries.data(), bytes, from), static_cast<ssize_t>(bytes));
    constexpr uint64_t kProtected = uint64_t{1} << 57;
    uint64_t count = 0;
    for (const uint64_t entry : entries) count += (entry & kProtected) != 0;
    return count >= kWritten / 2;
  }
  // Begins checkpoints of `far` until one is seen between its moment and its end, calls
  // `in_the_middle` after `then`, and waits for the end of that one. What it returned; its name in
  // `*name`. That is short: where it is missed several times, any point of one will do.
  int Interrupt(const Far& far, std::chrono::milliseconds then,
                const std::function<void()>& in_the_middle, std::string* name) {
    constexpr int kMostMisses = 5;
    for (int misses = 0;; ++misses) {
      *name = absl::StrCat("half", ++names_);
      std::atomic<bool> ended = false;
      int result = 0;
      std::thread asker([&] {
        faultline_error error = {};
        result = faultline_far_checkpoint(far.get(), name->c_str(), &error);
        ended = true;
      });
      bool act = misses == kMostMisses;
      while (!act && !ended) act = IsProtected(BytesOf(far));
      if (act) {
        std::this_thread::sleep_for(then);
        in_the_middle();
      }
      asker.join();
      if (act) return result;
      EXPECT_EQ(result, 0);
    }
  }
  // The next agent listens before it has taken the region over.
  int CheckpointOnceTakenOver(const Far& far, const std::string& name) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);
    for (;;) {
      const int result = faultline_far_checkpoint(far.get(), name.c_str(), &error_);
      if (strstr(error_.message, "there is no attachment") == nullptr || result == 0 ||
          std::chrono::steady_clock::now() > deadline) {
        return result;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }
  // Threads get on with what they do.
  static void ExpectProgress(const PairWriters& writers) {
    const uint64_t before = writers.rounds();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);
    while (writers.rounds() < before + 10'000 && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_GE(writers.rounds(), before + 10'000);
  }

  // Checkpoints that `trouble` meets at several points; the region is that of this process.
  void ExpectTroubleAbortsCleanly(const std::function<void()>& trouble) {
    const Far far = Create("region");
    ASSERT_NE(far, nullptr);
    PairWriters writers(BytesOf(far), kWritten);
    writers.Start();
    ExpectProgress(writers);
    ASSERT_EQ(faultline_far_checkpoint(far.get(), "before", &error_), 0) << error_.message;
    const std::string before = Export("before");
    writers.Check(before);
    int failed = 0;
    for (int milliseconds : {0, 0, 3, 15, 30, 50}) {
      std::string name;
      const int result = Interrupt(far, std::chrono::milliseconds(milliseconds), trouble, &name);
      const bool there = IsThere(name);
      printf("trouble %d ms after the moment: %s, and a snapshot is %s\n", milliseconds,
             result == 0 ? "taken" : strerror(-result), there ? "there" : "not there");
      failed += result != 0;
      // Where nobody knows, it is whole, or not there.
      EXPECT_TRUE(there || result != 0);
      if (there) writers.Check(Export(name));
      EXPECT_TRUE(Export("before") == before);
      ExpectProgress(writers);
      if (there) name += "again";
      ASSERT_EQ(CheckpointOnceTakenOver(far, name), 0) << error_.message;
      writers.Check(Export(name));
    }
    printf("%d of 6 were aborted\n", failed);
    writers.Stop();
    writers.Check(std::string(BytesOf(far), kSize));
    aborted_ = failed;
  }

  int names_ = 0, aborted_ = 0;
};

TEST_F(AbortedCheckpointTest, AnAgentThatIsKilledInTheMiddleLeavesNothingOfIt) {
  ExpectTroubleAbortsCleanly([&] { ASSERT_TRUE(stack_->KillAndRestartAgent().ok()); });
  EXPECT_GE(aborted_, 2);
}

// It may come to its end all the same, as writes are tried again.
TEST_F(AbortedCheckpointTest, AServerThatIsKilledInTheMiddleLeavesNothingOfIt) {
  ExpectTroubleAbortsCleanly([&] { ASSERT_TRUE(stack_->KillAndRestartServer().ok()); });
}

TEST_F(AbortedCheckpointTest, AProgramThatIsKilledInTheMiddleLeavesNothingOfIt) {
  for (int milliseconds : {0, 5, 25}) {
    const std::string volume = absl::StrCat("region", milliseconds);
    int told[2];
    ASSERT_EQ(pipe2(told, O_CLOEXEC), 0);
    const pid_t program = fork();
    if (program == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      const Far far = Create(volume.c_str());
      PairWriters writers(BytesOf(far), kWritten);
      writers.Start();
      ExpectProgress(writers);
      const std::string before = "before" + volume;
      if (faultline_far_checkpoint(far.get(), before.c_str(), &error_) != 0) _exit(1);
      std::string name;
      Interrupt(
          far, std::chrono::milliseconds(milliseconds),
          [&] {
            const bool said = write(told[1], name.data(), name.size()) > 0;
            if (said) kill(getpid(), SIGKILL);
          },
          &name);
      _exit(1);
    }
    close(told[1]);
    char name[64] = "";
    ASSERT_GT(read(told[0], name, sizeof name - 1), 0);
    close(told[0]);
    int status = 0;
    waitpid(program, &status, 0);
    EXPECT_EQ(WTERMSIG(status), SIGKILL);
    const PairWriters pairs(nullptr, kWritten);
    const std::string before = Export("before" + volume);
    pairs.Check(before);
    // Of the end of a program its agent hears at once, but not before it.
    const Far far = Open(stack_->agent_socket(), volume.c_str());
    ASSERT_NE(far, nullptr);
    const bool there = IsThere(name);
    printf("killed %d ms after the moment: a snapshot is %s\n", milliseconds,
           there ? "there" : "not there");
    if (there) pairs.Check(Export(name));
    EXPECT_TRUE(Export("before" + volume) == before);
    // What has the volume now goes on. Each of these pages takes a round trip of the slow way.
    constexpr uint64_t kStep = 32;
    for (uint64_t page = 0; page < kPages; page += kStep) Word(far, page) = page + 1;
    const std::string after = "after" + volume;
    ASSERT_EQ(faultline_far_checkpoint(far.get(), after.c_str(), &error_), 0) << error_.message;
    const std::string image = Export(after);
    for (uint64_t page = 0; page < kPages; page += kStep) {
      uint64_t word;
      memcpy(&word, &image[page * kPageSize], sizeof word);
      ASSERT_EQ(word, page + 1);
    }
  }
}

}  // namespace
}  // namespace faultline
