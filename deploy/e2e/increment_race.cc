// SPDX-License-Identifier: Apache-2.0
//
// A program on far memory that counts in its pages while they leave and come back, and knows what
// each count must be: a write that is lost is missing there.
//
//   increment_race SECONDS PAGES                                    anonymous memory, which
//                                                                   `faultline run` makes far
//   increment_race SECONDS PAGES SOCKET VOLUME LOCAL_PAGES POLICY   a memfd, by libfaultline
//
// Each thread adds to a word of its own in each page. The first goes through all pages, so that all
// leave again and again; the other adds to a few at a time without a pause, also while these are
// taken. The rest of a page never changes. Every visit looks at what was left at the last one.
//
// It says "rounds=N increments=N returned=N lost=N wrong=N": how often the first went through,
// pages that were not here when it came to them again, increments that are missing, and pages of
// which the rest is another. Exit status 1 where one is missing or wrong; 2: no far memory.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "client/lib/faultline.h"
#include "deploy/e2e/page_check.h"

namespace faultline::e2e {
namespace {

constexpr int kThreads = 2;
constexpr uint64_t kHotPages = 16, kBurst = 1000;
constexpr uint64_t kBurstsOfOnePlace = 1000;
constexpr uint64_t kWords = kPageBytes / sizeof(uint64_t), kCounters = 8;
static_assert(kThreads <= kCounters);

class Race {
 public:
  Race(std::byte* memory, uint64_t pages)
      : words_(reinterpret_cast<volatile uint64_t*>(memory)), pages_(pages) {
    for (std::vector<uint64_t>& counted : counted_) counted.resize(pages);
  }

  // True where nothing is missing or wrong.
  bool Run(std::chrono::seconds duration) {
    for (uint64_t page = 0; page < pages_; ++page) Fill(page);
    std::vector<std::thread> others;
    for (int t = 1; t < kThreads; ++t) {
      others.emplace_back([this, t] { Hammer(t); });
    }
    // Time in which this process is frozen, or the whole machine, is none.
    others.emplace_back([this, duration] {
      constexpr std::chrono::milliseconds kTick(10);
      for (auto left = duration / kTick; left > 0; --left) std::this_thread::sleep_for(kTick);
      stop_ = true;
    });
    while (!stop_) GoThrough();
    for (std::thread& other : others) other.join();
    for (uint64_t page = 0; page < pages_; ++page) {
      for (int t = 0; t < kThreads; ++t) Look(t, page);
      LookAtRest(page);
    }
    uint64_t increments = 0;
    for (const std::vector<uint64_t>& counted : counted_) {
      for (const uint64_t count : counted) increments += count;
    }
    printf("rounds=%" PRIu64 " increments=%" PRIu64 " returned=%" PRIu64 " lost=%" PRIu64
           " wrong=%" PRIu64 "\n",
           rounds_, increments, returned_, lost_.load(), wrong_);
    return lost_ == 0 && wrong_ == 0;
  }

 private:
  volatile uint64_t& Counter(int thread, uint64_t page) {
    return words_[page * kWords + static_cast<uint64_t>(thread)];
  }
  static uint64_t Rest(uint64_t page, uint64_t word) {
    return (page * kWords + word) * 0x9e3779b97f4a7c15u + 1;
  }

  void Fill(uint64_t page) {
    for (uint64_t i = kCounters; i < kWords; ++i) words_[page * kWords + i] = Rest(page, i);
  }
  void LookAtRest(uint64_t page) {
    bool right = true;
    for (uint64_t i = kCounters; i < kWords; ++i) {
      right = right && words_[page * kWords + i] == Rest(page, i);
    }
    if (right) return;
    ++wrong_;
    fprintf(stderr, "page %" PRIu64 ", lap %" PRIu64 ": not what was written there\n", page,
            rounds_);
    Fill(page);
  }

  // Of its own thread, or when all others have ended.
  void Look(int thread, uint64_t page) {
    const uint64_t found = Counter(thread, page);
    uint64_t& counted = counted_[thread][page];
    if (found == counted) return;
    fprintf(stderr,
            "page %" PRIu64 ", thread %d: %" PRIu64 " where it was counted to %" PRIu64 "\n", page,
            thread, found, counted);
    lost_ += found < counted ? counted - found : found - counted;
    counted = found;
  }
  void Count(int thread, uint64_t page, uint64_t times) {
    Look(thread, page);
    for (uint64_t i = 0; i < times; ++i) Counter(thread, page) = Counter(thread, page) + 1;
    counted_[thread][page] += times;
  }

  void GoThrough() {
    constexpr uint64_t kAtATime = 64;
    for (uint64_t first = 0; first < pages_; first += kAtATime) {
      const uint64_t count = std::min(kAtATime, pages_ - first);
      unsigned char here[kAtATime] = {};
      // Only a figure: others may bring some back meanwhile.
      if (mincore(const_cast<uint64_t*>(words_) + first * kWords, count * kPageBytes, here) == 0) {
        for (uint64_t i = 0; i < count; ++i) returned_ += (here[i] & 1) == 0 ? 1 : 0;
      }
      for (uint64_t page = first; page < first + count; ++page) {
        Count(0, page, 1);
        LookAtRest(page);
      }
    }
    ++rounds_;
  }

  void Hammer(int thread) {
    std::minstd_rand random(static_cast<unsigned>(thread));
    for (uint64_t burst = 0; !stop_; ++burst) {
      const uint64_t place = burst / kBurstsOfOnePlace * kHotPages;
      Count(thread, (place + random() % kHotPages) % pages_, kBurst);
    }
  }

  volatile uint64_t* const words_;
  const uint64_t pages_;
  std::vector<uint64_t> counted_[kThreads];
  std::atomic<bool> stop_ = false;
  std::atomic<uint64_t> lost_ = 0;
  uint64_t rounds_ = 0, returned_ = 0, wrong_ = 0;  // of the first thread
};

bool RaceInAnonymousMemory(std::chrono::seconds duration, uint64_t pages) {
  void* const at =
      mmap(nullptr, pages * kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) {
    perror("mmap");
    exit(2);
  }
  return Race(static_cast<std::byte*>(at), pages).Run(duration);
}

bool RaceInFile(std::chrono::seconds duration, uint64_t pages, char** arguments) {
  faultline_far_options options = FAULTLINE_FAR_OPTIONS_INIT;
  options.socket_path = arguments[0];
  options.volume = arguments[1];
  options.size = pages * kPageBytes;
  options.local_memory = strtoull(arguments[2], nullptr, 10) * kPageBytes;
  options.policy = arguments[3];
  options.on_agent_loss = FAULTLINE_ON_AGENT_LOSS_WAIT;
  faultline_far* far = nullptr;
  faultline_error error;
  if (faultline_far_create(&options, &far, &error) < 0) {
    fprintf(stderr, "%s\n", error.message);
    exit(2);
  }
  return Race(static_cast<std::byte*>(faultline_far_address(far)), pages).Run(duration);
}

int Main(int argc, char** argv) {
  if (argc != 3 && argc != 7) {
    fprintf(stderr, "usage: increment_race SECONDS PAGES [SOCKET VOLUME LOCAL_PAGES POLICY]\n");
    return 2;
  }
  const std::chrono::seconds duration(strtoull(argv[1], nullptr, 10));
  const uint64_t pages = strtoull(argv[2], nullptr, 10);
  const bool right =
      argc == 3 ? RaceInAnonymousMemory(duration, pages) : RaceInFile(duration, pages, argv + 3);
  return right ? 0 : 1;
}

}  // namespace
}  // namespace faultline::e2e

int main(int argc, char** argv) { return faultline::e2e::Main(argc, argv); }
