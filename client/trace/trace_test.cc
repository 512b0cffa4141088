// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "client/trace/trace_reader.h"
#include "client/trace/trace_writer.h"

namespace faultline {
namespace {

using testing::HasSubstr;

constexpr uint64_t kVolumePages = 1 << 20;

uint64_t BytesFor(uint64_t records) { return kTraceHeaderBytes + records * kTraceSlotBytes; }

class Trace : public testing::Test {
 protected:
  Trace() : path_(testing::TempDir() + "/trace_" + std::to_string(getpid())) { unlink(Path()); }
  ~Trace() override { unlink(Path()); }

  const char* Path() const { return path_.c_str(); }

  std::unique_ptr<TraceWriter> Create(uint64_t capacity,
                                      WhenTraceIsFull when_full = WhenTraceIsFull::kDropOldest) {
    auto writer =
        TraceWriter::Create(path_, {BytesFor(capacity), when_full, PageCount(kVolumePages)});
    EXPECT_TRUE(writer.ok()) << writer.status();
    return *std::move(writer);
  }

  TraceReader Open() {
    auto reader = TraceReader::Open(path_);
    EXPECT_TRUE(reader.ok()) << reader.status();
    return *std::move(reader);
  }

  std::vector<TraceRecord> ReadAll(uint64_t expect_skipped = 0) {
    TraceReader reader = Open();
    std::vector<TraceRecord> records;
    for (;;) {
      const auto record = reader.Next();
      EXPECT_TRUE(record.ok()) << record.status();
      if (!record.ok() || !*record) break;
      records.push_back(**record);
    }
    EXPECT_EQ(reader.skipped(), expect_skipped);
    return records;
  }

  void WriteBytes(uint64_t offset, const void* bytes, size_t count) {
    const int fd = open(Path(), O_WRONLY);
    EXPECT_EQ(pwrite(fd, bytes, count, static_cast<off_t>(offset)), static_cast<ssize_t>(count));
    close(fd);
  }

  const std::string path_;
};

TraceRecord Record(uint64_t page) {
  TraceRecord record;
  record.time_ns = page * 10;
  record.kind = TraceKind::kFault;
  record.outcome = TraceOutcome::kDemand;
  record.page = PageIndex(page);
  return record;
}

std::vector<uint64_t> PagesOf(const std::vector<TraceRecord>& records) {
  std::vector<uint64_t> pages;
  for (const TraceRecord& record : records) pages.push_back(record.page.raw());
  return pages;
}

TEST_F(Trace, GivesBackWhatWasWritten) {
  std::vector<TraceRecord> written;
  {
    const auto writer = Create(100);
    std::mt19937_64 random(1);
    for (int kind = 1; kind <= 6; ++kind) {
      for (int outcome = 0; outcome <= 16; ++outcome) {
        TraceRecord record;
        record.time_ns = random();
        record.kind = static_cast<TraceKind>(kind);
        record.outcome = static_cast<TraceOutcome>(outcome);
        record.thread = static_cast<uint32_t>(random());
        record.page = PageIndex(kVolumePages - 1 - random() % 1000);
        record.count = 1;
        record.queue_ns = static_cast<uint32_t>(random());
        record.transfer_ns = UINT32_MAX;
        record.memory_ns = TraceStage(random() >> 28);
        if (written.size() < 100) written.push_back(record), writer->Append(record);
      }
    }
  }
  EXPECT_EQ(ReadAll(), written);
  const TraceHeader header = Open().header();
  EXPECT_EQ(header.volume_pages, kVolumePages);
  EXPECT_EQ(header.capacity, 100u);
  EXPECT_EQ(header.begun, 100u);
  EXPECT_EQ(header.dropped, 0u);
}

TEST_F(Trace, EveryKindAndOutcomeHasANameOfItsOwn) {
  std::map<absl::string_view, int> names;
  for (int kind = 1; kind <= 6; ++kind) ++names[TraceKindName(static_cast<TraceKind>(kind))];
  for (int o = 1; o <= 16; ++o) ++names[TraceOutcomeName(static_cast<TraceOutcome>(o))];
  EXPECT_EQ(names.size(), 22u);
  EXPECT_EQ(names.count(""), 0u);
  EXPECT_EQ(TraceOutcomeName(TraceOutcome::kFailed), "failed");
  EXPECT_EQ(TraceKindName(TraceKind::kDiscard), "discard");
}

TEST_F(Trace, ARingKeepsTheNewest) {
  const auto writer = Create(8);
  for (uint64_t page = 0; page < 21; ++page) writer->Append(Record(page));
  EXPECT_EQ(PagesOf(ReadAll()), (std::vector<uint64_t>{13, 14, 15, 16, 17, 18, 19, 20}));
  EXPECT_EQ(writer->dropped(), 0u);
}

TEST_F(Trace, OneThatStopsKeepsTheOldest) {
  const auto writer = Create(8, WhenTraceIsFull::kStop);
  for (uint64_t page = 0; page < 21; ++page) writer->Append(Record(page));
  EXPECT_EQ(PagesOf(ReadAll()), (std::vector<uint64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(writer->dropped(), 13u);
  EXPECT_EQ(Open().header().dropped, 13u);
}

TEST_F(Trace, TimesAreSinceItBegan) {
  struct timespec before;
  clock_gettime(CLOCK_MONOTONIC, &before);
  const auto writer = Create(8);
  const uint64_t now = writer->Now();
  EXPECT_LT(now, 60'000'000'000u);
  EXPECT_GE(writer->Now(), now);
  const uint64_t before_ns =
      static_cast<uint64_t>(before.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(before.tv_nsec);
  EXPECT_EQ(writer->At(before_ns), 0u);
  EXPECT_GT(writer->At(before_ns + 60'000'000'000), 0u);
}

// Of each thread all records are there, in order, and none is mixed with another's.
TEST_F(Trace, SeveralThreadsWriteAtOnce) {
  constexpr uint32_t kThreads = 4, kEach = 5000;
  const auto writer = Create(kThreads * kEach);
  std::vector<std::thread> threads;
  for (uint32_t thread = 1; thread <= kThreads; ++thread) {
    threads.emplace_back([&writer, thread] {
      for (uint32_t i = 0; i < kEach; ++i) {
        TraceRecord record = Record(thread * kEach + i);
        record.thread = thread;
        writer->Append(record);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::map<uint32_t, uint64_t> next;
  for (const TraceRecord& record : ReadAll()) {
    const uint64_t expected = record.thread * kEach + next[record.thread]++;
    ASSERT_EQ(record.page, PageIndex(expected));
    ASSERT_EQ(record.time_ns, expected * 10);
  }
  for (uint32_t thread = 1; thread <= kThreads; ++thread) EXPECT_EQ(next[thread], kEach);
}

// A ring so small that threads meet in their slots all the time, read while it is written.
TEST_F(Trace, NoRecordIsMixedOfTwo) {
  const auto writer = Create(3);
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> written = 0;
  std::vector<std::thread> threads;
  for (uint32_t thread = 1; thread <= 3; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937_64 random(thread);
      while (!stop) {
        TraceRecord record;
        record.thread = static_cast<uint32_t>(random());
        record.time_ns = uint64_t{record.thread} * 3;
        record.page = PageIndex(record.thread % kVolumePages);
        record.queue_ns = record.transfer_ns = record.memory_ns = record.thread ^ 0x5555;
        writer->Append(record);
        ++written;
      }
    });
  }
  uint64_t read = 0;
  while (read < 2000 || written < 200'000) {
    TraceReader reader = Open();
    for (;;) {
      const auto record = reader.Next();
      if (!record.ok() || !*record) break;
      ++read;
      EXPECT_EQ((*record)->time_ns, uint64_t{(*record)->thread} * 3);
      EXPECT_EQ((*record)->page, PageIndex((*record)->thread % kVolumePages));
      EXPECT_EQ((*record)->queue_ns, (*record)->thread ^ 0x5555);
      EXPECT_EQ((*record)->memory_ns, (*record)->thread ^ 0x5555);
    }
    if (HasFailure()) break;
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Open().header().begun, written);
}

// What was appended is there although nobody closed anything.
TEST_F(Trace, SurvivesItsWriter) {
  const pid_t child = fork();
  if (child == 0) {
    auto writer = TraceWriter::Create(path_, {BytesFor(64), {}, PageCount(kVolumePages)});
    if (!writer.ok()) _exit(1);
    for (uint64_t page = 0; page < 10; ++page) (*writer)->Append(Record(page));
    raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(ReadAll().size(), 10u);
}

TEST_F(Trace, AnOlderTraceIsReplacedAndNothingElseIs) {
  Create(100)->Append(Record(1));
  {
    const auto again = Create(8);
    again->Append(Record(2));
    EXPECT_EQ(PagesOf(ReadAll()), std::vector<uint64_t>{2});
  }
  std::ofstream(path_) << "a letter to somebody";
  EXPECT_EQ(TraceWriter::Create(path_, {}).status(),
            absl::AlreadyExistsError(
                path_ + " exists and is no trace, so it is not replaced; give another path"));
  EXPECT_EQ(std::filesystem::file_size(path_), 20u);
  EXPECT_EQ(TraceWriter::Create(testing::TempDir(), {}).status().code(),
            absl::StatusCode::kAlreadyExists);
  unlink(Path());
  ASSERT_EQ(mkfifo(Path(), 0600), 0);
  EXPECT_EQ(TraceWriter::Create(path_, {}).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(Trace, WhatCannotBeMadeIsAnError) {
  EXPECT_EQ(TraceWriter::Create("/nowhere/trace", {}).status().code(),
            absl::StatusCode::kFailedPrecondition);
  TraceOptions options;
  options.capacity_bytes = kTraceHeaderBytes + kTraceSlotBytes - 1;
  const absl::Status tiny = TraceWriter::Create(path_, options).status();
  EXPECT_EQ(tiny.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(tiny.message(), HasSubstr("has no room for a record"));
  options.capacity_bytes = uint64_t{1} << 60;
  EXPECT_FALSE(TraceWriter::Create(path_, options).ok());
}

TEST_F(Trace, OneThatWasCutOffGivesWhatIsWhole) {
  const auto writer = Create(8);
  for (uint64_t page = 0; page < 12; ++page) writer->Append(Record(page));
  // In the middle of slot 6: records 6 and 7 are lost.
  ASSERT_EQ(truncate(Path(), static_cast<off_t>(BytesFor(6) + 17)), 0);
  EXPECT_EQ(PagesOf(ReadAll(/*expect_skipped=*/2)), (std::vector<uint64_t>{4, 5, 8, 9, 10, 11}));
  ASSERT_EQ(truncate(Path(), static_cast<off_t>(kTraceHeaderBytes)), 0);
  EXPECT_TRUE(ReadAll(/*expect_skipped=*/8).empty());
  ASSERT_EQ(truncate(Path(), static_cast<off_t>(sizeof(TraceHeader))), 0);
  EXPECT_TRUE(ReadAll(/*expect_skipped=*/8).empty());
  ASSERT_EQ(truncate(Path(), static_cast<off_t>(sizeof(TraceHeader) - 1)), 0);
  EXPECT_THAT(std::string(TraceReader::Open(path_).status().message()), HasSubstr("is too short"));
}

TEST_F(Trace, OneThatIsCutOffWhileItIsReadEnds) {
  const auto writer = Create(20'000);
  for (uint64_t page = 0; page < 20'000; ++page) writer->Append(Record(page));
  TraceReader reader = Open();
  ASSERT_TRUE(reader.Next().ok());
  ASSERT_EQ(truncate(Path(), static_cast<off_t>(BytesFor(10'000))), 0);
  uint64_t records = 1;
  for (;;) {
    const auto record = reader.Next();
    ASSERT_TRUE(record.ok());
    if (!*record) break;
    ++records;
  }
  EXPECT_EQ(records, 10'000u);
  EXPECT_EQ(reader.skipped(), 10'000u);
}

TEST_F(Trace, DamagedRecordsAreLeftOut) {
  Create(8);  // closed again
  TraceSlot slot = {};
  EncodeTraceRecord(Record(3), &slot);
  slot.lap = 1;
  const uint64_t begun = 8;
  WriteBytes(offsetof(TraceHeader, begun), &begun, sizeof(begun));
  const auto put = [&](uint64_t at, auto change) {
    TraceSlot damaged = slot;
    change(&damaged);
    WriteBytes(BytesFor(at), &damaged, sizeof(damaged));
  };
  put(0, [](TraceSlot*) {});
  put(1, [](TraceSlot* s) { s->lap = 2; });
  put(2, [](TraceSlot* s) { s->lap |= kTraceSlotBusy; });
  put(3, [](TraceSlot* s) { s->what |= uint64_t{200} << 40; });  // no such kind
  put(4, [](TraceSlot* s) { s->what |= uint64_t{200} << 48; });  // no such outcome
  put(5, [](TraceSlot* s) { s->count = 0; });
  put(6, [](TraceSlot* s) { s->count = kVolumePages; });  // ends behind the volume
  EXPECT_EQ(PagesOf(ReadAll(/*expect_skipped=*/7)), std::vector<uint64_t>{3});
}

TEST_F(Trace, AHeaderThatMakesNoSenseIsAnError) {
  Create(8);
  std::ifstream file(path_, std::ios::binary);
  TraceHeader good;
  file.read(reinterpret_cast<char*>(&good), sizeof(good));
  const auto refusal = [&](auto change) {
    TraceHeader header = good;
    change(&header);
    WriteBytes(0, &header, sizeof(header));
    return std::string(TraceReader::Open(path_).status().message());
  };
  EXPECT_EQ(refusal([](TraceHeader*) {}), "");
  EXPECT_THAT(refusal([](TraceHeader* h) { h->magic[0] = 'f'; }), HasSubstr("is no trace"));
  EXPECT_THAT(refusal([](TraceHeader* h) { h->version = 9; }),
              HasSubstr("is a trace of version 9; this program reads version 1"));
  for (const std::string& message :
       {refusal([](TraceHeader* h) { h->slot_bytes = 41; }),
        refusal([](TraceHeader* h) { h->capacity = 0; }),
        refusal([](TraceHeader* h) { h->capacity = ~uint64_t{0}; }),
        refusal([](TraceHeader* h) { h->volume_pages = kMaxVolumePages + 1; }),
        refusal([](TraceHeader* h) { h->when_full = 2; })}) {
    EXPECT_THAT(message, HasSubstr("damaged header"));
  }
  // A count and a capacity that the file does not have end all the same.
  EXPECT_EQ(refusal([](TraceHeader* h) {
              h->capacity = uint64_t{1} << 56;
              h->begun = ~uint64_t{0};
            }),
            "");
  EXPECT_TRUE(ReadAll(/*expect_skipped=*/uint64_t{1} << 56).empty());
  EXPECT_EQ(TraceReader::Open("/nowhere").status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(TraceReader::Open(testing::TempDir()).ok());
}

}  // namespace
}  // namespace faultline
