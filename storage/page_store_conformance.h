// SPDX-License-Identifier: Apache-2.0
//
// What every store owes to its callers: tests that a *_test.cc instantiates for its kinds of store.
#ifndef FAULTLINE_STORAGE_PAGE_STORE_CONFORMANCE_H_
#define FAULTLINE_STORAGE_PAGE_STORE_CONFORMANCE_H_

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "storage/faulty_page_store.h"
#include "storage/storage_testing.h"

namespace faultline {

struct StoreKind {
  std::string name;
  bool writable;
  bool keeps;  // what was written, over closing and opening
  // Opens it for a test that has an empty directory for itself.
  std::function<absl::StatusOr<std::unique_ptr<PageStore>>(const std::string& directory)> open;
};

inline void PrintTo(const StoreKind& kind, std::ostream* out) { *out << kind.name; }

// Pages that every store of the reading tests holds in layer 1: runs, gaps and single pages.
inline std::map<uint64_t, uint64_t> ReadingPages() {
  std::map<uint64_t, uint64_t> pages;
  for (uint64_t page = 0; page < 40; ++page) pages[page] = 1;
  for (uint64_t page = 64; page < 96; page += 2) pages[page] = 2;
  pages[200] = 3;
  pages[255] = 4;
  return pages;
}

class PageStoreTest : public testing::TestWithParam<StoreKind> {
 protected:
  using Content = std::map<uint64_t, std::string>;

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
    auto store = GetParam().open(directory_.path());
    ASSERT_STATUS_OK(store);
    store_ = *std::move(store);
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
  EXPECT_TRUE(FailsWith(WriteLayer(*store_, LayerId(1), {{0, 9}}),
                        absl::StatusCode::kFailedPrecondition, why));
  EXPECT_TRUE(
      FailsWith(store_->StartBulkLoad(LayerId(2)), absl::StatusCode::kFailedPrecondition, why));
  EXPECT_TRUE(
      FailsWith(store_->DeleteLayer(LayerId(1)), absl::StatusCode::kFailedPrecondition, why));
  const MetaChange changes[] = {{"key", "value"}};
  EXPECT_TRUE(FailsWith(store_->WriteMeta(changes), absl::StatusCode::kFailedPrecondition, why));
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

inline std::string StoreKindName(const testing::TestParamInfo<StoreKind>& info) {
  return info.param.name;
}

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_PAGE_STORE_CONFORMANCE_H_
