// SPDX-License-Identifier: Apache-2.0
//
// What the real server promises when it is killed or its disk is full: nothing that it has
// acknowledged is lost, and nothing is applied in part.
#include <gtest/gtest.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "server/test_client.h"
#include "server/test_process.h"

namespace faultline {
namespace {

constexpr uint32_t kSeed = 20240613;
// Each starts a server, which takes a sanitizer's build several times as long.
#ifdef FAULTLINE_SANITIZED
constexpr int kRounds = 12;
#else
constexpr int kRounds = 50;
#endif
// The volume is divided into areas, with one write in flight in each.
constexpr uint64_t kAreas = 4;
constexpr uint64_t kAreaPages = 64;

// The version that PageOf() was called with.
uint64_t VersionOf(const Page& page) {
  uint64_t word;
  memcpy(&word, page.data(), sizeof word);
  return word >> 48;
}

// What the pages of one area must hold.
struct Area {
  std::array<uint64_t, kAreaPages> acknowledged{};  // version of each page
  // A write that was sent and not acknowledged: all of it is there, or nothing.
  struct Pending {
    uint64_t first;
    uint64_t count;
    uint64_t version;
  };
  std::optional<Pending> pending;
};

class RestartTest : public testing::Test {
 protected:
  void StartServer() {
    server_ = std::make_unique<ServerProcess>(std::vector<std::string>{
        "--store=rocksdb:" + directory_.File("store"), "--store-memory=16MiB",
        "--listen=unix:" + directory_.File("socket")});
    ASSERT_NE(server_->WaitForLine("listening on"), "") << server_->output();
    client_ = std::make_unique<TestClient>("unix:" + directory_.File("socket"));
  }

  // Writes until `acknowledgements` have come, then kills the server with writes under way.
  void WriteAndKill(int acknowledgements) {
    const auto volume = client_->Open("v", rpc::OpenVolumeRequest::WRITE);
    ASSERT_TRUE(volume.ok()) << volume.status();
    auto stream = client_->NewWriteStream();
    for (uint64_t area = 0; area < kAreas; ++area) SendWrite(*stream, *volume, area);
    rpc::WriteResponse response;
    for (int i = 0; i < acknowledgements; ++i) {
      ASSERT_TRUE(stream->Receive(&response)) << "the server went away by itself";
      ASSERT_EQ(response.code(), 0) << response.message();
      Acknowledge(response.request_id());
      SendWrite(*stream, *volume, response.request_id());
    }
    server_->Signal(SIGKILL);
    // Acknowledgements that came before the end hold as well.
    while (stream->Receive(&response)) {
      if (response.code() == 0) Acknowledge(response.request_id());
    }
    EXPECT_FALSE(stream->Finish().ok());
    EXPECT_EQ(server_->Wait(), 128 + SIGKILL);
  }

  // The request's id is its area.
  void SendWrite(WriteClient& stream, const rpc::OpenVolumeResponse& volume, uint64_t area) {
    const uint64_t first = random_() % kAreaPages;
    const uint64_t count = 1 + random_() % (kAreaPages - first);
    const uint64_t version = ++version_;
    areas_[area].pending = Area::Pending{first, count, version};
    stream.Send(WriteOf(area, volume,
                        BatchOf(area * kAreaPages + first, count, version,
                                random_() % 2 == 0 ? Codec::kRaw : Codec::kLz4)));
  }

  void Acknowledge(uint64_t area) {
    const Area::Pending written = *std::exchange(areas_[area].pending, std::nullopt);
    for (uint64_t page = written.first; page < written.first + written.count; ++page) {
      areas_[area].acknowledged[page] = written.version;
    }
  }

  void CheckArea(uint64_t number, const rpc::OpenVolumeResponse& volume) {
    Area& area = areas_[number];
    const uint64_t start = number * kAreaPages;
    const auto pages = client_->Fetch(volume.volume_id(), start, kAreaPages);
    ASSERT_TRUE(pages.ok()) << pages.status();
    if (area.pending) {
      const bool applied =
          VersionOf(pages->at(start + area.pending->first)) == area.pending->version;
      if (applied) Acknowledge(number);
      area.pending.reset();
    }
    for (uint64_t page = 0; page < kAreaPages; ++page) {
      const Page& got = pages->at(start + page);
      ASSERT_TRUE(got == PageOf(start + page, area.acknowledged[page]))
          << "page " << start + page << " has version " << VersionOf(got) << ", acknowledged was "
          << area.acknowledged[page];
    }
  }

  // How many pages the volume's working set has, where they are runs of one page.
  uint64_t WorkingSetPages(uint64_t volume_id) {
    rpc::GetWorkingSetRequest request;
    request.set_volume_id(volume_id);
    rpc::GetWorkingSetResponse response;
    const absl::Status status =
        ToStatus(client_->pages().GetWorkingSet(NewContext().get(), request, &response));
    EXPECT_TRUE(status.ok()) << status;
    return static_cast<uint64_t>(response.pages().runs_size()) / 2;
  }

  TemporaryDirectory directory_;
  std::mt19937 random_{kSeed};
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<TestClient> client_;
  std::array<Area, kAreas> areas_;
  uint64_t version_ = 0;
};

TEST_F(RestartTest, KilledDuringWritesItKeepsEveryAcknowledgedPage) {
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  StartServer();
  ASSERT_TRUE(client_->Create("v", kAreas * kAreaPages * kPageSize).ok());
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    WriteAndKill(static_cast<int>(random_() % 60));
    if (HasFatalFailure()) return;
    StartServer();
    if (HasFatalFailure()) return;
    const auto volume = client_->Open("v", rpc::OpenVolumeRequest::READ);
    ASSERT_TRUE(volume.ok()) << volume.status();
    for (uint64_t area = 0; area < kAreas; ++area) {
      CheckArea(area, *volume);
      if (HasFatalFailure()) return;
    }
  }
  EXPECT_GT(version_, uint64_t{kRounds} * kAreas) << "hardly anything was written";
}

TEST_F(RestartTest, KilledAfterAMergeItKeepsTheWorkingSetOfAVolumeAndOfItsSnapshot) {
  StartServer();
  const auto volume = client_->Create("v", 100 * kPageSize);
  ASSERT_TRUE(volume.ok()) << volume.status();
  rpc::MergeWorkingSetRequest request;
  request.set_volume_id(volume->id());
  rpc::MergeWorkingSetResponse merged;
  uint64_t snapshot_id = 0;
  for (uint64_t round = 1; round <= 3; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    // Pages 0, 10, 20: the first round makes the set, the second shares it, the third adds in
    // place.
    request.mutable_pages()->clear_runs();
    request.mutable_pages()->add_runs((round - 1) * 10);
    request.mutable_pages()->add_runs(1);
    ASSERT_TRUE(client_->pages().MergeWorkingSet(NewContext().get(), request, &merged).ok());
    EXPECT_EQ(merged.total_pages(), round);
    if (round == 1) {
      rpc::SnapshotVolumeRequest snapshot;
      snapshot.set_volume("v");
      snapshot.set_snapshot("s");
      rpc::Volume frozen;
      ASSERT_TRUE(client_->admin().SnapshotVolume(NewContext().get(), snapshot, &frozen).ok());
      snapshot_id = frozen.id();
    }
    server_->Signal(SIGKILL);
    EXPECT_EQ(server_->Wait(), 128 + SIGKILL);
    StartServer();
    if (HasFatalFailure()) return;
    EXPECT_EQ(WorkingSetPages(volume->id()), round);
    EXPECT_EQ(WorkingSetPages(snapshot_id), 1u);
  }
}

class FullDiskTest : public testing::Test {
 protected:
  static constexpr uint64_t kDiskBytes = uint64_t{96} << 20;
  // Twice what fits.
  static constexpr uint64_t kVolumePages = 2 * kDiskBytes / kPageSize;
  static constexpr uint64_t kBatchPages = 256;

  // Whether the server runs, on a disk of its own.
  void StartServer() {
    const std::string disk = directory_.File("disk");
    ASSERT_EQ(mkdir(disk.c_str(), 0777), 0);
    server_ = std::make_unique<ServerProcess>(
        std::vector<std::string>{"--store=rocksdb:" + disk + "/store", "--store-memory=16MiB",
                                 "--listen=unix:" + directory_.File("socket")},
        std::vector<std::string>(), ProcessDisk{disk, kDiskBytes});
    if (server_->WaitForLine("listening on").empty()) {
      if (server_->Wait() == ServerProcess::kExitCannotMount) {
        GTEST_SKIP() << "mounting a tmpfs needs CAP_SYS_ADMIN or unprivileged user namespaces";
      }
      FAIL() << server_->output();
    }
    client_ = std::make_unique<TestClient>("unix:" + directory_.File("socket"));
  }

  // Writes batch after batch until one fails; returns its status, and how many were acknowledged.
  absl::Status Fill(const rpc::OpenVolumeResponse& volume, uint64_t* acknowledged) {
    auto stream = client_->NewWriteStream();
    for (uint64_t batch = 0; batch < kVolumePages / kBatchPages; ++batch) {
      const absl::Status status =
          stream
              ->Call(
                  WriteOf(batch, volume, BatchOf(batch * kBatchPages, kBatchPages, 1, Codec::kRaw)))
              .status();
      if (!status.ok()) return status;
      *acknowledged = batch + 1;
    }
    return absl::OkStatus();
  }

  void ExpectBatch(uint64_t volume_id, uint64_t batch, uint64_t version) {
    const auto pages = client_->Fetch(volume_id, batch * kBatchPages, kBatchPages);
    ASSERT_TRUE(pages.ok()) << pages.status();
    for (const auto& [index, page] : *pages) {
      ASSERT_TRUE(page == PageOf(index, version)) << "page " << index;
    }
  }

  TemporaryDirectory directory_;
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<TestClient> client_;
};

TEST_F(FullDiskTest, AWriteThatDoesNotFitIsRefusedReadsGoOnAndRoomHeals) {
  StartServer();
  if (IsSkipped() || HasFatalFailure()) return;
  ASSERT_TRUE(client_->Create("v", kVolumePages * kPageSize).ok());
  const auto volume = client_->Open("v", rpc::OpenVolumeRequest::WRITE);
  ASSERT_TRUE(volume.ok()) << volume.status();
  uint64_t acknowledged = 0;
  EXPECT_EQ(Fill(*volume, &acknowledged).code(), absl::StatusCode::kResourceExhausted)
      << server_->output();
  ASSERT_GT(acknowledged, 0u);
  for (uint64_t batch = 0; batch < acknowledged; ++batch) {
    ExpectBatch(volume->volume_id(), batch, 1);
    if (HasFatalFailure()) return;
  }
  // What was refused was not applied, not even in part.
  ExpectBatch(volume->volume_id(), acknowledged, 0);
  ASSERT_TRUE(client_->Delete("v").ok());
  ASSERT_TRUE(client_->Create("w", kVolumePages * kPageSize).ok());
  const auto next = client_->Open("w", rpc::OpenVolumeRequest::WRITE);
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_TRUE(client_->Write(*next, BatchOf(0, kBatchPages, 2, Codec::kRaw)).ok());
  ExpectBatch(next->volume_id(), 0, 2);
}

TEST_F(FullDiskTest, AnImportThatDoesNotFitLeavesTheVolumeAsItWas) {
  StartServer();
  if (IsSkipped() || HasFatalFailure()) return;
  ASSERT_TRUE(client_->Create("v", kVolumePages * kPageSize).ok());
  const auto volume = client_->Open("v", rpc::OpenVolumeRequest::WRITE);
  ASSERT_TRUE(volume.ok()) << volume.status();
  ASSERT_TRUE(client_->Write(*volume, BatchOf(0, kBatchPages, 1)).ok());
  rpc::ImportVolumeRequest::Begin begin;
  begin.set_name("v");
  begin.set_size_bytes(kVolumePages * kPageSize);
  begin.set_replace(true);
  std::vector<rpc::PageBatch> batches;
  for (uint64_t first = 0; first < kVolumePages; first += kBatchPages) {
    batches.push_back(BatchOf(first, kBatchPages, 2, Codec::kRaw));
  }
  EXPECT_EQ(client_->Import(begin, batches).status().code(), absl::StatusCode::kResourceExhausted)
      << server_->output();
  ExpectBatch(volume->volume_id(), 0, 1);
  ExpectBatch(volume->volume_id(), 1, 0);
  // The writer is still the writer, and the room is there again.
  EXPECT_TRUE(client_->Write(*volume, BatchOf(kBatchPages, kBatchPages, 3, Codec::kRaw)).ok());
  ExpectBatch(volume->volume_id(), 1, 3);
}

}  // namespace
}  // namespace faultline
