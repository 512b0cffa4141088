// SPDX-License-Identifier: Apache-2.0
#include "storage/volume_catalog.h"

#include <fcntl.h>
#include <unistd.h>

#include <thread>

#include "storage/faulty_page_store.h"
#include "storage/forwarding_page_store.h"
#include "storage/storage_testing.h"

namespace faultline {
namespace {

using absl::StatusCode;
using Page = std::array<std::byte, kPageSize>;

constexpr uint64_t kSize = 64 * kPageSize;

// The memory behind the catalog outlives it, so that opening again shows what was written down.
class VolumeCatalogTest : public testing::Test {
 protected:
  VolumeCatalogTest() { Reopen(); }

  void Reopen() {
    catalog_.reset();
    auto catalog = VolumeCatalog::Open(std::make_unique<ForwardingPageStore>(store_));
    ASSERT_STATUS_OK(catalog);
    catalog_ = *std::move(catalog);
  }

  std::shared_ptr<Volume> Find(absl::string_view name) {
    auto found = catalog_->Find(name);
    EXPECT_TRUE(found.ok()) << found.status();
    return *std::move(found);
  }

  // Makes a volume, becomes its writer, and writes `pages`.
  uint64_t Fill(absl::string_view name, const std::map<uint64_t, uint64_t>& pages) {
    if (!catalog_->Find(name).ok()) {
      EXPECT_TRUE(catalog_->Create(name, kSize, Durability::kSync).ok());
    }
    const auto info = catalog_->TakeEpoch(name);
    EXPECT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(WriteVolume(*Find(name), info->epoch, pages), absl::OkStatus());
    return info->epoch;
  }

  testing::AssertionResult Reads(absl::string_view name,
                                 const std::map<uint64_t, uint64_t>& versions) {
    std::map<uint64_t, Page> expected;
    for (const auto& [page, version] : versions) expected[page] = PatternPage(page, version);
    const auto volume = Find(name);
    const auto found = ReadVolume(*volume, {PageIndex(0), volume->info().size()});
    if (!found.ok()) return testing::AssertionFailure() << found.status();
    return SamePages(*found, expected);
  }

  absl::Status ImportPages(absl::string_view name, const VolumeCatalog::ImportOptions& options,
                           const std::map<uint64_t, uint64_t>& pages) {
    auto import = catalog_->StartImport(name, options);
    if (!import.ok()) return import.status();
    for (const auto& [page, version] : pages) {
      const absl::Status put = (*import)->Put(PageIndex(page), PatternEncoded(page, version));
      if (!put.ok()) return put;
    }
    return (*import)->Commit().status();
  }

  std::map<std::string, std::string> Meta() {
    const auto meta = store_->ReadMeta();
    EXPECT_TRUE(meta.ok());
    return {meta->begin(), meta->end()};
  }

  size_t LayerKeys() {
    size_t keys = 0;
    for (const auto& [key, value] : Meta()) keys += key.starts_with("layer/");
    return keys;
  }

  std::shared_ptr<FaultyPageStore> store_ =
      std::make_shared<FaultyPageStore>(*OpenPageStore("memory:", {}), FaultyPageStore::Faults());
  std::unique_ptr<VolumeCatalog> catalog_;
};

TEST_F(VolumeCatalogTest, RemembersEverythingOfAVolume) {
  ASSERT_STATUS_OK(catalog_->Create("b", kSize, Durability::kInterval));
  ASSERT_STATUS_OK(catalog_->Create("a", 5000, Durability::kNone));
  Fill("b", {{1, 1}});
  ASSERT_STATUS_OK(catalog_->Snapshot("b", "b.1"));
  const auto before = catalog_->List();
  Reopen();
  const auto after = catalog_->List();
  ASSERT_EQ(after.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(after[i].name, before[i].name);
    EXPECT_EQ(after[i].id, before[i].id);
    EXPECT_EQ(after[i].kind, before[i].kind);
    EXPECT_EQ(after[i].size_bytes, before[i].size_bytes);
    EXPECT_EQ(after[i].layers, before[i].layers);
    EXPECT_EQ(after[i].parent, before[i].parent);
    EXPECT_EQ(after[i].epoch, before[i].epoch);
    EXPECT_EQ(after[i].durability, before[i].durability);
    EXPECT_EQ(absl::ToUnixMicros(after[i].created), absl::ToUnixMicros(before[i].created));
  }
  EXPECT_EQ(after[0].name, "a");
  EXPECT_EQ(after[0].size_bytes, 5000u);
  EXPECT_EQ(after[0].durability, Durability::kNone);
  EXPECT_EQ(after[2].name, "b.1");
  EXPECT_EQ(after[2].kind, VolumeInfo::Kind::kSnapshot);
  EXPECT_EQ(after[2].parent, "b");
  EXPECT_TRUE(Reads("b", {{1, 1}}));
}

TEST_F(VolumeCatalogTest, TakesOnlyNamesThatAreSafeEverywhere) {
  for (const std::string& bad : {std::string(), std::string("a/b"), std::string(129, 'a')}) {
    EXPECT_TRUE(FailsWith(catalog_->Create(bad, kSize, Durability::kSync),
                          StatusCode::kInvalidArgument, "allowed are 1 to 128 letters"))
        << bad;
  }
  EXPECT_TRUE(catalog_->List().empty());
}

TEST_F(VolumeCatalogTest, RefusesSizesThatNoVolumeCanHave) {
  for (const uint64_t size : {uint64_t{0}, kMaxVolumePages * kPageSize + 1, ~uint64_t{0}}) {
    EXPECT_TRUE(FailsWith(catalog_->Create("a", size, Durability::kSync),
                          StatusCode::kInvalidArgument, absl::StrCat("a size of ", size)));
    EXPECT_TRUE(FailsWith(catalog_->StartImport("a", {.size_bytes = size}),
                          StatusCode::kInvalidArgument, absl::StrCat("a size of ", size)));
  }
}

TEST_F(VolumeCatalogTest, NamesWhatIsNotThereAndWhatIsThereAlready) {
  ASSERT_STATUS_OK(catalog_->Create("a", kSize, Durability::kSync));
  ASSERT_STATUS_OK(catalog_->Snapshot("a", "s"));
  const absl::string_view taken = "there already is a volume or snapshot \"s\"";
  EXPECT_TRUE(FailsWith(catalog_->Create("s", kSize, Durability::kSync), StatusCode::kAlreadyExists,
                        taken));
  EXPECT_TRUE(FailsWith(catalog_->Snapshot("a", "s"), StatusCode::kAlreadyExists, taken));
  EXPECT_TRUE(FailsWith(catalog_->Clone("s", "s"), StatusCode::kAlreadyExists, taken));
  const absl::string_view missing = "there is no volume or snapshot \"x\"";
  EXPECT_TRUE(FailsWith(catalog_->Find("x"), StatusCode::kNotFound, missing));
  EXPECT_TRUE(FailsWith(catalog_->Snapshot("x", "y"), StatusCode::kNotFound, missing));
  EXPECT_TRUE(FailsWith(catalog_->Clone("x", "y"), StatusCode::kNotFound, missing));
  EXPECT_TRUE(FailsWith(catalog_->Delete("x"), StatusCode::kNotFound, missing));
  EXPECT_TRUE(FailsWith(catalog_->TakeEpoch("x"), StatusCode::kNotFound, missing));
  EXPECT_TRUE(FailsWith(catalog_->FindById(99), StatusCode::kNotFound, "the id 99"));
}

TEST_F(VolumeCatalogTest, ASnapshotKeepsItsContentAndCopiesNothing) {
  const uint64_t epoch = Fill("a", {{1, 1}, {2, 1}});
  const uint64_t stored = store_->Stats().stored_bytes;
  ASSERT_STATUS_OK(catalog_->Snapshot("a", "s"));
  EXPECT_EQ(store_->Stats().stored_bytes, stored);
  // The writer goes on, unfenced.
  ASSERT_STATUS_OK(WriteVolume(*Find("a"), epoch, {{2, 2}, {3, 2}}, {Pages(1, 1)}));
  EXPECT_TRUE(Reads("s", {{1, 1}, {2, 1}}));
  EXPECT_TRUE(Reads("a", {{2, 2}, {3, 2}}));
  Reopen();
  EXPECT_TRUE(Reads("s", {{1, 1}, {2, 1}}));
  EXPECT_TRUE(Reads("a", {{2, 2}, {3, 2}}));
}

TEST_F(VolumeCatalogTest, ASnapshotNeverChanges) {
  Fill("a", {{1, 1}});
  ASSERT_STATUS_OK(catalog_->Snapshot("a", "s"));
  const absl::string_view why = "\"s\" is a snapshot, which never changes";
  EXPECT_TRUE(FailsWith(catalog_->TakeEpoch("s"), StatusCode::kFailedPrecondition, why));
  EXPECT_TRUE(FailsWith(catalog_->Snapshot("s", "t"), StatusCode::kFailedPrecondition, why));
  EXPECT_TRUE(FailsWith(Find("s")->Trim(Pages(0, 64)), StatusCode::kFailedPrecondition, why));
  EXPECT_TRUE(
      FailsWith(WriteVolume(*Find("s"), 1, {{1, 2}}), StatusCode::kFailedPrecondition, why));
  EXPECT_TRUE(FailsWith(catalog_->StartImport("s", {.size_bytes = kSize, .replace = true}),
                        StatusCode::kFailedPrecondition, why));
  EXPECT_TRUE(Reads("s", {{1, 1}}));
}

TEST_F(VolumeCatalogTest, ClonesOfOneSnapshotAreIndependent) {
  Fill("a", {{1, 1}, {2, 1}, {3, 1}});
  ASSERT_STATUS_OK(catalog_->Snapshot("a", "s"));
  ASSERT_STATUS_OK(catalog_->Clone("s", "c"));
  ASSERT_STATUS_OK(catalog_->Clone("s", "d"));
  EXPECT_EQ(Find("c")->info().parent, "s");
  Fill("c", {{1, 2}});
  ASSERT_STATUS_OK(Find("d")->Trim(Pages(2, 1)));
  EXPECT_TRUE(Reads("a", {{1, 1}, {2, 1}, {3, 1}}));
  EXPECT_TRUE(Reads("s", {{1, 1}, {2, 1}, {3, 1}}));
  EXPECT_TRUE(Reads("c", {{1, 2}, {2, 1}, {3, 1}}));
  EXPECT_TRUE(Reads("d", {{1, 1}, {3, 1}}));
  EXPECT_TRUE(FailsWith(catalog_->Clone("a", "e"), StatusCode::kFailedPrecondition,
                        "\"a\" is no snapshot"));
}

TEST_F(VolumeCatalogTest, ANewEpochFencesTheWriterBefore) {
  const uint64_t first = Fill("a", {{1, 1}});
  const uint64_t second = Fill("a", {{2, 2}});
  EXPECT_GT(second, first);
  EXPECT_TRUE(FailsWith(WriteVolume(*Find("a"), first, {{1, 3}}), StatusCode::kFailedPrecondition,
                        "fenced"));
  Reopen();
  ASSERT_STATUS_OK(WriteVolume(*Find("a"), second, {{3, 2}}));
  const auto third = catalog_->TakeEpoch("a");
  ASSERT_STATUS_OK(third);
  EXPECT_GT(third->epoch, second);
  EXPECT_TRUE(Reads("a", {{1, 1}, {2, 2}, {3, 2}}));
}

// How a writer goes on at another server: asked again it is told the same, and who has been
// superseded never gets back.
TEST_F(VolumeCatalogTest, AWriterGoesOnOnlyAsTheLastOne) {
  constexpr uint64_t kMe = 17, kOther = 18;
  ASSERT_STATUS_OK(catalog_->Create("a", kSize, Durability::kSync));
  ASSERT_STATUS_OK(catalog_->Create("b", kSize, Durability::kSync));
  const uint64_t first = catalog_->TakeEpoch("a", 0, {.writer = kMe})->epoch;
  ASSERT_STATUS_OK(catalog_->TakeEpoch("b", 0, {.writer = kOther}));
  ASSERT_STATUS_OK(WriteVolume(*Find("a"), first, {{1, 1}}));
  Reopen();
  const auto second = catalog_->TakeEpoch("a", 0, {.writer = kMe, .from_epoch = first});
  ASSERT_STATUS_OK(second);
  EXPECT_EQ(second->epoch, first + 1);
  Reopen();
  EXPECT_EQ(catalog_->TakeEpoch("a", 0, {.writer = kMe, .from_epoch = first})->epoch, first + 1);
  EXPECT_TRUE(FailsWith(WriteVolume(*Find("a"), first, {{1, 2}}), StatusCode::kFailedPrecondition,
                        "fenced"));
  ASSERT_STATUS_OK(WriteVolume(*Find("a"), second->epoch, {{2, 2}}));

  const auto refused = [&](const std::string& name, EpochClaim claim) {
    return FailsWith(catalog_->TakeEpoch(name, 0, claim), StatusCode::kFailedPrecondition,
                     "another writer has opened it");
  };
  EXPECT_TRUE(refused("b", {.writer = kMe, .from_epoch = first}));
  EXPECT_TRUE(refused("a", {.writer = kOther, .from_epoch = second->epoch}));
  EXPECT_TRUE(refused("a", {.writer = 0, .from_epoch = second->epoch}));
  const uint64_t third = catalog_->TakeEpoch("a", 0, {.writer = kOther})->epoch;
  EXPECT_TRUE(refused("a", {.writer = kMe, .from_epoch = second->epoch}));
  // One who tells no name ends it as well, and so does new content.
  const uint64_t fourth = catalog_->TakeEpoch("a")->epoch;
  EXPECT_TRUE(refused("a", {.writer = kOther, .from_epoch = third}));
  EXPECT_TRUE(refused("a", {.writer = 0, .from_epoch = fourth}));
}

TEST_F(VolumeCatalogTest, ChainsOfLayersHaveALimit) {
  ASSERT_STATUS_OK(catalog_->Create("a", kSize, Durability::kSync));
  for (size_t i = 1; i < kMaxLayers; ++i) {
    ASSERT_STATUS_OK(catalog_->Snapshot("a", absl::StrCat("s", i)));
  }
  const std::string why = absl::StrCat("already has ", kMaxLayers, " layers");
  EXPECT_TRUE(FailsWith(catalog_->Snapshot("a", "more"), StatusCode::kFailedPrecondition, why));
  // The last snapshot has one layer less than the volume, so it can still be cloned, once deep.
  ASSERT_STATUS_OK(catalog_->Clone(absl::StrCat("s", kMaxLayers - 1), "c"));
  EXPECT_TRUE(FailsWith(catalog_->Snapshot("c", "more"), StatusCode::kFailedPrecondition, why));
  Fill("c", {{1, 1}});
  EXPECT_TRUE(Reads("c", {{1, 1}}));
}

TEST_F(VolumeCatalogTest, LayersThatAVolumeAloneHasArePutTogether) {
  Fill("a", {{5, 77}, {6, 77}});
  for (uint64_t i = 1; i <= 768; ++i) {
    const std::string snapshot = absl::StrCat("s", i);
    Fill("a", {{i % 3, i}});
    if (i == 30) ASSERT_STATUS_OK(Find("a")->Trim(Pages(6, 1)));  // it stays in the layers below
    ASSERT_STATUS_OK(catalog_->Snapshot("a", snapshot));
    if (i != 41) ASSERT_STATUS_OK(catalog_->Delete(snapshot));
    ASSERT_LE(Find("a")->info().layers.size(), kFoldLayers + 1);
  }
  const std::map<uint64_t, uint64_t> now = {{0, 768}, {1, 766}, {2, 767}, {5, 77}};
  const std::map<uint64_t, uint64_t> then = {{0, 39}, {1, 40}, {2, 41}, {5, 77}};
  EXPECT_TRUE(Reads("a", now));
  EXPECT_TRUE(Reads("s41", then));
  Reopen();
  EXPECT_TRUE(Reads("a", now));
  EXPECT_TRUE(Reads("s41", then));
  EXPECT_EQ(LayerKeys(), Find("a")->info().layers.size());
}

TEST_F(VolumeCatalogTest, DeleteFreesWhatNobodyShares) {
  Fill("a", {{1, 1}, {2, 1}});
  ASSERT_STATUS_OK(catalog_->Snapshot("a", "s"));
  ASSERT_STATUS_OK(catalog_->Clone("s", "c"));
  Fill("a", {{3, 2}});
  const uint64_t page_bytes = kEncodedHeaderBytes + kPageSize;
  EXPECT_EQ(store_->Stats().stored_bytes, 3 * page_bytes);
  ASSERT_STATUS_OK(catalog_->Delete("a"));
  EXPECT_EQ(store_->Stats().stored_bytes, 2 * page_bytes);
  ASSERT_STATUS_OK(catalog_->Delete("s"));
  EXPECT_TRUE(Reads("c", {{1, 1}, {2, 1}}));
  ASSERT_STATUS_OK(catalog_->Delete("c"));
  EXPECT_EQ(store_->Stats().stored_bytes, 0u);
  EXPECT_EQ(LayerKeys(), 0u);
}

TEST_F(VolumeCatalogTest, StoredBytesCountsSharedLayersForEveryVolumeThatHasThem) {
  Fill("a", {{1, 1}, {2, 1}});
  ASSERT_STATUS_OK(catalog_->Snapshot("a", "s"));
  Fill("a", {{3, 2}});
  const uint64_t page_bytes = kEncodedHeaderBytes + kPageSize;
  const auto whole = catalog_->StoredBytes(Find("a")->info());
  ASSERT_STATUS_OK(whole);
  EXPECT_EQ(*whole, 3 * page_bytes);
  const auto frozen = catalog_->StoredBytes(Find("s")->info());
  ASSERT_STATUS_OK(frozen);
  EXPECT_EQ(*frozen, 2 * page_bytes);
}

TEST_F(VolumeCatalogTest, WhoHoldsADeletedVolumeIsTold) {
  const uint64_t epoch = Fill("a", {{1, 1}});
  const auto held = Find("a");
  const uint64_t id = held->info().id;
  ASSERT_STATUS_OK(catalog_->Delete("a"));
  const absl::string_view why = "volume \"a\" was deleted";
  EXPECT_TRUE(FailsWith(ReadVolume(*held, Pages(0, 1)), StatusCode::kNotFound, why));
  EXPECT_TRUE(FailsWith(WriteVolume(*held, epoch, {{1, 1}}), StatusCode::kNotFound, why));
  EXPECT_TRUE(FailsWith(held->Trim(Pages(0, 1)), StatusCode::kNotFound, why));
  // A volume of the same name is another one.
  const auto again = catalog_->Create("a", kSize, Durability::kSync);
  ASSERT_STATUS_OK(again);
  EXPECT_GT(again->id, id);
  EXPECT_TRUE(FailsWith(ReadVolume(*held, Pages(0, 1)), StatusCode::kNotFound, why));
}

TEST_F(VolumeCatalogTest, IdsAreNotUsedAgainAfterOpening) {
  const auto first = catalog_->Create("a", kSize, Durability::kSync);
  ASSERT_STATUS_OK(first);
  ASSERT_STATUS_OK(catalog_->Delete("a"));
  Reopen();
  const auto second = catalog_->Create("a", kSize, Durability::kSync);
  ASSERT_STATUS_OK(second);
  EXPECT_GT(second->id, first->id);
  EXPECT_GT(second->layers[0], first->layers[0]);
}

TEST_F(VolumeCatalogTest, AFailedChangeChangesNothing) {
  const uint64_t epoch = Fill("a", {{1, 1}});
  store_->set_disk_full(true);
  const absl::string_view why = "the disk is full";
  EXPECT_TRUE(FailsWith(catalog_->Create("b", kSize, Durability::kSync),
                        StatusCode::kResourceExhausted, why));
  EXPECT_TRUE(FailsWith(catalog_->Snapshot("a", "s"), StatusCode::kResourceExhausted, why));
  EXPECT_TRUE(FailsWith(catalog_->TakeEpoch("a"), StatusCode::kResourceExhausted, why));
  EXPECT_TRUE(FailsWith(catalog_->StartImport("b", {.size_bytes = kSize}),
                        StatusCode::kResourceExhausted, why));
  store_->set_disk_full(false);
  ASSERT_EQ(catalog_->List().size(), 1u);
  EXPECT_EQ(catalog_->List()[0].layers.size(), 1u);
  ASSERT_STATUS_OK(WriteVolume(*Find("a"), epoch, {{2, 1}}));
  Reopen();
  EXPECT_TRUE(Reads("a", {{1, 1}, {2, 1}}));
}

// Imports

TEST_F(VolumeCatalogTest, AnImportMakesAVolumeAtItsCommit) {
  auto import = catalog_->StartImport(
      "a", {.size_bytes = 5 * kPageSize - 1, .durability = Durability::kInterval});
  ASSERT_STATUS_OK(import);
  ASSERT_STATUS_OK((*import)->Put(PageIndex(1), PatternEncoded(1, 1)));
  ASSERT_STATUS_OK((*import)->Put(PageIndex(4), PatternEncoded(4, 1)));
  EXPECT_TRUE(FailsWith((*import)->Put(PageIndex(5), PatternEncoded(5, 1)), StatusCode::kOutOfRange,
                        "page 5 lies beyond the 5 pages"));
  EXPECT_TRUE(FailsWith((*import)->Put(PageIndex(4), PatternEncoded(4, 1)),
                        StatusCode::kInvalidArgument, "page 4 comes after page 4"));
  EXPECT_FALSE(catalog_->Find("a").ok());
  const auto info = (*import)->Commit();
  ASSERT_STATUS_OK(info);
  EXPECT_EQ(info->size_bytes, 5 * kPageSize - 1);
  EXPECT_EQ(info->durability, Durability::kInterval);
  EXPECT_TRUE(Reads("a", {{1, 1}, {4, 1}}));
  import->reset();
  Reopen();
  EXPECT_TRUE(Reads("a", {{1, 1}, {4, 1}}));
  Fill("a", {{1, 2}});
  EXPECT_TRUE(Reads("a", {{1, 2}, {4, 1}}));
}

TEST_F(VolumeCatalogTest, AnImportThatIsGivenUpLeavesNothing) {
  Fill("a", {{1, 1}});
  const size_t layers = LayerKeys();
  for (const char* name : {"a", "b"}) {
    auto import = catalog_->StartImport(name, {.size_bytes = kSize, .replace = true});
    ASSERT_STATUS_OK(import);
    ASSERT_STATUS_OK((*import)->Put(PageIndex(2), PatternEncoded(2, 2)));
  }
  EXPECT_EQ(LayerKeys(), layers);
  EXPECT_EQ(catalog_->List().size(), 1u);
  EXPECT_TRUE(Reads("a", {{1, 1}}));
}

TEST_F(VolumeCatalogTest, AnImportReplacesContentOnlyWhereThatWasAskedFor) {
  const uint64_t epoch = Fill("a", {{1, 1}, {2, 1}});
  EXPECT_TRUE(FailsWith(ImportPages("a", {.size_bytes = kSize}, {{3, 3}}),
                        StatusCode::kFailedPrecondition, "\"a\" already holds pages"));
  EXPECT_TRUE(Reads("a", {{1, 1}, {2, 1}}));
  ASSERT_STATUS_OK(catalog_->Snapshot("a", "s"));
  ASSERT_STATUS_OK(ImportPages("a", {.size_bytes = kSize, .replace = true}, {{3, 3}}));
  EXPECT_TRUE(Reads("a", {{3, 3}}));
  EXPECT_TRUE(Reads("s", {{1, 1}, {2, 1}}));
  EXPECT_TRUE(FailsWith(WriteVolume(*Find("a"), epoch, {{1, 1}}), StatusCode::kFailedPrecondition,
                        "fenced"));
  EXPECT_EQ(Find("a")->info().parent, "");
  ASSERT_STATUS_OK(catalog_->Delete("s"));
  EXPECT_EQ(LayerKeys(), 1u);
  Reopen();
  EXPECT_TRUE(Reads("a", {{3, 3}}));
}

TEST_F(VolumeCatalogTest, AVolumeWithoutPagesMayBeImportedInto) {
  Fill("a", {{1, 1}});
  ASSERT_STATUS_OK(Find("a")->Trim(Pages(0, 64)));
  ASSERT_STATUS_OK(ImportPages("a", {.size_bytes = kPageSize}, {{0, 3}}));
  EXPECT_TRUE(Reads("a", {{0, 3}}));
  EXPECT_EQ(Find("a")->info().size_bytes, kSize);
}

TEST_F(VolumeCatalogTest, AnImportMustFitIntoTheVolume) {
  ASSERT_STATUS_OK(catalog_->Create("a", kSize, Durability::kSync));
  EXPECT_TRUE(FailsWith(ImportPages("a", {.size_bytes = kSize + 1, .replace = true}, {}),
                        StatusCode::kInvalidArgument,
                        absl::StrCat("has ", kSize, " bytes, too few for the ", kSize + 1)));
}

TEST_F(VolumeCatalogTest, AnImportCommitsOnlyIntoTheStateThatItStartedFrom) {
  ASSERT_STATUS_OK(catalog_->Create("a", kSize, Durability::kSync));
  auto filled = catalog_->StartImport("a", {.size_bytes = kSize});
  ASSERT_STATUS_OK(filled);
  Fill("a", {{1, 1}});
  EXPECT_TRUE(
      FailsWith((*filled)->Commit(), StatusCode::kFailedPrecondition, "already holds pages"));
  auto deleted = catalog_->StartImport("a", {.size_bytes = kSize, .replace = true});
  ASSERT_STATUS_OK(deleted);
  ASSERT_STATUS_OK(catalog_->Delete("a"));
  EXPECT_TRUE(FailsWith((*deleted)->Commit(), StatusCode::kNotFound, "\"a\" was deleted while"));
  auto created = catalog_->StartImport("a", {.size_bytes = kSize});
  ASSERT_STATUS_OK(created);
  Fill("a", {{2, 2}});
  EXPECT_TRUE(FailsWith((*created)->Commit(), StatusCode::kAlreadyExists, "there already is"));
  filled->reset();
  deleted->reset();
  created->reset();
  EXPECT_EQ(LayerKeys(), 1u);
  EXPECT_TRUE(Reads("a", {{2, 2}}));
}

// Crashes

TEST_F(VolumeCatalogTest, OpenDeletesLayersThatACrashLeft) {
  Fill("a", {{1, 1}});
  auto import = catalog_->StartImport("b", {.size_bytes = kSize});
  ASSERT_STATUS_OK(import);
  const MetaChange next[] = {{"next", "100"}, {"layer/50", ""}};
  ASSERT_STATUS_OK(store_->WriteMeta(next));
  ASSERT_STATUS_OK(WriteLayer(*store_, LayerId(50), {{1, 1}}));
  EXPECT_EQ(LayerKeys(), 3u);
  auto reopened = VolumeCatalog::Open(std::make_unique<ForwardingPageStore>(store_));
  ASSERT_STATUS_OK(reopened);
  EXPECT_EQ(LayerKeys(), 1u);
  const auto left = store_->StoredBytes(LayerId(50));
  ASSERT_STATUS_OK(left);
  EXPECT_EQ(*left, 0u);
  EXPECT_TRUE(Reads("a", {{1, 1}}));
}

TEST_F(VolumeCatalogTest, OpenRefusesDamagedMetadata) {
  Fill("a", {{1, 1}});
  const auto good = Meta();
  const std::string layer = absl::StrCat("layer/", Find("a")->info().layers[0].raw());
  const std::string record = good.at("volume/a");
  const std::vector<std::pair<MetaChange, std::string>> damages = {
      {{"volume/a", "\xff\xff"}, "key \"volume/a\" does not hold the record of a volume"},
      {{"volume/a", ""}, "key \"volume/a\" holds a record that makes no sense"},
      {{"volume/.a", record}, "key \"volume/.a\" is not the name of a volume"},
      {{"volume/b", record}, "key \"volume/b\" has the id of another volume"},
      {{layer, std::nullopt}, absl::StrCat("key \"", layer, "\" is missing")},
      {{"layer/x", ""}, "key \"layer/x\" is not the key of a layer"},
      {{"layer/999", ""}, "key \"next\" is behind"},
      {{"next", "x"}, "key \"next\" does not hold a number"},
      {{"next", std::nullopt}, "the store's metadata is damaged"},
      {{"other", "x"}, "key \"other\" is unknown to this program"}};
  for (const auto& [damage, message] : damages) {
    ASSERT_STATUS_OK(store_->WriteMeta({&damage, 1}));
    EXPECT_TRUE(FailsWith(VolumeCatalog::Open(std::make_unique<ForwardingPageStore>(store_)),
                          StatusCode::kDataLoss, message));
    const MetaChange undo[] = {{damage.key, good.contains(damage.key)
                                                ? std::optional(good.at(damage.key))
                                                : std::nullopt}};
    ASSERT_STATUS_OK(store_->WriteMeta(undo));
  }
  Reopen();
  EXPECT_TRUE(Reads("a", {{1, 1}}));
}

// Concurrency

// The writer sets all pages to one version with each write, so a snapshot with two versions in it
// was taken in the middle of one.
TEST_F(VolumeCatalogTest, ASnapshotHasAllOfAWriteOrNothing) {
  const uint64_t epoch = Fill("a", {});
  const auto volume = Find("a");
  absl::Status written;
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    for (uint64_t version = 1; !stop && written.ok(); ++version) {
      std::map<uint64_t, uint64_t> pages;
      for (uint64_t page = 0; page < 8; ++page) pages[page] = version % 7;
      written = WriteVolume(*volume, epoch, pages);
    }
  });
  for (int i = 0; i < 40; ++i) {
    const std::string name = absl::StrCat("s", i);
    const auto snapshot = catalog_->Snapshot("a", name);
    EXPECT_TRUE(snapshot.ok()) << snapshot.status();
    const auto found = ReadVolume(*Find(name), Pages(0, 64));
    EXPECT_TRUE(found.ok()) << found.status();
    if (!found.ok() || found->empty()) continue;
    EXPECT_EQ(found->size(), 8u);
    bool whole = false;
    for (uint64_t version = 0; version < 7; ++version) {
      std::map<uint64_t, Page> expected;
      for (uint64_t page = 0; page < 8; ++page) expected[page] = PatternPage(page, version);
      whole |= *found == expected;
    }
    EXPECT_TRUE(whole) << name;
  }
  stop = true;
  writer.join();
  EXPECT_EQ(written, absl::OkStatus());
}

TEST_F(VolumeCatalogTest, NoWriteOfAnOldEpochIsAppliedAfterTheNewOneWasGiven) {
  uint64_t epoch = Fill("a", {});
  const auto volume = Find("a");
  for (uint64_t round = 1; round <= 30; ++round) {
    std::thread old_writer([&, epoch] {
      while (WriteVolume(*volume, epoch, {{0, round}, {1, round}}).ok()) continue;
    });
    const auto info = catalog_->TakeEpoch("a");
    EXPECT_TRUE(info.ok()) << info.status();
    EXPECT_EQ(WriteVolume(*volume, info->epoch, {{0, 1000 + round}}), absl::OkStatus());
    old_writer.join();
    const auto found = ReadVolume(*volume, Pages(0, 1));
    ASSERT_STATUS_OK(found);
    EXPECT_TRUE(SamePages(*found, {{0, PatternPage(0, 1000 + round)}}));
    epoch = info->epoch;
  }
}

TEST_F(VolumeCatalogTest, ANewWriterBeginsItsGenerationsAnew) {
  const uint64_t first = Fill("a", {});
  const auto volume = Find("a");
  ASSERT_STATUS_OK(WriteVolume(*volume, VolumeWriter{first, 7}, {{1, 1}}));
  const auto second = catalog_->TakeEpoch("a");
  ASSERT_STATUS_OK(second);
  ASSERT_STATUS_OK(WriteVolume(*volume, VolumeWriter{second->epoch, 0}, {{1, 2}}));
  EXPECT_TRUE(FailsWith(WriteVolume(*volume, VolumeWriter{first, 8}, {{1, 3}}),
                        StatusCode::kFailedPrecondition, "was fenced"));
  const auto found = ReadVolume(*volume, Pages(0, 2));
  ASSERT_STATUS_OK(found);
  EXPECT_TRUE(SamePages(*found, {{1, PatternPage(1, 2)}}));
}

// Raw images

TEST(RawImageCatalog, ServesTheImageAsOneReadOnlyVolume) {
  TemporaryDirectory directory;
  const std::string path = directory.path() + "/vm.mem";
  const int fd = open(path.c_str(), O_CREAT | O_RDWR, 0600);
  ASSERT_GE(fd, 0);
  const auto bytes = PatternPage(1, 1);
  ASSERT_EQ(pwrite(fd, bytes.data(), kPageSize, kPageSize), static_cast<ssize_t>(kPageSize));
  ASSERT_EQ(ftruncate(fd, 9 * kPageSize - 5), 0);
  close(fd);
  auto store = OpenPageStore("file:" + path, {});
  ASSERT_STATUS_OK(store);
  auto catalog = VolumeCatalog::Open(*std::move(store));
  ASSERT_STATUS_OK(catalog);
  const auto list = (*catalog)->List();
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].name, "vm.mem");
  EXPECT_EQ(list[0].size_bytes, 9 * kPageSize - 5);
  const auto volume = (*catalog)->FindById(list[0].id);
  ASSERT_STATUS_OK(volume);
  const auto found = ReadVolume(**volume, Pages(0, 9));
  ASSERT_STATUS_OK(found);
  EXPECT_TRUE(SamePages(*found, {{1, bytes}}));
  for (const absl::Status& status :
       {(*catalog)->TakeEpoch("vm.mem").status(), (*catalog)->Delete("vm.mem"),
        (*catalog)->Create("x", kSize, Durability::kSync).status(),
        (*catalog)->Snapshot("vm.mem", "x").status(), (*catalog)->Clone("vm.mem", "x").status(),
        (*volume)->Trim(Pages(0, 1)), WriteVolume(**volume, 1, {{0, 1}})}) {
    EXPECT_TRUE(FailsWith(status, StatusCode::kFailedPrecondition, "read-only"));
  }
}

TEST_F(VolumeCatalogTest, AVolumeMadeAnewIsAnotherOne) {
  const auto first = catalog_->Create("a", kSize, Durability::kSync);
  ASSERT_STATUS_OK(first);
  const uint64_t identity = catalog_->IdentityOf(*first);
  Reopen();
  EXPECT_EQ(catalog_->IdentityOf(Find("a")->info()), identity);
  ASSERT_STATUS_OK(catalog_->Delete("a"));
  const auto second = catalog_->Create("a", kSize, Durability::kSync);
  ASSERT_STATUS_OK(second);
  EXPECT_NE(catalog_->IdentityOf(*second), identity);
}

// A client that has opened a volume fetches by its id, also from a server that came later.
TEST(RawImageCatalog, HasAnIdByItsName) {
  TemporaryDirectory directory;
  const auto id_of = [&](const std::string& name) {
    const std::string path = directory.path() + "/" + name;
    const int fd = open(path.c_str(), O_CREAT | O_RDWR, 0600);
    EXPECT_EQ(ftruncate(fd, kPageSize), 0);
    close(fd);
    auto catalog = VolumeCatalog::Open(*OpenPageStore("file:" + path, {}));
    return (*catalog)->List()[0].id;
  };
  EXPECT_EQ(id_of("one"), id_of("one"));
  EXPECT_NE(id_of("one"), id_of("other"));
}

}  // namespace
}  // namespace faultline
