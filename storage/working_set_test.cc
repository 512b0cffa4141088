// SPDX-License-Identifier: Apache-2.0
//
// Working sets: merged, kept, passed on, dropped with the volume, and survived when damaged.
#include <fcntl.h>
#include <unistd.h>

#include <thread>

#include "storage/forwarding_page_store.h"
#include "storage/storage_testing.h"
#include "storage/volume_catalog.h"

namespace faultline {
namespace {

using absl::StatusCode;
using Strings = std::vector<std::string>;

constexpr uint64_t kChunk = PageSet::kChunkPages.raw();
constexpr uint64_t kVolumePages = 3 * kChunk;

PageSet SetOf(const std::vector<PageRange>& ranges, uint64_t volume_pages = kVolumePages) {
  absl::StatusOr<PageSet> set = PageSet::Create(PageCount(volume_pages));
  EXPECT_TRUE(set.ok()) << set.status();
  for (const PageRange range : ranges) set->Insert(range);
  return *std::move(set);
}

// "FIRST+COUNT" for each run.
Strings Runs(const PageSet& set) {
  Strings runs;
  for (PageRange r = set.NextRun(PageIndex(0)); !r.empty(); r = set.NextRun(r.end())) {
    runs.push_back(absl::StrCat(r.first.raw(), "+", r.count.raw()));
  }
  return runs;
}

// Lets so many changes through, then fails them.
class StoppingPageStore final : public ForwardingPageStore {
 public:
  using ForwardingPageStore::ForwardingPageStore;

  absl::Status Write(LayerId layer, const PageWrites& writes, Durability durability) override {
    if (absl::Status status = Change(); !status.ok()) return status;
    return ForwardingPageStore::Write(layer, writes, durability);
  }
  absl::Status WriteMeta(std::span<const MetaChange> changes) override {
    if (absl::Status status = Change(); !status.ok()) return status;
    return ForwardingPageStore::WriteMeta(changes);
  }
  absl::Status DeleteLayer(LayerId layer) override {
    if (absl::Status status = Change(); !status.ok()) return status;
    return ForwardingPageStore::DeleteLayer(layer);
  }

  int changes_left = 1 << 30;

 private:
  absl::Status Change() {
    if (changes_left == 0) return absl::ResourceExhaustedError("the disk is full (injected)");
    --changes_left;
    return absl::OkStatus();
  }
};

class WorkingSetTest : public testing::TestWithParam<std::string> {
 protected:
  WorkingSetTest() { Reopen(); }

  void Reopen() {
    catalog_.reset();
    if (GetParam() == "rocksdb") store_.reset();
    if (store_ == nullptr) {
      PageStoreOptions options;
      options.memory_bytes = uint64_t{16} << 20;
      auto store = OpenPageStore(
          GetParam() == "rocksdb" ? "rocksdb:" + directory_.path() : "memory:", options);
      ASSERT_STATUS_OK(store);
      store_ = *std::move(store);
    }
    auto stopping = std::make_unique<StoppingPageStore>(store_);
    stopping_ = stopping.get();
    auto catalog = VolumeCatalog::Open(std::move(stopping));
    ASSERT_STATUS_OK(catalog);
    catalog_ = *std::move(catalog);
  }

  void Create(absl::string_view name, uint64_t pages = kVolumePages) {
    ASSERT_STATUS_OK(catalog_->Create(name, pages * kPageSize, Durability::kSync));
  }
  VolumeInfo Info(absl::string_view name) {
    const auto volume = catalog_->Find(name);
    EXPECT_TRUE(volume.ok()) << volume.status();
    return volume.ok() ? (*volume)->info() : VolumeInfo();
  }
  absl::StatusOr<PageCount> Merge(absl::string_view name, const std::vector<PageRange>& ranges) {
    return catalog_->MergeWorkingSet(Info(name).id, WorkingSet(SetOf(ranges)));
  }
  Strings Get(absl::string_view name) {
    const auto set = catalog_->GetWorkingSet(Info(name).id);
    EXPECT_TRUE(set.ok()) << set.status();
    return set.ok() ? Runs(set->pages()) : Strings();
  }
  absl::Status Import(absl::string_view name) {
    auto import =
        catalog_->StartImport(name, {.size_bytes = kVolumePages * kPageSize, .replace = true});
    if (!import.ok()) return import.status();
    if (absl::Status put = (*import)->Put(PageIndex(0), PatternEncoded(0, 1)); !put.ok()) {
      return put;
    }
    return (*import)->Commit().status();
  }
  size_t LayerKeys() {
    const auto meta = store_->ReadMeta();
    EXPECT_TRUE(meta.ok());
    size_t keys = 0;
    for (const auto& [key, value] : *meta) keys += key.starts_with("layer/");
    return keys;
  }
  // What `layer` has in the store.
  size_t StoredChunks(LayerId layer) {
    const auto found = ReadLayer(*store_, layer, Pages(0, 1000));
    EXPECT_TRUE(found.ok()) << found.status();
    return found->size();
  }

  TemporaryDirectory directory_;
  std::shared_ptr<PageStore> store_;
  std::unique_ptr<VolumeCatalog> catalog_;
  StoppingPageStore* stopping_ = nullptr;  // of the catalog
};

INSTANTIATE_TEST_SUITE_P(Stores, WorkingSetTest, testing::Values("memory", "rocksdb"),
                         [](const auto& parameter) { return parameter.param; });

TEST_P(WorkingSetTest, IsEmptyUntilOneIsMerged) {
  Create("v");
  EXPECT_EQ(Get("v"), Strings());
  EXPECT_EQ(*Merge("v", {}), PageCount(0));
  EXPECT_EQ(LayerKeys(), 1u) << "an empty set was stored";
  EXPECT_EQ(*Merge("v", {Pages(5, 3), Pages(2 * kChunk, 1)}), PageCount(4));
  EXPECT_EQ(Get("v"), (Strings{"5+3", "65536+1"}));
  EXPECT_EQ(LayerKeys(), 2u);
}

TEST_P(WorkingSetTest, MergingIsTheUnionAndSurvivesOpeningAgain) {
  Create("v");
  ASSERT_STATUS_OK(Merge("v", {Pages(0, 10), Pages(kChunk, 1)}));
  EXPECT_EQ(*Merge("v", {Pages(5, 10), Pages(kVolumePages - 1, 1)}), PageCount(17));
  EXPECT_EQ(Get("v"), (Strings{"0+15", "32768+1", "98303+1"}));
  Reopen();
  EXPECT_EQ(Get("v"), (Strings{"0+15", "32768+1", "98303+1"}));
  EXPECT_EQ(*Merge("v", {Pages(15, 1)}), PageCount(18));
  Reopen();
  EXPECT_EQ(Get("v"), (Strings{"0+16", "32768+1", "98303+1"}));
  EXPECT_EQ(LayerKeys(), 2u);
}

TEST_P(WorkingSetTest, TheOrderOfTheFirstPagesIsKept) {
  Create("v");
  const auto merge = [this](const std::vector<uint64_t>& pages) {
    absl::StatusOr<WorkingSet> set = WorkingSet::Create(PageCount(kVolumePages));
    ASSERT_STATUS_OK(set);
    for (const uint64_t page : pages) set->Insert(PageIndex(page));
    ASSERT_STATUS_OK(catalog_->MergeWorkingSet(Info("v").id, *set));
  };
  std::vector<uint64_t> many;  // more than a page of the layer holds
  for (uint64_t i = 0; i < 1000; ++i) many.push_back(kVolumePages - 1 - 2 * i);
  merge(many);
  merge({5, many[7], 0, 3});
  Reopen();
  ASSERT_STATUS_OK(Merge("v", {Pages(100, 1)}));  // of which no order is known
  merge({100, 4});
  Reopen();
  const auto kept = catalog_->GetWorkingSet(Info("v").id);
  ASSERT_STATUS_OK(kept);
  std::vector<uint64_t> first;
  for (const PageIndex page : kept->first()) first.push_back(page.raw());
  for (const uint64_t page : {5, 0, 3, 4}) many.push_back(page);
  EXPECT_EQ(first, many);
  EXPECT_EQ(kept->pages().count(), PageCount(1005));
}

TEST_P(WorkingSetTest, AnOrderOfPagesThatTheSetDoesNotHaveIsDamage) {
  Create("v");
  ASSERT_STATUS_OK(Merge("v", {Pages(0, 1)}));
  const PageIndex order(kMaxPageSetVolume.raw() / kChunk);
  const std::string encoded = PatternEncoded(order.raw(), 1);
  PageWrites damage;
  damage.puts.push_back({order, encoded});
  ASSERT_EQ(store_->Write(Info("v").working_set, damage, Durability::kSync), absl::OkStatus());
  EXPECT_EQ(Get("v"), Strings());
  EXPECT_EQ(*Merge("v", {Pages(9, 1)}), PageCount(1));
}

TEST_P(WorkingSetTest, NothingNewIsNotWritten) {
  Create("v");
  ASSERT_STATUS_OK(Merge("v", {Pages(0, 10)}));
  stopping_->changes_left = 0;
  EXPECT_EQ(*Merge("v", {Pages(3, 2)}), PageCount(10));
}

TEST_P(WorkingSetTest, ASnapshotAndItsClonesStartWithWhatThereWasAndGoTheirOwnWay) {
  Create("v");
  ASSERT_STATUS_OK(Merge("v", {Pages(1, 1)}));
  ASSERT_STATUS_OK(catalog_->Snapshot("v", "s"));
  ASSERT_STATUS_OK(Merge("v", {Pages(10, 1)}));
  EXPECT_EQ(Get("s"), Strings{"1+1"});
  ASSERT_STATUS_OK(catalog_->Clone("s", "a"));
  ASSERT_STATUS_OK(Merge("s", {Pages(20, 1)}));
  ASSERT_STATUS_OK(catalog_->Clone("s", "b"));
  ASSERT_STATUS_OK(Merge("a", {Pages(30, 1)}));
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(Get("v"), (Strings{"1+1", "10+1"}));
    EXPECT_EQ(Get("s"), (Strings{"1+1", "20+1"}));
    EXPECT_EQ(Get("a"), (Strings{"1+1", "30+1"}));
    EXPECT_EQ(Get("b"), (Strings{"1+1", "20+1"}));
    Reopen();
  }
  // Content: one layer each of v, s and two clones; sets: of v, of a, and one of s and b.
  EXPECT_EQ(LayerKeys(), 4u + 3u);
}

TEST_P(WorkingSetTest, OfASnapshotIsNotPartOfItsContent) {
  Create("v");
  ASSERT_STATUS_OK(catalog_->Snapshot("v", "s"));
  const VolumeInfo before = Info("s");
  ASSERT_STATUS_OK(Merge("s", {Pages(0, kVolumePages)}));
  EXPECT_EQ(Info("s").layers, before.layers);
  const auto pages = ReadVolume(**catalog_->Find("s"), Pages(0, 100));
  ASSERT_STATUS_OK(pages);
  EXPECT_TRUE(pages->empty());
  EXPECT_EQ(*catalog_->StoredBytes(Info("s")), 0u);
}

TEST_P(WorkingSetTest, IsDeletedWithTheLastVolumeThatHasIt) {
  Create("v");
  ASSERT_STATUS_OK(Merge("v", {Pages(1, 1)}));
  const LayerId layer = Info("v").working_set;
  ASSERT_STATUS_OK(catalog_->Snapshot("v", "s"));
  ASSERT_STATUS_OK(catalog_->Delete("v"));
  EXPECT_EQ(Get("s"), Strings{"1+1"});
  EXPECT_EQ(StoredChunks(layer), 1u);
  ASSERT_STATUS_OK(catalog_->Delete("s"));
  EXPECT_EQ(StoredChunks(layer), 0u);
  EXPECT_EQ(LayerKeys(), 0u);
}

TEST_P(WorkingSetTest, IsDroppedWhenAnImportReplacesTheContent) {
  Create("v");
  ASSERT_STATUS_OK(Merge("v", {Pages(1, 1)}));
  ASSERT_STATUS_OK(catalog_->Snapshot("v", "s"));
  ASSERT_STATUS_OK(Import("v"));
  EXPECT_EQ(Get("v"), Strings());
  EXPECT_EQ(Get("s"), Strings{"1+1"}) << "the snapshot's content was not replaced";
  ASSERT_STATUS_OK(Merge("v", {Pages(7, 1)}));
  ASSERT_STATUS_OK(Import("v"));
  Reopen();
  EXPECT_EQ(Get("v"), Strings());
  EXPECT_EQ(LayerKeys(), 3u) << "content of both, and the snapshot's set";
}

TEST_P(WorkingSetTest, AnImportThatIsGivenUpKeepsIt) {
  Create("v");
  ASSERT_STATUS_OK(Merge("v", {Pages(1, 1)}));
  catalog_->StartImport("v", {.size_bytes = kPageSize, .replace = true})->reset();
  EXPECT_EQ(Get("v"), Strings{"1+1"});
}

TEST_P(WorkingSetTest, ClearedItIsEmptyAndCanBeRecordedAnew) {
  Create("v");
  EXPECT_EQ(catalog_->ClearWorkingSet("v"), absl::OkStatus());
  ASSERT_STATUS_OK(Merge("v", {Pages(1, 1)}));
  ASSERT_STATUS_OK(catalog_->Snapshot("v", "s"));
  EXPECT_EQ(catalog_->ClearWorkingSet("v"), absl::OkStatus());
  EXPECT_EQ(Get("v"), Strings());
  EXPECT_EQ(Get("s"), Strings{"1+1"});
  EXPECT_EQ(catalog_->ClearWorkingSet("s"), absl::OkStatus());
  EXPECT_EQ(LayerKeys(), 2u);
  ASSERT_STATUS_OK(Merge("v", {Pages(2, 1)}));
  Reopen();
  EXPECT_EQ(Get("v"), Strings{"2+1"});
  EXPECT_EQ(Get("s"), Strings());
}

TEST_P(WorkingSetTest, WhatIsNotThereOrOfAnotherSizeIsRefused) {
  Create("v");
  EXPECT_TRUE(FailsWith(catalog_->GetWorkingSet(99), StatusCode::kNotFound, "id 99"));
  EXPECT_TRUE(FailsWith(catalog_->MergeWorkingSet(99, WorkingSet(SetOf({}))), StatusCode::kNotFound,
                        "id 99"));
  EXPECT_TRUE(FailsWith(catalog_->ClearWorkingSet("w"), StatusCode::kNotFound, "\"w\""));
  EXPECT_TRUE(FailsWith(catalog_->ClearWorkingSet("../w"), StatusCode::kInvalidArgument, "128"));
  EXPECT_TRUE(
      FailsWith(catalog_->MergeWorkingSet(Info("v").id, WorkingSet(SetOf({}, kVolumePages + 1))),
                StatusCode::kInvalidArgument, "volume \"v\" has 98304 pages"));
}

TEST_P(WorkingSetTest, AVolumeThatIsTooLargeHasNone) {
  Create("huge", kMaxPageSetVolume.raw() + 1);
  EXPECT_TRUE(FailsWith(catalog_->GetWorkingSet(Info("huge").id), StatusCode::kFailedPrecondition,
                        "has no sets of pages"));
  Create("large", kMaxPageSetVolume.raw());
  PageSet set = SetOf({Pages(kMaxPageSetVolume.raw() - 1, 1)}, kMaxPageSetVolume.raw());
  ASSERT_STATUS_OK(catalog_->MergeWorkingSet(Info("large").id, WorkingSet(std::move(set))));
  EXPECT_EQ(Get("large"), Strings{"1073741823+1"});
}

TEST_P(WorkingSetTest, MoreRunsThanAreKeptAreRefusedAndTheRestStays) {
  constexpr uint64_t kPages = 4 * kMaxPageSetRuns;
  Create("v", kPages);
  PageSet even = SetOf({}, kPages);
  PageSet more = SetOf({}, kPages);
  for (uint64_t i = 0; i < kMaxPageSetRuns; ++i) {
    even.Insert(PageIndex(2 * i));
    more.Insert(PageIndex(2 * kMaxPageSetRuns + 2 * i));
  }
  const uint64_t id = Info("v").id;
  ASSERT_STATUS_OK(catalog_->MergeWorkingSet(id, WorkingSet(std::move(even))));
  EXPECT_TRUE(FailsWith(catalog_->MergeWorkingSet(id, WorkingSet(std::move(more))),
                        StatusCode::kResourceExhausted, "would have more than 1048576 runs"));
  const auto kept = catalog_->GetWorkingSet(id);
  ASSERT_STATUS_OK(kept);
  EXPECT_EQ(kept->pages().count(), PageCount(kMaxPageSetRuns));
}

TEST_P(WorkingSetTest, ADamagedOneCountsAsNoneAndTheNextMergeReplacesIt) {
  Create("v");
  ASSERT_STATUS_OK(Merge("v", {Pages(1, 1), Pages(kChunk, 1)}));
  const LayerId layer = Info("v").working_set;
  std::string encoded;
  EncodePage(PageIndex(1), PatternPage(1, 1), Codec::kRaw, &encoded);
  encoded.back() = static_cast<char>(encoded.back() ^ 1);
  PageWrites damage;
  damage.puts.push_back({PageIndex(1), encoded});
  ASSERT_EQ(store_->Write(layer, damage, Durability::kSync), absl::OkStatus());
  testing::internal::CaptureStderr();
  EXPECT_EQ(Get("v"), Strings());
  EXPECT_EQ(Get("v"), Strings());
  const std::string log = testing::internal::GetCapturedStderr();
  const size_t first = log.find("the working set of volume \"v\" is damaged");
  EXPECT_NE(first, std::string::npos) << log;
  EXPECT_EQ(log.find("is damaged", first + 50), std::string::npos) << "said twice: " << log;
  Reopen();
  EXPECT_EQ(Get("v"), Strings());
  EXPECT_EQ(*Merge("v", {Pages(9, 1)}), PageCount(1));
  EXPECT_EQ(Get("v"), Strings{"9+1"});
  EXPECT_EQ(LayerKeys(), 2u) << "the damaged one is still there";
}

TEST_P(WorkingSetTest, PagesBeyondTheVolumeInAStoredSetAreDamage) {
  Create("v", kChunk + 1);
  ASSERT_STATUS_OK(
      catalog_->MergeWorkingSet(Info("v").id, WorkingSet(SetOf({Pages(0, 1)}, kChunk + 1))));
  const std::string encoded = PatternEncoded(1, 1);  // a whole chunk, of which one page is there
  PageWrites damage;
  damage.puts.push_back({PageIndex(1), encoded});
  ASSERT_EQ(store_->Write(Info("v").working_set, damage, Durability::kSync), absl::OkStatus());
  EXPECT_EQ(Get("v"), Strings());
}

// As a program leaves it that knows of no working sets.
TEST_P(WorkingSetTest, OneWhoseLayerIsGoneCountsAsNone) {
  Create("v");
  ASSERT_STATUS_OK(Merge("v", {Pages(1, 1)}));
  const LayerId layer = Info("v").working_set;
  ASSERT_EQ(store_->DeleteLayer(layer), absl::OkStatus());
  const MetaChange gone[] = {{absl::StrCat("layer/", layer.raw()), std::nullopt}};
  ASSERT_EQ(store_->WriteMeta(gone), absl::OkStatus());
  Reopen();
  EXPECT_EQ(Get("v"), Strings());
  ASSERT_STATUS_OK(Merge("v", {Pages(2, 1)}));
  Reopen();
  EXPECT_EQ(Get("v"), Strings{"2+1"});
}

// Wherever the disk fills up or the process ends, the set is the old one or the new one.
TEST_P(WorkingSetTest, AMergeThatFailsHalfwayChangesNothingAndLeavesNothing) {
  Create("v");
  ASSERT_STATUS_OK(Merge("v", {Pages(1, 1)}));
  ASSERT_STATUS_OK(catalog_->Snapshot("v", "s"));
  const size_t layers = LayerKeys();
  int changes = 0;
  for (;; ++changes) {
    SCOPED_TRACE(changes);
    stopping_->changes_left = changes;
    const auto merged = Merge("v", {Pages(2, 1)});
    if (merged.ok()) break;
    EXPECT_EQ(merged.status().code(), StatusCode::kResourceExhausted);
    EXPECT_EQ(Get("v"), Strings{"1+1"});
    Reopen();
    EXPECT_EQ(Get("v"), Strings{"1+1"});
    EXPECT_EQ(LayerKeys(), layers);
  }
  EXPECT_EQ(changes, 3) << "the layer, its content, the record";
  EXPECT_EQ(Get("v"), Strings{"1+2"});
  Reopen();
  EXPECT_EQ(Get("v"), Strings{"1+2"});
  EXPECT_EQ(Get("s"), Strings{"1+1"});
  // In place: nothing but the content changes.
  stopping_->changes_left = 0;
  EXPECT_FALSE(Merge("v", {Pages(3, 1)}).ok());
  EXPECT_EQ(Get("v"), Strings{"1+2"});
  stopping_->changes_left = 1;
  EXPECT_EQ(*Merge("v", {Pages(3, 1)}), PageCount(3));
}

TEST_P(WorkingSetTest, ConcurrentMergesLoseNothing) {
  constexpr uint64_t kThreads = 4;
  constexpr uint64_t kMerges = 20;
  Create("v");
  const uint64_t id = Info("v").id;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, id, t] {
      for (uint64_t i = 0; i < kMerges; ++i) {
        const auto merged =
            catalog_->MergeWorkingSet(id, WorkingSet(SetOf({Pages((i * kThreads + t) * 2, 1)})));
        EXPECT_TRUE(merged.ok()) << merged.status();
        EXPECT_TRUE(catalog_->GetWorkingSet(id).ok());
      }
    });
  }
  // Meanwhile sets are shared and go apart again.
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(catalog_->Snapshot("v", "s").ok());
    EXPECT_TRUE(catalog_->Delete("s").ok());
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Get("v").size(), kThreads * kMerges);
  Reopen();
  EXPECT_EQ(Get("v").size(), kThreads * kMerges);
}

TEST(RawImageWorkingSet, IsEmptyAndCannotBeKept) {
  TemporaryDirectory directory;
  const std::string path = directory.path() + "/image";
  const int fd = open(path.c_str(), O_CREAT | O_RDWR, 0600);
  ASSERT_EQ(ftruncate(fd, 10 * kPageSize), 0);
  close(fd);
  auto store = OpenPageStore("file:" + path, {});
  ASSERT_STATUS_OK(store);
  const auto catalog = VolumeCatalog::Open(*std::move(store));
  ASSERT_STATUS_OK(catalog);
  const VolumeInfo image = (*catalog)->List().front();
  const auto set = (*catalog)->GetWorkingSet(image.id);
  ASSERT_STATUS_OK(set);
  EXPECT_TRUE(set->pages().empty());
  EXPECT_EQ(set->pages().volume_size(), PageCount(10));
  EXPECT_TRUE(FailsWith((*catalog)->MergeWorkingSet(image.id, WorkingSet(SetOf({Pages(0, 1)}, 10))),
                        StatusCode::kFailedPrecondition,
                        "cannot be kept: this server serves a raw "
                        "image, read-only"));
  EXPECT_TRUE(FailsWith((*catalog)->ClearWorkingSet(image.name), StatusCode::kFailedPrecondition,
                        "read-only"));
}

}  // namespace
}  // namespace faultline
