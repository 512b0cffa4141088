// SPDX-License-Identifier: Apache-2.0
//
// Far memory on the real kernel: threads of this process use more memory than the pager lets them
// have, and every byte is looked at.
#include "client/evict/far_memory.h"

#include <absl/time/clock.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <future>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "client/evict/memfd_extractor.h"
#include "client/evict/policies.h"
#include "client/pager.h"
#include "client/source/faulty_page_sink.h"
#include "client/source/faulty_page_source.h"
#include "client/source/memory_volume.h"
#include "client/uffd/test_memory.h"

namespace faultline {
namespace {

constexpr uint64_t kPages = 4096;
constexpr PageCount kBudget{1024};
constexpr uint64_t kHotPages = 16, kBurst = 1000;

// A memfd, mapped once.
class FarFile {
 public:
  explicit FarFile(uint64_t pages)
      : size_(pages * kPageSize), fd_(memfd_create("faultline-far", MFD_CLOEXEC)) {
    EXPECT_EQ(ftruncate(fd_.get(), static_cast<off_t>(size_)), 0);
    void* at = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
    EXPECT_NE(at, MAP_FAILED);
    base_ = static_cast<char*>(at);
  }
  ~FarFile() { munmap(base_, size_); }
  FarFile(const FarFile&) = delete;
  FarFile& operator=(const FarFile&) = delete;

  char* base() const { return base_; }
  uint64_t size() const { return size_; }
  std::atomic<uint64_t>& Word(uint64_t page, uint64_t index = 0) const {
    return *reinterpret_cast<std::atomic<uint64_t>*>(base_ + page * kPageSize + index * 8);
  }
  Mapping mapping() const { return {reinterpret_cast<uint64_t>(base_), size_, 0, true}; }
  MemoryFile file() const { return {UniqueFd(dup(fd_.get())), 0, 0, size_}; }
  uint64_t pages_there() const {
    struct stat status;
    fstat(fd_.get(), &status);
    return static_cast<uint64_t>(status.st_blocks) * 512 / kPageSize;
  }

 private:
  const uint64_t size_;
  const UniqueFd fd_;
  char* base_;
};

class FarMemoryTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    FAULTLINE_REQUIRE_UFFD();
    pager_ = *Pager::Create({.readers = 1});
  }

  absl::StatusOr<AttachmentId> Attach(const FarFile& memory, PageCount budget = kBudget,
                                      bool fresh = true) {
    const VolumeIo io = volume_->OpenIo();
    source_ = std::make_shared<FaultyPageSource>(io.source, /*seed=*/1);
    sink_ = std::make_shared<FaultyPageSink>(io.sink, /*seed=*/1);
    AttachRequest request;
    request.uffd = *OpenUffd();
    request.register_ranges = true;
    request.mappings = {memory.mapping()};
    request.pid = getpid();
    request.volume = "far";
    request.source = source_;
    request.options.policy = FaultPolicy::kWait;
    request.far = std::make_unique<FarMemory>();
    request.far->limit = {budget.in_bytes(), 0};
    request.far->policy = *MakeEvictionPolicy(GetParam(), budget);
    request.far->sink = sink_;
    request.far->fresh = fresh;
    request.far->protection = Uffd::Protection::kWriteToo;
    request.far->snapshot = snapshot_;
    request.far->new_extractor =
        [&memory](Uffd* uffd,
                  const AddressSpace* space) -> absl::StatusOr<std::unique_ptr<PageExtractor>> {
      std::vector<MemoryFile> files;
      files.push_back(memory.file());
      return std::make_unique<MemfdExtractor>(uffd, space, std::move(files));
    };
    return pager_->Attach(std::move(request));
  }
  // Waits for the end of a command to the one attachment.
  absl::Status Perform(FarCommand::Kind kind, absl::Duration timeout = absl::Seconds(60)) {
    FarCommand command;
    command.kind = kind;
    command.snapshot = "then";
    command.deadline = absl::Now() + timeout;
    std::promise<absl::Status> ended;
    pager_->Perform(pager_->Attachments().at(0).id, std::move(command),
                    [&](const absl::Status& status) { ended.set_value(status); });
    return ended.get_future().get();
  }
  std::string VolumeBytes() const { return volume_->Bytes({PageIndex(0), PageCount(kPages)}); }
  static uint64_t WordOf(const std::string& bytes, uint64_t page) {
    uint64_t word;
    memcpy(&word, &bytes[page * kPageSize], sizeof word);
    return word;
  }
  LocalMemoryStats Stats() const { return pager_->Attachments().at(0).local; }

  // Threads add to words of `memory` until `end`, each to its own word of each page, and compare
  // with what they have added. The first goes through all pages, so that all are evicted again and
  // again; the others write to a few without a pause, also while those are taken out.
  uint64_t Hammer(const FarFile& memory, uint64_t pages, int threads,
                  std::chrono::steady_clock::time_point end) {
    std::atomic<uint64_t> lost = 0, added = 0;
    std::vector<std::thread> hammers;
    for (int t = 0; t < threads; ++t) {
      hammers.emplace_back([&, t] {
        std::mt19937_64 random(static_cast<uint64_t>(t));
        std::vector<uint64_t> expected(pages, 0);
        for (uint64_t n = 0; n % 64 != 0 || std::chrono::steady_clock::now() < end; ++n) {
          const uint64_t page = t == 0 ? n % pages : random() % kHotPages;
          const uint64_t burst = t == 0 ? 1 : kBurst;
          auto& word = memory.Word(page, static_cast<uint64_t>(t));
          for (uint64_t i = 0; i < burst; ++i) {
            word.store(word.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
          }
          expected[page] += burst;
          added += burst;
        }
        for (uint64_t page = 0; page < pages; ++page) {
          const uint64_t found = memory.Word(page, static_cast<uint64_t>(t));
          if (found != expected[page]) {
            ADD_FAILURE() << "page " << page << ", thread " << t << ": " << found << " for "
                          << expected[page];
            ++lost;
          }
        }
      });
    }
    for (std::thread& hammer : hammers) hammer.join();
    EXPECT_EQ(lost, 0u);
    return added;
  }

  std::shared_ptr<MemoryVolume> volume_ =
      MemoryVolume::Create(std::string(kPages * kPageSize, '\0'));
  std::shared_ptr<FaultyPageSource> source_;
  std::shared_ptr<FaultyPageSink> sink_;
  std::function<absl::Status(const std::string& name)> snapshot_;
  std::unique_ptr<Pager> pager_;
};

TEST_P(FarMemoryTest, WhatHasNoRoomIsWrittenAndComesBack) {
  FarFile memory(kPages);
  ASSERT_TRUE(Attach(memory).ok());
  std::string content(kPages * kPageSize, '\0');
  for (uint64_t i = 0; i < content.size(); ++i) {
    if (i / kPageSize % 9 != 4) content[i] = static_cast<char>(i * 7 + i / kPageSize);
  }
  memcpy(memory.base(), content.data(), content.size());
  // As much as is resident, and what has not been noted yet.
  EXPECT_LE(memory.pages_there(), kBudget.raw() + 8);
  EXPECT_EQ(memcmp(memory.base(), content.data(), content.size()), 0);
  EXPECT_EQ(memcmp(memory.base(), content.data(), content.size()), 0);
  EXPECT_LE(memory.pages_there(), kBudget.raw() + 8);
  const LocalMemoryStats stats = Stats();
  EXPECT_GE(stats.evicted_pages_total, 3 * (kPages - kBudget.raw()));
  EXPECT_GE(stats.written_pages_total, kPages - kBudget.raw());
  // It was written once, and only read since.
  EXPECT_LT(stats.written_pages_total, kPages + kBudget.raw());
  EXPECT_GT(stats.clean_pages_total, kPages - kBudget.raw());
}

TEST_P(FarMemoryTest, NoIncrementIsLost) {
  FarFile memory(kPages);
  ASSERT_TRUE(Attach(memory).ok());
  EXPECT_GT(Hammer(memory, kPages, 2, std::chrono::steady_clock::now() + std::chrono::seconds(1)),
            kPages);
  EXPECT_GT(Stats().evicted_pages_total, kPages);
}

TEST_P(FarMemoryTest, NoIncrementIsLostWhereWritesFailAndFetchesAreSlow) {
  FarFile memory(kPages);
  ASSERT_TRUE(Attach(memory).ok());
  sink_->FailShare(0.2);
  source_->FailShare(0.1);
  Hammer(memory, kPages, 2, std::chrono::steady_clock::now() + std::chrono::seconds(1));
}

TEST_P(FarMemoryTest, AVolumeThatHasContentIsReadAndChanged) {
  FarFile memory(kPages);
  std::string content(kPages * kPageSize, '\0');
  for (uint64_t i = 0; i < content.size(); i += 8) memcpy(&content[i], &i, 8);
  volume_ = MemoryVolume::Create(content);
  ASSERT_TRUE(Attach(memory, kBudget, /*fresh=*/false).ok());
  for (uint64_t page = 0; page < kPages; ++page) memory.Word(page, 3) += 1;
  for (uint64_t page = 0; page < kPages; ++page) {
    EXPECT_EQ(memory.Word(page, 3), page * kPageSize + 3 * 8 + 1);
    EXPECT_EQ(memory.Word(page, 5), page * kPageSize + 5 * 8);
  }
}

TEST_P(FarMemoryTest, AServerThatDoesNotAnswerStopsTheProgramInsteadOfTheBudget) {
  FarFile memory(kPages);
  ASSERT_TRUE(Attach(memory).ok());
  sink_->Hold();
  std::atomic<uint64_t> written = 0;
  std::thread writer([&] {
    for (uint64_t page = 0; page < kPages; ++page) {
      memory.Word(page) = page + 1;
      written = page;
    }
  });
  while (Stats().deferred_faults_total == 0) std::this_thread::yield();
  EXPECT_EQ(pager_->Metrics().live.at(0).write.total(), 0u);
  EXPECT_LT(written, kBudget.raw() + 8);
  EXPECT_LE(memory.pages_there(), kBudget.raw() + 8);
  sink_->Release();
  writer.join();
  const AttachmentMetrics metrics = pager_->Metrics().live.at(0);
  EXPECT_GT(metrics.write.total(), 0u);
  EXPECT_GT(metrics.fault_latency[static_cast<size_t>(FaultClass::kDeferred)].total(), 0u);
  for (uint64_t page = 0; page < kPages; ++page) EXPECT_EQ(memory.Word(page), page + 1);
}

TEST_P(FarMemoryTest, WhatIsDiscardedReadsAsZeroWhereverItWas) {
  FarFile memory(kPages);
  ASSERT_TRUE(Attach(memory).ok());
  for (uint64_t page = 0; page < kPages; ++page) memory.Word(page) = page + 1;
  // As the owner of the file discards, which no event tells: for pages that are there only.
  memory.Word(kPages - 1) = 7;
  EXPECT_EQ(madvise(memory.base() + (kPages - 1) * kPageSize, kPageSize, MADV_REMOVE), 0);
  EXPECT_EQ(memory.Word(kPages - 1), 0u);
}

TEST_P(FarMemoryTest, AFlushHasAllThatWasWrittenThoughWritesFail) {
  FarFile memory(kPages);
  ASSERT_TRUE(Attach(memory).ok());
  sink_->FailShare(0.2);
  for (uint64_t lap = 1; lap <= 3; ++lap) {
    for (uint64_t page = 0; page < kPages; ++page) {
      if (page % lap == 0) memory.Word(page) = lap * kPages + page;
    }
    ASSERT_EQ(Perform(FarCommand::Kind::kFlush), absl::OkStatus());
    const std::string bytes = VolumeBytes();
    for (uint64_t page = 0; page < kPages; ++page) {
      const uint64_t last = page % lap == 0 ? lap : page % 2 == 0 && lap == 3 ? 2 : 1;
      ASSERT_EQ(WordOf(bytes, page), last * kPages + page) << "page " << page << ", lap " << lap;
    }
  }
}

TEST_P(FarMemoryTest, AFlushThatIsNotDoneInTimeSaysSoAndLosesNothing) {
  FarFile memory(kPages);
  ASSERT_TRUE(Attach(memory).ok());
  for (uint64_t page = 0; page < 100; ++page) memory.Word(page) = page + 1;
  sink_->Hold();
  const absl::Status late = Perform(FarCommand::Kind::kFlush, absl::Milliseconds(50));
  EXPECT_TRUE(absl::IsDeadlineExceeded(late)) << late;
  for (uint64_t page = 0; page < 100; ++page) memory.Word(page) += 1;
  sink_->Release();
  ASSERT_EQ(Perform(FarCommand::Kind::kFlush), absl::OkStatus());
  const std::string bytes = VolumeBytes();
  for (uint64_t page = 0; page < 100; ++page) ASSERT_EQ(WordOf(bytes, page), page + 2);
}

TEST_P(FarMemoryTest, AFlushToAVolumeOfAnotherWriterIsRefused) {
  FarFile memory(kPages);
  ASSERT_TRUE(Attach(memory).ok());
  memory.Word(0) = 1;
  const VolumeIo other = volume_->OpenIo();
  const absl::Status refused = Perform(FarCommand::Kind::kFlush);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
}

// Pages are changed, and leave, between the moment and the snapshot, until there is no room for
// what may not be written yet.
TEST_P(FarMemoryTest, ACheckpointHasNothingThatIsLaterThanItsMoment) {
  FarFile memory(kPages);
  std::thread writer;
  std::string image;
  snapshot_ = [&](const std::string& name) {
    EXPECT_EQ(name, "then");
    const uint64_t before = Stats().deferred_faults_total;
    writer = std::thread([&] {
      for (uint64_t page = 0; page < kPages; ++page) memory.Word(page) = 7;
    });
    while (Stats().deferred_faults_total == before) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    image = VolumeBytes();
    return absl::OkStatus();
  };
  ASSERT_TRUE(Attach(memory).ok());
  for (uint64_t page = 0; page < kPages; ++page) memory.Word(page) = page + 1;
  ASSERT_EQ(Perform(FarCommand::Kind::kCheckpoint), absl::OkStatus());
  writer.join();
  for (uint64_t page = 0; page < kPages; ++page) {
    ASSERT_EQ(WordOf(image, page), page + 1) << "page " << page;
    ASSERT_EQ(memory.Word(page), 7u) << "page " << page;
  }
  // What was held back has reached the volume since.
  ASSERT_EQ(Perform(FarCommand::Kind::kFlush), absl::OkStatus());
  const std::string bytes = VolumeBytes();
  for (uint64_t page = 0; page < kPages; ++page) ASSERT_EQ(WordOf(bytes, page), 7u);
}

// A checkpoint that fails half way holds nobody up afterwards.
TEST_P(FarMemoryTest, AfterACheckpointThatFailsWritesGoOn) {
  FarFile memory(kPages);
  snapshot_ = [](const std::string&) { return absl::AlreadyExistsError("then is there"); };
  ASSERT_TRUE(Attach(memory).ok());
  for (uint64_t page = 0; page < kPages; ++page) memory.Word(page) = page + 1;
  EXPECT_TRUE(absl::IsAlreadyExists(Perform(FarCommand::Kind::kCheckpoint)));
  sink_->FailShare(1);
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      (memory.Word(5) = 9, Perform(FarCommand::Kind::kCheckpoint, absl::Milliseconds(100)))));
  sink_->FailShare(0);
  for (uint64_t page = 0; page < kPages; ++page) memory.Word(page) += 1;
  for (uint64_t page = 0; page < kPages; ++page) {
    ASSERT_EQ(memory.Word(page), page == 5 ? 10 : page + 2);
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, FarMemoryTest,
                         testing::Values("fifo", "second-chance", "s3-fifo"), [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace faultline
