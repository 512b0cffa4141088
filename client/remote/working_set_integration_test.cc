// SPDX-License-Identifier: Apache-2.0
//
// Working sets by way of the client's connections, with the real server; and with one that does not
// know of them.
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/remote/admin_client.h"
#include "client/remote/fake_page_server.h"
#include "client/remote/page_server.h"
#include "proto/page_testing.h"
#include "proto/working_set.h"
#include "server/server.h"

namespace faultline {
namespace {

using absl::StatusCode;
using Strings = std::vector<std::string>;

constexpr uint64_t kPages = 1000;

WorkingSet SetOf(const std::vector<PageRange>& ranges, uint64_t volume_pages = kPages) {
  absl::StatusOr<PageSet> set = PageSet::Create(PageCount(volume_pages));
  EXPECT_TRUE(set.ok()) << set.status();
  for (const PageRange range : ranges) set->Insert(range);
  return WorkingSet(*std::move(set));
}

// "FIRST+COUNT" for each run.
Strings Runs(const absl::StatusOr<WorkingSet>& set) {
  if (!set.ok()) return {set.status().ToString()};
  Strings runs;
  for (PageRange r = set->pages().NextRun(PageIndex(0)); !r.empty();
       r = set->pages().NextRun(r.end())) {
    runs.push_back(absl::StrCat(r.first.raw(), "+", r.count.raw()));
  }
  return runs;
}

testing::AssertionResult FailsWith(const absl::Status& status, StatusCode code,
                                   absl::string_view text) {
  if (status.code() == code && absl::StrContains(status.message(), text)) {
    return testing::AssertionSuccess();
  }
  return testing::AssertionFailure() << status;
}

class RemoteWorkingSetTest : public testing::Test {
 protected:
  RemoteWorkingSetTest() {
    std::string name = absl::StrCat(testing::TempDir(), "/sets_XXXXXX");
    directory_ = mkdtemp(name.data());
    address_ = absl::StrCat("unix:", directory_, "/s");
    auto connection = PageServer::Create({.address = address_});
    EXPECT_TRUE(connection.ok()) << connection.status();
    connection_ = *std::move(connection);
  }
  ~RemoteWorkingSetTest() override {
    connection_.reset();
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  // On the same store each time.
  void StartServer() {
    server_.reset();
    PageStoreOptions store_options;
    store_options.memory_bytes = uint64_t{16} << 20;
    auto store = OpenPageStore(absl::StrCat("rocksdb:", directory_, "/store"), store_options);
    ASSERT_TRUE(store.ok()) << store.status();
    auto catalog = VolumeCatalog::Open(*std::move(store));
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    catalog_ = catalog->get();
    ServerOptions options;
    options.listen = {address_};
    auto server = Server::Start(options, *std::move(catalog));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  void CreateVolume(absl::string_view name, uint64_t pages = kPages) {
    const auto volume = catalog_->Create(name, pages * kPageSize, Durability::kSync);
    ASSERT_TRUE(volume.ok()) << volume.status();
  }

  // So far away that only a hang reaches it.
  static absl::Time Deadline() { return absl::Now() + absl::Minutes(1); }

  std::string directory_;
  std::string address_;
  VolumeCatalog* catalog_ = nullptr;  // of the server
  std::unique_ptr<Server> server_;
  std::unique_ptr<PageServer> connection_;
};

TEST_F(RemoteWorkingSetTest, WhatRunsHaveMergedIsThereForTheNextOneAfterARestart) {
  StartServer();
  CreateVolume("disk");
  EXPECT_EQ(Runs(connection_->GetWorkingSet("disk", Deadline())), Strings());
  EXPECT_EQ(connection_->MergeWorkingSet("disk", SetOf({Pages(0, 5), Pages(999, 1)}), Deadline()),
            absl::OkStatus());
  EXPECT_EQ(connection_->MergeWorkingSet("disk", SetOf({Pages(3, 5)}), Deadline()),
            absl::OkStatus());
  StartServer();
  const auto set = connection_->GetWorkingSet("disk", Deadline());
  EXPECT_EQ(Runs(set), (Strings{"0+8", "999+1"}));
  ASSERT_TRUE(set.ok());
  EXPECT_EQ(set->pages().volume_size(), PageCount(kPages));
}

TEST_F(RemoteWorkingSetTest, ClonesOfOneSnapshotStartWithItsSet) {
  StartServer();
  CreateVolume("disk");
  ASSERT_TRUE(catalog_->Snapshot("disk", "golden").ok());
  EXPECT_EQ(connection_->MergeWorkingSet("golden", SetOf({Pages(7, 7)}), Deadline()),
            absl::OkStatus());
  ASSERT_TRUE(catalog_->Clone("golden", "a").ok());
  ASSERT_TRUE(catalog_->Clone("golden", "b").ok());
  EXPECT_EQ(connection_->MergeWorkingSet("a", SetOf({Pages(100, 1)}), Deadline()),
            absl::OkStatus());
  EXPECT_EQ(Runs(connection_->GetWorkingSet("a", Deadline())), (Strings{"7+7", "100+1"}));
  EXPECT_EQ(Runs(connection_->GetWorkingSet("b", Deadline())), Strings{"7+7"});
  EXPECT_EQ(Runs(connection_->GetWorkingSet("disk", Deadline())), Strings());
}

TEST_F(RemoteWorkingSetTest, MergingNeedsNoEpochAndFencesNobody) {
  StartServer();
  CreateVolume("disk");
  const auto writer = connection_->OpenVolumeIo("disk", Deadline());
  ASSERT_TRUE(writer.ok()) << writer.status();
  const uint64_t epoch = (*catalog_->Find("disk"))->info().epoch;
  EXPECT_GT(epoch, 0u);
  EXPECT_EQ(connection_->MergeWorkingSet("disk", SetOf({Pages(1, 1)}), Deadline()),
            absl::OkStatus());
  EXPECT_EQ((*catalog_->Find("disk"))->info().epoch, epoch);
}

TEST_F(RemoteWorkingSetTest, AMillionScatteredPagesGoBothWays) {
  StartServer();
  CreateVolume("large", 4 * kMaxPageSetRuns);
  WorkingSet set = SetOf({}, 4 * kMaxPageSetRuns);
  for (uint64_t i = 0; i < kMaxPageSetRuns; ++i) set.Insert(PageIndex(4 * i + i % 3));
  EXPECT_EQ(connection_->MergeWorkingSet("large", set, Deadline()), absl::OkStatus());
  const auto got = connection_->GetWorkingSet("large", Deadline());
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_TRUE(*got->pages().EncodeRuns() == *set.pages().EncodeRuns());
  ASSERT_EQ(got->first().size(), WorkingSet::kMaxFirst);
  EXPECT_TRUE(got->EncodeFirst() == set.EncodeFirst());
  set.Insert(PageIndex(4 * kMaxPageSetRuns - 1));
  EXPECT_TRUE(FailsWith(connection_->MergeWorkingSet("large", set, Deadline()),
                        StatusCode::kResourceExhausted, "more than 1048576 runs"));
}

TEST_F(RemoteWorkingSetTest, ConcurrentMergesLoseNothing) {
  StartServer();
  CreateVolume("disk");
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (uint64_t i = 0; i < 5; ++i) {
        EXPECT_EQ(
            connection_->MergeWorkingSet("disk", SetOf({Pages(40 * t + 2 * i, 1)}), Deadline()),
            absl::OkStatus());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Runs(connection_->GetWorkingSet("disk", Deadline())).size(), 20u);
}

TEST_F(RemoteWorkingSetTest, WhatIsNotThereAndSetsOfAnotherSizeAreRefused) {
  StartServer();
  CreateVolume("disk");
  EXPECT_TRUE(FailsWith(connection_->GetWorkingSet("none", Deadline()).status(),
                        StatusCode::kNotFound, "\"none\""));
  EXPECT_TRUE(FailsWith(connection_->MergeWorkingSet("none", SetOf({}), Deadline()),
                        StatusCode::kNotFound, "\"none\""));
  EXPECT_TRUE(
      FailsWith(connection_->MergeWorkingSet("disk", SetOf({Pages(0, 1)}, kPages + 1), Deadline()),
                StatusCode::kFailedPrecondition, "volume \"disk\" now has 4096000 bytes"));
}

TEST_F(RemoteWorkingSetTest, AServerThatIsAwayIsWaitedForUntilTheDeadline) {
  EXPECT_TRUE(
      FailsWith(connection_->GetWorkingSet("disk", absl::Now() + absl::Milliseconds(50)).status(),
                StatusCode::kUnavailable, address_));
  absl::StatusOr<WorkingSet> set = absl::UnknownError("not asked");
  std::thread asking([&] { set = connection_->GetWorkingSet("disk", Deadline()); });
  StartServer();
  CreateVolume("disk");
  asking.join();
  // Asked before the volume was there, or after: answered in either case.
  EXPECT_TRUE(set.ok() || absl::IsNotFound(set.status())) << set.status();
}

TEST_F(RemoteWorkingSetTest, AnOldServerIsNamedAsSuch) {
  FakePageServer old(address_);
  EXPECT_TRUE(FailsWith(connection_->GetWorkingSet("disk", Deadline()).status(),
                        StatusCode::kUnimplemented,
                        absl::StrCat("page server ", address_, " keeps no working sets")));
  EXPECT_TRUE(
      FailsWith(connection_->MergeWorkingSet("disk", SetOf({}, FakePageServer::kPages), Deadline()),
                StatusCode::kUnimplemented, "update faultline-server"));
}

TEST_F(RemoteWorkingSetTest, TheControlPlaneReadsAndClearsIt) {
  StartServer();
  CreateVolume("disk");
  ASSERT_EQ(connection_->MergeWorkingSet("disk", SetOf({Pages(1, 2)}), Deadline()),
            absl::OkStatus());
  const auto admin = AdminClient::Create({.address = address_});
  ASSERT_TRUE(admin.ok()) << admin.status();
  EXPECT_EQ(Runs((*admin)->GetWorkingSet("disk")), Strings{"1+2"});
  EXPECT_EQ((*admin)->ClearWorkingSet("disk"), absl::OkStatus());
  EXPECT_EQ(Runs((*admin)->GetWorkingSet("disk")), Strings());
  EXPECT_TRUE(FailsWith((*admin)->ClearWorkingSet("none"), StatusCode::kNotFound, "\"none\""));
}

}  // namespace
}  // namespace faultline
