// SPDX-License-Identifier: Apache-2.0
//
// What the race tests have in common: memory whose place is known, children and threads that may
// hang, and a Pager whose source decides when pages arrive.
//
// The target is this very process, or a plain fork() of it. Its memory lies in an Arena, far from
// everything that malloc and the pager's own threads use.
#ifndef FAULTLINE_CLIENT_RACES_RACE_TESTING_H_
#define FAULTLINE_CLIENT_RACES_RACE_TESTING_H_

#include <gtest/gtest.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/pager.h"
#include "client/races/answer_threads.h"
#include "client/races/pattern_page_source.h"
#include "client/source/faulty_page_source.h"
#include "client/uffd/test_memory.h"

namespace faultline {

// Whether `condition` comes to hold before a deadline that only a hang can miss.
template <typename Condition>
bool Eventually(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    sched_yield();
  }
  return true;
}

// Ends the process, naming the test, where the test hangs: a thread that waits for a page that
// never comes can be stopped in no other way.
class HangWatchdog {
 public:
  HangWatchdog() : thread_([this] { Watch(); }) {}
  ~HangWatchdog() {
    {
      std::lock_guard<std::mutex> lock(mu_);
      done_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  HangWatchdog(const HangWatchdog&) = delete;
  HangWatchdog& operator=(const HangWatchdog&) = delete;

 private:
  void Watch() {
    std::unique_lock<std::mutex> lock(mu_);
    if (changed_.wait_until(lock, std::chrono::system_clock::now() + std::chrono::seconds(100),
                            [this] { return done_; })) {
      return;
    }
    const testing::TestInfo* test = testing::UnitTest::GetInstance()->current_test_info();
    fprintf(stderr, "HANG: %s.%s did not end in 100 s: a thread waits for a page or an event\n",
            test->test_suite_name(), test->name());
    _exit(70);
  }

  std::mutex mu_;
  std::condition_variable changed_;
  bool done_ = false;
  std::thread thread_;
};

// Addresses of the test's own, at which memory is mapped, moved and unmapped. At the start nothing
// of it can be accessed. No other mmap() of the process lands in it, even where it has holes: it
// lies below everything that the kernel fills from the top down.
class Arena {
 public:
  explicit Arena(uint64_t pages) : size_(pages * kPageSize) {
    static std::atomic<uintptr_t> next = 0x7ea000000000;
    const uintptr_t hint = next.fetch_add((size_ + (1u << 22)) & ~uint64_t{(1u << 21) - 1});
    void* at = mmap(reinterpret_cast<void*>(hint), size_, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    EXPECT_NE(at, MAP_FAILED);
    base_ = static_cast<char*>(at);
  }
  ~Arena() { munmap(base_, size_); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  char* At(uint64_t page) const { return base_ + page * kPageSize; }
  uint64_t Address(uint64_t page) const { return reinterpret_cast<uint64_t>(At(page)); }
  AddressRange Range(uint64_t page, uint64_t count) const {
    return {Address(page), count * kPageSize};
  }

  // Fresh memory at pages [page, page + count). Async-signal-safe.
  bool Map(MemoryKind kind, uint64_t page, uint64_t count) {
    const uint64_t length = count * kPageSize;
    int flags = MAP_FIXED | MAP_NORESERVE;
    int fd = -1;
    if (kind == MemoryKind::kAnonymous) flags |= MAP_PRIVATE | MAP_ANONYMOUS;
    if (kind == MemoryKind::kShmem) flags |= MAP_SHARED | MAP_ANONYMOUS;
    if (kind == MemoryKind::kMemfd) {
      flags |= MAP_SHARED;
      memfd_ = UniqueFd(memfd_create("faultline-race", MFD_CLOEXEC));
      if (ftruncate(memfd_.get(), static_cast<off_t>(length)) != 0) return false;
      fd = memfd_.get();
    }
    return mmap(At(page), length, PROT_READ | PROT_WRITE, flags, fd, 0) == At(page);
  }
  // Of the latest Map() of MemoryKind::kMemfd.
  int memfd() const { return memfd_.get(); }

  // Moves pages [from, from + count) to `to`. Async-signal-safe.
  bool Move(uint64_t from, uint64_t to, uint64_t count, int flags = 0) const {
    return mremap(At(from), count * kPageSize, count * kPageSize,
                  MREMAP_MAYMOVE | MREMAP_FIXED | flags, At(to)) == At(to);
  }
  bool Unmap(uint64_t page, uint64_t count) const {
    return munmap(At(page), count * kPageSize) == 0;
  }
  bool Advise(uint64_t page, uint64_t count, int advice) const {
    return madvise(At(page), count * kPageSize, advice) == 0;
  }
  bool Protect(uint64_t page, uint64_t count, int protection) const {
    return mprotect(At(page), count * kPageSize, protection) == 0;
  }

 private:
  uint64_t size_;
  char* base_;
  UniqueFd memfd_;
};

// Reads all of the page at `at` by the faulting instruction itself, and tells whether it holds page
// `page` of the volume, or zeros. Async-signal-safe.
inline bool PageHolds(const char* at, uint64_t page) {
  const auto* words = reinterpret_cast<const volatile uint64_t*>(at);
  bool same = true;
  for (uint64_t i = 0; i < kWordsPerPage; ++i) same = (words[i] == PatternWord(page, i)) && same;
  return same;
}
inline bool PageIsZero(const char* at) {
  const auto* words = reinterpret_cast<const volatile uint64_t*>(at);
  uint64_t any = 0;
  for (uint64_t i = 0; i < kWordsPerPage; ++i) any |= words[i];
  return any == 0;
}
// How many of the `count` pages at `at` do not hold what the volume has from `page` on (or zeros).
// At most 100, to be an exit status. Async-signal-safe.
inline int WrongPages(const char* at, uint64_t page, uint64_t count) {
  int wrong = 0;
  for (uint64_t i = 0; i < count; ++i) wrong += PageHolds(at + i * kPageSize, page + i) ? 0 : 1;
  return std::min(wrong, 100);
}
inline int NonZeroPages(const char* at, uint64_t count) {
  int wrong = 0;
  for (uint64_t i = 0; i < count; ++i) wrong += PageIsZero(at + i * kPageSize) ? 0 : 1;
  return std::min(wrong, 100);
}

// As a matcher for EXPECT_TRUE, which says where the first difference is.
inline testing::AssertionResult Holds(const char* at, uint64_t page, uint64_t count = 1) {
  for (uint64_t i = 0; i < count; ++i) {
    if (PageHolds(at + i * kPageSize, page + i)) continue;
    const bool zero = PageIsZero(at + i * kPageSize);
    return testing::AssertionFailure()
           << "page " << i << " of " << count << " should hold page " << page + i
           << " of the volume, and " << (zero ? "is zero" : "holds other bytes, beginning with ")
           << std::hex << *reinterpret_cast<const volatile uint64_t*>(at + i * kPageSize)
           << " instead of " << PatternWord(page + i, 0);
  }
  return testing::AssertionSuccess();
}
inline testing::AssertionResult IsZero(const char* at, uint64_t count = 1) {
  for (uint64_t i = 0; i < count; ++i) {
    if (PageIsZero(at + i * kPageSize)) continue;
    return testing::AssertionFailure()
           << "page " << i << " of " << count << " should be zero, and begins with " << std::hex
           << *reinterpret_cast<const volatile uint64_t*>(at + i * kPageSize);
  }
  return testing::AssertionSuccess();
}

// Where the thread is to go on after SIGSEGV or SIGBUS.
struct SignalJump {
  sigjmp_buf buffer;
  volatile bool armed = false;
};
inline SignalJump& ThreadSignalJump() {
  static thread_local SignalJump jump;
  return jump;
}
inline void InstallSignalJumps() {
  static const bool installed = [] {
    struct sigaction action = {};
    action.sa_flags = SA_NODEFER;
    action.sa_handler = [](int signal) {
      if (ThreadSignalJump().armed) siglongjmp(ThreadSignalJump().buffer, signal);
      ::signal(signal, SIG_DFL);  // not ours: the access is tried again, and ends the process
    };
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
    return true;
  }();
  static_cast<void>(installed);
}

// Runs `access`; the signal (SIGSEGV or SIGBUS) that it ended with, or 0. Any number of threads at
// a time. Its handlers stay.
template <typename Access>
int SignalOf(Access access) {
  InstallSignalJumps();
  SignalJump& jump = ThreadSignalJump();
  const int signal = sigsetjmp(jump.buffer, 1);
  if (signal == 0) {
    jump.armed = true;
    access();
  }
  jump.armed = false;
  return signal;
}

// A thread of the target. What it does may wait for a page; Join() waits for its end, and where
// that never comes the watchdog of the test ends the process.
class TargetThread {
 public:
  template <typename Work>
  explicit TargetThread(Work work)
      : thread_([this, work] {
          work();
          done_ = true;
        }) {}
  ~TargetThread() { Join(); }
  TargetThread(const TargetThread&) = delete;
  TargetThread& operator=(const TargetThread&) = delete;

  void Join() {
    if (thread_.joinable()) thread_.join();
  }
  bool done() const { return done_; }
  pthread_t handle() { return thread_.native_handle(); }

 private:
  std::atomic<bool> done_ = false;
  std::thread thread_;
};

// A forked child. It runs `work`, which calls async-signal-safe functions only, and exits with the
// status that `work` returns; a reader of it that waits for ever is killed at the latest when this
// goes.
class Child {
 public:
  // By _Fork(): fork() holds the locks of malloc until the kernel returns, and that waits for the
  // pager, which is in this process here and may want memory to read the event.
  template <typename Work>
  explicit Child(Work work) : pid_(_Fork()) {
    if (pid_ != 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    _exit(work());
  }
  ~Child() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  void Kill(int signal) const { kill(pid_, signal); }
  // The exit status, 1000 + the signal that killed it, or -1 where it did not end.
  int Wait() {
    int status = 0;
    if (!Eventually([&] { return waitpid(pid_, &status, WNOHANG) == pid_; })) return -1;
    pid_ = -1;
    return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
  }

 private:
  pid_t pid_;
};

// Lets a child wait for its parent, or the other way round. Async-signal-safe.
class Gate {
 public:
  Gate() { EXPECT_EQ(pipe(fds_), 0); }
  ~Gate() {
    close(fds_[0]);
    close(fds_[1]);
  }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  void Open() const {
    const char byte = 0;
    static_cast<void>(!write(fds_[1], &byte, 1));
  }
  void Pass() const {  // waits for one Open()
    char byte;
    static_cast<void>(!read(fds_[0], &byte, 1));
  }

 private:
  int fds_[2];
};

// One Pager, one volume, one arena.
class RaceTest : public testing::TestWithParam<MemoryKind> {
 protected:
  static constexpr uint64_t kArenaPages = 4096;
  static constexpr uint64_t kVolumePages = 4096;

  void SetUp() override {
    FAULTLINE_REQUIRE_UFFD();
    watchdog_ = std::make_unique<HangWatchdog>();
    auto pager = Pager::Create({.readers = 2});
    ASSERT_TRUE(pager.ok()) << pager.status();
    pager_ = *std::move(pager);
  }
  void TearDown() override {
    if (pager_ != nullptr) pager_->Stop();
    source_->Release();
    pager_.reset();
    answer_threads_.reset();
    watchdog_.reset();
  }
  // To be called before anything is attached: pages come from `inner`, and from so many threads
  // beside each other; 0: from the one that fetches.
  void UseSource(std::shared_ptr<PageSource> inner, int threads) {
    if (threads > 0) {
      answer_threads_ = std::make_unique<AnswerThreads>(threads);
      inner = answer_threads_->AnswerFor(std::move(inner));
    }
    source_ = std::make_shared<FaultyPageSource>(std::move(inner), /*seed=*/1);
  }

  bool anonymous() const { return GetParam() == MemoryKind::kAnonymous; }

  AttachRequest Request(UniqueFd uffd, std::vector<Mapping> mappings,
                        const AttachmentOptions& options = {}) const {
    AttachRequest request;
    request.uffd = std::move(uffd);
    request.register_ranges = true;
    request.mappings = std::move(mappings);
    request.pid = getpid();
    request.volume = "races";
    request.source = source_;
    request.options = options;
    return request;
  }
  Mapping MappingOf(AddressRange range, uint64_t volume_page) const {
    return {range.start, range.length, volume_page * kPageSize, !anonymous()};
  }
  // Maps fresh memory at pages [page, page + count) of the arena, backed by as many pages of the
  // volume from `volume_page` on.
  AttachmentId MapAndAttach(uint64_t page, uint64_t count, uint64_t volume_page = 0,
                            const AttachmentOptions& options = {}) {
    EXPECT_TRUE(arena_.Map(GetParam(), page, count));
    return Attach(page, count, volume_page, options);
  }
  AttachmentId Attach(uint64_t page, uint64_t count, uint64_t volume_page = 0,
                      const AttachmentOptions& options = {}) {
    auto id = pager_->Attach(
        Request(*OpenUffd(), {MappingOf(arena_.Range(page, count), volume_page)}, options));
    EXPECT_TRUE(id.ok()) << id.status();
    return id.ok() ? *id : 0;
  }

  // Where `id` has ended, all zero.
  AttachmentStats Stats(AttachmentId id) const {
    for (AttachmentStats& stats : pager_->Attachments()) {
      if (stats.id == id) return std::move(stats);
    }
    return {};
  }
  template <typename Condition>
  bool EventuallyStats(AttachmentId id, Condition condition) const {
    return Eventually([&] { return condition(Stats(id)); });
  }
  bool EventuallyWaiting(AttachmentId id, uint64_t pages) const {
    return EventuallyStats(id, [&](const auto& stats) { return stats.waiting_faults == pages; });
  }
  // Of the forked children, by age.
  std::vector<AttachmentStats> Children(AttachmentId parent) const {
    std::vector<AttachmentStats> children;
    for (AttachmentStats& stats : pager_->Attachments()) {
      if (stats.parent == parent) children.push_back(std::move(stats));
    }
    return children;
  }
  size_t FetchesOf(uint64_t page) const {
    size_t fetches = 0;
    for (PageRange range : source_->fetched()) fetches += range.Contains(PageIndex(page)) ? 1 : 0;
    return fetches;
  }

  Arena arena_{kArenaPages};  // outlives the pager: where it goes, nobody must wait for an event
  std::unique_ptr<HangWatchdog> watchdog_;
  std::unique_ptr<AnswerThreads> answer_threads_;
  std::shared_ptr<FaultyPageSource> source_ = std::make_shared<FaultyPageSource>(
      std::make_shared<PatternPageSource>(PageCount(kVolumePages)), /*seed=*/1);
  std::unique_ptr<Pager> pager_;
};

// As RaceTest, with a source that answers on four threads.
class ParallelRaceTest : public RaceTest {
 protected:
  void SetUp() override {
    RaceTest::SetUp();
    UseSource(std::make_shared<PatternPageSource>(PageCount(kVolumePages)), 4);
  }
};

#define FAULTLINE_RACES_ON_ALL_KINDS(suite)                                            \
  INSTANTIATE_TEST_SUITE_P(                                                            \
      Kinds, suite,                                                                    \
      testing::Values(MemoryKind::kAnonymous, MemoryKind::kShmem, MemoryKind::kMemfd), \
      [](const auto& param) { return MemoryKindName(param.param); })
#define FAULTLINE_RACES_ON(suite, ...)                                 \
  INSTANTIATE_TEST_SUITE_P(Kinds, suite, testing::Values(__VA_ARGS__), \
                           [](const auto& param) { return MemoryKindName(param.param); })

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_RACES_RACE_TESTING_H_
