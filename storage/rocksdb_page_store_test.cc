// SPDX-License-Identifier: Apache-2.0
//
// What only a store on a disk can get wrong: damage, a full disk, two processes. Crashes have a
// test of their own: rocksdb_crash_test.cc.
#include "storage/rocksdb_page_store.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <functional>

#include "storage/disk_reserve.h"
#include "storage/storage_testing.h"
#include "storage/volume_catalog.h"

namespace faultline {
namespace {

using absl::StatusCode;
namespace fs = std::filesystem;

constexpr uint64_t kMiB = uint64_t{1} << 20;

std::unique_ptr<PageStore> OpenStore(const std::string& dir) {
  PageStoreOptions options;
  options.memory_bytes = 16 * kMiB;
  auto store = OpenPageStore("rocksdb:" + dir, options);
  EXPECT_TRUE(store.ok()) << store.status();
  return store.ok() ? *std::move(store) : nullptr;
}

absl::Status Load(PageStore& store, LayerId layer, uint64_t pages, uint64_t version) {
  auto load = store.StartBulkLoad(layer);
  if (!load.ok()) return load.status();
  for (uint64_t page = 0; page < pages; ++page) {
    const absl::Status status = (*load)->Put(PageIndex(page), PatternEncoded(page, version));
    if (!status.ok()) return status;
  }
  return (*load)->Commit();
}

// Checks that `layer` holds exactly pages 0 to `pages` - 1 in `version`.
testing::AssertionResult Holds(PageStore& store, LayerId layer, uint64_t pages, uint64_t version) {
  uint64_t next = 0;
  const absl::Status status =
      store.Read(layer, Pages(0, kMaxVolumePages),
                 [&](PageIndex page, absl::string_view encoded) -> absl::Status {
                   if (page.raw() != next || encoded != PatternEncoded(next, version)) {
                     return absl::DataLossError(absl::StrCat("expected page ", next, ", got ",
                                                             page.raw(), " or other bytes"));
                   }
                   ++next;
                   return absl::OkStatus();
                 });
  if (!status.ok()) return testing::AssertionFailure() << status;
  if (next != pages) return testing::AssertionFailure() << next << " pages of " << pages;
  return testing::AssertionSuccess();
}

uint64_t TreeBytes(const std::string& dir) {
  uint64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    std::error_code gone;  // a file may be deleted meanwhile
    if (!entry.is_regular_file(gone) || entry.path().filename() == "reserve") continue;
    const uint64_t size = entry.file_size(gone);
    if (!gone) bytes += size;
  }
  return bytes;
}

std::vector<std::string> FilesOf(const std::string& dir, const std::string& extension) {
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (entry.path().extension() == extension) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

void FlipByte(const std::string& path, uint64_t offset) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  const char byte = static_cast<char>(file.get() ^ 0x40);
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(byte);
  ASSERT_TRUE(file.good()) << path;
}

// Waits, with a bound, for something that another thread does in its own time.
bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    usleep(20'000);
  }
  return true;
}

// Damage

TEST(RocksDbPageStore, AFlippedByteCostsTheFourPagesOfItsBlockAndIsNeverHandedOut) {
  TemporaryDirectory directory;
  constexpr uint64_t kPages = 200;
  {
    const auto store = OpenStore(directory.path());
    ASSERT_STATUS_OK(Load(*store, LayerId(1), kPages, 1));
  }
  const auto files = FilesOf(directory.path() + "/db", ".sst");
  ASSERT_EQ(files.size(), 1u);
  // The middle of the payload of page 100, which is the first of its block.
  std::ifstream file(files[0], std::ios::binary);
  const std::string content((std::istreambuf_iterator<char>(file)), {});
  const size_t at = content.find(PatternEncoded(100, 1).substr(2000, 64));
  ASSERT_NE(at, std::string::npos);
  FlipByte(files[0], at);

  const auto store = OpenStore(directory.path());
  for (uint64_t page = 0; page < kPages; ++page) {
    const auto found = ReadLayer(*store, LayerId(1), Pages(page, 1));
    if (100 <= page && page < 104) {
      EXPECT_TRUE(FailsWith(found, StatusCode::kDataLoss,
                            absl::StrCat("reading page ", page, " of layer 1")));
      EXPECT_TRUE(FailsWith(found, StatusCode::kDataLoss, directory.path()));
      continue;
    }
    ASSERT_STATUS_OK(found);
    EXPECT_TRUE(SamePages(*found, {{page, PatternEncoded(page, 1)}}));
  }
  for (const uint64_t count : {4, 64}) {  // every way of reading
    EXPECT_TRUE(FailsWith(ReadLayer(*store, LayerId(1), Pages(98, count)), StatusCode::kDataLoss,
                          "are damaged"));
  }
}

TEST(RocksDbPageStore, ALogDamagedInTheMiddleKeepsTheStoreClosed) {
  TemporaryDirectory directory;
  {
    const auto store = OpenStore(directory.path());
    for (uint64_t page = 0; page < 100; ++page) {
      ASSERT_STATUS_OK(WriteLayer(*store, LayerId(1), {{page, 1}}, {}, Durability::kSync));
    }
  }
  const auto logs = FilesOf(directory.path() + "/db", ".log");
  ASSERT_EQ(logs.size(), 1u);
  ASSERT_GT(fs::file_size(logs[0]), 100 * kPageSize);
  FlipByte(logs[0], fs::file_size(logs[0]) / 2);
  EXPECT_TRUE(FailsWith(OpenPageStore("rocksdb:" + directory.path(), {}), StatusCode::kDataLoss,
                        "stored bytes in " + directory.path() + " are damaged"));
}

// What a crash leaves: the last write is there in part, and nobody was told of it.
TEST(RocksDbPageStore, ALogCutOffInItsLastWriteLosesThatWriteOnly) {
  TemporaryDirectory directory;
  {
    const auto store = OpenStore(directory.path());
    for (uint64_t page = 0; page < 100; ++page) {
      ASSERT_STATUS_OK(WriteLayer(*store, LayerId(1), {{page, 1}}, {}, Durability::kSync));
    }
  }
  const auto logs = FilesOf(directory.path() + "/db", ".log");
  ASSERT_EQ(logs.size(), 1u);
  fs::resize_file(logs[0], fs::file_size(logs[0]) - kPageSize / 2);
  const auto store = OpenStore(directory.path());
  ASSERT_NE(store, nullptr);
  EXPECT_TRUE(Holds(*store, LayerId(1), 99, 1));
}

// One process at a time

TEST(RocksDbPageStore, ADirectoryInUseIsRefusedAndLeftAlone) {
  TemporaryDirectory directory;
  const auto store = OpenStore(directory.path());
  auto load = store->StartBulkLoad(LayerId(1));
  ASSERT_STATUS_OK(load);
  ASSERT_STATUS_OK((*load)->Put(PageIndex(0), PatternEncoded(0, 1)));
  EXPECT_TRUE(
      FailsWith(OpenPageStore("rocksdb:" + directory.path(), {}), StatusCode::kFailedPrecondition,
                "the store in " + directory.path() + " is in use by another process; stop"));
  ASSERT_STATUS_OK((*load)->Commit());
  EXPECT_TRUE(Holds(*store, LayerId(1), 1, 1));
}

// Space

TEST(RocksDbPageStore, DeletingALayerGivesItsSpaceBack) {
  TemporaryDirectory directory;
  const auto store = OpenStore(directory.path());
  constexpr uint64_t kPages = 4000;
  ASSERT_STATUS_OK(Load(*store, LayerId(1), kPages, 1));
  for (uint64_t page = 0; page < kPages; page += 8) {  // through the log and the memtables, too
    std::map<uint64_t, uint64_t> batch;
    for (uint64_t i = page; i < page + 8; ++i) batch[i] = 2;
    ASSERT_STATUS_OK(WriteLayer(*store, LayerId(2), batch));
  }
  ASSERT_STATUS_OK(Load(*store, LayerId(3), 100, 3));
  const uint64_t layer_bytes = kPages * kPageSize;
  ASSERT_GT(TreeBytes(directory.path()), 2 * layer_bytes);
  ASSERT_STATUS_OK(store->DeleteLayer(LayerId(1)));
  ASSERT_STATUS_OK(store->DeleteLayer(LayerId(2)));
  EXPECT_TRUE(Eventually([&] { return TreeBytes(directory.path()) < layer_bytes / 2; }))
      << TreeBytes(directory.path()) << " bytes are left";
  EXPECT_TRUE(Holds(*store, LayerId(1), 0, 0));
  EXPECT_TRUE(Holds(*store, LayerId(3), 100, 3));
}

TEST(RocksDbPageStore, OpeningDeletesWhatABrokenOffBulkLoadLeft) {
  TemporaryDirectory directory;
  { OpenStore(directory.path()); }
  const std::string left = directory.path() + "/staging/7";
  fs::create_directories(left);
  std::ofstream(left + "/0.sst") << "part of a table";
  const auto store = OpenStore(directory.path());
  EXPECT_FALSE(fs::exists(left));
  ASSERT_STATUS_OK(Load(*store, LayerId(1), 10, 1));
  EXPECT_TRUE(Holds(*store, LayerId(1), 10, 1));
}

// A file system of its own, small enough to be filled.
class FullDiskTest : public testing::Test {
 protected:
  void SetUp() override {
    if (mount("none", disk_.path().c_str(), "tmpfs", 0, "size=96m") != 0) {
      GTEST_SKIP() << "needs the right to mount a tmpfs (CAP_SYS_ADMIN): " << strerror(errno);
    }
    mounted_ = true;
    store_ = OpenStore(Dir());
    ASSERT_NE(store_, nullptr);
  }
  void TearDown() override {
    catalog_.reset();
    store_.reset();
    if (!mounted_) return;
    EXPECT_EQ(umount2(disk_.path().c_str(), MNT_DETACH), 0) << strerror(errno);
  }

  std::string Dir() const { return disk_.path() + "/store"; }

  // Takes all but `leave_bytes` of the disk, for somebody else's file.
  void FillDisk(uint64_t leave_bytes) {
    const int fd = open((disk_.path() + "/other").c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
    ASSERT_GE(fd, 0);
    const uint64_t free = FreeBytes(disk_.path());
    ASSERT_GT(free, leave_bytes);
    ASSERT_EQ(posix_fallocate(fd, 0, static_cast<off_t>(free - leave_bytes)), 0);
    close(fd);
  }
  void FreeDisk() { ASSERT_EQ(unlink((disk_.path() + "/other").c_str()), 0); }

  TemporaryDirectory disk_;
  bool mounted_ = false;
  std::unique_ptr<PageStore> store_;
  std::unique_ptr<VolumeCatalog> catalog_;
};

TEST_F(FullDiskTest, NothingAcknowledgedIsLostAndWritesGoOnOnceThereIsRoom) {
  FillDisk(16 * kMiB);
  uint64_t acknowledged = 0;
  absl::Status status;
  while (acknowledged < 100'000) {
    status = WriteLayer(*store_, LayerId(1), {{acknowledged, 1}}, {}, Durability::kSync);
    if (!status.ok()) break;
    ++acknowledged;
  }
  EXPECT_TRUE(FailsWith(status, StatusCode::kResourceExhausted,
                        "the disk of " + Dir() + " is full; free some space there"));
  EXPECT_GT(acknowledged, 1000u);
  EXPECT_TRUE(Holds(*store_, LayerId(1), acknowledged, 1)) << "while the disk is full";
  // A memtable that is written out meanwhile may make a little room: each further write is refused
  // as the first was, or it is there.
  for (int i = 0; i < 50; ++i) {
    status = WriteLayer(*store_, LayerId(1), {{acknowledged, 1}}, {}, Durability::kSync);
    if (status.ok()) {
      ++acknowledged;
    } else {
      EXPECT_TRUE(FailsWith(status, StatusCode::kResourceExhausted, "is full"));
    }
  }
  EXPECT_TRUE(Holds(*store_, LayerId(1), acknowledged, 1)) << "still full";

  FreeDisk();
  for (int i = 0; i < 500; ++i, ++acknowledged) {
    ASSERT_STATUS_OK(WriteLayer(*store_, LayerId(1), {{acknowledged, 1}}, {}, Durability::kSync));
  }
  EXPECT_TRUE(Holds(*store_, LayerId(1), acknowledged, 1));
  store_.reset();
  store_ = OpenStore(Dir());
  ASSERT_NE(store_, nullptr);
  EXPECT_TRUE(Holds(*store_, LayerId(1), acknowledged, 1)) << "after opening again";
}

// Where RocksDB has nothing in memory, resuming does not leave the log that could not be written;
// built with assertions, as Debian's is, it then ends the process.
TEST_F(FullDiskTest, ItMayFillUpInTheMiddleOfAChange) {
  constexpr uint64_t kPages = 700;
  const std::string other = disk_.path() + "/filler";
  uint64_t written = 0;
  int failed = 0;
  for (int i = 0; i < 30; ++i) {
    store_.reset();
    store_ = OpenStore(Dir());  // with nothing in memory
    ASSERT_NE(store_, nullptr);
    const int fd = open(other.c_str(), O_CREAT | O_WRONLY, 0600);
    off_t filled = 0;
    while (FreeBytes(disk_.path()) > 9 * kMiB && posix_fallocate(fd, filled, kMiB) == 0) {
      filled += kMiB;
    }
    std::thread filler([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(100 * i));
      while (posix_fallocate(fd, filled, 1 << 16) == 0) filled += 1 << 16;
    });
    std::map<uint64_t, uint64_t> pages;
    for (uint64_t page = written; page < written + kPages; ++page) pages[page] = 1;
    const absl::Status status = WriteLayer(*store_, LayerId(1), pages, {}, Durability::kInterval);
    filler.join();
    if (!status.ok()) {
      EXPECT_TRUE(FailsWith(status, StatusCode::kResourceExhausted, "is full"));
      ++failed;
    }
    ASSERT_EQ(unlink(other.c_str()), 0);
    close(fd);
    ASSERT_STATUS_OK(WriteLayer(*store_, LayerId(1), pages, {}, Durability::kInterval));
    written += kPages;
    if (written == 10 * kPages) {  // or the disk is full of it
      ASSERT_STATUS_OK(store_->DeleteLayer(LayerId(1)));
      written = 0;
    } else {
      ASSERT_TRUE(Holds(*store_, LayerId(1), written, 1)) << i;
    }
  }
  EXPECT_GT(failed, 0);
  printf("%d of 30 changes failed\n", failed);
}

TEST_F(FullDiskTest, WhatWasAcknowledgedIsThereWhenOpenedOnTheFullDiskMadeRoomOn) {
  FillDisk(12 * kMiB);
  uint64_t acknowledged = 0;
  while (WriteLayer(*store_, LayerId(1), {{acknowledged, 1}}, {}, Durability::kSync).ok()) {
    ASSERT_LT(++acknowledged, 100'000u);
  }
  store_.reset();  // without having recovered
  FreeDisk();
  store_ = OpenStore(Dir());
  ASSERT_NE(store_, nullptr);
  EXPECT_TRUE(Holds(*store_, LayerId(1), acknowledged, 1));
}

TEST_F(FullDiskTest, ABulkLoadThatDoesNotFitLeavesTheVolumeAsItWas) {
  auto catalog = VolumeCatalog::Open(std::move(store_));
  ASSERT_STATUS_OK(catalog);
  catalog_ = *std::move(catalog);
  constexpr uint64_t kPages = 8192;
  const auto import = [&](uint64_t version) -> absl::Status {
    auto started = catalog_->StartImport("a", {.size_bytes = kPages * kPageSize, .replace = true});
    if (!started.ok()) return started.status();
    for (uint64_t page = 0; page < kPages; ++page) {
      const absl::Status put = (*started)->Put(PageIndex(page), PatternEncoded(page, version));
      if (!put.ok()) return put;
    }
    return (*started)->Commit().status();
  };
  const auto reads = [&](uint64_t version) -> absl::Status {
    const auto volume = catalog_->Find("a");
    if (!volume.ok()) return volume.status();
    const auto found = ReadVolume(**volume, Pages(0, kPages));
    if (!found.ok()) return found.status();
    for (uint64_t page = 0; page < kPages; ++page) {
      if (!found->contains(page) || found->at(page) != PatternPage(page, version)) {
        return absl::DataLossError(absl::StrCat("page ", page, " is not of version ", version));
      }
    }
    return absl::OkStatus();
  };
  ASSERT_STATUS_OK(import(1));
  FillDisk(8 * kMiB);
  const uint64_t free_before = FreeBytes(disk_.path());
  EXPECT_TRUE(FailsWith(import(2), StatusCode::kResourceExhausted, "is full"));
  ASSERT_STATUS_OK(reads(1));
  EXPECT_TRUE(Eventually([&] { return FreeBytes(disk_.path()) + kMiB >= free_before; }))
      << "the failed load keeps " << free_before - FreeBytes(disk_.path()) << " bytes";
  FreeDisk();
  ASSERT_STATUS_OK(import(3));
  ASSERT_STATUS_OK(reads(3));
}

TEST_F(FullDiskTest, VolumesCanBeDeletedOnAFullDiskAndThatMakesRoom) {
  auto catalog = VolumeCatalog::Open(std::move(store_));
  ASSERT_STATUS_OK(catalog);
  catalog_ = *std::move(catalog);
  ASSERT_STATUS_OK(catalog_->Create("a", uint64_t{1} << 30, Durability::kSync));
  ASSERT_STATUS_OK(catalog_->Create("b", uint64_t{1} << 30, Durability::kSync));
  const auto epoch_a = catalog_->TakeEpoch("a");
  const auto epoch_b = catalog_->TakeEpoch("b");
  ASSERT_STATUS_OK(epoch_a);
  ASSERT_STATUS_OK(epoch_b);
  const auto a = *catalog_->Find("a");
  const auto b = *catalog_->Find("b");
  for (uint64_t page = 0; page < 500; ++page) {
    ASSERT_STATUS_OK(WriteVolume(*b, epoch_b->epoch, {{page, 5}}));
  }
  uint64_t written = 0;
  absl::Status status;
  while (status.ok() && written < 100'000) {
    std::map<uint64_t, uint64_t> batch;
    for (int i = 0; i < 16; ++i) batch[written++] = 1;
    status = WriteVolume(*a, epoch_a->epoch, batch);
  }
  EXPECT_TRUE(FailsWith(status, StatusCode::kResourceExhausted, "is full"));
  ASSERT_STATUS_OK(catalog_->Delete("a"));
  EXPECT_TRUE(Eventually([&] {
    return WriteVolume(*b, epoch_b->epoch, {{500, 5}}).ok();
  })) << WriteVolume(*b, epoch_b->epoch, {{500, 5}});
  const auto found = ReadVolume(*b, Pages(0, 1000));
  ASSERT_STATUS_OK(found);
  EXPECT_EQ(found->size(), 501u);
  for (const auto& [page, bytes] : *found) EXPECT_EQ(bytes, PatternPage(page, 5)) << page;
}

}  // namespace
}  // namespace faultline
