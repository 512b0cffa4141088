// SPDX-License-Identifier: Apache-2.0
//
// Several servers of one store: what happens when one of them is killed, hangs, is slow, or has
// something else; and the writer that moves from one to the other.
#include "client/remote/several_servers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <thread>

#include "client/remote/fake_page_server.h"
#include "client/remote/fetch_races.h"
#include "client/remote/quantile_estimate.h"
#include "client/source/page_io_testing.h"
#include "proto/page_testing.h"

namespace faultline {
namespace {

using absl::StatusCode;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr absl::Duration kLong = absl::Seconds(60);
// What one fetch may take on a machine that is busy with other tests.
constexpr milliseconds kAFetch{400};

struct Fetched {
  absl::Status status;
  bool is_right = false;
  Clock::duration took;
};

class SeveralServersTest : public testing::Test {
 protected:
  SeveralServersTest() {
    std::string path = absl::StrCat(testing::TempDir(), "/several_XXXXXX");
    directory_ = mkdtemp(path.data());
  }
  ~SeveralServersTest() override {
    source_.reset();
    io_ = {};
    server_.reset();
    fakes_.clear();
    std::filesystem::remove_all(directory_);
  }

  std::string AddressOf(size_t i) const { return absl::StrCat("unix:", directory_, "/", i); }
  void StartFake(std::shared_ptr<FakeVolume> volume) {
    fakes_.push_back(std::make_unique<FakePageServer>(AddressOf(fakes_.size()), std::move(volume)));
  }
  void StartFakes(size_t count) {
    for (size_t i = 0; i < count; ++i) StartFake(volume_);
  }
  void Connect() {
    std::string all;
    for (size_t i = 0; i < fakes_.size(); ++i) {
      absl::StrAppend(&all, i == 0 ? "" : ",", AddressOf(i));
    }
    auto server = PageServer::Create({.address = all});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    ASSERT_TRUE(WaitFor([&] {
      const auto stats = server_->Stats();
      return std::all_of(stats.begin(), stats.end(), [](auto& one) { return one.is_connected; });
    }));
  }
  // Opens for reading, and waits until each of the servers is read from.
  void OpenAtAll() {
    auto source = server_->OpenVolume("disk", absl::Now() + kLong);
    ASSERT_TRUE(source.ok()) << source.status();
    source_ = *std::move(source);
    ASSERT_TRUE(WaitFor([&] {
      for (uint64_t place = 0; place < 16; ++place) Fetch(place * 256);
      const auto stats = server_->Stats();
      return std::all_of(stats.begin(), stats.end(), [](auto& one) { return one.fetches > 0; });
    }));
  }

  static bool WaitFor(const std::function<bool()>& condition) {
    for (const auto end = Clock::now() + std::chrono::seconds(30); Clock::now() < end;
         std::this_thread::sleep_for(milliseconds(5))) {
      if (condition()) return true;
    }
    return false;
  }

  std::future<Fetched> Start(uint64_t page, FetchLane lane = FetchLane::kDemand) {
    auto promise = std::make_shared<std::promise<Fetched>>();
    source_->Fetch(
        Pages(page, 1), lane, absl::Now() + kLong,
        [promise, page, begun = Clock::now()](auto runs) {
          Fetched fetched{runs.status(), false, Clock::now() - begun};
          if (runs.ok()) {
            const std::string zeros(kPageSize, '\0');
            const FetchedRun& run = runs->front();
            const char* bytes =
                run.bytes == nullptr ? zeros.data() : reinterpret_cast<const char*>(run.bytes);
            fetched.is_right = runs->size() == 1 && run.range == Pages(page, 1) &&
                               FakePageServer::Content(page) == absl::string_view(bytes, kPageSize);
          }
          promise->set_value(fetched);  // throws where it is called twice
        });
    return promise->get_future();
  }
  Fetched Fetch(uint64_t page) { return Start(page).get(); }
  void ExpectFetched(const Fetched& fetched, Clock::duration within) {
    EXPECT_TRUE(fetched.status.ok()) << fetched.status;
    EXPECT_TRUE(fetched.is_right);
    EXPECT_LE(fetched.took, within);
  }

  uint64_t Sum(uint64_t PageServerStats::*field) {
    uint64_t sum = 0;
    for (const PageServerStats& one : server_->Stats()) sum += one.*field;
    return sum;
  }

  const std::shared_ptr<FakeVolume> volume_ = std::make_shared<FakeVolume>();
  std::string directory_;
  std::vector<std::unique_ptr<FakePageServer>> fakes_;
  std::unique_ptr<PageServer> server_;
  std::shared_ptr<PageSource> source_;
  VolumeIo io_;
};

TEST_F(SeveralServersTest, EachServerIsAskedForPlacesOfItsOwn) {
  StartFakes(3);
  Connect();
  OpenAtAll();
  // From here on, while all are open.
  std::vector<size_t> before;
  for (const auto& fake : fakes_) before.push_back(fake->requests().size());
  for (int round = 0; round < 3; ++round) {
    for (uint64_t page = 0; page < FakePageServer::kPages; page += 64) {
      ExpectFetched(Fetch(page), std::chrono::seconds(5));
    }
  }
  std::map<uint64_t, std::set<size_t>> servers_of;
  for (size_t i = 0; i < fakes_.size(); ++i) {
    const auto requests = fakes_[i]->requests();
    EXPECT_GT(requests.size(), before[i]) << "server " << i;
    for (size_t j = before[i]; j < requests.size(); ++j) {
      servers_of[requests[j].runs(0).first() / 256].insert(i);
    }
  }
  // But for the few that were hedged.
  size_t shared = 0;
  for (const auto& [place, servers] : servers_of) shared += servers.size() > 1;
  EXPECT_LE(shared, Sum(&PageServerStats::hedges));
}

TEST_F(SeveralServersTest, FetchesOfAKilledServerGoToTheOther) {
  StartFakes(2);
  Connect();
  OpenAtAll();
  fakes_[0]->Stall();
  fakes_[1]->Stall();
  std::vector<std::future<Fetched>> under_way;
  for (uint64_t page = 0; page < FakePageServer::kPages; page += 128) {
    under_way.push_back(Start(page));
    under_way.push_back(Start(page + 1, FetchLane::kBulk));
  }
  fakes_[1]->Resume();
  fakes_[0]->Stop();
  for (auto& fetch : under_way) ExpectFetched(fetch.get(), std::chrono::seconds(5));
  for (uint64_t page = 2; page < FakePageServer::kPages; page += 128) {
    ExpectFetched(Fetch(page), kAFetch);
  }
  EXPECT_GT(Sum(&PageServerStats::failovers), 0u);
  EXPECT_TRUE(WaitFor([&] { return !server_->Stats()[0].is_connected; }));
  EXPECT_TRUE(server_->IsReachable(absl::ZeroDuration()));

  // It comes back, and gets its places back.
  fakes_[0]->Start();
  ASSERT_TRUE(WaitFor([&] { return server_->Stats()[0].is_connected; }));
  const size_t before = fakes_[0]->requests().size();
  for (uint64_t page = 3; page < FakePageServer::kPages; page += 128) {
    ExpectFetched(Fetch(page), std::chrono::seconds(5));
  }
  EXPECT_GT(fakes_[0]->requests().size(), before);
}

TEST_F(SeveralServersTest, AServerThatHangsHoldsNoFaultUpForLongerThanTheBound) {
  StartFakes(2);
  Connect();
  OpenAtAll();
  fakes_[0]->Stall();
  std::vector<std::future<Fetched>> under_way;
  for (uint64_t page = 0; page < FakePageServer::kPages; page += 64)
    under_way.push_back(Start(page));
  for (auto& fetch : under_way) ExpectFetched(fetch.get(), kDemandSilence + kSilenceTick + kAFetch);
  // It is known to be silent now.
  for (uint64_t page = 1; page < FakePageServer::kPages; page += 64) {
    ExpectFetched(Fetch(page), kAFetch);
  }
  EXPECT_FALSE(server_->Stats()[0].is_connected);
  // What it says late is dropped (each fetch may end only once), and shows that it is there again.
  fakes_[0]->Resume();
  EXPECT_TRUE(WaitFor([&] { return server_->Stats()[0].is_connected; }));
}

TEST_F(SeveralServersTest, WhereAllHangTheFirstThatGoesOnAnswers) {
  StartFakes(2);
  Connect();
  OpenAtAll();
  for (auto& fake : fakes_) fake->Stall();
  std::vector<std::future<Fetched>> under_way;
  for (uint64_t page = 0; page < FakePageServer::kPages; page += 256)
    under_way.push_back(Start(page));
  std::this_thread::sleep_for(2 * kDemandSilence);
  fakes_[1]->Resume();
  for (auto& fetch : under_way) ExpectFetched(fetch.get(), std::chrono::seconds(30));
}

TEST_F(SeveralServersTest, ASlowServersFetchesAreHedgedButNotManyOfThem) {
  StartFakes(2);
  Connect();
  OpenAtAll();
  const milliseconds kSlow{40};
  for (uint64_t i = 0; i < 600; ++i) Fetch(i % FakePageServer::kPages);  // it knows what is usual
  const uint64_t fetches_before = Sum(&PageServerStats::fetches);
  const uint64_t hedges_before = Sum(&PageServerStats::hedges);
  fakes_[0]->Alter([kSlow](rpc::FetchResponse*) { std::this_thread::sleep_for(kSlow); });
  constexpr uint64_t kFetches = 200;
  size_t fast_at_slow = 0;
  for (uint64_t i = 0; i < kFetches; ++i) {
    const size_t asked = fakes_[0]->requests().size();
    const Fetched fetched = Fetch(i * 61 % FakePageServer::kPages);
    ExpectFetched(fetched, std::chrono::seconds(5));
    fast_at_slow += fakes_[0]->requests().size() > asked && fetched.took < kSlow;
  }
  const uint64_t hedges = Sum(&PageServerStats::hedges) - hedges_before;
  EXPECT_GT(Sum(&PageServerStats::hedges_won), 0u);
  EXPECT_GT(fast_at_slow, 0u);
  EXPECT_LE(hedges, kFetches / kFetchesPerHedge + kHedgesInARow);
  EXPECT_EQ(Sum(&PageServerStats::fetches) - fetches_before, kFetches + hedges);
  EXPECT_EQ(Sum(&PageServerStats::failovers), 0u);
}

TEST_F(SeveralServersTest, ADamagedPageIsFetchedFromAnother) {
  StartFakes(2);
  Connect();
  OpenAtAll();
  fakes_[0]->Alter([](rpc::FetchResponse* response) {
    std::string* pages = response->mutable_batch()->mutable_pages();
    if (!pages->empty()) pages->back() = static_cast<char>(pages->back() ^ 1);
  });
  for (uint64_t page = 0; page < FakePageServer::kPages; page += 64) {
    ExpectFetched(Fetch(page), std::chrono::seconds(5));
  }
  EXPECT_GT(Sum(&PageServerStats::failovers), 0u);
  // Where all have it so, it is said.
  fakes_[1]->Alter([](rpc::FetchResponse* response) {
    std::string* pages = response->mutable_batch()->mutable_pages();
    if (!pages->empty()) pages->back() = static_cast<char>(pages->back() ^ 1);
  });
  EXPECT_EQ(Fetch(12).status.code(), StatusCode::kDataLoss);
}

TEST_F(SeveralServersTest, AServerWithAnotherVolumeOfThatNameIsNotRead) {
  StartFake(volume_);
  StartFake(std::make_shared<FakeVolume>(/*identity=*/2));
  Connect();
  auto source = server_->OpenVolume("disk", absl::Now() + kLong);
  ASSERT_TRUE(source.ok()) << source.status();
  source_ = *std::move(source);
  std::this_thread::sleep_for(milliseconds(500));  // enough to be opened at the other, too
  for (uint64_t page = 0; page < FakePageServer::kPages; page += 64) {
    ExpectFetched(Fetch(page), std::chrono::seconds(5));
  }
  EXPECT_TRUE(fakes_[0]->requests().empty() != fakes_[1]->requests().empty());
}

TEST_F(SeveralServersTest, OpeningNeedsOneServerAndSaysWhichWhereThereIsNone) {
  StartFakes(2);
  Connect();
  EXPECT_EQ(server_->OpenVolume("none", absl::Now() + kLong).status().code(),
            StatusCode::kNotFound);
  fakes_[0]->Stop();
  EXPECT_TRUE(server_->OpenVolume("disk", absl::Now() + kLong).ok());
  fakes_[1]->Stop();
  const auto none = server_->OpenVolume("disk", absl::Now() + absl::Milliseconds(300)).status();
  EXPECT_EQ(none.code(), StatusCode::kUnavailable);
  EXPECT_NE(none.message().find(AddressOf(0) + "," + AddressOf(1)), absl::string_view::npos)
      << none;
}

class RoamingWriterTest : public SeveralServersTest {
 protected:
  void OpenIo() {
    StartFakes(2);
    Connect();
    auto io = server_->OpenVolumeIo("disk", absl::Now() + kLong);
    ASSERT_TRUE(io.ok()) << io.status();
    io_ = *std::move(io);
    source_ = io_.source;
    ASSERT_TRUE(WriteAndWait(*io_.sink, {{1, 1}}).ok());
    at_ = fakes_[0]->writes().empty() ? 1 : 0;
  }
  std::vector<uint64_t> EpochsApplied() {
    std::vector<uint64_t> epochs;
    for (const auto& write : volume_->applied()) epochs.push_back(write.epoch());
    return epochs;
  }

  size_t at_ = 0;  // the server that it began with
};

TEST_F(RoamingWriterTest, MovesWhenItsServerIsKilledAndReadsWhereItWrites) {
  OpenIo();
  ExpectFetched(Fetch(5), std::chrono::seconds(5));
  EXPECT_TRUE(fakes_[1 - at_]->requests().empty());
  fakes_[at_]->Stop();
  EXPECT_TRUE(WriteAndWait(*io_.sink, {{2, 1}}).ok());
  EXPECT_EQ(EpochsApplied(), (std::vector<uint64_t>{1, 2}));
  const size_t before = fakes_[1 - at_]->requests().size();
  ExpectFetched(Fetch(6), std::chrono::seconds(5));
  EXPECT_EQ(fakes_[1 - at_]->requests().size(), before + 1);
  // The first has come back, and is let be.
  fakes_[at_]->Start();
  ASSERT_TRUE(WaitFor([&] { return server_->Stats()[at_].is_connected; }));
  EXPECT_TRUE(WriteAndWait(*io_.sink, {{3, 1}}).ok());
  EXPECT_EQ(EpochsApplied(), (std::vector<uint64_t>{1, 2, 2}));
}

// The server that hangs has the write, and goes on with it after the writer has written it again,
// and a newer one, elsewhere.
TEST_F(RoamingWriterTest, AWriteThatAHungServerHasIsAppliedNeitherTwiceNorLate) {
  OpenIo();
  const size_t before = fakes_[at_]->writes().size();
  fakes_[at_]->Stall();
  std::promise<absl::Status> in_doubt;
  const std::string old_content(kPageSize, 'o');
  const PageToWrite old_page{PageIndex(7), reinterpret_cast<const std::byte*>(old_content.data())};
  io_.sink->Write({&old_page, 1}, absl::Now() + kLong,
                  [&](absl::Status status) { in_doubt.set_value(std::move(status)); });
  fakes_[at_]->WaitForWrites(before + 1);
  ExpectFetched(Fetch(9), kDemandSilence + kSilenceTick + std::chrono::seconds(5));
  EXPECT_EQ(in_doubt.get_future().get().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(WriteAndWait(*io_.sink, {{7, 1}}).ok());
  EXPECT_TRUE(WriteAndWait(*io_.sink, {{7, 2}}).ok());
  fakes_[at_]->Resume();
  ASSERT_TRUE(WaitFor([&] { return server_->Stats()[at_].is_connected; }));
  EXPECT_TRUE(WriteAndWait(*io_.sink, {{7, 3}}).ok());
  EXPECT_EQ(EpochsApplied(), (std::vector<uint64_t>{1, 2, 2, 2}));
}

TEST_F(RoamingWriterTest, OneThatWasFencedDoesNotMove) {
  OpenIo();
  rpc::OpenVolumeRequest other;
  other.set_writer(99);
  EXPECT_EQ(volume_->Open(other), 2u);
  fakes_[at_]->Stop();
  EXPECT_EQ(WriteAndWait(*io_.sink, {{2, 1}}).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(WriteAndWait(*io_.sink, {{2, 1}}).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(EpochsApplied(), (std::vector<uint64_t>{1}));
}

TEST_F(RoamingWriterTest, DoesNotMoveToAnotherVolumeOfThatName) {
  StartFake(std::make_shared<FakeVolume>(1));
  StartFake(std::make_shared<FakeVolume>(2));
  Connect();
  auto io = server_->OpenVolumeIo("disk", absl::Now() + kLong);
  ASSERT_TRUE(io.ok()) << io.status();
  io_ = *std::move(io);
  ASSERT_TRUE(WriteAndWait(*io_.sink, {{1, 1}}).ok());
  at_ = fakes_[0]->writes().empty() ? 1 : 0;
  fakes_[at_]->Stop();
  ASSERT_TRUE(WaitFor([&] { return !server_->Stats()[at_].is_connected; }));
  std::this_thread::sleep_for(milliseconds(500));  // enough to have tried
  EXPECT_EQ(StartWrite(*io_.sink, {{2, 1}}).get().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(fakes_[1 - at_]->writes().empty());
  fakes_[at_]->Start();
  EXPECT_TRUE(WriteAndWait(*io_.sink, {{2, 1}}).ok());
  EXPECT_TRUE(fakes_[1 - at_]->writes().empty());
}

TEST(QuantileEstimate, FollowsAQuantileUpAndDownAgain) {
  QuantileEstimate p95(0.95, milliseconds(1), milliseconds(100));
  EXPECT_EQ(p95.value(), milliseconds(100));
  std::minstd_rand random(1);
  const auto record = [&](int count, double scale_ms) {
    std::uniform_real_distribution<double> of(0, scale_ms);
    for (int i = 0; i < count; ++i) {
      p95.Record(std::chrono::nanoseconds(static_cast<int64_t>(of(random) * 1e6)));
    }
  };
  record(1000, 10);
  EXPECT_NEAR(static_cast<double>(p95.value().count()) / 1e6, 9.5, 2);
  record(1000, 50);
  EXPECT_NEAR(static_cast<double>(p95.value().count()) / 1e6, 47.5, 10);
  record(2000, 0.1);
  EXPECT_EQ(p95.value(), milliseconds(1));
}

}  // namespace
}  // namespace faultline
