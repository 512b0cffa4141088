// SPDX-License-Identifier: Apache-2.0
//
// What every store owes to its callers.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <thread>

#include "storage/faulty_page_store.h"
#include "storage/storage_testing.h"

namespace faultline {
namespace {

using absl::StatusCode;
using Content = std::map<uint64_t, std::string>;

struct StoreKind {
  std::string name;
  bool writable;
  bool keeps;  // what was written, over closing and opening
};

void PrintTo(const StoreKind& kind, std::ostream* out) { *out << kind.name; }

// Pages that every store of the reading tests holds in layer 1: runs, gaps and single pages.
std::map<uint64_t, uint64_t> ReadingPages() {
  std::map<uint64_t, uint64_t> pages;
  for (uint64_t page = 0; page < 40; ++page) pages[page] = 1;
  for (uint64_t page = 64; page < 96; page += 2) pages[page] = 2;
  pages[200] = 3;
  pages[255] = 4;
  return pages;
}

class PageStoreTest : public testing::TestWithParam<StoreKind> {
 protected:
  void SetUp() override {
    if (GetParam().name == "file") {
      MakeImage();
    }
    Reopen();
    if (GetParam().writable) {
      ASSERT_STATUS_OK(WriteLayer(*store_, LayerId(1), ReadingPages()));
    }
  }

  void MakeImage() {
    const int fd = open((directory_.path() + "/image").c_str(), O_CREAT | O_RDWR, 0600);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(ftruncate(fd, 256 * kPageSize), 0);
    for (const auto& [page, version] : ReadingPages()) {
      const auto bytes = PatternPage(page, version);
      ASSERT_EQ(pwrite(fd, bytes.data(), kPageSize, static_cast<off_t>(page * kPageSize)),
                static_cast<ssize_t>(kPageSize));
    }
    close(fd);
  }

  void Reopen() {
    store_.reset();
    std::string spec = "memory:";
    if (GetParam().name == "rocksdb") spec = "rocksdb:" + directory_.path();
    if (GetParam().name == "file") spec = "file:" + directory_.path() + "/image";
    PageStoreOptions options;
    options.memory_bytes = uint64_t{16} << 20;
    auto store = OpenPageStore(spec, options);
    ASSERT_STATUS_OK(store);
    store_ = *std::move(store);
    if (GetParam().name == "faulty") {
      store_ = std::make_unique<FaultyPageStore>(std::move(store_), FaultyPageStore::Faults());
    }
  }

  Content Read(LayerId layer, PageRange range) {
    auto found = ReadLayer(*store_, layer, range);
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() ? *found : Content();
  }

  static Content Encoded(const std::map<uint64_t, uint64_t>& pages) {
    Content encoded;
    for (const auto& [page, version] : pages) encoded[page] = PatternEncoded(page, version);
    return encoded;
  }

  TemporaryDirectory directory_;
  std::unique_ptr<PageStore> store_;
};

// Reading

TEST_P(PageStoreTest, ReadsExactlyThePagesOfTheRangeThatAreHeld) {
  const Content all = Encoded(ReadingPages());
  // Lengths on both sides of every threshold between ways of reading.
  for (const uint64_t count : {1, 2, 3, 7, 8, 9, 16, 17, 63, 64, 65, 256}) {
    for (uint64_t first = 0; first + count <= 256; first += 5) {
      const Content expected(all.lower_bound(first), all.lower_bound(first + count));
      ASSERT_TRUE(SamePages(Read(LayerId(1), Pages(first, count)), expected))
          << first << "+" << count;
    }
  }
}

TEST_P(PageStoreTest, ReadsNothingOfAnEmptyRangeOrAnUnknownLayer) {
  EXPECT_TRUE(SamePages(Read(LayerId(1), Pages(3, 0)), Content()));
  EXPECT_TRUE(SamePages(Read(LayerId(2), Pages(0, 1)), Content()));
  EXPECT_TRUE(SamePages(Read(LayerId(2), Pages(0, 256)), Content()));
  EXPECT_TRUE(SamePages(Read(LayerId(0), Pages(0, 256)), Content()));
}

TEST_P(PageStoreTest, ReadStopsAtTheFirstErrorOfTheVisitor) {
  for (const uint64_t count : {1, 4, 40}) {
    int calls = 0;
    const absl::Status status =
        store_->Read(LayerId(1), Pages(0, count), [&](PageIndex, absl::string_view) {
          ++calls;
          return absl::AbortedError("enough");
        });
    EXPECT_EQ(status, absl::AbortedError("enough"));
    EXPECT_EQ(calls, 1);
  }
}

TEST_P(PageStoreTest, AVisitorMayReadTheStore) {
  int inner = 0;
  ASSERT_STATUS_OK(store_->Read(LayerId(1), Pages(0, 8), [&](PageIndex page, absl::string_view) {
    return store_->Read(LayerId(1), PageRange::Single(page), [&](PageIndex, absl::string_view) {
      ++inner;
      return absl::OkStatus();
    });
  }));
  EXPECT_EQ(inner, 8);
}

TEST_P(PageStoreTest, StoredBytesIsZeroOnlyForAnEmptyLayer) {
  const auto stored = store_->StoredBytes(LayerId(1));
  ASSERT_STATUS_OK(stored);
  EXPECT_GT(*stored, 0u);
  const auto empty = store_->StoredBytes(LayerId(77));
  ASSERT_STATUS_OK(empty);
  EXPECT_EQ(*empty, 0u);
  EXPECT_GT(store_->Stats().stored_bytes, 0u);
}

TEST_P(PageStoreTest, AReadOnlyStoreRefusesEveryChange) {
  if (GetParam().writable) {
    EXPECT_FALSE(store_->read_only());
    EXPECT_FALSE(store_->raw_image().has_value());
    return;
  }
  EXPECT_TRUE(store_->read_only());
  const absl::string_view why = "read-only; import it into another store";
  EXPECT_TRUE(
      FailsWith(WriteLayer(*store_, LayerId(1), {{0, 9}}), StatusCode::kFailedPrecondition, why));
  EXPECT_TRUE(FailsWith(store_->StartBulkLoad(LayerId(2)), StatusCode::kFailedPrecondition, why));
  EXPECT_TRUE(FailsWith(store_->DeleteLayer(LayerId(1)), StatusCode::kFailedPrecondition, why));
  const MetaChange changes[] = {{"key", "value"}};
  EXPECT_TRUE(FailsWith(store_->WriteMeta(changes), StatusCode::kFailedPrecondition, why));
  EXPECT_TRUE(SamePages(Read(LayerId(1), Pages(0, 256)), Encoded(ReadingPages())));
}

// Writing

class WritablePageStoreTest : public PageStoreTest {};

TEST_P(WritablePageStoreTest, AWriteReplacesAndDeletesFirst) {
  ASSERT_STATUS_OK(WriteLayer(*store_, LayerId(5), {{1, 1}, {2, 1}, {3, 1}, {9, 1}}));
  ASSERT_STATUS_OK(WriteLayer(*store_, LayerId(5), {{2, 7}, {4, 7}}, {Pages(1, 3)}));
  EXPECT_TRUE(SamePages(Read(LayerId(5), Pages(0, 20)), Encoded({{2, 7}, {4, 7}, {9, 1}})));
}

TEST_P(WritablePageStoreTest, DeletesOfAnyLengthEndWhereTheyShould) {
  for (const uint64_t count : {1, 4095, 4096, 100'000}) {
    const LayerId layer(1000 + count);
    ASSERT_STATUS_OK(
        WriteLayer(*store_, layer, {{9, 1}, {10, 1}, {9 + count, 1}, {10 + count, 1}}));
    ASSERT_STATUS_OK(WriteLayer(*store_, layer, {}, {Pages(10, count)}));
    EXPECT_TRUE(SamePages(Read(layer, Pages(0, 200'000)), Encoded({{9, 1}, {10 + count, 1}})))
        << count;
  }
}

TEST_P(WritablePageStoreTest, LayersDoNotMix) {
  ASSERT_STATUS_OK(WriteLayer(*store_, LayerId(10), {{0, 1}, {kMaxVolumePages - 1, 1}}));
  ASSERT_STATUS_OK(WriteLayer(*store_, LayerId(11), {{0, 2}}));
  ASSERT_STATUS_OK(store_->DeleteLayer(LayerId(10)));
  EXPECT_TRUE(SamePages(Read(LayerId(10), Pages(0, kMaxVolumePages)), Content()));
  EXPECT_TRUE(SamePages(Read(LayerId(11), Pages(0, kMaxVolumePages)), Encoded({{0, 2}})));
  EXPECT_TRUE(SamePages(Read(LayerId(1), Pages(0, 256)), Encoded(ReadingPages())));
  ASSERT_STATUS_OK(store_->DeleteLayer(LayerId(10)));
  const auto stored = store_->StoredBytes(LayerId(10));
  ASSERT_STATUS_OK(stored);
  EXPECT_EQ(*stored, 0u);
}

TEST_P(WritablePageStoreTest, ABulkLoadShowsNothingBeforeItsCommit) {
  auto load = store_->StartBulkLoad(LayerId(20));
  ASSERT_STATUS_OK(load);
  for (const uint64_t page : {0, 1, 5, 1000}) {
    ASSERT_STATUS_OK((*load)->Put(PageIndex(page), PatternEncoded(page, 1)));
  }
  EXPECT_TRUE(SamePages(Read(LayerId(20), Pages(0, 2000)), Content()));
  ASSERT_STATUS_OK((*load)->Commit());
  load->reset();
  EXPECT_TRUE(
      SamePages(Read(LayerId(20), Pages(0, 2000)), Encoded({{0, 1}, {1, 1}, {5, 1}, {1000, 1}})));
}

TEST_P(WritablePageStoreTest, ALoadedLayerTakesWritesAndDeletes) {
  auto load = store_->StartBulkLoad(LayerId(20));
  ASSERT_STATUS_OK(load);
  ASSERT_STATUS_OK((*load)->Put(PageIndex(0), PatternEncoded(0, 1)));
  ASSERT_STATUS_OK((*load)->Put(PageIndex(1), PatternEncoded(1, 1)));
  ASSERT_STATUS_OK((*load)->Commit());
  ASSERT_STATUS_OK(WriteLayer(*store_, LayerId(20), {{1, 2}, {2, 2}}, {Pages(0, 1)}));
  EXPECT_TRUE(SamePages(Read(LayerId(20), Pages(0, 10)), Encoded({{1, 2}, {2, 2}})));
}

TEST_P(WritablePageStoreTest, ABulkLoadThatIsGivenUpLeavesNothing) {
  auto load = store_->StartBulkLoad(LayerId(20));
  ASSERT_STATUS_OK(load);
  ASSERT_STATUS_OK((*load)->Put(PageIndex(0), PatternEncoded(0, 1)));
  load->reset();
  EXPECT_TRUE(SamePages(Read(LayerId(20), Pages(0, 10)), Content()));
  const auto stored = store_->StoredBytes(LayerId(20));
  ASSERT_STATUS_OK(stored);
  EXPECT_EQ(*stored, 0u);
}

TEST_P(WritablePageStoreTest, ABulkLoadOfNothingCommits) {
  auto load = store_->StartBulkLoad(LayerId(20));
  ASSERT_STATUS_OK(load);
  ASSERT_STATUS_OK((*load)->Commit());
  EXPECT_TRUE(SamePages(Read(LayerId(20), Pages(0, 10)), Content()));
}

TEST_P(WritablePageStoreTest, MetadataChangesTogetherAndComesOrderedByKey) {
  const MetaChange first[] = {{"b", "1"}, {"a", "2"}, {"c", std::string("\0x", 2)}};
  ASSERT_STATUS_OK(store_->WriteMeta(first));
  const MetaChange second[] = {{"b", std::nullopt}, {"d", ""}, {"never there", std::nullopt}};
  ASSERT_STATUS_OK(store_->WriteMeta(second));
  const auto meta = store_->ReadMeta();
  ASSERT_STATUS_OK(meta);
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"a", "2"}, {"c", std::string("\0x", 2)}, {"d", ""}};
  EXPECT_EQ(*meta, expected);
}

TEST_P(WritablePageStoreTest, EverythingIsThereAfterOpeningAgain) {
  ASSERT_STATUS_OK(WriteLayer(*store_, LayerId(5), {{1, 1}}, {}, Durability::kSync));
  ASSERT_STATUS_OK(WriteLayer(*store_, LayerId(5), {{2, 1}}, {}, Durability::kInterval));
  ASSERT_STATUS_OK(WriteLayer(*store_, LayerId(5), {{3, 1}}, {}, Durability::kNone));
  auto load = store_->StartBulkLoad(LayerId(6));
  ASSERT_STATUS_OK(load);
  ASSERT_STATUS_OK((*load)->Put(PageIndex(8), PatternEncoded(8, 1)));
  ASSERT_STATUS_OK((*load)->Commit());
  load->reset();
  const MetaChange changes[] = {{"key", "value"}};
  ASSERT_STATUS_OK(store_->WriteMeta(changes));
  ASSERT_STATUS_OK(store_->DeleteLayer(LayerId(1)));
  ASSERT_STATUS_OK(store_->Sync());
  if (!GetParam().keeps) return;
  Reopen();
  EXPECT_TRUE(SamePages(Read(LayerId(5), Pages(0, 9)), Encoded({{1, 1}, {2, 1}, {3, 1}})));
  EXPECT_TRUE(SamePages(Read(LayerId(6), Pages(0, 9)), Encoded({{8, 1}})));
  EXPECT_TRUE(SamePages(Read(LayerId(1), Pages(0, 256)), Content()));
  const auto meta = store_->ReadMeta();
  ASSERT_STATUS_OK(meta);
  ASSERT_EQ(meta->size(), 1u);
  EXPECT_EQ(meta->front(), std::make_pair(std::string("key"), std::string("value")));
}

// Every write sets all pages to one version, so a read that finds two has seen part of a write.
TEST_P(WritablePageStoreTest, AReadSeesEveryWriteWholeOrNotAtAll) {
  for (const uint64_t count : {5, 33}) {
    const LayerId layer(1000 + count);
    const auto versions = [&](uint64_t version) {
      std::map<uint64_t, uint64_t> pages;
      for (uint64_t page = 0; page < count; ++page) pages[page] = version;
      return pages;
    };
    ASSERT_STATUS_OK(WriteLayer(*store_, layer, versions(0)));
    std::vector<Content> expected;
    for (uint64_t version = 0; version < 4; ++version)
      expected.push_back(Encoded(versions(version)));
    std::atomic<bool> stop = false;
    absl::Status written;
    std::thread writer([&] {
      for (uint64_t i = 0; !stop && written.ok(); ++i) {
        written = WriteLayer(*store_, layer, versions(i % 4));
      }
    });
    int torn = 0;
    for (int i = 0; i < 300; ++i) {
      const Content found = Read(layer, Pages(0, count));
      torn += std::find(expected.begin(), expected.end(), found) == expected.end();
    }
    stop = true;
    writer.join();
    EXPECT_EQ(written, absl::OkStatus());
    EXPECT_EQ(torn, 0) << "of 300 reads of " << count << " pages";
  }
}

TEST_P(WritablePageStoreTest, ManyThreadsWriteAtOnce) {
  std::vector<std::thread> threads;
  std::vector<absl::Status> results(4);
  for (uint64_t t = 0; t < results.size(); ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < 25 && results[t].ok(); ++i) {
        results[t] = WriteLayer(*store_, LayerId(30 + t), {{i, t}}, {}, Durability::kSync);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (uint64_t t = 0; t < results.size(); ++t) {
    EXPECT_EQ(results[t], absl::OkStatus());
    std::map<uint64_t, uint64_t> pages;
    for (uint64_t i = 0; i < 25; ++i) pages[i] = t;
    EXPECT_TRUE(SamePages(Read(LayerId(30 + t), Pages(0, 100)), Encoded(pages)));
  }
}

const StoreKind kKinds[] = {{"memory", true, false},
                            {"rocksdb", true, true},
                            {"faulty", true, false},
                            {"file", false, true}};
const auto kName = [](const testing::TestParamInfo<StoreKind>& info) { return info.param.name; };

INSTANTIATE_TEST_SUITE_P(Stores, PageStoreTest, testing::ValuesIn(kKinds), kName);
INSTANTIATE_TEST_SUITE_P(Stores, WritablePageStoreTest,
                         testing::ValuesIn(std::span(kKinds).first(3)), kName);

// Opening

TEST(OpenPageStore, SaysWhichStoresThereAre) {
  EXPECT_TRUE(FailsWith(OpenPageStore("mysql:x", {}), StatusCode::kInvalidArgument,
                        "unknown store \"mysql:x\"; known are rocksdb:DIR, memory: and file:PATH"));
  EXPECT_TRUE(FailsWith(OpenPageStore("rocksdb:", {}), StatusCode::kInvalidArgument,
                        "needs a directory, as in rocksdb:DIR"));
}

TEST(OpenPageStore, NamesThePathThatCannotBeOpened) {
  TemporaryDirectory directory;
  const std::string& path = directory.path();
  EXPECT_TRUE(FailsWith(OpenPageStore("rocksdb:" + path + "/no/such", {}), StatusCode::kNotFound,
                        path + "/no/such"));
  EXPECT_TRUE(FailsWith(OpenPageStore("file:" + path + "/image", {}), StatusCode::kNotFound,
                        path + "/image"));
  EXPECT_TRUE(FailsWith(OpenPageStore("file:" + path, {}), StatusCode::kFailedPrecondition,
                        "neither a file nor a block device"));
  const int fd = open((path + "/empty").c_str(), O_CREAT | O_RDWR, 0600);
  ASSERT_GE(fd, 0);
  close(fd);
  EXPECT_TRUE(FailsWith(OpenPageStore("file:" + path + "/empty", {}), StatusCode::kInvalidArgument,
                        "has 0 bytes"));
  EXPECT_TRUE(FailsWith(OpenPageStore("rocksdb:" + path + "/empty", {}),
                        StatusCode::kFailedPrecondition, "is not a directory"));
}

// Raw images

class RawImageTest : public testing::Test {
 protected:
  void MakeImage(const std::string& name, uint64_t size_bytes) {
    path_ = directory_.path() + "/" + name;
    const int fd = open(path_.c_str(), O_CREAT | O_RDWR, 0600);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(ftruncate(fd, static_cast<off_t>(size_bytes)), 0);
    close(fd);
  }
  void Put(uint64_t offset, const std::string& bytes) {
    const int fd = open(path_.c_str(), O_RDWR);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(bytes.size()));
    close(fd);
  }
  std::unique_ptr<PageStore> Open() {
    auto store = OpenPageStore("file:" + path_, {});
    EXPECT_TRUE(store.ok()) << store.status();
    return *std::move(store);
  }

  TemporaryDirectory directory_;
  std::string path_;
};

TEST_F(RawImageTest, IsNamedAfterItsFileWithWhatANameMayNotHoldReplaced) {
  for (const auto& [file, name] : std::map<std::string, std::string>{
           {"vm-1.img", "vm-1.img"}, {".hidden", "_hidden"}, {"a b\xc3\xa4", "a_b__"}}) {
    MakeImage(file, 5000);
    const auto image = Open()->raw_image();
    ASSERT_TRUE(image.has_value());
    EXPECT_EQ(image->name, name);
    EXPECT_EQ(image->size_bytes, 5000u);
  }
}

TEST_F(RawImageTest, PadsItsLastPageWithZeros) {
  MakeImage("image", kPageSize + 3);
  Put(kPageSize, "abc");
  const auto store = Open();
  const auto found = ReadLayer(*store, store->raw_image()->layer, Pages(0, 10));
  ASSERT_STATUS_OK(found);
  ASSERT_EQ(found->size(), 1u);
  std::array<std::byte, kPageSize> scratch;
  const auto bytes = DecodePage(PageIndex(1), found->at(1), scratch);
  ASSERT_STATUS_OK(bytes);
  std::string expected("abc");
  expected.resize(kPageSize);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes->data()), kPageSize), expected);
}

TEST_F(RawImageTest, DoesNotHoldPagesOfZerosThatAreNoHoles) {
  MakeImage("image", 4 * kPageSize);
  Put(0, std::string(4 * kPageSize, '\0'));
  Put(2 * kPageSize + 9, "x");
  const auto store = Open();
  const auto found = ReadLayer(*store, LayerId(1), Pages(0, 4));
  ASSERT_STATUS_OK(found);
  ASSERT_EQ(found->size(), 1u);
  EXPECT_EQ(found->begin()->first, 2u);
}

// A terabyte of hole: reading it page by page would run into the test's time limit.
TEST_F(RawImageTest, PassesOverHolesWithoutReadingThem) {
  constexpr uint64_t kBytes = uint64_t{1} << 40;
  MakeImage("image", kBytes);
  Put(kBytes / 2, "x");
  const auto store = Open();
  const auto found =
      ReadLayer(*store, LayerId(1), {PageIndex(0), PageCount::CoveringBytes(kBytes)});
  ASSERT_STATUS_OK(found);
  ASSERT_EQ(found->size(), 1u);
  EXPECT_EQ(found->begin()->first, kBytes / 2 / kPageSize);
}

TEST_F(RawImageTest, SaysDataLossForWhatWasCutOffWhileServed) {
  for (const bool data_at_the_end : {false, true}) {
    MakeImage("image", 8 * kPageSize);
    Put(0, "x");
    if (data_at_the_end) Put(7 * kPageSize, "y");
    const auto store = Open();
    ASSERT_EQ(truncate(path_.c_str(), 2 * kPageSize + 100), 0);
    const auto kept = ReadLayer(*store, LayerId(1), Pages(0, 1));
    ASSERT_STATUS_OK(kept);
    EXPECT_EQ(kept->size(), 1u);
    for (const PageRange lost : {Pages(2, 1), Pages(3, 1), Pages(7, 1), Pages(0, 8)}) {
      EXPECT_TRUE(FailsWith(ReadLayer(*store, LayerId(1), lost), StatusCode::kDataLoss,
                            path_ + " shrank to "))
          << lost.first.raw();
    }
    ASSERT_EQ(unlink(path_.c_str()), 0);
  }
}

// Faults

TEST(FaultyPageStore, MeetsTheSameFaultsWithTheSameSeed) {
  const auto faults_seen = [](uint64_t seed) {
    FaultyPageStore store(*OpenPageStore("memory:", {}),
                          {.seed = seed, .read_error = 0.2, .write_error = 0.3, .corruption = 0.2});
    std::string seen;
    for (uint64_t i = 0; i < 60; ++i) {
      seen += WriteLayer(store, LayerId(1), {{i % 5, i}}).ok() ? 'w' : '-';
      const auto found = ReadLayer(store, LayerId(1), Pages(i % 5, 1));
      if (!found.ok()) {
        seen += '!';
      } else if (!found->empty()) {
        seen += VerifyPage(PageIndex(i % 5), found->begin()->second).ok() ? 'r' : 'c';
      }
    }
    return seen;
  };
  const std::string seen = faults_seen(7);
  EXPECT_EQ(seen, faults_seen(7));
  EXPECT_NE(seen, faults_seen(8));
  for (const char outcome : {'w', '-', '!', 'r', 'c'}) {
    EXPECT_NE(seen.find(outcome), std::string::npos) << outcome;
  }
}

TEST(FaultyPageStore, AFullDiskRefusesWritesAndNothingElse) {
  FaultyPageStore store(*OpenPageStore("memory:", {}), {});
  ASSERT_STATUS_OK(WriteLayer(store, LayerId(1), {{0, 1}}));
  store.set_disk_full(true);
  EXPECT_TRUE(FailsWith(WriteLayer(store, LayerId(1), {{0, 2}}), StatusCode::kResourceExhausted,
                        "the disk is full"));
  const auto found = ReadLayer(store, LayerId(1), Pages(0, 1));
  ASSERT_STATUS_OK(found);
  EXPECT_EQ(found->at(0), PatternEncoded(0, 1));
  store.set_disk_full(false);
  ASSERT_STATUS_OK(WriteLayer(store, LayerId(1), {{0, 2}}));
}

}  // namespace
}  // namespace faultline
