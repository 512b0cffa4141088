// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "proto/working_set.h"
#include "server/test_server.h"
#include "storage/file_page_store.h"

namespace faultline {
namespace {

using Numbers = std::vector<uint64_t>;  // of rpc::PageSet

class WorkingSetCallTest : public ServerTest {
 protected:
  // The numbers of the runs that the server has.
  absl::StatusOr<Numbers> Get(uint64_t volume_id) {
    rpc::GetWorkingSetRequest request;
    request.set_volume_id(volume_id);
    rpc::GetWorkingSetResponse response;
    const absl::Status status =
        ToStatus(client_->pages().GetWorkingSet(NewContext().get(), request, &response));
    if (!status.ok()) return status;
    return Numbers(response.pages().runs().begin(), response.pages().runs().end());
  }

  // The pages that the set has then.
  absl::StatusOr<uint64_t> Merge(uint64_t volume_id, const Numbers& numbers) {
    rpc::MergeWorkingSetRequest request;
    request.set_volume_id(volume_id);
    request.mutable_pages()->mutable_runs()->Add(numbers.begin(), numbers.end());
    rpc::MergeWorkingSetResponse response;
    const absl::Status status =
        ToStatus(client_->pages().MergeWorkingSet(NewContext().get(), request, &response));
    if (!status.ok()) return status;
    return response.total_pages();
  }

  absl::Status Clear(const std::string& name) {
    rpc::ClearWorkingSetRequest request;
    request.set_name(name);
    rpc::ClearWorkingSetResponse response;
    return ToStatus(client_->admin().ClearWorkingSet(NewContext().get(), request, &response));
  }

  uint64_t Create(const std::string& name, uint64_t pages) {
    const absl::StatusOr<rpc::Volume> volume = client_->Create(name, pages * kPageSize);
    EXPECT_TRUE(volume.ok()) << volume.status();
    return volume.ok() ? volume->id() : 0;
  }
};

TEST_F(WorkingSetCallTest, OverlappingSetsBecomeOne) {
  StartServer();
  const uint64_t id = Create("v", 100);
  EXPECT_EQ(*Get(id), Numbers());
  EXPECT_EQ(*Merge(id, {0, 10, 5, 2}), 12u);
  EXPECT_EQ(*Merge(id, {5, 10, 84, 1}), 18u);
  EXPECT_EQ(*Get(id), (Numbers{0, 17, 82, 1}));
  EXPECT_EQ(*Merge(id, {}), 18u);
}

TEST_F(WorkingSetCallTest, TheOrderOfTheFirstPagesGoesBothWays) {
  StartServer();
  rpc::MergeWorkingSetRequest request;
  request.set_volume_id(Create("v", 100));
  const Numbers runs = {10, 30};
  request.mutable_pages()->mutable_runs()->Add(runs.begin(), runs.end());
  for (const int64_t step : {20, -5, 1}) request.mutable_pages()->add_first(step);
  rpc::MergeWorkingSetResponse merged;
  const auto merge = [&] {
    return ToStatus(client_->pages().MergeWorkingSet(NewContext().get(), request, &merged));
  };
  ASSERT_EQ(merge(), absl::OkStatus());
  rpc::GetWorkingSetRequest get;
  get.set_volume_id(request.volume_id());
  rpc::GetWorkingSetResponse got;
  ASSERT_TRUE(client_->pages().GetWorkingSet(NewContext().get(), get, &got).ok());
  EXPECT_EQ(got.pages().DebugString(), request.pages().DebugString());
  request.mutable_pages()->add_first(-11);  // page 5, which is not one of them
  EXPECT_STATUS(merge(), absl::StatusCode::kInvalidArgument,
                "working set of volume \"v\": the order of a working set names page 5");
  request.mutable_pages()->mutable_first()->Clear();
  for (size_t i = 0; i <= WorkingSet::kMaxFirst; ++i) request.mutable_pages()->add_first(1);
  EXPECT_STATUS(merge(), absl::StatusCode::kResourceExhausted, "8193 pages");
}

TEST_F(WorkingSetCallTest, IsPassedOnToSnapshotAndCloneAndGoneWithDeleteAndImport) {
  StartServer();
  const uint64_t id = Create("v", 100);
  ASSERT_TRUE(Merge(id, {1, 1}).ok());
  rpc::SnapshotVolumeRequest snapshot;
  snapshot.set_volume("v");
  snapshot.set_snapshot("s");
  rpc::Volume frozen;
  ASSERT_TRUE(client_->admin().SnapshotVolume(NewContext().get(), snapshot, &frozen).ok());
  EXPECT_EQ(*Merge(frozen.id(), {2, 1}), 2u) << "a snapshot's set may grow";
  rpc::CloneVolumeRequest clone;
  clone.set_snapshot("s");
  clone.set_volume("c");
  rpc::Volume cloned;
  ASSERT_TRUE(client_->admin().CloneVolume(NewContext().get(), clone, &cloned).ok());
  EXPECT_EQ(*Get(id), (Numbers{1, 1}));
  EXPECT_EQ(*Get(cloned.id()), (Numbers{1, 2}));

  rpc::ImportVolumeRequest::Begin begin;
  begin.set_name("c");
  begin.set_size_bytes(10 * kPageSize);
  begin.set_replace(true);
  ASSERT_TRUE(client_->Import(begin, {BatchOf(0, 10, 1)}).ok());
  EXPECT_EQ(*Get(cloned.id()), Numbers());

  ASSERT_TRUE(client_->Delete("v").ok());
  EXPECT_STATUS(Get(id).status(), absl::StatusCode::kNotFound, "it may have been deleted");
  EXPECT_STATUS(Merge(id, {0, 1}).status(), absl::StatusCode::kNotFound, "deleted");
  EXPECT_EQ(*Get(frozen.id()), (Numbers{1, 2}));
}

TEST_F(WorkingSetCallTest, WhatIsNoSetOfThatVolumeIsRefusedAndTheSetStays) {
  StartServer();
  const uint64_t id = Create("v", 100);
  ASSERT_TRUE(Merge(id, {1, 1}).ok());
  EXPECT_STATUS(Merge(id, {0, 101}).status(), absl::StatusCode::kOutOfRange,
                "working set of volume \"v\": run 0 of a set of pages, 101 pages at 0 after page "
                "0, reaches beyond the volume's 100");
  EXPECT_STATUS(Merge(id, {5, 5, ~uint64_t{0}, 2}).status(), absl::StatusCode::kOutOfRange,
                "run 1");
  EXPECT_STATUS(Merge(id, {5, 5, 5}).status(), absl::StatusCode::kInvalidArgument,
                "in the middle of a run");
  EXPECT_STATUS(Merge(id, {5, 0}).status(), absl::StatusCode::kInvalidArgument, "is empty");
  EXPECT_STATUS(Merge(id, Numbers(2 * kMaxPageSetRuns + 2, 1)).status(),
                absl::StatusCode::kResourceExhausted, "more than 1048576 runs");
  EXPECT_EQ(*Get(id), (Numbers{1, 1}));
}

// Each time a message of a mebibyte or more, both ways.
TEST_F(WorkingSetCallTest, AMillionScatteredPagesGoThere) {
  StartServer();
  constexpr uint64_t kVolumePages = uint64_t{1} << 28;  // 1 TiB
  const uint64_t id = Create("v", kVolumePages);
  Numbers numbers;
  for (uint64_t i = 0; i < kMaxPageSetRuns; ++i) {
    numbers.push_back(i == 0 ? 0 : 128 + i % 120);
    numbers.push_back(1);
  }
  EXPECT_EQ(*Merge(id, numbers), kMaxPageSetRuns);
  EXPECT_TRUE(*Get(id) == numbers);
  // Every other page of a VM of 4 GiB.
  const uint64_t vm = Create("vm", uint64_t{1} << 20);
  numbers.assign(uint64_t{1} << 20, 1);
  EXPECT_EQ(*Merge(vm, numbers), uint64_t{1} << 19);
  EXPECT_TRUE(*Get(vm) == numbers);
}

TEST_F(WorkingSetCallTest, ClearedByItsNameItIsEmpty) {
  StartServer();
  const uint64_t id = Create("v", 100);
  ASSERT_TRUE(Merge(id, {1, 1}).ok());
  EXPECT_EQ(Clear("v"), absl::OkStatus());
  EXPECT_EQ(*Get(id), Numbers());
  EXPECT_STATUS(Clear("w"), absl::StatusCode::kNotFound, "\"w\"");
}

TEST_F(WorkingSetCallTest, AServerOfARawImageHasNoneAndTakesNone) {
  const std::string path = directory_.File("image");
  FILE* const image = fopen(path.c_str(), "w");
  ASSERT_NE(image, nullptr);
  ASSERT_GE(fputs("bytes", image), 0);
  fclose(image);
  auto store = OpenFilePageStore(path);
  ASSERT_TRUE(store.ok()) << store.status();
  StartServer({}, *std::move(store));
  const auto volume = client_->Open("image", rpc::OpenVolumeRequest::READ);
  ASSERT_TRUE(volume.ok()) << volume.status();
  EXPECT_EQ(*Get(volume->volume_id()), Numbers());
  EXPECT_STATUS(Merge(volume->volume_id(), {0, 1}).status(), absl::StatusCode::kFailedPrecondition,
                "the working set of volume \"image\" cannot be kept: this server serves a raw "
                "image, read-only");
}

}  // namespace
}  // namespace faultline
