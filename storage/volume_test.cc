// SPDX-License-Identifier: Apache-2.0
#include "storage/volume.h"

#include <absl/time/clock.h>

#include <atomic>
#include <thread>

#include "storage/faulty_page_store.h"
#include "storage/forwarding_page_store.h"
#include "storage/storage_testing.h"

namespace faultline {
namespace {

using absl::StatusCode;
using Page = std::array<std::byte, kPageSize>;

// A volume of 100 pages over two frozen layers: the lowest holds pages 0 to 9, the middle one pages
// 5 to 14 and a page of zeros at 0.
class VolumeTest : public testing::Test {
 protected:
  VolumeTest() {
    auto store = OpenPageStore("memory:", {});
    store_ = std::make_unique<FaultyPageStore>(*std::move(store), FaultyPageStore::Faults());
    for (uint64_t page = 0; page < 10; ++page) Put(LayerId(1), page, 1);
    for (uint64_t page = 5; page < 15; ++page) Put(LayerId(2), page, 2);
    std::string zero;
    EncodeZeroPage(PageIndex(0), &zero);
    PageWrites writes;
    writes.puts.push_back({PageIndex(0), zero});
    EXPECT_EQ(store_->Write(LayerId(2), writes, Durability::kNone), absl::OkStatus());
  }

  void Put(LayerId layer, uint64_t page, uint64_t version) {
    EXPECT_EQ(WriteLayer(*store_, layer, {{page, version}}), absl::OkStatus());
  }

  std::unique_ptr<Volume> MakeVolume(std::vector<LayerId> layers) {
    VolumeInfo info;
    info.name = "disk";
    info.id = 1;
    info.size_bytes = 100 * kPageSize - 10;
    info.layers = std::move(layers);
    info.epoch = 4;
    return std::make_unique<Volume>(store_.get(), nullptr, info);
  }
  std::unique_ptr<Volume> MakeStack() { return MakeVolume({LayerId(3), LayerId(2), LayerId(1)}); }

  // What the stack reads as before anything is written to its top layer.
  static std::map<uint64_t, Page> BelowTop() {
    std::map<uint64_t, Page> pages;
    for (uint64_t page = 1; page < 5; ++page) pages[page] = PatternPage(page, 1);
    for (uint64_t page = 5; page < 15; ++page) pages[page] = PatternPage(page, 2);
    return pages;
  }

  void ExpectReads(Volume& volume, const std::map<uint64_t, Page>& expected) {
    const auto found = ReadVolume(volume, Pages(0, 100));
    ASSERT_STATUS_OK(found);
    EXPECT_TRUE(SamePages(*found, expected));
  }

  std::unique_ptr<FaultyPageStore> store_;
};

TEST_F(VolumeTest, ReadTakesEachPageFromTheNewestLayerThatHoldsIt) {
  const auto volume = MakeStack();
  ASSERT_STATUS_OK(WriteVolume(*volume, 4, {{3, 9}, {7, 9}, {50, 9}}));
  auto expected = BelowTop();
  for (const uint64_t page : {3, 7, 50}) expected[page] = PatternPage(page, 9);
  ExpectReads(*volume, expected);
  for (uint64_t page = 0; page < 100; ++page) {
    const auto found = ReadVolume(*volume, Pages(page, 1));
    ASSERT_STATUS_OK(found);
    std::map<uint64_t, Page> one;
    if (expected.contains(page)) one[page] = expected[page];
    EXPECT_TRUE(SamePages(*found, one)) << page;
  }
}

TEST_F(VolumeTest, NeighbouringZeroPagesOfAllLayersComeAsOneRun) {
  const auto volume = MakeStack();
  ASSERT_STATUS_OK(WriteVolume(*volume, 4, {}, {Pages(1, 2)}));
  std::vector<std::pair<uint64_t, uint64_t>> runs;
  ASSERT_STATUS_OK(volume->Read(
      Pages(0, 100), [](PageIndex, absl::string_view) { return absl::OkStatus(); },
      [&](PageRange zeros) {
        runs.emplace_back(zeros.first.raw(), zeros.count.raw());
        return absl::OkStatus();
      }));
  const std::vector<std::pair<uint64_t, uint64_t>> expected = {{0, 3}, {15, 85}};
  EXPECT_EQ(runs, expected);
}

TEST_F(VolumeTest, TrimShadowsWhatLowerLayersHoldAndStoresNoMore) {
  const auto volume = MakeStack();
  ASSERT_STATUS_OK(WriteVolume(*volume, 4, {{4, 9}, {40, 9}}));
  ASSERT_STATUS_OK(volume->Trim(Pages(0, 100)));
  ExpectReads(*volume, {});
  const auto shadows = ReadLayer(*store_, LayerId(3), Pages(0, 100));
  ASSERT_STATUS_OK(shadows);
  EXPECT_EQ(shadows->size(), 14u);  // pages 1 to 14; page 0 is zero below, too
  for (const auto& [page, encoded] : *shadows) {
    EXPECT_TRUE(VerifyPage(PageIndex(page), encoded).ok() && IsEncodedZeroPage(encoded)) << page;
  }
}

TEST_F(VolumeTest, TrimOfAVolumeWithOneLayerOnlyDeletes) {
  const auto volume = MakeVolume({LayerId(3)});
  ASSERT_STATUS_OK(WriteVolume(*volume, 4, {{4, 9}, {40, 9}}));
  ASSERT_STATUS_OK(volume->Trim(Pages(0, 40)));
  ExpectReads(*volume, {{40, PatternPage(40, 9)}});
  const auto held = ReadLayer(*store_, LayerId(3), Pages(0, 100));
  ASSERT_STATUS_OK(held);
  EXPECT_EQ(held->size(), 1u);
}

TEST_F(VolumeTest, AWrittenPageOfZerosIsATrim) {
  const auto volume = MakeStack();
  std::string zeros;
  EncodeZeroPage(PageIndex(5), &zeros);
  EncodeZeroPage(PageIndex(60), &zeros);
  VolumeWrites writes;
  writes.pages.push_back({PageIndex(5), absl::string_view(zeros).substr(0, kEncodedHeaderBytes)});
  writes.pages.push_back({PageIndex(60), absl::string_view(zeros).substr(kEncodedHeaderBytes)});
  ASSERT_STATUS_OK(volume->Write({.epoch = 4}, writes));
  auto expected = BelowTop();
  expected.erase(5);
  ExpectReads(*volume, expected);
  const auto held = ReadLayer(*store_, LayerId(3), Pages(0, 100));
  ASSERT_STATUS_OK(held);
  EXPECT_EQ(held->size(), 1u) << "nothing lies below page 60, so it needs no shadow";
}

TEST_F(VolumeTest, APageWrittenAfterATrimIsThere) {
  const auto volume = MakeStack();
  ASSERT_STATUS_OK(volume->Trim(Pages(0, 20)));
  ASSERT_STATUS_OK(WriteVolume(*volume, 4, {{7, 9}}));
  ExpectReads(*volume, {{7, PatternPage(7, 9)}});
}

TEST_F(VolumeTest, OnlyTheWriterOfTheEpochMayWrite) {
  const auto volume = MakeStack();
  for (const uint64_t epoch : {0, 3, 5}) {
    EXPECT_TRUE(FailsWith(WriteVolume(*volume, epoch, {{3, 9}}), StatusCode::kFailedPrecondition,
                          absl::StrCat("volume \"disk\": the writer of epoch ", epoch,
                                       " was fenced, the epoch is now 4")));
  }
  ExpectReads(*volume, BelowTop());
}

TEST_F(VolumeTest, AWriteOfALowerGenerationIsNotAppliedOnceAHigherOneHasBegun) {
  const auto volume = MakeStack();
  const auto writer = [](uint64_t generation) { return VolumeWriter{4, generation}; };
  ASSERT_STATUS_OK(WriteVolume(*volume, writer(0), {{20, 1}, {21, 1}}));
  ASSERT_STATUS_OK(WriteVolume(*volume, writer(2), {{20, 2}}));
  for (const uint64_t generation : {0, 1}) {
    EXPECT_TRUE(
        FailsWith(WriteVolume(*volume, writer(generation), {{20, 3}, {22, 3}}, {Pages(21, 1)}),
                  StatusCode::kAborted,
                  absl::StrCat("volume \"disk\": a write of generation ", generation,
                               " came after one of generation 2")));
  }
  ASSERT_STATUS_OK(WriteVolume(*volume, writer(2), {{23, 2}}));
  auto expected = BelowTop();
  expected[20] = PatternPage(20, 2);
  expected[21] = PatternPage(21, 1);
  expected[23] = PatternPage(23, 2);
  ExpectReads(*volume, expected);
}

TEST_F(VolumeTest, AWriteOfAHigherGenerationThatIsRefusedEndsTheLowerOnesToo) {
  const auto volume = MakeStack();
  store_->set_disk_full(true);
  EXPECT_EQ(WriteVolume(*volume, VolumeWriter{4, 1}, {{20, 2}}).code(),
            StatusCode::kResourceExhausted);
  store_->set_disk_full(false);
  EXPECT_EQ(WriteVolume(*volume, VolumeWriter{4, 0}, {{20, 1}}).code(), StatusCode::kAborted);
  ExpectReads(*volume, BelowTop());
}

// The first write of pages stands still until Go().
class StandingPageStore final : public ForwardingPageStore {
 public:
  using ForwardingPageStore::ForwardingPageStore;

  absl::Status Write(LayerId layer, const PageWrites& writes, Durability durability) override {
    if (!stands_.exchange(true)) {
      stands_.notify_all();
      go_.wait(false);
    }
    return ForwardingPageStore::Write(layer, writes, durability);
  }
  void WaitUntilItStands() { stands_.wait(false); }
  void Go() {
    go_ = true;
    go_.notify_all();
  }

 private:
  std::atomic<bool> stands_ = false, go_ = false;
};

TEST_F(VolumeTest, TheFirstWriteOfAGenerationWaitsForLowerOnesAndReadsDoNot) {
  StandingPageStore store(std::shared_ptr<PageStore>(store_.get(), [](PageStore*) {}));
  VolumeInfo info = MakeStack()->info();
  Volume volume(&store, nullptr, info);
  std::thread old([&] { ASSERT_STATUS_OK(WriteVolume(volume, VolumeWriter{4, 0}, {{20, 1}})); });
  store.WaitUntilItStands();
  std::atomic<bool> written = false;
  std::thread next([&] {
    ASSERT_STATUS_OK(WriteVolume(volume, VolumeWriter{4, 1}, {{20, 2}}));
    written = true;
  });
  for (int i = 0; i < 100 && !written; ++i) {
    ExpectReads(volume, BelowTop());
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_FALSE(written);
  store.Go();
  old.join();
  next.join();
  auto expected = BelowTop();
  expected[20] = PatternPage(20, 2);
  ExpectReads(volume, expected);
}

TEST_F(VolumeTest, RefusesPagesThatItDoesNotHaveAndThenDoesNothing) {
  const auto volume = MakeStack();
  const absl::string_view why = "volume \"disk\" has 100 pages";
  EXPECT_TRUE(FailsWith(ReadVolume(*volume, Pages(99, 2)), StatusCode::kOutOfRange, why));
  EXPECT_TRUE(FailsWith(ReadVolume(*volume, Pages(100, 1)), StatusCode::kOutOfRange, why));
  EXPECT_TRUE(FailsWith(WriteVolume(*volume, 4, {{3, 9}, {100, 9}}), StatusCode::kOutOfRange, why));
  EXPECT_TRUE(FailsWith(WriteVolume(*volume, 4, {{3, 9}}, {Pages(~uint64_t{0}, 2)}),
                        StatusCode::kOutOfRange, why));
  EXPECT_TRUE(FailsWith(volume->Trim(Pages(0, 101)), StatusCode::kOutOfRange, why));
  ExpectReads(*volume, BelowTop());
}

TEST_F(VolumeTest, AFullDiskChangesNothing) {
  const auto volume = MakeStack();
  store_->set_disk_full(true);
  EXPECT_TRUE(FailsWith(WriteVolume(*volume, 4, {{3, 9}}), StatusCode::kResourceExhausted,
                        "the disk is full"));
  EXPECT_TRUE(
      FailsWith(volume->Trim(Pages(0, 9)), StatusCode::kResourceExhausted, "the disk is full"));
  ExpectReads(*volume, BelowTop());
}

TEST_F(VolumeTest, ErrorsOfTheVisitorsAreHandedBack) {
  const auto volume = MakeStack();
  const auto data_ok = [](PageIndex, absl::string_view) { return absl::OkStatus(); };
  const auto zero_ok = [](PageRange) { return absl::OkStatus(); };
  EXPECT_EQ(volume->Read(
                Pages(0, 100),
                [](PageIndex, absl::string_view) { return absl::AbortedError("data"); }, zero_ok),
            absl::AbortedError("data"));
  EXPECT_EQ(
      volume->Read(Pages(0, 100), data_ok, [](PageRange) { return absl::AbortedError("zero"); }),
      absl::AbortedError("zero"));
}

// A bit flipped in the codec's byte can make any page look like one of zeros.
TEST_F(VolumeTest, ADamagedPageNeverBecomesZeros) {
  std::string damaged = PatternEncoded(50, 1);
  damaged[0] = static_cast<char>(Codec::kZero);
  PageWrites writes;
  writes.puts.push_back({PageIndex(50), damaged});
  ASSERT_STATUS_OK(store_->Write(LayerId(3), writes, Durability::kNone));
  const auto volume = MakeStack();
  EXPECT_TRUE(FailsWith(ReadVolume(*volume, Pages(50, 1)), StatusCode::kDataLoss, "page 50"));
  const auto others = ReadVolume(*volume, Pages(0, 50));
  ASSERT_STATUS_OK(others);
  EXPECT_TRUE(SamePages(*others, BelowTop()));
}

// With every page that is handed out damaged by one bit, reading gives an error or, where the store
// holds nothing, zeros; never other bytes.
TEST_F(VolumeTest, EveryFlippedBitIsNoticed) {
  constexpr uint64_t kSeed = 20240;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  FaultyPageStore store(*OpenPageStore("memory:", {}), {.seed = kSeed, .corruption = 1});
  for (uint64_t page = 0; page < 100; ++page) {
    ASSERT_STATUS_OK(WriteLayer(store, LayerId(1), {{page, 1}}));
  }
  VolumeInfo info;
  info.name = "disk";
  info.size_bytes = 100 * kPageSize;
  info.layers = {LayerId(1)};
  Volume volume(&store, nullptr, info);
  for (int round = 0; round < 20; ++round) {
    for (uint64_t page = 0; page < 100; ++page) {
      EXPECT_TRUE(FailsWith(ReadVolume(volume, Pages(page, 1)), StatusCode::kDataLoss,
                            absl::StrCat("page ", page)));
    }
  }
}

}  // namespace
}  // namespace faultline
