// SPDX-License-Identifier: Apache-2.0
//
// The conformance tests on the stores that need nothing but this machine, and what is special in
// them.
#include "storage/page_store_conformance.h"

#include <fcntl.h>
#include <unistd.h>

#include <span>

#include "storage/faulty_page_store.h"
#include "storage/storage_testing.h"

namespace faultline {
namespace {

using absl::StatusCode;

absl::StatusOr<std::unique_ptr<PageStore>> OpenSmall(const std::string& spec) {
  PageStoreOptions options;
  options.memory_bytes = uint64_t{16} << 20;
  return OpenPageStore(spec, options);
}

const StoreKind kKinds[] = {
    {"memory", true, false, [](const std::string&) { return OpenSmall("memory:"); }},
    {"rocksdb", true, true, [](const std::string& dir) { return OpenSmall("rocksdb:" + dir); }},
    {"faulty", true, false,
     [](const std::string&) -> absl::StatusOr<std::unique_ptr<PageStore>> {
       return std::make_unique<FaultyPageStore>(*OpenSmall("memory:"), FaultyPageStore::Faults());
     }},
    {"file", false, true,
     [](const std::string& dir) { return OpenSmall("file:" + dir + "/image"); }}};

INSTANTIATE_TEST_SUITE_P(Stores, PageStoreTest, testing::ValuesIn(kKinds), StoreKindName);
INSTANTIATE_TEST_SUITE_P(Stores, WritablePageStoreTest,
                         testing::ValuesIn(std::span(kKinds).first(3)), StoreKindName);

// Opening

TEST(OpenPageStore, SaysWhichStoresThereAre) {
  EXPECT_TRUE(FailsWith(OpenPageStore("mysql:x", {}), StatusCode::kInvalidArgument,
                        "unknown store \"mysql:x\"; known are rocksdb:DIR, memory:, file:PATH and "
                        "rados:POOL[/NAMESPACE]"));
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
