// SPDX-License-Identifier: Apache-2.0
//
// Several catalogs, as of several servers, on one namespace.
#include <absl/strings/str_format.h>

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "storage/forwarding_page_store.h"
#include "storage/rados_objects.h"
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

TEST_F(RadosServers, ADeletedVolumeLeavesNoLock) {
  ASSERT_STATUS_OK(a_->Create("v", 1 << 24, Durability::kSync));
  ASSERT_STATUS_OK(a_->TakeEpoch("v"));
  ASSERT_STATUS_OK(b_->Delete("v"));
  for (const std::string& object : ObjectsOf(location_))
    EXPECT_EQ(object.rfind("w.", 0), ~size_t{0});
}

// As one that is folded into a clone's, after the volume that it was written for was deleted.
TEST_F(RadosServers, ALayerMayComeToAVolumeThatHasHadFewerOwners) {
  const LayerId layer[] = {LayerId(1000)};
  for (int i = 0; i < 3; ++i) {
    ASSERT_STATUS_OK(a_->store().Own(7, layer));
    ASSERT_STATUS_OK(WriteLayer(a_->store(), layer[0], {{0, 1}}));
    ASSERT_STATUS_OK(b_->store().Own(7, layer));
    ASSERT_STATUS_OK(WriteLayer(b_->store(), layer[0], {{0, 2}}));
  }
  b_->store().Disown(7);
  ASSERT_STATUS_OK(a_->store().Own(8, layer));
  ASSERT_STATUS_OK(WriteLayer(a_->store(), layer[0], {{0, 3}}));
}

// Calls functions when a layer is read for the first time, before a bulk load is started, and
// before metadata is changed for the first time.
class InterruptedPageStore final : public ForwardingPageStore {
 public:
  using ForwardingPageStore::ForwardingPageStore;
  absl::Status Read(LayerId layer, PageRange range, Visitor visit) override {
    if (layer == layer_) std::exchange(interrupt_, [] {})();
    return ForwardingPageStore::Read(layer, range, visit);
  }
  absl::StatusOr<std::unique_ptr<BulkLoad>> StartBulkLoad(LayerId layer) override {
    before_load();
    return ForwardingPageStore::StartBulkLoad(layer);
  }
  absl::Status WriteMeta(std::span<const MetaChange> changes) override {
    if (!changes.empty()) std::exchange(before_change, [] {})();
    return ForwardingPageStore::WriteMeta(changes);
  }
  std::function<void()> before_load = [] {}, before_change = [] {};
  void InterruptReadOf(LayerId layer, std::function<void()> interrupt) {
    layer_ = layer;
    interrupt_ = std::move(interrupt);
  }

 private:
  LayerId layer_;
  std::function<void()> interrupt_ = [] {};
};

// A catalog, and its store.
std::pair<std::unique_ptr<VolumeCatalog>, InterruptedPageStore*> ServeInterrupted(
    const std::string& location) {
  auto opened =
      std::make_unique<InterruptedPageStore>(std::shared_ptr<PageStore>(OpenRados(location)));
  InterruptedPageStore* const store = opened.get();
  return {*VolumeCatalog::Open(std::move(opened)), store};
}

TEST_F(RadosServers, AnOwnerThatIsReplacedInTheMiddleOfAReadDoesNotTakeADeletedLayerForZeros) {
  const auto [catalog, store] = ServeInterrupted(location_);
  ASSERT_STATUS_OK(catalog->Create("v", 1 << 24, Durability::kSync));
  const auto epoch = catalog->TakeEpoch("v");
  ASSERT_STATUS_OK(epoch);
  ASSERT_STATUS_OK(WriteVolume(*Find(*catalog, "v"), epoch->epoch, {{5, 1}}));
  ASSERT_STATUS_OK(catalog->Snapshot("v", "s"));
  ASSERT_STATUS_OK(catalog->Delete("s"));
  ASSERT_STATUS_OK(WriteVolume(*Find(*catalog, "v"), epoch->epoch, {{100, 1}}));
  const LayerId below = Find(*catalog, "v")->info().layers.at(1);
  EXPECT_EQ(VersionOf(*Find(*catalog, "v"), 5, 9), 1u);

  bool replaced = false;
  store->InterruptReadOf(below, [&] {
    auto import = b_->StartImport("v", {.size_bytes = 1 << 24, .replace = true});
    ASSERT_STATUS_OK(import);
    ASSERT_STATUS_OK((*import)->Put(PageIndex(5), PatternEncoded(5, 9)));
    ASSERT_STATUS_OK((*import)->Commit());
    const std::string gone = absl::StrFormat("d.%x.00000000", below.raw());
    for (int i = 0; i < 200 && !replaced; ++i, usleep(50'000)) {
      replaced = !ObjectsOf(location_).contains(gone);
    }
  });
  EXPECT_EQ(VersionOf(*Find(*catalog, "v"), 5, 9), 9u);
  EXPECT_TRUE(replaced);
}

TEST_F(RadosServers, AnOwnerThatIsReplacedInTheMiddleOfASnapshotTakesItOfWhatTheNextHasWritten) {
  const auto [catalog, store] = ServeInterrupted(location_);
  ASSERT_STATUS_OK(catalog->Create("v", 1 << 24, Durability::kSync));
  const auto before = catalog->TakeEpoch("v");
  ASSERT_STATUS_OK(before);
  ASSERT_STATUS_OK(WriteVolume(*Find(*catalog, "v"), before->epoch, {{0, 1}, {640, 1}}));
  uint64_t epoch = 0;
  store->before_change = [&] {
    const auto next = b_->TakeEpoch("v");
    ASSERT_STATUS_OK(next);
    epoch = next->epoch;
    ASSERT_STATUS_OK(WriteVolume(*Find(*b_, "v"), epoch, {{0, 2}}));
  };
  ASSERT_STATUS_OK(catalog->Snapshot("v", "s"));
  ASSERT_STATUS_OK(WriteVolume(*Find(*b_, "v"), epoch, {{0, 3}, {640, 3}}));
  EXPECT_TRUE(FailsWith(WriteVolume(*Find(*catalog, "v"), before->epoch, {{0, 4}}),
                        absl::StatusCode::kFailedPrecondition, "was fenced"));
  for (VolumeCatalog* server : {catalog.get(), b_.get()}) {
    EXPECT_EQ(VersionOf(*Find(*server, "s"), 0, 9), 2u);
    EXPECT_EQ(VersionOf(*Find(*server, "s"), 640, 9), 1u);
    EXPECT_EQ(VersionOf(*Find(*server, "v"), 0, 9), 3u);
    EXPECT_EQ(VersionOf(*Find(*server, "v"), 640, 9), 3u);
  }
}

TEST_F(RadosServers, AReadDoesNotWaitForAChangeThatTakesLong) {
  const auto [catalog, store] = ServeInterrupted(location_);
  ASSERT_STATUS_OK(b_->Create("v", 1 << 24, Durability::kSync));
  const auto epoch = b_->TakeEpoch("v");
  ASSERT_STATUS_OK(epoch);
  ASSERT_STATUS_OK(WriteVolume(*Find(*b_, "v"), epoch->epoch, {{5, 3}}));
  const auto volume = Find(*catalog, "v");
  std::future<uint64_t> read;  // may have to wait for the import, where it fails
  store->before_load = [&] {
    // What is known here is not all that there is from now on.
    ASSERT_STATUS_OK(b_->Create("other", 1 << 24, Durability::kSync));
    read = std::async(std::launch::async, [&] { return VersionOf(*volume, 5, 9); });
    ASSERT_EQ(read.wait_for(std::chrono::seconds(20)), std::future_status::ready);
    EXPECT_EQ(read.get(), 3u);
  };
  ASSERT_STATUS_OK(catalog->StartImport("imported", {.size_bytes = 1 << 24}));
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
