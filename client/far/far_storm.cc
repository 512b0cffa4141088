// SPDX-License-Identifier: Apache-2.0
#include "client/far/far_storm.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

namespace faultline {
namespace {

using Clock = std::chrono::steady_clock;
using Random = std::minstd_rand;

// Two counters of a page, at its two ends, which the one thread that writes to it keeps equal.
struct Counters {
  volatile uint64_t* first;
  volatile uint64_t* last;

  explicit Counters(std::byte* page)
      : first(reinterpret_cast<volatile uint64_t*>(page)),
        last(reinterpret_cast<volatile uint64_t*>(page + kFarPageBytes - sizeof(uint64_t))) {}
  void Increment() const {
    *first = *first + 1;
    *last = *last + 1;
  }
  bool Is(uint64_t count) const { return *first == count && *last == count; }
};

std::string Mismatch(size_t page, const Counters& counters, uint64_t counted) {
  return "page " + std::to_string(page) + " has counted to " + std::to_string(*counters.first) +
         " and " + std::to_string(*counters.last) + ", not to " + std::to_string(counted);
}

// A part of the memory, which moves as a whole.
struct Slot {
  static constexpr size_t kPages = 8;
  static constexpr size_t kBytes = kPages * kFarPageBytes;

  std::mutex mu;
  std::byte* at = nullptr;  // null: it was unmapped
  uint64_t counted[kPages] = {};

  void Count(size_t page) {
    Counters(at + page * kFarPageBytes).Increment();
    ++counted[page];
  }
  // "" where everything is as it was counted; each count may be `slack` larger.
  std::string Check(size_t slack) const {
    for (size_t i = 0; at != nullptr && i < kPages; ++i) {
      const Counters counters(at + i * kFarPageBytes);
      const uint64_t first = *counters.first;
      const uint64_t last = *counters.last;
      if (first < counted[i] || first > counted[i] + slack || last < counted[i] || last > first) {
        return Mismatch(i, counters, counted[i]);
      }
    }
    return "";
  }
};

// Takes addresses as soon as they are free, maps memory there that is not far, and watches it.
class Squatter {
 public:
  Squatter() : thread_([this] { Run(); }) {}

  // [at, at + Slot::kBytes) is about to become free.
  void Expect(std::byte* at) { expected_ = at; }

  // Ends it. Returns how many places were taken, and the bytes that were not right in them.
  size_t Stop(size_t* wrong) {
    stop_ = true;
    thread_.join();
    while (!places_.empty()) Leave();
    *wrong = wrong_;
    return taken_;
  }

 private:
  static constexpr size_t kMaxPlaces = 64;

  static uint64_t Canary(const std::byte* at) { return reinterpret_cast<uint64_t>(at) * 31 + 7; }

  void Run() {
    while (!stop_) {
      std::byte* at = expected_;
      if (at == nullptr || !Take(at)) {
        sched_yield();
        continue;
      }
      expected_.compare_exchange_strong(at, nullptr);
      if (places_.size() > kMaxPlaces) Leave();
    }
  }

  bool Take(std::byte* at) {
    void* const got = mmap(at, Slot::kBytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (got == MAP_FAILED) return false;
    for (size_t i = 0; i < Slot::kBytes; i += sizeof(uint64_t)) {
      *reinterpret_cast<uint64_t*>(at + i) = Canary(at + i);
    }
    ++taken_;
    places_.push_back(at);
    return true;
  }

  // Looks at the oldest place and unmaps it.
  void Leave() {
    std::byte* const at = places_.front();
    places_.pop_front();
    for (size_t i = 0; i < Slot::kBytes; i += sizeof(uint64_t)) {
      if (*reinterpret_cast<const volatile uint64_t*>(at + i) != Canary(at + i)) ++wrong_;
    }
    munmap(at, Slot::kBytes);
  }

  std::atomic<std::byte*> expected_ = nullptr;
  std::atomic<bool> stop_ = false;
  std::deque<std::byte*> places_;
  size_t taken_ = 0;
  size_t wrong_ = 0;
  std::thread thread_;
};

class Churner {
 public:
  Churner(std::byte* memory, size_t pages, Forks forks)
      : slots_(pages / Slot::kPages), left_(slots_.size() / 2), forks_(forks) {
    for (size_t i = 0; i < slots_.size(); ++i) slots_[i].at = memory + i * Slot::kBytes;
    // Addresses to move to: each is used once.
    arena_ = static_cast<std::byte*>(
        mmap(nullptr, kArenaBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  }

  std::string Run(int milliseconds) {
    std::vector<std::thread> writers;
    for (unsigned i = 1; i <= 2; ++i) writers.emplace_back([this, i] { Write(i); });
    const auto end = Clock::now() + std::chrono::milliseconds(milliseconds);
    Random random(7);
    while (Clock::now() < end && wrong_.empty()) ChangeOne(random);
    stop_ = true;
    for (std::thread& writer : writers) writer.join();
    size_t wrong_bytes = 0;
    const size_t squatted = squatter_.Stop(&wrong_bytes);
    for (const Slot& slot : slots_) {
      if (wrong_.empty()) wrong_ = slot.Check(0);
    }
    if (wrong_bytes > 0) wrong_ = "memory that is not far was taken at an address used again";
    if (!wrong_.empty()) return wrong_;
    return "OK counted " + std::to_string(counted_) + " moved " + std::to_string(moved_) +
           " discarded " + std::to_string(discarded_) + " unmapped " + std::to_string(unmapped_) +
           " forked " + std::to_string(forked_) + " squatted " + std::to_string(squatted);
  }

 private:
  static constexpr size_t kArenaBytes = size_t{1} << 38;

  void Write(unsigned seed) {
    Random random(seed);
    size_t counted = 0;
    while (!stop_) {
      Slot& slot = slots_[random() % slots_.size()];
      std::lock_guard<std::mutex> lock(slot.mu);
      if (slot.at == nullptr) continue;
      for (int i = 0; i < 4; ++i) slot.Count(random() % Slot::kPages);
      counted += 4;
    }
    counted_ += counted;
  }

  void ChangeOne(Random& random) {
    Slot& slot = slots_[random() % slots_.size()];
    const uint64_t choice = random() % 100;
    if (choice < 3) return forks_ == Forks::kSome ? Fork() : void();
    std::lock_guard<std::mutex> lock(slot.mu);
    if (slot.at == nullptr) return;
    if (choice < 50) return Move(slot);
    if (choice < 52) return Unmap(slot);
    Discard(slot, random() % Slot::kPages);
  }

  void Move(Slot& slot) {
    std::byte* const to = arena_ + used_;
    used_ += 2 * Slot::kBytes;
    squatter_.Expect(slot.at);
    if (mremap(slot.at, Slot::kBytes, Slot::kBytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to) {
      wrong_ = "mremap failed";
    }
    slot.at = to;
    ++moved_;
  }

  void Unmap(Slot& slot) {
    if (left_ == 0) return;
    --left_;
    squatter_.Expect(slot.at);
    munmap(slot.at, Slot::kBytes);
    slot.at = nullptr;
    ++unmapped_;
  }

  void Discard(Slot& slot, size_t first) {
    madvise(slot.at + first * kFarPageBytes, (Slot::kPages - first) * kFarPageBytes, MADV_DONTNEED);
    for (size_t i = first; i < Slot::kPages; ++i) slot.counted[i] = 0;
    if (wrong_.empty()) wrong_ = slot.Check(0);
    ++discarded_;
  }

  // No writer is there in the child, and this thread is in no slot.
  void Fork() {
    const pid_t child = fork();
    if (child == 0) {
      // A count that was under way has changed the memory, and not `counted` yet.
      for (const Slot& slot : slots_) {
        if (!slot.Check(1).empty()) _exit(1);
      }
      _exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    if (status != 0) wrong_ = "a forked child has found its memory wrong";
    ++forked_;
  }

  std::deque<Slot> slots_;
  size_t left_;  // slots that may still be unmapped
  const Forks forks_;
  std::byte* arena_;
  size_t used_ = 0;  // of the arena
  std::atomic<bool> stop_ = false;
  std::atomic<size_t> counted_ = 0;
  size_t moved_ = 0, discarded_ = 0, unmapped_ = 0, forked_ = 0;
  std::string wrong_;
  Squatter squatter_;
};

}  // namespace

std::string Count(std::byte* memory, size_t pages, int milliseconds) {
  constexpr int kThreads = 2;
  std::vector<uint64_t> counted(pages);
  std::atomic<bool> stop = false;
  std::vector<std::thread> writers;
  for (int t = 0; t < kThreads; ++t) {
    writers.emplace_back([&, t] {
      Random random(static_cast<unsigned>(t) + 1);
      while (!stop) {
        // Its own pages: each has one writer.
        const size_t page = random() % (pages / kThreads) * kThreads + t;
        Counters(memory + page * kFarPageBytes).Increment();
        ++counted[page];
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  stop = true;
  for (std::thread& writer : writers) writer.join();
  uint64_t sum = 0;
  for (size_t page = 0; page < pages; ++page) {
    const Counters counters(memory + page * kFarPageBytes);
    if (!counters.Is(counted[page])) return Mismatch(page, counters, counted[page]);
    sum += counted[page];
  }
  return "OK " + std::to_string(sum);
}

std::string Meet(std::byte* memory, const CommandMemory& command, int milliseconds) {
  constexpr uint64_t kMaxSpins = 6'000;  // some us: as long as the kernel needs
  const Counters counters(memory);
  const auto end = Clock::now() + std::chrono::milliseconds(milliseconds);
  Random random(1);
  uint64_t counted = 0;
  while (Clock::now() < end) {
    if (command.state.load() != CommandState::kRunning) continue;
    for (uint64_t i = random() % kMaxSpins; i > 0; --i) asm volatile("");
    counters.Increment();
    ++counted;
    if (!counters.Is(counted)) return Mismatch(0, counters, counted);
    while (command.state.load() == CommandState::kRunning) continue;
  }
  return "OK " + std::to_string(counted);
}

std::string Churn(std::byte* memory, size_t pages, int milliseconds, Forks forks) {
  return Churner(memory, pages, forks).Run(milliseconds);
}

}  // namespace faultline
