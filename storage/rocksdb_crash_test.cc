// SPDX-License-Identifier: Apache-2.0
//
// Kills a process in the middle of its writes, again and again on one store. A binary of its own:
// the test process only forks, so it has no thread, and no lock that a child could find taken.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <iostream>

#include "storage/storage_testing.h"

namespace faultline {
namespace {

// One batch of the crash test: `kBatchPages` pages that all hold the number of the batch.
constexpr uint64_t kBatchPages = 4;
constexpr uint64_t kCrashPages = 64;

std::map<uint64_t, uint64_t> CrashBatch(uint64_t batch) {
  std::map<uint64_t, uint64_t> pages;
  for (uint64_t i = 0; i < kBatchPages; ++i) {
    pages[(batch * kBatchPages + i) % kCrashPages] = batch;
  }
  return pages;
}

Durability CrashDurability(uint64_t batch) { return static_cast<Durability>(batch % 3); }

// Writes batches from `first` on, and the number of each to `ack` once it is acknowledged. Never
// returns: it is killed.
[[noreturn]] void WriteUntilKilled(const std::string& dir, uint64_t first, int ack) {
  PageStoreOptions options;
  options.memory_bytes = uint64_t{1} << 20;
  auto store = OpenPageStore("rocksdb:" + dir, options);
  if (!store.ok()) _exit(2);
  for (uint64_t batch = first;; ++batch) {
    if (!WriteLayer(**store, LayerId(1), CrashBatch(batch), {}, CrashDurability(batch)).ok()) {
      _exit(3);
    }
    if (write(ack, &batch, sizeof batch) != sizeof batch) _exit(4);
  }
}

// The number of the last batch that the child acknowledged. Kills it `delay_us` after it has
// acknowledged `kill_after` of them, at whatever it is doing then.
uint64_t RunAndKill(const std::string& dir, uint64_t first, uint64_t kill_after,
                    useconds_t delay_us) {
  int ends[2];
  EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    WriteUntilKilled(dir, first, ends[1]);
  }
  close(ends[1]);
  uint64_t last = first - 1;
  uint64_t batch = 0;
  for (uint64_t acks = 0; read(ends[0], &batch, sizeof batch) == sizeof batch;) {
    last = batch;
    if (++acks != kill_after) continue;
    usleep(delay_us);  // draws the moment, nothing waits for it
    EXPECT_EQ(kill(child, SIGKILL), 0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status)) << "exit status " << WEXITSTATUS(status);
  close(ends[0]);
  return last;
}

// The version of each page is at least that of the last acknowledged batch, and at most one batch
// newer: that of the write that the kill interrupted, which is there whole or not at all.
void CheckAfterKill(const std::string& dir, uint64_t last) {
  const auto opened = OpenPageStore("rocksdb:" + dir, {});
  ASSERT_STATUS_OK(opened);
  PageStore* const store = opened->get();
  std::map<uint64_t, uint64_t> acknowledged;
  for (uint64_t batch = 1; batch <= last; ++batch) {
    for (const auto& [page, version] : CrashBatch(batch)) acknowledged[page] = version;
  }
  std::map<uint64_t, uint64_t> interrupted = acknowledged;
  for (const auto& [page, version] : CrashBatch(last + 1)) interrupted[page] = version;
  const auto encode = [](const std::map<uint64_t, uint64_t>& versions) {
    std::map<uint64_t, std::string> pages;
    for (const auto& [page, version] : versions) pages[page] = PatternEncoded(page, version);
    return pages;
  };
  const auto found = ReadLayer(*store, LayerId(1), Pages(0, kCrashPages));
  ASSERT_STATUS_OK(found);
  if (*found == encode(interrupted)) return;
  EXPECT_TRUE(SamePages(*found, encode(acknowledged))) << "last acknowledged batch " << last;
}

TEST(RocksDbCrash, NothingAcknowledgedIsLostByKillingTheProcess) {
  constexpr uint64_t kSeed = 4711;
  constexpr int kRounds = 50;
  std::cout << "seed " << kSeed << std::endl;
  std::mt19937_64 random(kSeed);
  TemporaryDirectory directory;
  uint64_t last = 0;
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(testing::Message() << "round " << round);
    last = RunAndKill(directory.path(), last + 1, 1 + random() % 40,
                      static_cast<useconds_t>(random() % 5000));
    // Checked by a process of its own, so that this one never has a thread.
    const pid_t checker = fork();
    if (checker == 0) {
      CheckAfterKill(directory.path(), last);
      _exit(testing::Test::HasFailure() ? 1 : 0);
    }
    int status = 0;
    ASSERT_EQ(waitpid(checker, &status, 0), checker);
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
  }
  EXPECT_GT(last, 500u) << "too few batches to have tested anything";
}

}  // namespace
}  // namespace faultline
