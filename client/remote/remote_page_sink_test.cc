// SPDX-License-Identifier: Apache-2.0
//
// What a remote sink sends, and what it does when it is not answered. That the real server does
// with it what it should is tested in page_server_integration_test.cc.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "client/remote/fake_page_server.h"
#include "client/remote/page_server.h"
#include "client/source/page_io_testing.h"

namespace faultline {
namespace {

using absl::StatusCode;
using Versions = std::map<uint64_t, uint64_t>;

class RemotePageSinkTest : public testing::Test {
 protected:
  RemotePageSinkTest() {
    std::string path = absl::StrCat(testing::TempDir(), "/remote_XXXXXX");
    directory_ = mkdtemp(path.data());
    options_.address = absl::StrCat("unix:", directory_, "/s");
    fake_ = std::make_unique<FakePageServer>(options_.address);
    Connect();
  }
  ~RemotePageSinkTest() override {
    io_ = {};
    server_.reset();
    fake_.reset();
    std::filesystem::remove_all(directory_);
  }

  void Connect() {
    io_ = {};
    auto server = PageServer::Create(options_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    auto io = server_->OpenVolumeIo("disk", absl::Now() + absl::Minutes(1));
    ASSERT_TRUE(io.ok()) << io.status();
    io_ = *std::move(io);
  }

  // "first+count" for each run, with a z in front of a zero one.
  static std::string RunsOf(const rpc::WriteRequest& request) {
    std::string text;
    for (const rpc::PageRun& run : request.batch().runs()) {
      absl::StrAppend(&text, text.empty() ? "" : " ", run.kind() == rpc::PageRun::ZERO ? "z" : "",
                      run.first(), "+", run.count());
    }
    return text;
  }
  rpc::WriteRequest LastWrite() { return fake_->writes().back(); }

  std::string directory_;
  PageServerOptions options_;
  std::unique_ptr<FakePageServer> fake_;
  std::unique_ptr<PageServer> server_;
  VolumeIo io_;
};

TEST_F(RemotePageSinkTest, NeighboursBecomeRunsAndEachPageIsSentAsItsReaderWantsIt) {
  const Versions pages = {{1, 4}, {2, 4}, {3, 4}, {7, 5}, {8, 0}, {9, 0}, {10, 0}, {11, 6}};
  ASSERT_TRUE(WriteAndWait(*io_.sink, pages).ok());
  const rpc::WriteRequest request = LastWrite();
  EXPECT_EQ(RunsOf(request), "1+3 7+1 z8+3 11+1");
  EXPECT_EQ(request.volume_id(), FakePageServer::kVolumeId);
  std::map<uint64_t, std::string> sent;
  ASSERT_TRUE(ForEachPage(
                  request.batch(),
                  [&](PageIndex page, absl::string_view encoded) {
                    std::array<std::byte, kPageSize> scratch;
                    const absl::StatusOr<PageBytes> bytes = DecodePage(page, encoded, scratch);
                    if (!bytes.ok()) return bytes.status();
                    sent[page.raw()].assign(reinterpret_cast<const char*>(bytes->data()),
                                            kPageSize);
                    return absl::OkStatus();
                  },
                  [](PageRange) { return absl::OkStatus(); })
                  .ok());
  ASSERT_EQ(sent.size(), 5u);
  for (const auto& [page, bytes] : sent) EXPECT_TRUE(bytes == PageOfVersion(page, pages.at(page)));
}

TEST_F(RemotePageSinkTest, ZeroPagesTakeNoPayload) {
  Versions pages;
  for (uint64_t page = 0; page < io_.sink->max_write().raw(); ++page) pages[page] = 0;
  ASSERT_TRUE(WriteAndWait(*io_.sink, pages).ok());
  EXPECT_EQ(RunsOf(LastWrite()), absl::StrCat("z0+", pages.size()));
  EXPECT_EQ(LastWrite().batch().pages().size(), 0u);
  EXPECT_LT(LastWrite().ByteSizeLong(), 40u);
}

TEST_F(RemotePageSinkTest, PagesAreCompressedWhereThatWasChosen) {
  ASSERT_TRUE(WriteAndWait(*io_.sink, {{1, 1}}).ok());
  EXPECT_EQ(LastWrite().batch().pages().size(), kMaxEncodedPageBytes);
  options_.write_codec = Codec::kLz4;
  Connect();
  ASSERT_TRUE(WriteAndWait(*io_.sink, {{1, 1}}).ok());
  EXPECT_LT(LastWrite().batch().pages().size(), kPageSize * 3 / 4);
}

TEST_F(RemotePageSinkTest, TheVolumeHasTheSizeAndLimitThatTheServerSays) {
  EXPECT_EQ(io_.sink->size(), PageCount(FakePageServer::kPages));
  EXPECT_EQ(io_.sink->max_write(), PageCount(FakePageServer::kMaxPagesPerRequest));
  EXPECT_EQ(io_.source->size(), io_.sink->size());
}

TEST_F(RemotePageSinkTest, AnswersAreThoseOfTheServer) {
  const VolumeIo first = io_;
  const auto second = server_->OpenVolumeIo("disk", absl::Now() + absl::Minutes(1));
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(StartWrite(*first.sink, {{1, 1}}).get(),
            absl::FailedPreconditionError("another writer has opened the volume"));
  EXPECT_TRUE(StartWrite(*second->sink, {{1, 1}}).get().ok());
}

TEST_F(RemotePageSinkTest, AWriteWhoseConnectionBreaksIsUnavailableAndTheNextConnectsAgain) {
  fake_->Stall();
  std::vector<std::future<absl::Status>> lost;
  for (uint64_t page = 0; page < 3; ++page) lost.push_back(StartWrite(*io_.sink, {{page, 1}}));
  fake_->WaitForWrites(1);
  fake_->Stop();
  for (std::future<absl::Status>& done : lost) {
    EXPECT_EQ(done.get().code(), StatusCode::kUnavailable);
  }
  fake_->Resume();
  fake_->Start();
  EXPECT_TRUE(WriteAndWait(*io_.sink, {{0, 1}}).ok());
  // One generation for all that broke, or one more for each time that nobody was there yet.
  EXPECT_GE(LastWrite().generation(), 1u);
  const uint64_t generation = LastWrite().generation();
  EXPECT_TRUE(WriteAndWait(*io_.sink, {{0, 2}}).ok());
  EXPECT_EQ(LastWrite().generation(), generation);
  EXPECT_EQ(LastWrite().epoch(), fake_->writes().front().epoch());
}

TEST_F(RemotePageSinkTest, ADeadlineEndsAWriteAndRaisesTheGenerationOfTheNext) {
  EXPECT_TRUE(StartWrite(*io_.sink, {{1, 1}}).get().ok());
  EXPECT_EQ(LastWrite().generation(), 0u);
  fake_->Stall();
  std::future<absl::Status> late = StartWrite(*io_.sink, {{1, 2}}, absl::Milliseconds(1));
  EXPECT_EQ(late.get().code(), StatusCode::kDeadlineExceeded);
  fake_->Resume();
  EXPECT_TRUE(StartWrite(*io_.sink, {{1, 3}}).get().ok());
  EXPECT_EQ(LastWrite().generation(), 1u);
}

TEST_F(RemotePageSinkTest, TheGenerationsOfTwoWritersHaveNothingToDoWithEachOther) {
  fake_->Stall();
  EXPECT_FALSE(StartWrite(*io_.sink, {{1, 2}}, absl::Milliseconds(1)).get().ok());
  fake_->Resume();
  const auto second = server_->OpenVolumeIo("disk", absl::Now() + absl::Minutes(1));
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(StartWrite(*second->sink, {{1, 1}}).get().ok());
  EXPECT_EQ(LastWrite().generation(), 0u);
}

}  // namespace
}  // namespace faultline
