// SPDX-License-Identifier: Apache-2.0
#include "client/source/faulty_page_sink.h"
#include "client/source/memory_volume.h"
#include "client/source/page_sink_conformance.h"
#include "client/source/page_source_conformance.h"

namespace faultline {
namespace {

using absl::StatusCode;

std::shared_ptr<MemoryVolume> EmptyVolume(PageCount size) {
  return MemoryVolume::Create(std::string(size.in_bytes(), '\0'));
}

// Opens a volume in memory, with faults in front of each writer.
OpenVolumeIo OpenFaulty(PageCount size, double share) {
  return [volume = EmptyVolume(size), share](absl::string_view, absl::Time) {
    VolumeIo io = volume->OpenIo();
    auto faulty = std::make_shared<FaultyPageSink>(std::move(io.sink), /*seed=*/1);
    faulty->FailShare(share);
    io.sink = std::move(faulty);
    return absl::StatusOr<VolumeIo>(std::move(io));
  };
}

INSTANTIATE_TEST_SUITE_P(
    Sinks, PageSinkConformance,
    testing::Values(SinkMaker{"memory",
                              [](PageCount size) -> OpenVolumeIo {
                                return [volume = EmptyVolume(size)](absl::string_view, absl::Time) {
                                  return absl::StatusOr<VolumeIo>(volume->OpenIo());
                                };
                              }},
                    SinkMaker{"faulty_without_faults",
                              [](PageCount size) { return OpenFaulty(size, 0); }},
                    SinkMaker{"faulty", [](PageCount size) { return OpenFaulty(size, 0.4); }}),
    [](const auto& param) { return param.param.name; });

INSTANTIATE_TEST_SUITE_P(Volume, PageSourceConformance,
                         testing::Values(SourceMaker{
                             "memory_volume",
                             [](const std::string& content) {
                               return MemoryVolume::Create(content)->OpenSource();
                             }}),
                         [](const auto& param) { return param.param.name; });

TEST(MemoryVolume, AFullOneRefusesDataAndTakesZeros) {
  const auto volume = EmptyVolume(PageCount(8));
  const VolumeIo io = volume->OpenIo();
  ASSERT_TRUE(WriteAndWait(*io.sink, {{0, 1}, {1, 1}}).ok());
  volume->SetFull(true);
  EXPECT_EQ(WriteAndWait(*io.sink, {{0, 0}, {1, 2}}).code(), StatusCode::kResourceExhausted);
  ExpectVersions(*io.source, {{0, 1}, {1, 1}});
  EXPECT_TRUE(WriteAndWait(*io.sink, {{0, 0}}).ok());
  volume->SetFull(false);
  EXPECT_TRUE(WriteAndWait(*io.sink, {{1, 2}}).ok());
  ExpectVersions(*io.source, {{0, 0}, {1, 2}});
  EXPECT_EQ(volume->Bytes({PageIndex(1), PageCount(1)}), PageOfVersion(1, 2));
}

TEST(MemoryVolume, ADeletedOneIsNotFound) {
  const auto volume = EmptyVolume(PageCount(8));
  const VolumeIo io = volume->OpenIo();
  volume->Delete();
  EXPECT_EQ(WriteAndWait(*io.sink, {{0, 1}}).code(), StatusCode::kNotFound);
  EXPECT_EQ(FetchAndWait(*io.source, PageRange::Single(PageIndex(0))).status().code(),
            StatusCode::kNotFound);
}

class FaultySink : public testing::Test {
 protected:
  const std::shared_ptr<MemoryVolume> volume_ = EmptyVolume(PageCount(64));
  const VolumeIo io_ = volume_->OpenIo();
  FaultyPageSink sink_{io_.sink, /*seed=*/1};
};

TEST_F(FaultySink, HoldsWritesBackWithTheBytesThatTheyHad) {
  sink_.Hold();
  std::future<absl::Status> first = StartWrite(sink_, {{1, 1}, {2, 0}});
  std::future<absl::Status> second = StartWrite(sink_, {{1, 2}, {3, 2}});
  EXPECT_EQ(sink_.pending(), 2u);
  ExpectVersions(*io_.source, {{1, 0}, {3, 0}});
  sink_.Release();
  EXPECT_TRUE(first.get().ok());
  EXPECT_TRUE(second.get().ok());
  ExpectVersions(*io_.source, {{1, 2}, {2, 0}, {3, 2}});
  EXPECT_TRUE(StartWrite(sink_, {{4, 1}}).get().ok());
}

TEST_F(FaultySink, LetsHeldWritesGoInAnotherOrder) {
  sink_.Hold();
  std::vector<std::future<absl::Status>> done;
  for (uint64_t version = 1; version <= 20; ++version) {
    done.push_back(StartWrite(sink_, {{0, version}, {version, version}}));
  }
  sink_.ReleaseShuffled();
  for (std::future<absl::Status>& write : done) EXPECT_TRUE(write.get().ok());
  for (uint64_t page = 1; page <= 20; ++page) ExpectVersions(*io_.source, {{page, page}});
  EXPECT_NE(volume_->Bytes({PageIndex(0), PageCount(1)}), PageOfVersion(0, 20));
}

TEST_F(FaultySink, FailsTheNextWritesBeforeOrAfterTheyAreApplied) {
  sink_.FailNext(2, absl::ResourceExhaustedError("full"));
  EXPECT_EQ(StartWrite(sink_, {{1, 1}}).get(), absl::ResourceExhaustedError("full"));
  EXPECT_EQ(StartWrite(sink_, {{1, 1}}).get(), absl::ResourceExhaustedError("full"));
  ExpectVersions(*io_.source, {{1, 0}});
  EXPECT_TRUE(StartWrite(sink_, {{1, 1}}).get().ok());
  sink_.FailNext(1, absl::UnavailableError("lost"), FaultyPageSink::Fate::kApplied);
  EXPECT_EQ(StartWrite(sink_, {{1, 2}}).get(), absl::UnavailableError("lost"));
  ExpectVersions(*io_.source, {{1, 2}});
  EXPECT_EQ(sink_.written().size(), 4u);
}

TEST_F(FaultySink, AnErrorBehindItIsNotHiddenByAnInjectedOne) {
  volume_->Delete();
  sink_.FailNext(1, absl::UnavailableError("lost"), FaultyPageSink::Fate::kApplied);
  EXPECT_EQ(StartWrite(sink_, {{1, 1}}).get().code(), StatusCode::kNotFound);
}

TEST_F(FaultySink, TheSeedChoosesWhatFailsAndWhetherItIsApplied) {
  const auto pattern = [](uint32_t seed) {
    const auto volume = EmptyVolume(PageCount(200));
    const VolumeIo io = volume->OpenIo();
    FaultyPageSink sink(io.sink, seed);
    sink.FailShare(0.5);
    std::string fates;
    for (uint64_t page = 0; page < 200; ++page) {
      const bool ok = StartWrite(sink, {{page, 1}}).get().ok();
      const bool applied =
          volume->Bytes(PageRange::Single(PageIndex(page))) == PageOfVersion(page, 1);
      EXPECT_TRUE(applied || !ok);
      fates += ok ? '+' : applied ? '?' : '-';
    }
    for (const char fate : {'+', '?', '-'}) {
      EXPECT_GT(std::count(fates.begin(), fates.end(), fate), 20) << fates;
    }
    return fates;
  };
  EXPECT_EQ(pattern(1), pattern(1));
  EXPECT_NE(pattern(1), pattern(2));
}

}  // namespace
}  // namespace faultline
