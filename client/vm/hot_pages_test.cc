// SPDX-License-Identifier: Apache-2.0
//
// A process of its own stands for QEMU: it touches some pages of a memfd all the time.
#include "client/vm/hot_pages.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <absl/time/time.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <set>
#include <string>

#include "client/attach/process_attach.h"
#include "client/process_maps.h"
#include "client/uffd/test_memory.h"

namespace faultline {
namespace {

constexpr uint64_t kPages = 4096;
// Further apart than what one read fault maps, so that a page too many shows.
constexpr uint64_t kHotStep = 256;

std::vector<uint8_t> Touched(std::initializer_list<uint8_t> counts) { return counts; }
std::vector<bool> Chosen(std::initializer_list<bool> hot) { return hot; }

TEST(ChooseHotPages, TakesWhatWasTouchedInHalfOfTheLooks) {
  EXPECT_EQ(ChooseHotPages(Touched({0, 2, 3, 5}), 5, PageCount(10)),
            Chosen({false, false, true, true}));
  EXPECT_EQ(ChooseHotPages(Touched({1, 2}), 2, PageCount(10)), Chosen({false, true}));
  EXPECT_EQ(ChooseHotPages(Touched({1, 0}), 1, PageCount(10)), Chosen({false, false}));
}

TEST(ChooseHotPages, TakesTheHottestWhereTheyAreTooMany) {
  EXPECT_EQ(ChooseHotPages(Touched({4, 5, 4, 3, 5}), 5, PageCount(3)),
            Chosen({true, true, false, false, true}));
  EXPECT_EQ(ChooseHotPages(Touched({5, 5, 5}), 5, PageCount(2)), Chosen({true, true, false}));
  EXPECT_EQ(ChooseHotPages(Touched({5, 4}), 5, PageCount(1)), Chosen({true, false}));
  EXPECT_EQ(ChooseHotPages(Touched({5, 5}), 5, PageCount(0)), Chosen({false, false}));
}

// Killed at the end.
class BusyProcess {
 public:
  explicit BusyProcess(int flags) : fd_(memfd_create("hot pages test", MFD_CLOEXEC)) {
    EXPECT_EQ(ftruncate(fd_.get(), kPages * kPageSize), 0);
    void* mapped = mmap(nullptr, kPages * kPageSize, PROT_READ | PROT_WRITE, flags, fd_.get(), 0);
    memory_ = static_cast<char*>(mapped);
    for (uint64_t page = 0; page < kPages; ++page) memory_[page * kPageSize] = Content(page);
    pid_ = fork();
    if (pid_ == 0) Touch();
  }
  ~BusyProcess() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    munmap(memory_, kPages * kPageSize);
  }

  pid_t pid() const { return pid_; }
  std::string file() const { return absl::StrCat("/proc/", getpid(), "/fd/", fd_.get()); }
  AddressRange range() const { return {reinterpret_cast<uint64_t>(memory_), kPages * kPageSize}; }
  // Whether it writes.
  bool IsBusy() const {
    const volatile char* const counter = memory_ + 1;
    const char before = *counter;
    for (int i = 0; i < 1000 && *counter == before; ++i) absl::SleepFor(absl::Milliseconds(10));
    return *counter != before;
  }
  static char Content(uint64_t page) { return static_cast<char>(page * 7 + 1); }
  char ContentOf(uint64_t page) const { return memory_[page * kPageSize]; }

 private:
  // Every second hot page is written, and one other page is read each time.
  [[noreturn]] void Touch() {
    volatile char* const memory = memory_;
    for (uint64_t round = 0;; ++round) {
      for (uint64_t page = 0; page < kPages; page += 2 * kHotStep) {
        memory[page * kPageSize + 1] = memory[page * kPageSize + 1] + 1;
        static_cast<void>(memory[(page + kHotStep) * kPageSize]);
      }
      static_cast<void>(memory[(100 + round * 37 % 3000) * kPageSize]);
      usleep(2000);
    }
  }

  const UniqueFd fd_;
  char* memory_ = nullptr;
  pid_t pid_ = 0;
};

std::set<uint64_t> Members(const PageSet& pages) {
  std::set<uint64_t> members;
  for (PageRange run = pages.NextRun(PageIndex(0)); !run.empty(); run = pages.NextRun(run.end())) {
    for (PageIndex page = run.first; page < run.end(); ++page) members.insert(page.raw());
  }
  return members;
}

TEST(HotPageSampler, FindsWhatIsTouchedAllTheTimeAndChangesNothing) {
  FAULTLINE_REQUIRE_UFFD();
  BusyProcess process(MAP_SHARED);
  auto sampler = HotPageSampler::Start(process.pid(), process.file());
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  absl::SleepFor(absl::Milliseconds(250));
  const absl::StatusOr<PageSet> hot = (*sampler)->Finish();
  ASSERT_TRUE(hot.ok()) << hot.status();
  std::set<uint64_t> expected;
  for (uint64_t page = 0; page < kPages; page += kHotStep) expected.insert(page);
  EXPECT_EQ(Members(*hot), expected);
  sampler->reset();
  for (uint64_t page = 0; page < kPages; ++page) {
    ASSERT_EQ(process.ContentOf(page), BusyProcess::Content(page)) << "page " << page;
  }
  // It goes on, with no descriptor more.
  EXPECT_TRUE(process.IsBusy());
  const std::string folder = absl::StrCat("/proc/", process.pid(), "/fd");
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    std::error_code error;
    EXPECT_EQ(std::filesystem::read_symlink(entry.path(), error).string().find("userfaultfd"),
              std::string::npos);
  }
}

TEST(HotPageSampler, EndsWithTheProcess) {
  FAULTLINE_REQUIRE_UFFD();
  BusyProcess process(MAP_SHARED);
  auto sampler = HotPageSampler::Start(process.pid(), process.file());
  ASSERT_TRUE(sampler.ok()) << sampler.status();
  kill(process.pid(), SIGKILL);
  EXPECT_FALSE((*sampler)->Finish().ok());
}

TEST(HotPageSampler, NeverTouchesPrivateMemory) {
  BusyProcess process(MAP_PRIVATE);
  const auto sampler = HotPageSampler::Start(process.pid(), process.file());
  EXPECT_EQ(sampler.status().code(), absl::StatusCode::kFailedPrecondition) << sampler.status();
}

TEST(HotPageSampler, LeavesMemoryAloneThatAUserfaultfdServes) {
  FAULTLINE_REQUIRE_UFFD();
  BusyProcess process(MAP_SHARED);
  // Registered by the process itself, as QEMU's is by the preload library.
  const UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, process.pid(), 0)));
  absl::StatusOr<UniqueFd> fd = BorrowUffd(process.pid(), pidfd.get(), {});
  ASSERT_TRUE(fd.ok()) << fd.status();
  const auto uffd = AdoptFreshUffd(*std::move(fd), 0);
  ASSERT_TRUE(uffd.ok()) << uffd.status();
  ASSERT_EQ((*uffd)->Register(process.range()), absl::OkStatus());
  const auto sampler = HotPageSampler::Start(process.pid(), process.file());
  EXPECT_EQ(sampler.status().code(), absl::StatusCode::kFailedPrecondition) << sampler.status();
}

TEST(HotPageSampler, SaysThatThereIsNoSuchProcess) {
  EXPECT_FALSE(HotPageSampler::Start(0x3ffffff, "/nowhere").ok());
}

}  // namespace
}  // namespace faultline
