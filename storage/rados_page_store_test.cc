// SPDX-License-Identifier: Apache-2.0
//
// The conformance tests on RADOS, and what is special in that store while nothing fails.
#include "storage/rados_page_store.h"

#include <filesystem>
#include <set>

#include "storage/page_store_conformance.h"
#include "storage/rados_objects.h"
#include "storage/rados_testing.h"
#include "storage/volume_catalog.h"

namespace faultline {
namespace {

const StoreKind kKinds[] = {{"rados", true, true, [](const std::string& dir) {
                               return OpenPageStore(
                                   "rados:pages/" + std::filesystem::path(dir).filename().string(),
                                   RadosOptions());
                             }}};
INSTANTIATE_TEST_SUITE_P(Rados, PageStoreTest, testing::ValuesIn(kKinds), StoreKindName);
INSTANTIATE_TEST_SUITE_P(Rados, WritablePageStoreTest, testing::ValuesIn(kKinds), StoreKindName);

// Deleting goes on in the background.
testing::AssertionResult OnlyTheStoreIsLeft(const std::string& location) {
  const std::set<std::string> expected = {"store"};
  std::set<std::string> objects;
  for (int i = 0; i < 200; ++i) {
    objects = ObjectsOf(location);
    if (objects == expected) return testing::AssertionSuccess();
    usleep(50'000);
  }
  testing::AssertionResult result = testing::AssertionFailure();
  for (const std::string& object : objects) result << object << " ";
  return result;
}

TEST(RadosPageStore, SaysWhatCannotBeOpened) {
  EXPECT_TRUE(FailsWith(OpenPageStore("rados:", RadosOptions()), absl::StatusCode::kInvalidArgument,
                        "needs a pool, as in rados:POOL or rados:POOL/NAMESPACE"));
  EXPECT_TRUE(FailsWith(OpenPageStore("rados:no-such", RadosOptions()), absl::StatusCode::kNotFound,
                        "pool no-such; create it first"));
  PageStoreOptions options = RadosOptions();
  options.rados_user = "nobody";
  EXPECT_TRUE(FailsWith(OpenPageStore("rados:pages", options), absl::StatusCode::kPermissionDenied,
                        "client.nobody"));
  options.rados_conf = "/nonexistent/ceph.conf";
  EXPECT_TRUE(FailsWith(OpenPageStore("rados:pages", options), absl::StatusCode::kNotFound,
                        "/nonexistent/ceph.conf (--rados-conf)"));
}

TEST(RadosPageStore, KeepsNeighbouringPagesInOneObject) {
  const std::string location = NewLocation();
  const auto store = OpenRados(location);
  ASSERT_STATUS_OK(
      WriteLayer(*store, LayerId(7), {{0, 1}, {5, 1}, {63, 1}, {64, 1}, {1 << 20, 1}}));
  EXPECT_EQ(ObjectsOf(location), (std::set<std::string>{"store", "l.7", "d.7.00000000",
                                                        "d.7.00000001", "d.7.00004000"}));
}

TEST(RadosPageStore, ADeletedLayerLeavesNothing) {
  const std::string location = NewLocation();
  auto store = OpenRados(location);
  std::map<uint64_t, uint64_t> pages;
  for (uint64_t page = 0; page < 4096; page += 40) pages[page] = 1;
  ASSERT_STATUS_OK(WriteLayer(*store, LayerId(7), pages));
  ASSERT_STATUS_OK(WriteLayer(*store, LayerId(8), pages));
  ASSERT_STATUS_OK(store->DeleteLayer(LayerId(7)));
  ASSERT_STATUS_OK(store->DeleteLayer(LayerId(8)));
  // Whether it is closed at once, too.
  store = nullptr;
  store = OpenRados(location);
  EXPECT_EQ(ReadLayer(*store, LayerId(8), Pages(0, 4096))->size(), 0u);
  EXPECT_TRUE(OnlyTheStoreIsLeft(location));
}

TEST(RadosPageStore, ALoadThatWasNotEndedIsDeletedWithItsLayer) {
  const std::string location = NewLocation();
  // Which neither commits nor gives the load up before the layer is deleted.
  auto crashed = OpenRados(location);
  auto load = crashed->StartBulkLoad(LayerId(9));
  ASSERT_STATUS_OK(load);
  for (uint64_t page = 0; page < 64 * 40; page += 30) {
    ASSERT_STATUS_OK((*load)->Put(PageIndex(page), PatternEncoded(page, 1)));
  }
  EXPECT_GT(ObjectsOf(location).size(), 20u);
  const auto store = OpenRados(location);
  EXPECT_EQ(ReadLayer(*store, LayerId(9), Pages(0, 4096))->size(), 0u);
  ASSERT_STATUS_OK(store->DeleteLayer(LayerId(9)));
  EXPECT_TRUE(OnlyTheStoreIsLeft(location));
}

TEST(RadosPageStore, EstimatesWhatALayerTakes) {
  const auto store = OpenRados(NewLocation());
  std::map<uint64_t, uint64_t> pages;
  for (uint64_t page = 0; page < 64 * 64; page += 4) pages[page] = 1;
  ASSERT_STATUS_OK(WriteLayer(*store, LayerId(1), pages));
  const auto bytes = store->StoredBytes(LayerId(1));
  ASSERT_STATUS_OK(bytes);
  EXPECT_NEAR(static_cast<double>(*bytes), static_cast<double>(pages.size() * kPageSize),
              0.1 * static_cast<double>(pages.size() * kPageSize));
  ASSERT_STATUS_OK(WriteLayer(*store, LayerId(1), {}, {Pages(0, 64 * 64)}));
  EXPECT_EQ(*store->StoredBytes(LayerId(1)), 0u);
}

// Has the OSDs think that they are full from such a share on.
void SetFullRatio(const std::string& ratio) {
  for (const char* kind : {"nearfull", "backfillfull", "full"}) {
    const std::string line = "ceph -c " + RadosOptions().rados_conf + " osd set-" + kind +
                             "-ratio " + ratio + " >/dev/null 2>&1";
    ASSERT_EQ(system(line.c_str()), 0) << line;
  }
}

TEST(RadosPageStore, AFullPoolTakesNoPagesButDeletes) {
  const auto store = OpenRados(NewLocation());
  ASSERT_STATUS_OK(WriteLayer(*store, LayerId(1), {{0, 1}, {64, 1}}));
  SetFullRatio("0.0001");
  absl::Status status;
  // The OSDs look at that every second.
  for (uint64_t version = 2; version < 300 && status.ok(); ++version) {
    status = WriteLayer(*store, LayerId(1), {{0, version}, {6400 * version, version}});
    usleep(100'000);
  }
  EXPECT_TRUE(FailsWith(status, absl::StatusCode::kResourceExhausted, "the pool is full"));
  EXPECT_EQ(ReadLayer(*store, LayerId(1), Pages(64, 1))->size(), 1u);
  EXPECT_EQ(WriteLayer(*store, LayerId(1), {}, {Pages(64, 1)}), absl::OkStatus());
  EXPECT_EQ(store->DeleteLayer(LayerId(1)), absl::OkStatus());
  SetFullRatio("0.95");
  // Each OSD by itself finds that it is not, and other tests need all of them: so extents of every
  // placement group, for two seconds without a refusal.
  std::map<uint64_t, uint64_t> everywhere;
  for (uint64_t extent = 0; extent < 256; ++extent) everywhere[extent * 64] = 9;
  int in_a_row = 0;
  for (int i = 0; i < 600 && in_a_row < 20; ++i) {
    status = WriteLayer(*store, LayerId(2), everywhere);
    in_a_row = status.ok() ? in_a_row + 1 : 0;
    usleep(100'000);
  }
  EXPECT_EQ(status, absl::OkStatus());
}

// Volumes, snapshots and clones are the same above any store; other servers have them as well.
TEST(RadosPageStore, AnotherServerHasEveryVolume) {
  const std::string location = NewLocation();
  auto catalog = VolumeCatalog::Open(OpenRados(location));
  ASSERT_STATUS_OK(catalog);
  ASSERT_STATUS_OK((*catalog)->Create("disk", 1 << 22, Durability::kSync));
  const auto writer = (*catalog)->TakeEpoch("disk");
  ASSERT_STATUS_OK(writer);
  ASSERT_STATUS_OK(WriteVolume(**(*catalog)->Find("disk"), writer->epoch, {{1, 1}, {100, 1}}));
  ASSERT_STATUS_OK((*catalog)->Snapshot("disk", "before"));
  ASSERT_STATUS_OK(
      WriteVolume(**(*catalog)->Find("disk"), writer->epoch, {{1, 2}}, {Pages(100, 1)}));
  ASSERT_STATUS_OK((*catalog)->Clone("before", "copy"));

  auto next = VolumeCatalog::Open(OpenRados(location));
  ASSERT_STATUS_OK(next);
  const auto expect = [&](const char* name, std::map<uint64_t, uint64_t> versions) {
    std::map<uint64_t, std::array<std::byte, kPageSize>> pages;
    for (const auto& [page, version] : versions) pages[page] = PatternPage(page, version);
    const auto found = ReadVolume(**(*next)->Find(name), Pages(0, 1024));
    ASSERT_STATUS_OK(found);
    EXPECT_TRUE(SamePages(*found, pages)) << name;
  };
  expect("disk", {{1, 2}});
  expect("before", {{1, 1}, {100, 1}});
  expect("copy", {{1, 1}, {100, 1}});
  // Until another writer comes, whichever server the one is at.
  ASSERT_STATUS_OK((*next)->TakeEpoch("disk"));
  EXPECT_TRUE(FailsWith(WriteVolume(**(*catalog)->Find("disk"), writer->epoch, {{7, 7}}),
                        absl::StatusCode::kFailedPrecondition, "was fenced"));
  expect("disk", {{1, 2}});
}

}  // namespace
}  // namespace faultline
