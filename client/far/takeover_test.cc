// SPDX-License-Identifier: Apache-2.0
//
// Agents that serve far memory are killed with SIGKILL, at any moment, and others go on: a program
// that counts in all its pages meanwhile finds every count as it was.
#include "client/evict/takeover.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "client/evict/far_memory.h"
#include "client/evict/local_memory.h"
#include "client/evict/memfd_extractor.h"
#include "client/evict/policies.h"
#include "client/far/far_testing.h"
#include "client/far/helper_extractor.h"
#include "client/journal/journal.h"
#include "client/pager.h"
#include "client/process_maps.h"
#include "client/uffd/target_uffd.h"
#include "client/uffd/test_memory.h"

namespace faultline {
namespace {

constexpr uint64_t kPages = 4096;
constexpr PageCount kBudget{1024};

// A volume in memory that agents share: what stands for the page server. Each of them writes from
// one thread, and what one that was killed has begun is written again.
struct SharedVolume {
  std::atomic<uint64_t> written, fetched;
  std::byte bytes[kPages * kPageSize];
};

class SharedVolumeIo final : public PageSource, public PageSink {
 public:
  explicit SharedVolumeIo(SharedVolume* volume) : volume_(volume) {}

  void Fetch(PageRange range, FetchLane, absl::Time, FetchDone done) override {
    const FetchedRun run{range, volume_->bytes + range.first.byte_offset()};
    volume_->fetched += range.count.raw();
    done(std::span<const FetchedRun>(&run, 1));
  }
  void Write(std::span<const PageToWrite> pages, absl::Time, WriteDone done) override {
    for (const PageToWrite& page : pages) {
      std::byte* const to = volume_->bytes + page.page.byte_offset();
      if (page.bytes != nullptr) {
        memcpy(to, page.bytes, kPageSize);
      } else {
        memset(to, 0, kPageSize);
      }
    }
    volume_->written += pages.size();
    done(absl::OkStatus());
  }
  PageCount size() const override { return PageCount(kPages); }
  PageCount max_fetch() const override { return PageCount(64); }
  PageCount max_write() const override { return PageCount(64); }

 private:
  SharedVolume* const volume_;
};

enum class Kind { kAnonymous, kMemfd };

class TakeoverTest : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    FAULTLINE_REQUIRE_UFFD();
    char name[] = "/dev/shm/takeover-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory_ = name;
    void* const at = mmap(nullptr, sizeof(SharedVolume), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(at, MAP_FAILED);
    volume_ = static_cast<SharedVolume*>(at);
    process_ = std::make_unique<FarProcess>(kPages, memfd() ? "memfd" : "fresh");
  }
  void TearDown() override {
    if (agent_ > 0) KillAgent();
    process_.reset();
    std::filesystem::remove_all(directory_);
    munmap(volume_, sizeof(SharedVolume));
  }

  static bool memfd() { return GetParam() == Kind::kMemfd; }

  // In a process of its own, which serves on return.
  void StartAgent(bool first) {
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    agent_ = fork();
    if (agent_ == 0) {
      absl::Status status;
      {
        std::unique_ptr<Journal> journal = *Journal::Open(directory_, absl::Seconds(5));
        std::unique_ptr<Pager> pager = *Pager::Create({.journal = journal.get()});
        status = first ? Attach(pager.get()) : Adopt(pager.get(), journal.get());
        if (!status.ok()) fprintf(stderr, "agent: %s\n", status.ToString().c_str());
        if (status.ok() && write(ready[1], "r", 1) == 1) pause();
      }
      _exit(1);
    }
    close(ready[1]);
    char answer = 0;
    EXPECT_EQ(read(ready[0], &answer, 1), 1) << "the agent has not begun";
    close(ready[0]);
  }
  void KillAgent() {
    kill(agent_, SIGKILL);
    waitpid(agent_, nullptr, 0);
    agent_ = 0;
  }

  std::unique_ptr<FarMemory> MakeFar(const FarRecord& record, UniqueFd file) const {
    auto far = std::make_unique<FarMemory>();
    far->limit = record.limit;
    far->policy = *MakeEvictionPolicy(record.policy, kBudget);
    far->sink = io_;
    far->fresh = true;
    far->record = record;
    far->staging = record.staging;
    auto shared = std::make_shared<UniqueFd>(std::move(file));
    if (memfd()) {
      far->protection = Uffd::Protection::kWriteToo;
      far->new_extractor =
          [shared](Uffd* uffd,
                   const AddressSpace* space) -> absl::StatusOr<std::unique_ptr<PageExtractor>> {
        std::vector<MemoryFile> files;
        files.push_back({std::move(*shared), 0, 0, kPages * kPageSize});
        return std::make_unique<MemfdExtractor>(uffd, space, std::move(files));
      };
    } else {
      far->new_extractor =
          [this, shared](Uffd* uffd,
                         const AddressSpace*) -> absl::StatusOr<std::unique_ptr<PageExtractor>> {
        return HelperExtractor::Open({std::move(*shared), process_->OpenPidfd(), uffd});
      };
    }
    return far;
  }

  absl::Status Attach(Pager* pager) {
    const FarTargetHello& hello = process_->hello();
    AttachRequest request;
    request.uffd = process_->TakeUffd();
    request.register_ranges = true;
    request.mappings = {{hello.memory_start, hello.memory_bytes, 0, memfd()}};
    request.pid = process_->pid();
    request.volume = "far";
    request.source = io_;
    request.options.policy = FaultPolicy::kWait;
    UniqueFd file = process_->DuplicateCommand();
    FarRecord record;
    record.limit = {kBudget.in_bytes(), 0};
    record.policy = "s3-fifo";
    record.fresh = true;
    record.volume_pages = kPages;
    record.command = FileIdentityOf(file.get());
    record.staging = {hello.staging_start, hello.staging_bytes};
    request.far = MakeFar(record, std::move(file));
    return pager->Attach(std::move(request)).status();
  }

  absl::Status Adopt(Pager* pager, Journal* journal) {
    std::vector<std::string> volumes;
    std::vector<LeftAttachment> left = journal->TakeLeft(&volumes);
    if (left.size() != 1) return absl::NotFoundError(absl::StrCat(left.size(), " attachments"));
    const AttachmentRecord record = left[0].journal->record();
    absl::StatusOr<UniqueFd> file = OpenFileOf(record.process.pid, record.far->command);
    if (!file.ok()) return file.status();
    AdoptRequest request;
    request.journal = std::move(left[0].journal);
    request.pidfd = std::move(left[0].pidfd);
    request.source = io_;
    request.far = MakeFar(*record.far, *std::move(file));
    return pager->Adopt(std::move(request)).status();
  }

  // Has the process do `verb` for `milliseconds`, and kills agents meanwhile. How many, in *kills.
  std::string DoWhileAgentsAreKilled(const std::string& verb, size_t milliseconds, unsigned seed,
                                     int* kills) {
    StartAgent(/*first=*/true);
    process_->TakeUffd();  // none is left but with the process
    std::minstd_rand random(seed);
    process_->Tell(verb, 0, milliseconds);
    const absl::Time end = absl::Now() + absl::Milliseconds(milliseconds);
    for (*kills = 0; absl::Now() < end; ++*kills) {
      absl::SleepFor(absl::Microseconds(1000 + random() % 120'000));
      KillAgent();
      StartAgent(/*first=*/false);
      if (HasFailure()) return "AGENT";
    }
    return process_->Answer();
  }

  std::string directory_;
  SharedVolume* volume_ = nullptr;
  std::shared_ptr<SharedVolumeIo> io_;
  std::unique_ptr<FarProcess> process_;
  pid_t agent_ = 0;
};

TEST_P(TakeoverTest, NoCountIsLost) {
  io_ = std::make_shared<SharedVolumeIo>(volume_);
  int kills = 0;
  const std::string answer = DoWhileAgentsAreKilled("count", 5000, 1, &kills);
  EXPECT_TRUE(absl::StartsWith(answer, "OK ")) << answer;
  // Dozens, where nothing else runs beside.
  EXPECT_GE(kills, 3);
  EXPECT_GT(volume_->written, kBudget.raw());
  EXPECT_GT(volume_->fetched, 0u);
}

// Of private memory: that of files is neither moved nor discarded so.
class PrivateTakeoverTest : public TakeoverTest {};

TEST_P(PrivateTakeoverTest, NoByteIsWrongWhereMemoryMovesAndIsDiscarded) {
  io_ = std::make_shared<SharedVolumeIo>(volume_);
  int kills = 0;
  const std::string answer = DoWhileAgentsAreKilled("shuffle", 5000, 2, &kills);
  EXPECT_TRUE(absl::StartsWith(answer, "OK ")) << answer;
  EXPECT_GE(kills, 3);
  EXPECT_GT(volume_->written, kBudget.raw());
}

TEST(ForkedDescendantsTest, AreThoseThatHaveExecutedNothing) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const pid_t grandchild = fork();
    if (grandchild == 0) pause();
    const bool told = write(ready[1], &grandchild, sizeof grandchild) == sizeof grandchild;
    if (told) pause();
    _exit(1);
  }
  pid_t grandchild = 0;
  ASSERT_EQ(read(ready[0], &grandchild, sizeof grandchild), ssize_t{sizeof grandchild});
  const pid_t other = fork();
  if (other == 0) {
    execlp("sleep", "sleep", "60", nullptr);
    _exit(127);
  }
  // Until it has executed its program.
  while (ForkedDescendants(getpid()).size() != 2) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_THAT(ForkedDescendants(getpid()), testing::UnorderedElementsAre(child, grandchild));
  for (pid_t pid : {grandchild, child, other}) kill(pid, SIGKILL);
  for (pid_t pid : {child, other}) waitpid(pid, nullptr, 0);
  EXPECT_THAT(ForkedDescendants(getpid()), testing::IsEmpty());
}

std::string KindName(const testing::TestParamInfo<Kind>& test) {
  return test.param == Kind::kMemfd ? "memfd" : "anonymous";
}
INSTANTIATE_TEST_SUITE_P(Kinds, TakeoverTest, testing::Values(Kind::kAnonymous, Kind::kMemfd),
                         KindName);
INSTANTIATE_TEST_SUITE_P(Kinds, PrivateTakeoverTest, testing::Values(Kind::kAnonymous), KindName);

}  // namespace
}  // namespace faultline
