// SPDX-License-Identifier: Apache-2.0
//
// The Pager on the real kernel: threads of this process fault, the pager's threads serve them.
#include "client/pager.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <sys/syscall.h>

#include <atomic>
#include <cmath>
#include <fstream>
#include <thread>

#include "client/process_maps.h"
#include "client/source/faulty_page_source.h"
#include "client/source/memory_page_source.h"
#include "client/uffd/test_memory.h"

namespace faultline {
namespace {

using testing::HasSubstr;

std::string Content(uint64_t pages) {
  std::string content(pages * kPageSize, '\0');
  for (uint64_t page = 0; page < pages; ++page) {
    if (page % 9 == 4) continue;  // stays zero
    for (uint64_t i = 0; i < kPageSize; ++i) {
      content[page * kPageSize + i] = static_cast<char>(page * 131 + i * 3 + i / 64);
    }
  }
  return content;
}

class PagerTest : public testing::TestWithParam<MemoryKind> {
 protected:
  static constexpr uint64_t kPages = 512;

  void SetUp() override {
    FAULTLINE_REQUIRE_UFFD();
    pager_ = *Pager::Create({.readers = 2});
  }

  Mapping MappingOf(const TestMemory& memory, uint64_t offset) const {
    return {memory.address(), memory.size(), offset, GetParam() != MemoryKind::kAnonymous};
  }
  AttachRequest Request(UniqueFd uffd, std::vector<Mapping> mappings) const {
    AttachRequest request;
    request.uffd = std::move(uffd);
    request.mappings = std::move(mappings);
    request.pid = getpid();
    request.volume = "test";
    request.source = source_;
    return request;
  }
  AttachmentId Attach(const TestMemory& memory, uint64_t offset = 0) {
    auto id = pager_->Attach(Request(OpenRegistered({&memory}), {MappingOf(memory, offset)}));
    EXPECT_TRUE(id.ok()) << id.status();
    return id.ok() ? *id : 0;
  }

  const std::string content_ = Content(kPages);
  const std::shared_ptr<FaultyPageSource> source_ =
      std::make_shared<FaultyPageSource>(std::make_shared<MemoryPageSource>(content_), /*seed=*/1);
  std::unique_ptr<Pager> pager_;
};

TEST_P(PagerTest, EveryByteOfAVolumeIsReadThroughFaults) {
  TestMemory memory(GetParam(), PageCount(kPages));
  Attach(memory);
  EXPECT_EQ(memory.Read(0, memory.size()), content_);
  // The last reader goes on before its fill is accounted for.
  while (pager_->Attachments().at(0).present_pages < kPages) std::this_thread::yield();
  const AttachmentStats stats = pager_->Attachments().at(0);
  EXPECT_EQ(stats.present_pages, kPages);
  EXPECT_EQ(stats.copied_pages_total + stats.zeroed_pages_total, kPages);
  EXPECT_EQ(stats.waiting_faults, 0u);
}

TEST_P(PagerTest, ManyThreadsInSeveralRegionsReadWhatIsTheirs) {
  TestMemory low(GetParam(), PageCount(kPages / 2));
  TestMemory high(GetParam(), PageCount(kPages / 2));
  auto id =
      pager_->Attach(Request(OpenRegistered({&low, &high}),
                             {MappingOf(low, low.size()), MappingOf(high, 0)}));  // crossed over
  ASSERT_TRUE(id.ok()) << id.status();
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (uint64_t t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < kPages / 2; ++i) {
        const uint64_t page = (i * 97 + t * 13) % (kPages / 2);
        const TestMemory& memory = (i + t) % 2 == 0 ? low : high;
        const uint64_t offset = page * kPageSize + (&memory == &low ? low.size() : 0);
        if (memory.Read(page * kPageSize, kPageSize) != content_.substr(offset, kPageSize)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_P(PagerTest, WhatTheTargetWritesStays) {
  TestMemory memory(GetParam(), PageCount(16));
  Attach(memory);
  memory.Write(5 * kPageSize + 17, '!');
  std::string expected = content_.substr(0, 16 * kPageSize);
  expected[5 * kPageSize + 17] = '!';
  EXPECT_EQ(memory.Read(0, memory.size()), expected);
}

TEST_P(PagerTest, AnAgentThatRegistersTheRangesItselfServesThem) {
  TestMemory memory(GetParam(), PageCount(32));
  AttachRequest request = Request(*OpenUffd(), {MappingOf(memory, 8 * kPageSize)});
  request.register_ranges = true;
  auto id = pager_->Attach(std::move(request));
  ASSERT_TRUE(id.ok()) << id.status();
  EXPECT_EQ(memory.Read(0, memory.size()), content_.substr(8 * kPageSize, memory.size()));
}

TEST_P(PagerTest, ManyAttachmentsAreServedAtOnce) {
  std::vector<std::unique_ptr<TestMemory>> memories;
  for (uint64_t i = 0; i < 20; ++i) {
    memories.push_back(std::make_unique<TestMemory>(GetParam(), PageCount(8)));
    Attach(*memories.back(), i * 8 * kPageSize);
  }
  for (uint64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(memories[i]->Read(0, 8 * kPageSize),
              content_.substr(i * 8 * kPageSize, 8 * kPageSize));
  }
  EXPECT_EQ(pager_->Attachments().size(), 20u);
}

// Of this process, anonymous.
size_t ResidentBytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  size_t kib = 0;
  while (status >> word && word != "RssAnon:") {
  }
  status >> kib;
  return kib << 10;
}

// What is free between pieces that are not, malloc keeps until it is asked.
TEST_P(PagerTest, FreeMemoryIsGivenBackWhenTheLastAttachmentHasEnded) {
  constexpr size_t kPieces = 1024, kPieceBytes = 64 << 10, kFree = kPieces / 2 * kPieceBytes;
  std::vector<std::unique_ptr<char[]>> pieces;  // written to, as they are zeroed
  for (size_t i = 0; i < kPieces; ++i) pieces.push_back(std::make_unique<char[]>(kPieceBytes));
  for (size_t i = 0; i < kPieces; i += 2) pieces[i].reset();
  if (mallinfo2().fordblks < kFree / 2) GTEST_SKIP() << "this is not glibc's malloc";
  const size_t before = ResidentBytes();
  TestMemory memory(GetParam(), PageCount(8));
  const AttachmentId id = Attach(memory);
  memory.Read(0, memory.size());
  ASSERT_TRUE(pager_->Detach(id).ok());
  while (ResidentBytes() > before - kFree / 2) std::this_thread::yield();
}

TEST_P(PagerTest, WhatAnAttachmentHasCountedStaysWhenItEnds) {
  TestMemory first(GetParam(), PageCount(32)), second(GetParam(), PageCount(8));
  const AttachmentId id = Attach(first);
  Attach(second);
  first.Read(0, first.size());
  second.Read(0, second.size());
  ASSERT_TRUE(pager_->Detach(id).ok());
  const PagerMetrics metrics = pager_->Metrics();
  EXPECT_EQ(metrics.attachments_total, 2u);
  ASSERT_EQ(metrics.live.size(), 1u);
  const AttachmentMetrics& ended = metrics.ended;
  EXPECT_EQ(ended.stats.copied_pages_total + ended.stats.zeroed_pages_total, 32u);
  EXPECT_EQ(ended.stats.fetched_pages_total, ended.stats.copied_pages_total);
  EXPECT_EQ(ended.stats.present_pages, 0u);
  EXPECT_EQ(ended.stats.waiting_faults, 0u);
  LatencyCounts latency;
  for (const LatencyCounts& one : ended.fault_latency) latency += one;
  EXPECT_GT(latency.total(), 0u);
  EXPECT_LE(latency.total(), ended.stats.faults_total);
}

// Read all the time while attachments begin, fault and end: what is counted must not be missed
// between being that of a live one and that of one that has ended, nor counted twice.
TEST_P(PagerTest, TotalsNeverGoDown) {
  std::atomic<bool> done = false;
  uint64_t filled = 0, latencies = 0, falls = 0;
  std::thread reader([&] {
    while (!done) {
      PagerMetrics metrics = pager_->Metrics();
      for (const AttachmentMetrics& one : metrics.live) metrics.ended.AddTotals(one);
      const AttachmentStats& stats = metrics.ended.stats;
      const uint64_t now = stats.copied_pages_total + stats.zeroed_pages_total;
      LatencyCounts latency;
      for (const LatencyCounts& one : metrics.ended.fault_latency) latency += one;
      falls += now < filled || latency.total() < latencies;
      filled = now;
      latencies = latency.total();
    }
  });
  constexpr uint64_t kRounds = 50;
  for (uint64_t round = 0; round < kRounds; ++round) {
    TestMemory memory(GetParam(), PageCount(16));
    const AttachmentId id = Attach(memory);
    memory.Read(0, memory.size());
    EXPECT_TRUE(pager_->Detach(id).ok());
  }
  done = true;
  reader.join();
  EXPECT_EQ(falls, 0u);
  const AttachmentStats stats = pager_->Metrics().ended.stats;
  EXPECT_EQ(stats.copied_pages_total + stats.zeroed_pages_total, kRounds * 16);
}

TEST_P(PagerTest, ADrainTellsHowMuchIsLeftAndWhenItIsDone) {
  TestMemory memory(GetParam(), PageCount(kPages));
  AttachRequest request = Request(OpenRegistered({&memory}), {MappingOf(memory, 0)});
  request.options.drain = true;
  source_->Hold();
  ASSERT_TRUE(pager_->Attach(std::move(request)).ok());
  const auto look = [this] { return pager_->Metrics().live.at(0); };
  EXPECT_TRUE(look().draining);
  EXPECT_EQ(look().drain_left_pages, kPages);
  EXPECT_TRUE(std::isnan(look().drain_left_seconds));
  source_->FailPage(PageIndex(kPages - 1), absl::UnavailableError("not yet"));
  while (source_->pending() == 0) std::this_thread::yield();
  source_->Release();
  AttachmentMetrics metrics;
  do {
    metrics = look();
  } while (metrics.drain_left_pages == kPages);
  EXPECT_TRUE(metrics.draining);
  EXPECT_GT(metrics.drain_left_pages, 0u);
  EXPECT_GT(metrics.drain_left_seconds, 0);
  source_->HealPage(PageIndex(kPages - 1));
  do {
    metrics = look();
  } while (!metrics.stats.drained);
  metrics = look();
  EXPECT_FALSE(metrics.draining);
  EXPECT_EQ(metrics.drain_left_pages, 0u);
  EXPECT_EQ(metrics.drain_left_seconds, 0);
}

TEST_P(PagerTest, ADamagedPageGetsSigbusAndItsNeighboursGoOn) {
  TestMemory memory(GetParam(), PageCount(8));
  source_->FailPage(PageIndex(3), absl::DataLossError("checksum does not match"));
  Attach(memory);
  EXPECT_TRUE(ReadGetsSigbus(memory.address() + 3 * kPageSize));
  EXPECT_EQ(memory.Read(2 * kPageSize, kPageSize), content_.substr(2 * kPageSize, kPageSize));
  EXPECT_EQ(memory.Read(4 * kPageSize, kPageSize), content_.substr(4 * kPageSize, kPageSize));
  while (pager_->Attachments().at(0).poisoned_pages < 1) std::this_thread::yield();
  EXPECT_EQ(pager_->Attachments().at(0).poisoned_pages, 1u);
}

TEST_P(PagerTest, ASourceThatFailsNowAndThenDelaysButChangesNothing) {
  source_->FailShare(0.2);
  TestMemory memory(GetParam(), PageCount(128));
  Attach(memory);
  EXPECT_EQ(memory.Read(0, memory.size()), content_.substr(0, memory.size()));
  EXPECT_GT(pager_->Attachments().at(0).fetch_retries_total, 0u);
}

TEST_P(PagerTest, AfterDetachFilledPagesStayAndOthersGetSigbusNeverZeros) {
  TestMemory memory(GetParam(), PageCount(300));
  const AttachmentId id = Attach(memory);
  EXPECT_EQ(memory.Read(0, 2 * kPageSize), content_.substr(0, 2 * kPageSize));
  ASSERT_TRUE(pager_->Detach(id).ok());
  EXPECT_EQ(memory.Read(0, 2 * kPageSize), content_.substr(0, 2 * kPageSize));
  for (uint64_t page : {2u, 100u, 299u}) {
    EXPECT_TRUE(ReadGetsSigbus(memory.address() + page * kPageSize)) << page;
  }
  EXPECT_TRUE(pager_->Attachments().empty());
  EXPECT_EQ(pager_->Detach(id).code(), absl::StatusCode::kNotFound);
}

TEST_P(PagerTest, StopReleasesWhoWaitsWithSigbus) {
  TestMemory memory(GetParam(), PageCount(4));
  source_->Hold();
  Attach(memory);
  std::atomic<bool> sigbus = false;
  std::thread waiter([&] { sigbus = ReadGetsSigbus(memory.address() + kPageSize); });
  while (pager_->Attachments().at(0).waiting_faults == 0) std::this_thread::yield();
  pager_->Stop();
  waiter.join();
  EXPECT_TRUE(sigbus);
  source_->Release();
}

TEST_P(PagerTest, DiscardedPagesReadAsTheirKindOfMemoryHasThem) {
  TestMemory memory(GetParam(), PageCount(8));
  AttachRequest request = Request(*OpenUffd(), {MappingOf(memory, 0)});
  request.mappings[0].shared = false;  // the kernel knows
  request.register_ranges = true;
  auto id = pager_->Attach(std::move(request));
  ASSERT_TRUE(id.ok()) << id.status();
  EXPECT_EQ(memory.Read(0, kPageSize), content_.substr(0, kPageSize));
  void* discarded = reinterpret_cast<void*>(memory.address());
  ASSERT_EQ(madvise(discarded, 2 * kPageSize, MADV_DONTNEED), 0);
  // Private memory is zero afterwards, filled before or not; shared memory keeps what it has, and
  // what it has not is still at the source.
  EXPECT_EQ(memory.Read(0, 2 * kPageSize), GetParam() == MemoryKind::kAnonymous
                                               ? std::string(2 * kPageSize, '\0')
                                               : content_.substr(0, 2 * kPageSize));
  EXPECT_EQ(memory.Read(2 * kPageSize, kPageSize), content_.substr(2 * kPageSize, kPageSize));
}

TEST_P(PagerTest, AHolePunchedIntoSharedMemoryReadsZeros) {
  if (GetParam() == MemoryKind::kAnonymous) return;  // MADV_REMOVE is for shared memory
  TestMemory memory(GetParam(), PageCount(4));
  AttachRequest request = Request(*OpenUffd(), {MappingOf(memory, 0)});
  request.register_ranges = true;
  auto id = pager_->Attach(std::move(request));
  ASSERT_TRUE(id.ok()) << id.status();
  EXPECT_EQ(memory.Read(0, 2 * kPageSize), content_.substr(0, 2 * kPageSize));
  void* hole = reinterpret_cast<void*>(memory.address());
  ASSERT_EQ(madvise(hole, kPageSize, MADV_REMOVE), 0);
  EXPECT_EQ(memory.Read(0, kPageSize), std::string(kPageSize, '\0'));
  EXPECT_EQ(memory.Read(kPageSize, kPageSize), content_.substr(kPageSize, kPageSize));
}

TEST_P(PagerTest, MemoryThatIsAllThereIsGivenBackToTheKernelWhereThatIsAskedFor) {
  TestMemory memory(GetParam(), PageCount(kPages));
  const auto is_registered = [&] {
    for (const VmArea& area : ReadSmaps(getpid())) {
      if (area.range.Overlaps(memory.range()) && area.registered) return true;
    }
    return false;
  };
  AttachRequest request = Request(*OpenUffd(), {MappingOf(memory, 0)});
  request.register_ranges = true;
  request.options.drain = true;
  request.options.unregister = true;
  auto id = pager_->Attach(std::move(request));
  ASSERT_TRUE(id.ok()) << id.status();
  while (is_registered()) std::this_thread::yield();
  EXPECT_EQ(memory.Read(0, memory.size()), content_);
  // Neither told of nor waited for.
  const uint64_t faults = pager_->Attachments().at(0).faults_total;
  void* discarded = reinterpret_cast<void*>(memory.address());
  ASSERT_EQ(madvise(discarded, kPageSize,
                    GetParam() == MemoryKind::kAnonymous ? MADV_DONTNEED : MADV_REMOVE),
            0);
  EXPECT_EQ(memory.Read(0, kPageSize), std::string(kPageSize, '\0'));
  EXPECT_EQ(pager_->Attachments().at(0).remove_events_total, 0u);
  EXPECT_EQ(pager_->Attachments().at(0).faults_total, faults);
  EXPECT_TRUE(pager_->Detach(*id).ok());
  EXPECT_EQ(memory.Read(kPageSize, kPageSize), content_.substr(kPageSize, kPageSize));
}

INSTANTIATE_TEST_SUITE_P(Kinds, PagerTest,
                         testing::Values(MemoryKind::kAnonymous, MemoryKind::kShmem,
                                         MemoryKind::kMemfd),
                         [](const auto& param) { return MemoryKindName(param.param); });

class PagerAttachTest : public testing::Test {
 protected:
  void SetUp() override { FAULTLINE_REQUIRE_UFFD(); }

  AttachRequest Request(UniqueFd uffd) {
    AttachRequest request;
    request.uffd = std::move(uffd);
    request.mappings = {{memory_.address(), memory_.size(), 0}};
    request.pid = getpid();
    request.volume = "test";
    request.source = std::make_shared<MemoryPageSource>(Content(8));
    return request;
  }
  std::string Refusal(AttachRequest request) {
    const auto id = pager_->Attach(std::move(request));
    EXPECT_TRUE(pager_->Attachments().empty());
    return std::string(id.status().message());
  }

  TestMemory memory_{MemoryKind::kAnonymous, PageCount(8)};
  std::unique_ptr<Pager> pager_ = *Pager::Create({});
};

TEST_F(PagerAttachTest, ADescriptorThatIsNoUserfaultfdIsRefused) {
  EXPECT_THAT(Refusal(Request(UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC)))),
              HasSubstr("no userfaultfd"));
}

TEST_F(PagerAttachTest, BadMappingsAreRefused) {
  AttachRequest request = Request(OpenRegistered({&memory_}));
  request.mappings[0].size = 9 * kPageSize;
  EXPECT_THAT(Refusal(std::move(request)), HasSubstr("beyond the volume's 32768 bytes"));
}

TEST_F(PagerAttachTest, ARangeThatCannotBeRegisteredLeavesTheOthersUnregistered) {
  AttachRequest request = Request(*OpenUffd());
  request.register_ranges = true;
  request.mappings = {{memory_.address(), 4 * kPageSize, 0},
                      {0x1000, 4 * kPageSize, 4 * kPageSize}};
  EXPECT_THAT(Refusal(std::move(request)), HasSubstr("nothing is mapped there"));
  memory_.Write(0, 'x');  // would wait for ever if it were still registered
  EXPECT_EQ(memory_.Read(0, 1), "x");
}

TEST_F(PagerAttachTest, AfterStopNothingIsAttached) {
  pager_->Stop();
  EXPECT_THAT(Refusal(Request(OpenRegistered({&memory_}))), HasSubstr("stopping"));
}

}  // namespace
}  // namespace faultline
