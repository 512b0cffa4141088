// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <thread>

#include "client/remote/fake_page_server.h"
#include "client/remote/page_server.h"
#include "proto/page_testing.h"

namespace faultline {
namespace {

constexpr absl::Duration kLong = absl::Seconds(60);

struct Fetched {
  absl::Status status;
  std::string bytes;
  uint64_t zero_pages = 0;
};

std::string ContentOf(PageRange range) {
  std::string bytes;
  for (PageIndex page = range.first; page < range.end(); ++page) {
    bytes += FakePageServer::Content(page.raw());
  }
  return bytes;
}

// Copies what a fetch brought; checks that the runs cover `range`, ascending.
Fetched Collect(PageRange range, absl::StatusOr<std::span<const FetchedRun>> runs) {
  Fetched fetched;
  fetched.status = runs.status();
  if (!runs.ok()) return fetched;
  PageIndex next = range.first;
  for (const FetchedRun& run : *runs) {
    EXPECT_EQ(run.range.first.raw(), next.raw());
    next = run.range.end();
    if (run.bytes == nullptr) {
      fetched.bytes.append(run.range.size_bytes(), '\0');
      fetched.zero_pages += run.range.count.raw();
    } else {
      fetched.bytes.append(reinterpret_cast<const char*>(run.bytes), run.range.size_bytes());
    }
  }
  EXPECT_EQ(next.raw(), range.end().raw());
  return fetched;
}

class RemotePageSourceTest : public testing::Test {
 protected:
  RemotePageSourceTest() {
    std::string path = absl::StrCat(testing::TempDir(), "/remote_XXXXXX");
    directory_ = mkdtemp(path.data());
    options_.address = absl::StrCat("unix:", directory_, "/s");
    fake_ = std::make_unique<FakePageServer>(options_.address);
    Connect();
  }
  ~RemotePageSourceTest() override {
    source_.reset();
    server_.reset();
    fake_.reset();
    std::filesystem::remove_all(directory_);
  }

  void Connect() {
    source_.reset();
    auto server = PageServer::Create(options_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    auto source = server_->OpenVolume("disk", absl::Now() + kLong);
    ASSERT_TRUE(source.ok()) << source.status();
    source_ = *std::move(source);
  }

  std::future<Fetched> Start(PageRange range, FetchLane lane = FetchLane::kDemand,
                             absl::Duration timeout = kLong) {
    auto promise = std::make_shared<std::promise<Fetched>>();
    source_->Fetch(range, lane, absl::Now() + timeout,
                   [promise, range](absl::StatusOr<std::span<const FetchedRun>> runs) {
                     promise->set_value(Collect(range, std::move(runs)));
                   });
    return promise->get_future();
  }
  Fetched Fetch(PageRange range, FetchLane lane = FetchLane::kDemand,
                absl::Duration timeout = kLong) {
    return Start(range, lane, timeout).get();
  }

  // Fetches until it works, as the Fetcher does.
  void ExpectComesBack(PageRange range) {
    const absl::Time end = absl::Now() + kLong;
    Fetched fetched = Fetch(range);
    while (IsRetryable(fetched.status) && absl::Now() < end) fetched = Fetch(range);
    EXPECT_TRUE(fetched.status.ok()) << fetched.status;
    EXPECT_EQ(fetched.bytes, ContentOf(range));
  }

  std::string directory_;
  PageServerOptions options_;
  std::unique_ptr<FakePageServer> fake_;
  std::unique_ptr<PageServer> server_;
  std::shared_ptr<PageSource> source_;
};

TEST_F(RemotePageSourceTest, VolumeHasTheSizeAndLimitThatTheServerSays) {
  EXPECT_EQ(source_->size().raw(), FakePageServer::kPages);
  EXPECT_EQ(source_->max_fetch().raw(), FakePageServer::kMaxPagesPerRequest);
}

TEST_F(RemotePageSourceTest, FetchesSinglePagesOfEveryCodec) {
  for (const FetchLane lane : {FetchLane::kDemand, FetchLane::kPrefetch, FetchLane::kBulk}) {
    for (uint64_t page = 0; page < 8; ++page) {
      const Fetched fetched = Fetch(Pages(page, 1), lane);
      ASSERT_TRUE(fetched.status.ok()) << fetched.status;
      EXPECT_EQ(fetched.bytes, FakePageServer::Content(page));
      EXPECT_EQ(fetched.zero_pages, page % 4 == 3 ? 1u : 0u);
    }
  }
}

TEST_F(RemotePageSourceTest, RunOfPagesArrivesInOrderWithItsZeroRuns) {
  const Fetched fetched = Fetch(Pages(1, FakePageServer::kMaxPagesPerRequest));
  ASSERT_TRUE(fetched.status.ok()) << fetched.status;
  EXPECT_EQ(fetched.bytes, ContentOf(Pages(1, FakePageServer::kMaxPagesPerRequest)));
  EXPECT_EQ(fetched.zero_pages, FakePageServer::kMaxPagesPerRequest / 4);
}

// So that one ioctl can fill them.
TEST_F(RemotePageSourceTest, NeighbouringPagesOfDataAreHandedOutAsOneRun) {
  std::promise<std::vector<PageRange>> ranges;
  source_->Fetch(Pages(4, 4), FetchLane::kBulk, absl::Now() + kLong, [&](auto runs) {
    std::vector<PageRange> got;
    if (runs.ok()) {
      for (const FetchedRun& run : *runs) got.push_back(run.range);
    }
    ranges.set_value(std::move(got));
  });
  EXPECT_EQ(ranges.get_future().get(), (std::vector<PageRange>{Pages(4, 3), Pages(7, 1)}));
}

TEST_F(RemotePageSourceTest, AnswersMayComeOutOfOrder) {
  fake_->AnswerInReverse(10);
  std::vector<std::future<Fetched>> fetches;
  // So large that no two of them travel together.
  for (uint64_t i = 0; i < 10; ++i)
    fetches.push_back(Start(Pages(i * 10, 40 + i), FetchLane::kPrefetch));
  for (uint64_t i = 0; i < 10; ++i) {
    const Fetched fetched = fetches[i].get();
    ASSERT_TRUE(fetched.status.ok()) << fetched.status;
    EXPECT_EQ(fetched.bytes, ContentOf(Pages(i * 10, 40 + i)));
  }
}

TEST_F(RemotePageSourceTest, SmallFetchesOfTheBulkLaneWaitForOthersBehindAFew) {
  fake_->Stall();
  std::vector<std::future<Fetched>> fetches;
  for (uint64_t i = 0; i < 200; ++i) fetches.push_back(Start(Pages(3 * i, 1), FetchLane::kBulk));
  // Three whole messages, and some smaller ones.
  fake_->WaitForRequests(1);
  fake_->Resume();
  for (uint64_t i = 0; i < 200; ++i) EXPECT_EQ(fetches[i].get().bytes, ContentOf(Pages(3 * i, 1)));
  EXPECT_LE(fake_->requests().size(), 16u);
}

TEST_F(RemotePageSourceTest, FetchesBeyondTheWindowWaitAndTravelTogether) {
  options_.max_requests_in_flight = 1;
  Connect();
  fake_->Stall();
  std::vector<std::future<Fetched>> fetches;
  fetches.push_back(Start(Pages(100, 1)));
  fake_->WaitForRequests(1);
  for (const uint64_t page : {9, 3, 4, 200}) fetches.push_back(Start(Pages(page, 2)));
  fake_->Resume();
  EXPECT_EQ(fetches[0].get().bytes, ContentOf(Pages(100, 1)));
  EXPECT_EQ(fetches[1].get().bytes, ContentOf(Pages(9, 2)));
  EXPECT_EQ(fetches[2].get().bytes, ContentOf(Pages(3, 2)));
  EXPECT_EQ(fetches[3].get().bytes, ContentOf(Pages(4, 2)));
  EXPECT_EQ(fetches[4].get().bytes, ContentOf(Pages(200, 2)));
  const std::vector<rpc::FetchRequest> requests = fake_->requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[1].runs_size(), 4);
}

TEST_F(RemotePageSourceTest, DamagedPageIsDataLossAndNamesThePage) {
  fake_->Alter([](rpc::FetchResponse* response) {
    std::string* pages = response->mutable_batch()->mutable_pages();
    if (!pages->empty()) pages->back() = static_cast<char>(pages->back() ^ 1);
  });
  const Fetched fetched = Fetch(Pages(12, 1));
  EXPECT_EQ(fetched.status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(fetched.status.message(), "page 12: checksum does not match");
  EXPECT_EQ(Fetch(Pages(12, 3)).status.message(), "page 14: checksum does not match");
}

TEST_F(RemotePageSourceTest, DamagedPageDoesNotSpoilTheFetchesThatTravelWithIt) {
  options_.max_requests_in_flight = 1;
  Connect();
  fake_->Alter([](rpc::FetchResponse* response) {
    // Page 5 is damaged wherever it is; it comes first in its batch.
    rpc::PageBatch* batch = response->mutable_batch();
    if (batch->runs(0).first() == 5) batch->mutable_pages()->at(200) ^= 1;
  });
  fake_->Stall();
  auto first = Start(Pages(0, 1));
  fake_->WaitForRequests(1);
  auto damaged = Start(Pages(5, 1));
  auto good = Start(Pages(20, 1));
  fake_->Resume();
  EXPECT_TRUE(first.get().status.ok());
  EXPECT_EQ(damaged.get().status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(good.get().bytes, FakePageServer::Content(20));
}

TEST_F(RemotePageSourceTest, OtherPagesThanThoseAskedForAreNeverHandedOut) {
  struct Case {
    const char* what;
    std::function<void(rpc::PageBatch*)> alter;
    absl::StatusCode code;
  };
  const std::vector<Case> cases = {
      {"another page", [](rpc::PageBatch* b) { b->mutable_runs(0)->set_first(6); },
       absl::StatusCode::kInternal},
      {"too few", [](rpc::PageBatch* b) { b->mutable_runs(0)->set_count(1); },
       absl::StatusCode::kInternal},
      {"an empty run", [](rpc::PageBatch* b) { b->mutable_runs(0)->set_count(0); },
       absl::StatusCode::kInternal},
      {"none", [](rpc::PageBatch* b) { b->clear_runs(); }, absl::StatusCode::kInternal},
      {"too many", [](rpc::PageBatch* b) { b->mutable_runs(0)->set_count(4); },
       absl::StatusCode::kInternal},
      {"a run twice", [](rpc::PageBatch* b) { *b->add_runs() = b->runs(0); },
       absl::StatusCode::kInternal},
      {"payload cut off", [](rpc::PageBatch* b) { b->mutable_pages()->resize(1000); },
       absl::StatusCode::kDataLoss},
      {"payload too long", [](rpc::PageBatch* b) { b->mutable_pages()->append("x"); },
       absl::StatusCode::kInternal},
  };
  for (const Case& c : cases) {
    fake_->Alter([&](rpc::FetchResponse* response) { c.alter(response->mutable_batch()); });
    const Fetched fetched = Fetch(Pages(4, 2));
    EXPECT_EQ(fetched.status.code(), c.code) << c.what << ": " << fetched.status;
    EXPECT_EQ(fetched.bytes, "") << c.what;
  }
}

// What comes after it cannot be told apart either: all that is under way fails, and may be retried.
TEST_F(RemotePageSourceTest, AnswerThatCannotBeReadBreaksTheStreamAndTheNextOneWorks) {
  std::atomic<int> altered = 0;
  fake_->Alter([&](rpc::FetchResponse* response) {
    // No field has the number 0.
    if (++altered == 1) response->GetReflection()->MutableUnknownFields(response)->AddVarint(0, 1);
  });
  const Fetched fetched = Fetch(Pages(3, 1));
  EXPECT_EQ(fetched.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(fetched.status.message().find(
                absl::StrCat("cannot read what the page server at ", options_.address, " sent")),
            absl::string_view::npos)
      << fetched.status;
  ExpectComesBack(Pages(0, 8));
}

TEST_F(RemotePageSourceTest, ErrorOfTheServerArrivesWithItsMessage) {
  const Fetched fetched = Fetch(Pages(FakePageServer::kPages - 1, 2));
  EXPECT_EQ(fetched.status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(fetched.status.message(), "pages 4095 to 4096 reach beyond the volume's 4096");
}

TEST_F(RemotePageSourceTest, StalledServerEndsFetchesAtTheirDeadline) {
  fake_->Stall();
  auto patient = Start(Pages(8, 1));
  fake_->WaitForRequests(1);
  const Fetched late = Fetch(Pages(9, 1), FetchLane::kDemand, absl::Milliseconds(50));
  EXPECT_EQ(late.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(late.status.message(),
            absl::StrCat("page server ", options_.address, " did not answer within the deadline"));
  fake_->Resume();
  EXPECT_EQ(patient.get().bytes, FakePageServer::Content(8));
  EXPECT_EQ(Fetch(Pages(9, 1)).bytes, FakePageServer::Content(9));
}

TEST_F(RemotePageSourceTest, DeadlineAlsoHoldsForWhatWaitsForItsTurn) {
  options_.max_requests_in_flight = 1;
  Connect();
  fake_->Stall();
  auto first = Start(Pages(8, 1));
  fake_->WaitForRequests(1);
  const Fetched late = Fetch(Pages(9, 1), FetchLane::kDemand, absl::Milliseconds(50));
  EXPECT_EQ(late.status.code(), absl::StatusCode::kDeadlineExceeded);
  fake_->Resume();
  EXPECT_EQ(first.get().bytes, FakePageServer::Content(8));
}

// One of two calls in one request ends early; the other still gets its own pages.
TEST_F(RemotePageSourceTest, DeadlineOfOneFetchLeavesThoseThatTravelWithItAlone) {
  options_.max_requests_in_flight = 1;
  Connect();
  fake_->Stall();
  auto first = Start(Pages(0, 1));
  fake_->WaitForRequests(1);
  std::atomic<int> altered = 0;
  std::promise<void> hold;
  std::shared_future<void> held = hold.get_future().share();
  fake_->Alter([&](rpc::FetchResponse*) {
    if (++altered == 2) held.wait();
  });
  auto late = Start(Pages(16, 1), FetchLane::kDemand, absl::Milliseconds(300));
  auto patient = Start(Pages(18, 1));
  fake_->Resume();
  EXPECT_TRUE(first.get().status.ok());
  EXPECT_EQ(late.get().status.code(), absl::StatusCode::kDeadlineExceeded);
  hold.set_value();
  EXPECT_EQ(patient.get().bytes, FakePageServer::Content(18));
}

TEST_F(RemotePageSourceTest, DeathOfTheServerEndsFetchesAndItsReturnIsFound) {
  for (int round = 0; round < 3; ++round) {
    fake_->Stall();
    std::vector<std::future<Fetched>> fetches;
    const size_t before = fake_->requests().size();
    for (uint64_t i = 0; i < 20; ++i) fetches.push_back(Start(Pages(i, 1)));
    fake_->WaitForRequests(before + 1);
    fake_->Stop();
    for (auto& fetch : fetches) {
      EXPECT_EQ(fetch.get().status.code(), absl::StatusCode::kUnavailable);
    }
    const Fetched nobody = Fetch(Pages(1, 1));
    EXPECT_EQ(nobody.status.code(), absl::StatusCode::kUnavailable);
    EXPECT_NE(nobody.status.message().find(
                  absl::StrCat("cannot reach the page server at ", options_.address)),
              absl::string_view::npos)
        << nobody.status;
    fake_->Resume();
    fake_->Start();
    ExpectComesBack(Pages(0, 20));
  }
}

TEST_F(RemotePageSourceTest, ThousandsOfFetchesFromManyThreadsGetTheirOwnBytes) {
  constexpr int kThreads = 4;
  constexpr int kFetches = 1000;
  std::vector<std::string> content;
  for (uint64_t i = 0; i < FakePageServer::kPages; ++i) {
    content.push_back(FakePageServer::Content(i));
  }
  std::atomic<int> wrong = 0;
  std::atomic<int> left = kThreads * kFetches;
  std::promise<void> all;
  const unsigned seed = testing::UnitTest::GetInstance()->random_seed();
  std::printf("seed %u (--gtest_random_seed)\n", seed);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(seed + static_cast<unsigned>(t));
      for (int i = 0; i < kFetches; ++i) {
        const PageRange range = Pages(random() % (FakePageServer::kPages - 16), 1 + random() % 16);
        const FetchLane lane = random() % 4 == 0 ? FetchLane::kBulk : FetchLane::kDemand;
        source_->Fetch(range, lane, absl::Now() + kLong, [&, range](auto runs) {
          const Fetched fetched = Collect(range, std::move(runs));
          std::string expected;
          for (PageIndex page = range.first; page < range.end(); ++page) {
            expected += content[page.raw()];
          }
          if (!fetched.status.ok() || fetched.bytes != expected) ++wrong;
          if (--left == 0) all.set_value();
        });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  all.get_future().wait();
  EXPECT_EQ(wrong, 0);
}

TEST_F(RemotePageSourceTest, CallbackMayFetchAgain) {
  std::promise<Fetched> last;
  std::function<void(uint64_t)> next = [&](uint64_t page) {
    source_->Fetch(Pages(page, 1), FetchLane::kDemand, absl::Now() + kLong, [&, page](auto runs) {
      Fetched fetched = Collect(Pages(page, 1), std::move(runs));
      if (page == 200 || !fetched.status.ok()) {
        last.set_value(std::move(fetched));
      } else {
        next(page + 1);
      }
    });
  };
  next(0);
  EXPECT_EQ(last.get_future().get().bytes, FakePageServer::Content(200));
}

TEST_F(RemotePageSourceTest, MissingVolumeIsNotFound) {
  const auto source = server_->OpenVolume("tape", absl::Now() + kLong);
  EXPECT_EQ(source.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(source.status().message(), "there is no volume \"tape\"");
}

TEST_F(RemotePageSourceTest, OpenSaysWhereNobodyAnswered) {
  fake_->Stop();
  const auto source = server_->OpenVolume("disk", absl::Now() + absl::Milliseconds(100));
  EXPECT_EQ(source.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(source.status().message(),
            absl::StrCat("cannot reach the page server at ", options_.address,
                         " (no answer by the deadline); check that faultline-server runs and "
                         "listens on that address, and with TLS that each end accepts the other's "
                         "certificate"));
}

TEST_F(RemotePageSourceTest, ConnectionClosesCleanlyWhileIdleConnectedOrNeverConnected) {
  Fetch(Pages(0, 1));
  Connect();  // destroys one that has fetched
  Connect();  // and one that has not
  auto never = PageServer::Create({.address = "unix:/nonexistent/s"});
  EXPECT_TRUE(never.ok());
}

TEST(PageServer, AddressOfNeitherFormIsRefused) {
  for (const char* address : {"", "7400", "host", ":7400", "host:", "host:0", "host:65536",
                              "host:x", "unix:", "::1:7400"}) {
    const auto server = PageServer::Create({.address = address});
    EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_EQ(server.status().message(),
              absl::StrCat("\"", address,
                           "\" is no server address; write host:port (127.0.0.1:7400), "
                           "unix:path or dns:///host:port, or several with commas between them"));
  }
  for (const char* address : {"127.0.0.1:7400", "pages.example:1", "[::1]:7400", "unix:/run/s",
                              "dns:///pages.example:1", "127.0.0.1:1,[::1]:2,unix:/run/s"}) {
    EXPECT_TRUE(PageServer::Create({.address = address}).ok()) << address;
  }
}

}  // namespace
}  // namespace faultline
