// SPDX-License-Identifier: Apache-2.0
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "server/test_server.h"
#include "storage/faulty_page_store.h"

namespace faultline {
namespace {

constexpr uint64_t kTebibyte = uint64_t{1} << 40;

class AdminServiceTest : public ServerTest {
 protected:
  absl::StatusOr<rpc::Volume> Snapshot(const std::string& volume, const std::string& snapshot) {
    rpc::SnapshotVolumeRequest request;
    request.set_volume(volume);
    request.set_snapshot(snapshot);
    rpc::Volume response;
    const absl::Status status =
        ToStatus(client_->admin().SnapshotVolume(NewContext().get(), request, &response));
    if (!status.ok()) return status;
    return response;
  }

  absl::StatusOr<rpc::Volume> Clone(const std::string& snapshot, const std::string& volume) {
    rpc::CloneVolumeRequest request;
    request.set_snapshot(snapshot);
    request.set_volume(volume);
    rpc::Volume response;
    const absl::Status status =
        ToStatus(client_->admin().CloneVolume(NewContext().get(), request, &response));
    if (!status.ok()) return status;
    return response;
  }

  absl::StatusOr<rpc::Volume> Trim(const std::string& name, uint64_t offset, uint64_t length) {
    rpc::TrimVolumeRequest request;
    request.set_name(name);
    request.set_offset_bytes(offset);
    request.set_length_bytes(length);
    rpc::Volume response;
    const absl::Status status =
        ToStatus(client_->admin().TrimVolume(NewContext().get(), request, &response));
    if (!status.ok()) return status;
    return response;
  }

  std::vector<std::string> Names() {
    rpc::ListVolumesResponse response;
    const absl::Status status = ToStatus(
        client_->admin().ListVolumes(NewContext().get(), rpc::ListVolumesRequest(), &response));
    EXPECT_TRUE(status.ok()) << status;
    std::vector<std::string> names;
    for (const rpc::Volume& volume : response.volumes()) names.push_back(volume.name());
    return names;
  }

  uint64_t IdOf(const std::string& name) {
    const absl::StatusOr<rpc::Volume> volume = client_->Stat(name);
    EXPECT_TRUE(volume.ok()) << volume.status();
    return volume.ok() ? volume->id() : 0;
  }
};

rpc::ImportVolumeRequest::Begin BeginOf(const std::string& name, uint64_t pages,
                                        bool replace = false) {
  rpc::ImportVolumeRequest::Begin begin;
  begin.set_name(name);
  begin.set_size_bytes(pages * kPageSize);
  begin.set_replace(replace);
  return begin;
}

TEST_F(AdminServiceTest, AVolumeIsWhatItWasCreatedAs) {
  StartServer();
  const int64_t before = absl::ToUnixSeconds(absl::Now());
  const auto created = client_->Create("alpha.1_b-c", 5 * kPageSize + 7, rpc::DURABILITY_INTERVAL);
  ASSERT_TRUE(created.ok()) << created.status();
  const auto stat = client_->Stat("alpha.1_b-c");
  ASSERT_TRUE(stat.ok()) << stat.status();
  EXPECT_EQ(stat->DebugString(), created->DebugString());
  EXPECT_EQ(stat->name(), "alpha.1_b-c");
  EXPECT_EQ(stat->size_bytes(), 5 * kPageSize + 7);
  EXPECT_EQ(stat->kind(), rpc::Volume::VOLUME);
  EXPECT_EQ(stat->durability(), rpc::DURABILITY_INTERVAL);
  EXPECT_EQ(stat->stored_bytes(), 0u);
  EXPECT_EQ(stat->epoch(), 0u);
  EXPECT_GE(stat->created().seconds(), before);
  EXPECT_LE(stat->created().seconds(), absl::ToUnixSeconds(absl::Now()));
}

TEST_F(AdminServiceTest, VolumesAreListedByNameWithWhatTheyTake) {
  StartServer();
  for (const char* name : {"b", "a", "c"}) CreateAndOpen(name, 10);
  EXPECT_EQ(Names(), (std::vector<std::string>{"a", "b", "c"}));
  const auto open = client_->Open("b", rpc::OpenVolumeRequest::WRITE);
  ASSERT_TRUE(client_->Write(*open, BatchOf(0, 10, 1, Codec::kRaw)).ok());
  EXPECT_GE(client_->Stat("b")->stored_bytes(), 10 * kPageSize);
  EXPECT_EQ(client_->Stat("b")->epoch(), open->epoch());
  EXPECT_TRUE(client_->Delete("b").ok());
  EXPECT_EQ(Names(), (std::vector<std::string>{"a", "c"}));
}

TEST_F(AdminServiceTest, BadNamesAreRefusedSayingWhatIsAllowed) {
  StartServer();
  for (const std::string& name :
       {std::string(), std::string("a/b"), std::string("../x"), std::string(".hidden"),
        std::string("-flag"), std::string("a b"), std::string("a\0b", 3), std::string("\xc3\xa4"),
        std::string(10 << 10, 'x'), std::string(129, 'x')}) {
    const absl::Status status = client_->Create(name, kPageSize).status();
    EXPECT_STATUS(status, absl::StatusCode::kInvalidArgument, "128") << name;
    EXPECT_LT(status.message().size(), 1000u) << "the whole of a long name is repeated";
  }
  EXPECT_TRUE(client_->Create(std::string(128, 'x'), kPageSize).ok());
  EXPECT_EQ(Names().size(), 1u);
}

TEST_F(AdminServiceTest, WhatDoesNotExistIsNamed) {
  StartServer();
  EXPECT_STATUS(client_->Stat("ghost").status(), absl::StatusCode::kNotFound, "\"ghost\"");
  EXPECT_STATUS(client_->Delete("ghost"), absl::StatusCode::kNotFound, "\"ghost\"");
  EXPECT_STATUS(Snapshot("ghost", "s").status(), absl::StatusCode::kNotFound, "\"ghost\"");
  EXPECT_STATUS(Clone("ghost", "c").status(), absl::StatusCode::kNotFound, "\"ghost\"");
  EXPECT_STATUS(Trim("ghost", 0, kPageSize).status(), absl::StatusCode::kNotFound, "\"ghost\"");
  EXPECT_STATUS(client_->Export("ghost").status(), absl::StatusCode::kNotFound, "\"ghost\"");
}

TEST_F(AdminServiceTest, ANameThatIsTakenIsRefused) {
  StartServer();
  CreateAndOpen("v", 1);
  ASSERT_TRUE(Snapshot("v", "s").ok());
  EXPECT_STATUS(client_->Create("v", kPageSize).status(), absl::StatusCode::kAlreadyExists,
                "\"v\"");
  EXPECT_STATUS(Snapshot("v", "s").status(), absl::StatusCode::kAlreadyExists, "\"s\"");
  EXPECT_STATUS(Clone("s", "v").status(), absl::StatusCode::kAlreadyExists, "\"v\"");
}

TEST_F(AdminServiceTest, BadSizesAndDurabilitiesAreRefused) {
  StartServer();
  EXPECT_EQ(client_->Create("v", 0).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client_->Create("v", ~uint64_t{0}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_STATUS(client_->Create("v", 1, static_cast<rpc::Durability>(7)).status(),
                absl::StatusCode::kInvalidArgument, "unknown durability 7");
  EXPECT_TRUE(Names().empty());
}

TEST_F(AdminServiceTest, ASnapshotKeepsItsContentAndAClonesWritesAreItsOwn) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  ASSERT_TRUE(client_->Write(volume, BatchOf(0, 50, 1)).ok());
  const auto snapshot = Snapshot("v", "s");
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(snapshot->kind(), rpc::Volume::SNAPSHOT);
  EXPECT_EQ(snapshot->parent(), "v");
  ASSERT_TRUE(client_->Write(volume, BatchOf(0, 10, 2)).ok());
  const auto clone = Clone("s", "c");
  ASSERT_TRUE(clone.ok()) << clone.status();
  EXPECT_EQ(clone->parent(), "s");
  const auto writer = client_->Open("c", rpc::OpenVolumeRequest::WRITE);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(client_->Write(*writer, BatchOf(20, 10, 3)).ok());

  ExpectPages(volume.volume_id(), 0, 10, 2);
  ExpectPages(volume.volume_id(), 10, 40, 1);
  ExpectPages(snapshot->id(), 0, 50, 1);
  ExpectPages(snapshot->id(), 50, 50, 0);
  ExpectPages(clone->id(), 0, 20, 1);
  ExpectPages(clone->id(), 20, 10, 3);
  EXPECT_EQ(client_->Open("s", rpc::OpenVolumeRequest::WRITE).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(AdminServiceTest, ATrimmedRangeReadsAsZero) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  ASSERT_TRUE(client_->Write(volume, BatchOf(0, 100, 1)).ok());
  ASSERT_TRUE(Trim("v", 10 * kPageSize, 80 * kPageSize).ok());
  ExpectPages(volume.volume_id(), 0, 10, 1);
  ExpectPages(volume.volume_id(), 10, 80, 0);
  ExpectPages(volume.volume_id(), 90, 10, 1);
}

TEST_F(AdminServiceTest, ABadTrimChangesNothing) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  ASSERT_TRUE(client_->Write(volume, BatchOf(0, 100, 1)).ok());
  EXPECT_STATUS(Trim("v", 1, kPageSize).status(), absl::StatusCode::kInvalidArgument,
                "volume \"v\": cannot trim 4096 bytes at 1: offset and length must be multiples");
  EXPECT_STATUS(Trim("v", 0, 0).status(), absl::StatusCode::kInvalidArgument, "nothing to trim");
  EXPECT_STATUS(Trim("v", 99 * kPageSize, 2 * kPageSize).status(), absl::StatusCode::kOutOfRange,
                "it has 409600 bytes");
  EXPECT_STATUS(Trim("v", ~uint64_t{0} - 4095, kPageSize).status(), absl::StatusCode::kOutOfRange,
                "it has 409600 bytes");
  ExpectPages(volume.volume_id(), 0, 100, 1);
}

TEST_F(AdminServiceTest, WhatIsImportedIsExportedByteForByte) {
  StartServer();
  // A volume of 1 TiB with pages at both ends and a little in the middle.
  const uint64_t pages = kTebibyte / kPageSize;
  std::vector<rpc::PageBatch> batches = {
      BatchOf(0, 700, 1, Codec::kRaw), BatchOf(700, 300, 2, Codec::kLz4),
      BatchOf(pages / 2, 1, 3, Codec::kZstd), BatchOf(pages - 5, 5, 4, Codec::kLz4)};
  PageBatchBuilder(&batches[1]).AddZero({PageIndex(1000), PageCount(1 << 20)});
  const auto imported = client_->Import(BeginOf("v", pages), batches);
  ASSERT_TRUE(imported.ok()) << imported.status();
  EXPECT_EQ(imported->size_bytes(), kTebibyte);

  const auto exported = client_->Export("v");
  ASSERT_TRUE(exported.ok()) << exported.status();
  uint64_t next = 0;
  std::map<uint64_t, Page> content;
  for (const rpc::ExportVolumeResponse& response : *exported) {
    EXPECT_EQ(response.size_bytes(), kTebibyte);
    EXPECT_LT(response.batch().pages().size(), (1 << 20) + kMaxEncodedPageBytes);
    for (const rpc::PageRun& run : response.batch().runs()) {
      EXPECT_EQ(run.first(), next) << "a gap or a repetition";
      next = run.first() + run.count();
    }
    const absl::Status status = ForEachPage(
        response.batch(),
        [&content](PageIndex page, absl::string_view encoded) {
          const auto bytes = DecodePage(page, encoded, content[page.raw()]);
          if (bytes.ok()) std::copy(bytes->begin(), bytes->end(), content[page.raw()].begin());
          return bytes.status();
        },
        [](PageRange) { return absl::OkStatus(); });
    ASSERT_TRUE(status.ok()) << status;
  }
  EXPECT_EQ(next, pages);
  ASSERT_EQ(content.size(), 1006u);
  for (const auto& [index, page] : content) {
    const uint64_t version = index < 700 ? 1 : index < 1000 ? 2 : index < pages - 5 ? 3 : 4;
    ASSERT_TRUE(page == PageOf(index, version)) << "page " << index;
  }
  // 700 raw pages are just under three batches; holes of any size add a few hundred.
  EXPECT_LT(exported->size(), 600u);
}

TEST_F(AdminServiceTest, AnImportWithoutCommitChangesNothing) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  ASSERT_TRUE(client_->Write(volume, BatchOf(0, 10, 1)).ok());
  EXPECT_STATUS(client_->Import(BeginOf("v", 100, true), {BatchOf(0, 50, 2)}, false).status(),
                absl::StatusCode::kInvalidArgument,
                "import of \"v\": the import ended without a Commit; nothing was changed");
  ExpectPages(volume.volume_id(), 0, 10, 1);
  ExpectPages(volume.volume_id(), 10, 90, 0);
  EXPECT_STATUS(client_->Import(BeginOf("new", 100), {BatchOf(0, 50, 2)}, false).status(),
                absl::StatusCode::kInvalidArgument, "without a Commit");
  EXPECT_EQ(Names(), (std::vector<std::string>{"v"}));
  // Not even the writer was fenced.
  EXPECT_TRUE(client_->Write(volume, BatchOf(20, 10, 3)).ok());
}

TEST_F(AdminServiceTest, AnImportWhoseClientGoesAwayChangesNothing) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  {
    auto context = NewContext();
    rpc::Volume response;
    auto writer = client_->admin().ImportVolume(context.get(), &response);
    rpc::ImportVolumeRequest request;
    *request.mutable_begin() = BeginOf("v", 100, true);
    ASSERT_TRUE(writer->Write(request));
    *request.mutable_batch() = BatchOf(0, 100, 2);
    ASSERT_TRUE(writer->Write(request));
    context->TryCancel();
    EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  ExpectPages(volume.volume_id(), 0, 100, 0);
  EXPECT_TRUE(client_->Import(BeginOf("v", 100, true), {BatchOf(0, 100, 4)}).ok());
  ExpectPages(volume.volume_id(), 0, 100, 4);
}

TEST_F(AdminServiceTest, AnImportReplacesTheWholeContentOnlyWhereItMay) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  ASSERT_TRUE(client_->Write(volume, BatchOf(0, 100, 1)).ok());
  const absl::Status refused = client_->Import(BeginOf("v", 100), {BatchOf(0, 5, 2)}).status();
  EXPECT_FALSE(refused.ok());
  EXPECT_NE(refused.message().find("\"v\""), absl::string_view::npos) << refused;
  ExpectPages(volume.volume_id(), 0, 100, 1);
  ASSERT_TRUE(client_->Import(BeginOf("v", 100, true), {BatchOf(0, 5, 2)}).ok());
  ExpectPages(volume.volume_id(), 0, 5, 2);
  ExpectPages(volume.volume_id(), 5, 95, 0);
  EXPECT_STATUS(client_->Write(volume, BatchOf(0, 1, 3)), absl::StatusCode::kFailedPrecondition,
                "fenced");
}

TEST_F(AdminServiceTest, BadImportsAreRefusedAndChangeNothing) {
  StartServer();
  rpc::PageBatch flipped = BatchOf(0, 10, 1);
  (*flipped.mutable_pages())[flipped.pages().size() - 1] ^= 1;
  EXPECT_STATUS(client_->Import(BeginOf("v", 100), {flipped}).status(), absl::StatusCode::kDataLoss,
                "import of \"v\": page 9: checksum does not match");
  EXPECT_STATUS(client_->Import(BeginOf("v", 100), {BatchOf(5, 5, 1), BatchOf(9, 1, 1)}).status(),
                absl::StatusCode::kInvalidArgument,
                "import of \"v\": page 9 is out of order: an import's pages ascend, and the one "
                "before it was 9");
  rpc::PageBatch zero_again = BatchOf(0, 5, 1);
  PageBatchBuilder(&zero_again).AddZero({PageIndex(3), PageCount(3)});
  EXPECT_STATUS(client_->Import(BeginOf("v", 100), {zero_again}).status(),
                absl::StatusCode::kInvalidArgument, "page 3 is out of order");
  EXPECT_STATUS(client_->Import(BeginOf("v", 100), {BatchOf(98, 3, 1)}).status(),
                absl::StatusCode::kOutOfRange, "import of \"v\": pages 98 to 100 reach beyond");
  rpc::PageBatch garbage = BatchOf(0, 1, 1);
  garbage.set_pages("garbage");
  EXPECT_STATUS(client_->Import(BeginOf("v", 100), {garbage}).status(), absl::StatusCode::kDataLoss,
                "page 0: encoded page is cut off");
  EXPECT_EQ(client_->Import(BeginOf("a/b", 100), {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client_->Import(BeginOf("v", 0), {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Names().empty());
}

// One message of an import after the other, as a client that does not keep to the order would.
absl::Status SendSteps(TestClient& client, const std::vector<rpc::ImportVolumeRequest>& steps) {
  auto context = NewContext();
  rpc::Volume volume;
  auto writer = client.admin().ImportVolume(context.get(), &volume);
  for (const rpc::ImportVolumeRequest& step : steps) {
    if (!writer->Write(step)) break;
  }
  writer->WritesDone();
  return ToStatus(writer->Finish());
}

TEST_F(AdminServiceTest, TheStepsOfAnImportKeepTheirOrder) {
  StartServer();
  rpc::ImportVolumeRequest begin;
  *begin.mutable_begin() = BeginOf("v", 10);
  rpc::ImportVolumeRequest batch;
  *batch.mutable_batch() = BatchOf(0, 1, 1);
  rpc::ImportVolumeRequest commit;
  commit.mutable_commit();
  EXPECT_STATUS(SendSteps(*client_, {batch, commit}), absl::StatusCode::kInvalidArgument,
                "must begin with a Begin");
  EXPECT_STATUS(SendSteps(*client_, {commit}), absl::StatusCode::kInvalidArgument,
                "must begin with a Begin");
  EXPECT_STATUS(SendSteps(*client_, {begin, begin}), absl::StatusCode::kInvalidArgument,
                "begins only once");
  EXPECT_STATUS(SendSteps(*client_, {begin, rpc::ImportVolumeRequest()}),
                absl::StatusCode::kInvalidArgument, "import of \"v\": a message holds no step");
  EXPECT_STATUS(SendSteps(*client_, {}), absl::StatusCode::kInvalidArgument, "without a Commit");
  EXPECT_TRUE(Names().empty());
  EXPECT_TRUE(SendSteps(*client_, {begin, batch, commit}).ok());
  ExpectPages(IdOf("v"), 0, 1, 1);
}

TEST_F(AdminServiceTest, ADeletedVolumeIsGoneAndItsSnapshotStays) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  ASSERT_TRUE(client_->Write(volume, BatchOf(0, 50, 1)).ok());
  const auto snapshot = Snapshot("v", "s");
  ASSERT_TRUE(snapshot.ok());
  ASSERT_TRUE(client_->Delete("v").ok());
  EXPECT_STATUS(client_->Fetch(volume.volume_id(), 0, 1).status(), absl::StatusCode::kNotFound,
                absl::StrCat(volume.volume_id()));
  ExpectPages(snapshot->id(), 0, 50, 1);
}

TEST_F(AdminServiceTest, AFullDiskIsNamedAndPassesWhenThereIsRoomAgain) {
  auto owned = std::make_unique<FaultyPageStore>(NewMemoryPageStore(), FaultyPageStore::Faults());
  FaultyPageStore* store = owned.get();
  StartServer({}, std::move(owned));
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  ASSERT_TRUE(client_->Write(volume, BatchOf(0, 10, 1)).ok());
  store->set_disk_full(true);
  EXPECT_STATUS(client_->Write(volume, BatchOf(0, 10, 2)), absl::StatusCode::kResourceExhausted,
                "disk is full");
  EXPECT_STATUS(client_->Import(BeginOf("w", 100), {BatchOf(0, 10, 2)}).status(),
                absl::StatusCode::kResourceExhausted, "disk is full");
  EXPECT_STATUS(client_->Create("x", kPageSize).status(), absl::StatusCode::kResourceExhausted,
                "disk is full");
  ExpectPages(volume.volume_id(), 0, 10, 1);
  EXPECT_EQ(Names(), (std::vector<std::string>{"v"}));
  store->set_disk_full(false);
  EXPECT_TRUE(client_->Write(volume, BatchOf(0, 10, 3)).ok());
  ExpectPages(volume.volume_id(), 0, 10, 3);
}

TEST_F(AdminServiceTest, TheStatusCountsWhatWasServed) {
  StartServer();
  const rpc::OpenVolumeResponse volume = CreateAndOpen("v", 100);
  ASSERT_TRUE(client_->Write(volume, BatchOf(0, 30, 1)).ok());
  ExpectPages(volume.volume_id(), 0, 30, 1);
  ExpectPages(volume.volume_id(), 30, 70, 0);
  EXPECT_FALSE(client_->Fetch(volume.volume_id(), 100, 1).ok());
  auto open_stream = client_->NewFetchStream();
  ASSERT_TRUE(open_stream->Call(FetchOf(1, volume.volume_id(), 0, 1)).ok());
  ASSERT_TRUE(client_->WaitForStatus([](const rpc::ServerStatus& now) {
    return now.fetch_streams() == 1 && now.write_streams() == 0 && now.pages_in_flight() == 0;
  }));
  const rpc::ServerStatus status = client_->Status();
  EXPECT_EQ(status.store(), "memory:");
  EXPECT_EQ(status.version(), "0.1.0");
  EXPECT_EQ(status.volumes(), 1u);
  EXPECT_GT(status.stored_bytes(), 0u);
  EXPECT_EQ(status.pages_written_total(), 30u);
  EXPECT_EQ(status.pages_fetched_total(), 101u);
  EXPECT_EQ(status.requests_failed_total(), 1u);
  EXPECT_FALSE(status.read_only());
  EXPECT_LE(status.started().seconds(), absl::ToUnixSeconds(absl::Now()));
}

}  // namespace
}  // namespace faultline
