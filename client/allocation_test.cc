// SPDX-License-Identifier: Apache-2.0
//
// Once it is warm, the agent allocates no memory on the way of a demand fault, on the real kernel.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <thread>
#include <utility>

#include "client/pager.h"
#include "client/uffd/test_memory.h"
#include "proto/mutex.h"

namespace {
std::atomic<uint64_t> allocations = 0;

void* Allocate(size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* const memory = malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) abort();
  return memory;
}
}  // namespace

// What all of this program allocates through, but for malloc itself, which C++ code does not call.
void* operator new(size_t bytes) { return Allocate(bytes); }
void* operator new[](size_t bytes) { return Allocate(bytes); }
void operator delete(void* memory) noexcept { free(memory); }
void operator delete[](void* memory) noexcept { free(memory); }
void operator delete(void* memory, size_t) noexcept { free(memory); }
void operator delete[](void* memory, size_t) noexcept { free(memory); }

namespace faultline {
namespace {

constexpr uint64_t kPages = 4096;
constexpr uint64_t kWarmUp = 256;

std::byte ContentOf(PageIndex page) { return static_cast<std::byte>(page.raw() * 37 + 11); }

// Has one page of memory at a time, and answers from a thread of its own, as a connection does.
class OneThreadSource final : public PageSource {
 public:
  OneThreadSource() : thread_([this] { Run(); }) {}
  ~OneThreadSource() override {
    {
      MutexLock lock(mu_);
      stopping_ = true;
      changed_.SignalAll();
    }
    thread_.join();
  }

  void Fetch(PageRange range, FetchLane, absl::Time, FetchDone done) override {
    MutexLock lock(mu_);
    range_ = range;
    done_ = std::move(done);
    changed_.SignalAll();
  }
  PageCount size() const override { return PageCount(kPages); }
  PageCount max_fetch() const override { return PageCount(1); }

 private:
  void Run() {
    for (;;) {
      FetchDone done;
      FetchedRun run{};
      {
        MutexLock lock(mu_);
        while (done_ == nullptr && !stopping_) changed_.Wait(mu_);
        if (done_ == nullptr) return;
        run.range = range_;
        done = std::exchange(done_, nullptr);
      }
      memset(bytes_.data(), static_cast<int>(ContentOf(run.range.first)), bytes_.size());
      run.bytes = bytes_.data();
      done(std::span<const FetchedRun>(&run, 1));
    }
  }

  std::array<std::byte, kPageSize> bytes_;
  Mutex mu_;
  CondVar changed_;
  PageRange range_ ABSL_GUARDED_BY(mu_);
  FetchDone done_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

TEST(Allocation, ADemandFaultAllocatesNothingOnceTheAgentIsWarm) {
  FAULTLINE_REQUIRE_UFFD();
  const auto source = std::make_shared<OneThreadSource>();
  const std::unique_ptr<Pager> pager =
      *Pager::Create({.fill_mode = FillMode::kParallel, .spin = absl::Microseconds(50)});
  TestMemory memory(MemoryKind::kAnonymous, PageCount(kPages));
  AttachRequest request;
  request.uffd = OpenRegistered({&memory});
  request.mappings = {{memory.address(), memory.size(), 0}};
  request.pid = getpid();
  request.volume = "test";
  request.source = source;
  ASSERT_TRUE(pager->Attach(std::move(request)).ok());

  const auto* bytes = reinterpret_cast<const volatile std::byte*>(memory.address());
  uint64_t wrong = 0;
  const auto touch = [&](uint64_t from, uint64_t to) {
    for (uint64_t i = from; i < to; ++i) {
      const PageIndex page(i * 2731 % kPages);  // every page once, none beside the one before
      if (bytes[page.byte_offset() + i % kPageSize] != ContentOf(page)) ++wrong;
    }
  };
  touch(0, kWarmUp);
  const uint64_t before = allocations;
  touch(kWarmUp, kPages);
  const uint64_t during = allocations - before;
  EXPECT_EQ(wrong, 0u);
  // The pager looks after its attachments once a second, which may allocate.
  EXPECT_LT(during, 64u) << "in " << kPages - kWarmUp << " faults";
}

}  // namespace
}  // namespace faultline
