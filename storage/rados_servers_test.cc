// SPDX-License-Identifier: Apache-2.0
//
// Several catalogs, as of several servers, on one namespace.
#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "storage/rados_testing.h"
#include "storage/volume_catalog.h"

namespace faultline {
namespace {

class RadosServers : public testing::Test {
 protected:
  std::unique_ptr<VolumeCatalog> Serve() {
    auto catalog = VolumeCatalog::Open(OpenRados(location_));
    EXPECT_TRUE(catalog.ok()) << catalog.status();
    return catalog.ok() ? *std::move(catalog) : nullptr;
  }
  static std::shared_ptr<Volume> Find(VolumeCatalog& catalog, absl::string_view name) {
    auto volume = catalog.Find(name);
    EXPECT_TRUE(volume.ok()) << volume.status();
    return volume.ok() ? *volume : nullptr;
  }
  // The version of `page`, of those that WriteVolume() gives it; 0 for zeros, ~0 for anything else.
  static uint64_t VersionOf(Volume& volume, uint64_t page, uint64_t most) {
    uint64_t version = ~uint64_t{0};
    const absl::Status status = volume.Read(
        Pages(page, 1),
        [&](PageIndex, absl::string_view encoded) {
          for (uint64_t v = 1; v <= most; ++v) {
            if (encoded == PatternEncoded(page, v)) version = v;
          }
          return absl::OkStatus();
        },
        [&](PageRange) {
          version = 0;
          return absl::OkStatus();
        });
    EXPECT_TRUE(status.ok()) << status;
    return version;
  }

  const std::string location_ = NewLocation();
  const std::unique_ptr<VolumeCatalog> a_ = Serve(), b_ = Serve();
};

TEST_F(RadosServers, WhatIsWrittenThroughOneIsReadThroughTheOther) {
  ASSERT_STATUS_OK(a_->Create("v", 1 << 24, Durability::kSync));
  const auto epoch = a_->TakeEpoch("v");
  ASSERT_STATUS_OK(epoch);
  const auto at_a = Find(*a_, "v"), at_b = Find(*b_, "v");
  for (uint64_t version = 1; version <= 20; ++version) {
    const uint64_t page = version * 64;  // of an extent that is new
    ASSERT_STATUS_OK(WriteVolume(*at_a, epoch->epoch, {{0, version}, {page, version}}));
    EXPECT_EQ(VersionOf(*at_b, 0, 20), version);
    EXPECT_EQ(VersionOf(*at_b, page, 20), version);
  }
}

TEST_F(RadosServers, AWriterThatMovesIsFollowedAndTheOneBeforeIsRefusedForGood) {
  ASSERT_STATUS_OK(a_->Create("v", 1 << 24, Durability::kSync));
  const auto first = a_->TakeEpoch("v");
  ASSERT_STATUS_OK(first);
  const auto at_a = Find(*a_, "v"), at_b = Find(*b_, "v");
  ASSERT_STATUS_OK(WriteVolume(*at_a, first->epoch, {{0, 1}}));
  const auto second = b_->TakeEpoch("v");
  ASSERT_STATUS_OK(second);
  EXPECT_GT(second->epoch, first->epoch);
  for (const uint64_t page : {0, 640}) {
    EXPECT_TRUE(FailsWith(WriteVolume(*at_a, first->epoch, {{page, 2}}),
                          absl::StatusCode::kFailedPrecondition, "was fenced"));
  }
  ASSERT_STATUS_OK(WriteVolume(*at_b, second->epoch, {{0, 3}}));
  EXPECT_EQ(VersionOf(*at_a, 0, 3), 3u);
  EXPECT_EQ(VersionOf(*at_a, 640, 3), 0u);
}

TEST_F(RadosServers, ASnapshotThroughOneHasWhatIsWrittenThroughTheOtherAndDoesNotChange) {
  ASSERT_STATUS_OK(a_->Create("v", 1 << 24, Durability::kSync));
  const auto epoch = a_->TakeEpoch("v");
  ASSERT_STATUS_OK(epoch);
  const auto at_a = Find(*a_, "v"), at_b = Find(*b_, "v");
  for (uint64_t version = 1; version <= 4; ++version) {
    ASSERT_STATUS_OK(WriteVolume(*at_a, epoch->epoch, {{0, version}}));
    ASSERT_STATUS_OK(b_->Snapshot("v", absl::StrCat("s", version)));
    EXPECT_EQ(VersionOf(*at_b, 0, 9), version);
  }
  ASSERT_STATUS_OK(WriteVolume(*at_a, epoch->epoch, {{0, 9}}));
  for (uint64_t version = 1; version <= 4; ++version) {
    EXPECT_EQ(VersionOf(*Find(*a_, absl::StrCat("s", version)), 0, 9), version);
  }
  EXPECT_EQ(VersionOf(*at_b, 0, 9), 9u);
}

TEST_F(RadosServers, AVolumeThatIsDeletedThroughOneIsGoneInTheOther) {
  ASSERT_STATUS_OK(a_->Create("v", 1 << 24, Durability::kSync));
  const auto at_b = Find(*b_, "v");
  EXPECT_EQ(VersionOf(*at_b, 0, 1), 0u);
  ASSERT_STATUS_OK(a_->Delete("v"));
  EXPECT_TRUE(
      FailsWith(at_b->Read(
                    Pages(0, 1), [](PageIndex, absl::string_view) { return absl::OkStatus(); },
                    [](PageRange) { return absl::OkStatus(); }),
                absl::StatusCode::kNotFound, "deleted"));
  EXPECT_TRUE(b_->List().empty());
}

TEST_F(RadosServers, NoneOfManyChangesThroughBothIsLost) {
  constexpr int kVolumes = 15;
  std::vector<std::thread> threads;
  for (const auto& [catalog, name] : {std::pair{a_.get(), "a"}, std::pair{b_.get(), "b"}}) {
    threads.emplace_back([catalog = catalog, name = std::string(name)] {
      for (int i = 0; i < kVolumes; ++i) {
        const std::string volume = absl::StrCat(name, i);
        EXPECT_EQ(catalog->Create(volume, 1 << 20, Durability::kSync).status(), absl::OkStatus());
        EXPECT_EQ(catalog->SetRole(volume, "reader", VolumeRole::kReader).status(),
                  absl::OkStatus());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const auto later = Serve();
  for (VolumeCatalog* catalog : {a_.get(), b_.get(), later.get()}) {
    const std::vector<VolumeInfo> volumes = catalog->List();
    EXPECT_EQ(volumes.size(), 2u * kVolumes);
    std::set<uint64_t> ids;
    for (const VolumeInfo& info : volumes) {
      EXPECT_EQ(info.access.RoleOf("reader"), VolumeRole::kReader) << info.name;
      ids.insert(info.id);
      for (const LayerId layer : info.layers) ids.insert(layer.raw());
    }
    EXPECT_EQ(ids.size(), 4u * kVolumes) << "an id was given out twice";
  }
}

}  // namespace
}  // namespace faultline
