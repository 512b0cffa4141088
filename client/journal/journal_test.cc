// SPDX-License-Identifier: Apache-2.0
#include "client/journal/journal.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <thread>

#include "client/journal/attachment_record.h"
#include "client/process_maps.h"
#include "client/uffd/test_memory.h"

namespace faultline {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

class JournalTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/journal-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string path() const { return directory_ + "/journal"; }
  std::unique_ptr<Journal> Open() const {
    auto journal = Journal::Open(path(), absl::ZeroDuration());
    EXPECT_TRUE(journal.ok()) << journal.status();
    return journal.ok() ? *std::move(journal) : nullptr;
  }
  static AttachmentRecord Record(AttachmentId id, ProcessIdentity process = *IdentityOf(getpid())) {
    AttachmentRecord record;
    record.id = id;
    record.process = std::move(process);
    record.uffd_inode = 4711;
    record.target_keeps_uffd = false;
    record.volume = "vm \"1\"";
    record.options = {.policy = FaultPolicy::kKill,
                      .fault_deadline = absl::Milliseconds(1500),
                      .shared_discard = SharedDiscard::kZero,
                      .drain = true,
                      .unregister = true,
                      .prefetch = PrefetchPolicy::kStreams,
                      .working_set = WorkingSetUse::kBoth};
    record.mappings = {{0x10000, 64 * kPageSize, 100 * kPageSize, false},
                       {0x90000, 200 * kPageSize, 300 * kPageSize, true}};
    return record;
  }

  std::string directory_;
  std::vector<std::string> volumes_;
};

TEST_F(JournalTest, WhatAnAgentHasLeftIsAllThere) {
  {
    auto journal = Open();
    auto attachment = *journal->Create(Record(5));
    attachment->taken()->Set(3, 130);
    attachment->taken()->Set(399, 1);
    ASSERT_TRUE(attachment->Commit("a map").ok());
  }
  auto journal = Open();
  EXPECT_EQ(journal->next_id(), 6u);
  auto left = journal->TakeLeft(&volumes_);
  ASSERT_EQ(left.size(), 1u);
  const AttachmentRecord& record = left[0].journal->record();
  const AttachmentRecord expected = Record(5);
  EXPECT_EQ(record.id, 5u);
  EXPECT_EQ(record.process, expected.process);
  EXPECT_EQ(record.uffd_inode, 4711u);
  EXPECT_FALSE(record.target_keeps_uffd);
  EXPECT_EQ(record.volume, expected.volume);
  EXPECT_EQ(record.options.policy, FaultPolicy::kKill);
  EXPECT_EQ(record.options.fault_deadline, absl::Milliseconds(1500));
  EXPECT_EQ(record.options.shared_discard, SharedDiscard::kZero);
  EXPECT_TRUE(record.options.drain);
  EXPECT_TRUE(record.options.unregister);
  EXPECT_EQ(record.options.prefetch, PrefetchPolicy::kStreams);
  EXPECT_EQ(record.options.working_set, WorkingSetUse::kBoth);
  ASSERT_EQ(record.mappings.size(), 2u);
  EXPECT_EQ(record.mappings[1].address, 0x90000u);
  EXPECT_EQ(record.mappings[1].size, 200 * kPageSize);
  EXPECT_EQ(record.mappings[1].offset, 300 * kPageSize);
  EXPECT_TRUE(record.mappings[1].shared);
  EXPECT_EQ(left[0].journal->map(), "a map");
  std::vector<std::pair<uint64_t, uint64_t>> runs;
  left[0].journal->taken()->ForEachRun(
      400, [&](uint64_t first, uint64_t count) { runs.emplace_back(first, count); });
  EXPECT_THAT(runs, testing::ElementsAre(std::pair(3, 130), std::pair(399, 1)));
}

TEST_F(JournalTest, NumbersThatCannotBeAreDamage) {
  AttachmentRecord record = Record(5);
  record.process.pid = 4712;
  const std::string text = EncodeRecord(record);
  EXPECT_TRUE(DecodeRecord(text).ok());
  const auto with = [&text](absl::string_view pid) {
    return DecodeRecord(
        absl::StrReplaceAll(text, {{"\"pid\": 4712", absl::StrCat("\"pid\": ", pid)}}));
  };
  EXPECT_TRUE(with("4713").ok());
  for (const char* pid : {"4e80", "4712.5", "-1", "2147483648", "99999999999999999999", "\"1\""}) {
    EXPECT_TRUE(absl::IsDataLoss(with(pid).status())) << pid;
  }
}

TEST_F(JournalTest, WhatAnAgentHasLeftOfFarMemoryIsAllThere) {
  AttachmentRecord record = Record(7);
  record.mappings.clear();
  record.far = FarRecord{.limit = {uint64_t{4} << 20, 0},
                         .policy = "fifo",
                         .fresh = true,
                         .owns_volume = true,
                         .volume_pages = 1 << 20,
                         .least_area = 1 << 17,
                         .excluded = {0x1000, 0x3000},
                         .staging = {0x2000, 0x1000},
                         .command = {5, 6},
                         .files = {{{7, 8}, 0, kPageSize, 2 * kPageSize}}};
  const PageRange pages{PageIndex(100), PageCount(50)};
  {
    auto journal = Open();
    auto attachment = *journal->Create(record);
    FarJournal& far = *attachment->far();
    ASSERT_TRUE(far.AllocatePages(pages).ok());
    far.set_next_page(pages.end());
    far.Note(pages, PageHome::kPresent);
    far.Note(PageRange::Single(PageIndex(120)), PageHome::kAtServer);
    memset(far.SlotBytes(3), 'x', kPageSize);
    far.SetSlot(3, PageIndex(121));
    far.SetSlot(4, PageIndex(122));
    far.ClearSlot(4);
    EXPECT_TRUE(far.AddSlots() || far.slots() == far.max_slots());
    ASSERT_TRUE(attachment->Commit("a map").ok());
  }
  auto journal = Open();
  auto left = journal->TakeLeft(&volumes_);
  ASSERT_EQ(left.size(), 1u);
  EXPECT_THAT(volumes_, IsEmpty());
  const FarRecord& found = *left[0].journal->record().far;
  EXPECT_EQ(found.limit.bytes, record.far->limit.bytes);
  EXPECT_EQ(found.policy, "fifo");
  EXPECT_TRUE(found.fresh && found.owns_volume && found.is_whole_process());
  EXPECT_EQ(found.excluded, record.far->excluded);
  EXPECT_EQ(found.staging, record.far->staging);
  EXPECT_EQ(found.command, record.far->command);
  ASSERT_EQ(found.files.size(), 1u);
  EXPECT_EQ(found.files[0].file, record.far->files[0].file);
  const FarJournal& far = *left[0].journal->far();
  EXPECT_EQ(far.next_page(), pages.end());
  EXPECT_EQ(far.RunOfSameHome(pages), PageCount(20));
  EXPECT_EQ(far.Get(PageIndex(120)), PageHome::kAtServer);
  EXPECT_EQ(far.Get(PageIndex(99)), PageHome::kUntouched);
  PageIndex page;
  ASSERT_TRUE(far.SlotPage(3, &page));
  EXPECT_EQ(page, PageIndex(121));
  EXPECT_EQ(far.SlotBytes(3)[kPageSize - 1], std::byte{'x'});
  EXPECT_FALSE(far.SlotPage(4, &page));
}

TEST_F(JournalTest, EventsThatWereReadAndNotCommittedAreLeftToApply) {
  auto journal = Open();
  auto attachment = *journal->Create(Record(1));
  ASSERT_TRUE(attachment->Commit("first").ok());
  uffd_msg* const messages = attachment->messages();
  messages[0].event = UFFD_EVENT_PAGEFAULT;
  messages[1].event = UFFD_EVENT_REMOVE;
  messages[1].arg.remove = {.start = 0x10000, .end = 0x12000};
  messages[2].event = UFFD_EVENT_FORK;
  messages[2].arg.fork.ufd = 0;  // which is somebody else's here

  auto left = *AttachmentJournal::Open(path() + "/1");
  int forks = 0;
  std::vector<UffdEvent> events = left->Unapplied(&forks);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(std::get<RemoveEvent>(events[0]).range.start, 0x10000u);
  EXPECT_EQ(std::get<RemoveEvent>(events[0]).range.length, 0x2000u);
  EXPECT_EQ(forks, 1);
  EXPECT_EQ(left->map(), "first");

  ASSERT_TRUE(attachment->Commit("second").ok());
  left = *AttachmentJournal::Open(path() + "/1");
  EXPECT_THAT(left->Unapplied(&forks), IsEmpty());
  EXPECT_EQ(forks, 0);
  EXPECT_EQ(left->map(), "second");
}

TEST_F(JournalTest, AMapMayGrow) {
  auto journal = Open();
  auto attachment = *journal->Create(Record(1));
  for (size_t size : {10u, 100'000u, 3u, 1'000'000u, 0u}) {
    const std::string map(size, static_cast<char>('a' + size % 26));
    ASSERT_TRUE(attachment->Commit(map).ok());
    EXPECT_EQ((*AttachmentJournal::Open(path() + "/1"))->map(), map);
  }
}

// Kills a process again and again while it commits, and looks at what it has left.
TEST_F(JournalTest, WheneverItsProcessIsKilledTheMapIsWholeAndNoEventIsLostOrCountedTwice) {
  auto journal = Open();
  for (int round = 0; round < 100; ++round) {
    const AttachmentId id = static_cast<AttachmentId>(round + 1);
    auto attachment = *journal->Create(Record(id));
    ASSERT_TRUE(attachment->Commit("0").ok());
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      // The n-th event is "read", then applied; the map is how many were applied.
      for (uint64_t n = 1;; ++n) {
        uffd_msg& message = attachment->messages()[n % 3];
        message.arg.remove.start = n * kPageSize;
        message.arg.remove.end = (n + 1) * kPageSize;
        std::atomic_signal_fence(std::memory_order_seq_cst);
        message.event = UFFD_EVENT_REMOVE;
        std::atomic_signal_fence(std::memory_order_seq_cst);
        if (!attachment->Commit(std::string(n % 50, 'x') + std::to_string(n)).ok()) _exit(1);
      }
    }
    std::this_thread::sleep_for(std::chrono::microseconds(500 + round * 17));
    kill(pid, SIGKILL);
    int status = 0;
    waitpid(pid, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    auto left = *AttachmentJournal::Open(path() + "/" + std::to_string(id));
    const std::string map(left->map());
    const size_t padding = std::min(map.find_first_not_of('x'), map.size());
    const uint64_t applied = std::stoull(map.substr(padding));
    EXPECT_EQ(padding, applied % 50) << map;
    int forks = 0;
    const std::vector<UffdEvent> events = left->Unapplied(&forks);
    ASSERT_LE(events.size(), 1u);
    if (!events.empty()) {
      EXPECT_EQ(std::get<RemoveEvent>(events[0]).range.start, (applied + 1) * kPageSize);
    }
    attachment->Remove();
  }
}

// Kills a process again and again while it fills, and looks whether every page that is there counts
// as taken.
TEST_F(JournalTest, WheneverItsProcessIsKilledEveryPageThatWasFilledIsTaken) {
  FAULTLINE_REQUIRE_UFFD();
  constexpr PageCount kPages{256};
  auto journal = Open();
  const std::string content(kPageSize, 'x');
  for (int round = 0; round < 100; ++round) {
    TestMemory memory(MemoryKind::kMemfd, kPages);
    const auto uffd = *AdoptUffd(OpenRegistered({&memory}));
    const AttachmentId id = static_cast<AttachmentId>(round + 1);
    AttachmentRecord record = Record(id);
    record.mappings = {{memory.address(), memory.size(), 0, true}};
    auto attachment = *journal->Create(record);
    ASSERT_TRUE(attachment->Commit("map").ok());
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      for (uint64_t page = 0;; page = (page + 1) % kPages.raw()) {
        if (attachment->taken()->Get(page)) continue;
        TakenPages::FillNote note(attachment->taken().get(), page);
        const FillResult result = uffd->NotedCopy(memory.address() + page * kPageSize,
                                                  std::as_bytes(std::span(content)), note.call());
        if (result.error != 0) _exit(1);
        attachment->taken()->Set(page, 1);
      }
    }
    while (!attachment->taken()->Get(static_cast<uint64_t>(round))) std::this_thread::yield();
    kill(pid, SIGKILL);
    int status = 0;
    waitpid(pid, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));
    const auto left = *AttachmentJournal::Open(path() + "/" + std::to_string(id));
    for (AddressRange present : PresentPages(getpid(), memory.range())) {
      for (uint64_t at = present.start; at < present.end(); at += kPageSize) {
        EXPECT_TRUE(left->taken()->Get((at - memory.address()) / kPageSize)) << "round " << round;
      }
    }
    attachment->Remove();
  }
}

TEST_F(JournalTest, OfAProcessThatHasEndedNothingIsLeft) {
  {
    auto journal = Open();
    ProcessIdentity ended = *IdentityOf(getpid());
    ++ended.start_time;  // another process of that number
    ASSERT_TRUE((*journal->Create(Record(1, ended)))->Commit("map").ok());
    ASSERT_TRUE(journal->Create(Record(2)).ok());  // not completed
    ASSERT_TRUE((*journal->Create(Record(3)))->Commit("map").ok());
    std::ofstream(path() + "/3/record") << "{\"id\":";
    ASSERT_TRUE((*journal->Create(Record(4)))->Commit("map").ok());
    std::filesystem::resize_file(path() + "/4/map.1", 3);
  }
  auto journal = Open();
  EXPECT_THAT(journal->TakeLeft(&volumes_), IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(path() + "/1"));
  EXPECT_FALSE(std::filesystem::exists(path() + "/2"));
}

TEST_F(JournalTest, ADirectoryBelongsToOneAgent) {
  auto first = Open();
  const absl::Status second = Journal::Open(path(), absl::Milliseconds(20)).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(second.message(), HasSubstr(path()));
  EXPECT_THAT(second.message(), HasSubstr("in use by another agent"));
  std::thread ends([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    first.reset();
  });
  EXPECT_TRUE(Journal::Open(path(), absl::Seconds(10)).ok());
  ends.join();
}

TEST_F(JournalTest, ADirectoryThatCannotBeMadeIsNamed) {
  const absl::Status status = Journal::Open("/proc/nowhere", absl::ZeroDuration()).status();
  EXPECT_THAT(status.message(), HasSubstr("/proc/nowhere"));
}

TEST(TargetUffdTest, AUffdIsFoundByItsInodeAmongOthers) {
  FAULTLINE_REQUIRE_UFFD();
  const UniqueFd other = *OpenUffd(), wanted = *OpenUffd();
  const ProcessIdentity self = *IdentityOf(getpid());
  const UniqueFd pidfd = *OpenProcess(self);
  EXPECT_NE(UffdInode(other.get()), UffdInode(wanted.get()));
  auto taken = TakeUffd(pidfd.get(), getpid(), UffdInode(wanted.get()));
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(UffdInode(taken->get()), UffdInode(wanted.get()));
  const absl::Status none = TakeUffd(pidfd.get(), getpid(), 1).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kNotFound) << none;
}

TEST(TargetUffdTest, AProcessIsKnownByMoreThanItsNumber) {
  const ProcessIdentity self = *IdentityOf(getpid());
  EXPECT_TRUE(OpenProcess(self).ok());
  ProcessIdentity another = self;
  another.start_time -= 1;
  EXPECT_EQ(OpenProcess(another).status().code(), absl::StatusCode::kNotFound);
  another = self;
  another.boot_id = "of another run of the machine";
  EXPECT_EQ(OpenProcess(another).status().code(), absl::StatusCode::kNotFound);
  // As /proc/self/stat has it, parsed otherwise.
  std::ifstream stat("/proc/self/stat");
  std::string field;
  for (int i = 0; i < 22; ++i) stat >> field;
  EXPECT_EQ(self.start_time, std::stoull(field));
}

}  // namespace
}  // namespace faultline
