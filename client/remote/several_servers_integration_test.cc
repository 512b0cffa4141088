// SPDX-License-Identifier: Apache-2.0
//
// Several real servers of one raw image, each a process of its own: killed, stopped, drained.
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/remote/admin_client.h"
#include "client/remote/page_server.h"
#include "client/source/page_io_testing.h"
#include "proto/page_testing.h"
#include "server/test_process.h"

namespace faultline {
namespace {

using Steady = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr uint64_t kImagePages = 4096;
// Of a server that hangs nothing would come before it goes on, which it does after the fetches. How
// long a fetch does wait is printed; it is not judged here, where anything may run beside it.
constexpr std::chrono::seconds kNotHung{20};

class SeveralProcessesTest : public testing::Test {
 protected:
  SeveralProcessesTest() {
    std::string path = absl::StrCat(testing::TempDir(), "/servers_XXXXXX");
    directory_ = mkdtemp(path.data());
    std::ofstream image(directory_ + "/image", std::ios::binary);
    for (uint64_t page = 0; page < kImagePages; ++page) image << PageOfVersion(page, 1);
  }
  ~SeveralProcessesTest() override {
    source_.reset();
    connection_.reset();
    servers_.clear();
    std::filesystem::remove_all(directory_);
  }

  std::string AddressOf(size_t i) const { return absl::StrCat("unix:", directory_, "/s", i); }
  void StartServer(size_t i) {
    servers_.resize(std::max(servers_.size(), i + 1));
    servers_[i] = std::make_unique<ServerProcess>(std::vector<std::string>{
        "--listen=" + AddressOf(i), "--store=file:" + directory_ + "/image"});
    ASSERT_NE(servers_[i]->WaitForLine("listening on"), "") << servers_[i]->output();
  }
  std::string Addresses() const {
    std::string all;
    for (size_t i = 0; i < servers_.size(); ++i) {
      absl::StrAppend(&all, i == 0 ? "" : ",", AddressOf(i));
    }
    return all;
  }
  void Open(size_t servers) {
    for (size_t i = 0; i < servers; ++i) StartServer(i);
    connection_ = *PageServer::Create({.address = Addresses()});
    auto source = connection_->OpenVolume("image", absl::Now() + absl::Minutes(1));
    ASSERT_TRUE(source.ok()) << source.status();
    source_ = *std::move(source);
    ASSERT_TRUE(WaitFor([&] {
      for (uint64_t page = 0; page < kImagePages; page += 128) EXPECT_TRUE(Fetch(page));
      const auto stats = connection_->Stats();
      return std::all_of(stats.begin(), stats.end(),
                         [](const auto& one) { return one.fetches > 0; });
    }));
    worst_ = {};
  }
  static bool WaitFor(const std::function<bool()>& condition) {
    for (const auto end = Steady::now() + std::chrono::seconds(30); Steady::now() < end;
         std::this_thread::sleep_for(milliseconds(5))) {
      if (condition()) return true;
    }
    return false;
  }
  // Fetches, once, and notes how long it took.
  bool Fetch(uint64_t page) {
    const auto begun = Steady::now();
    const auto bytes = FetchAndWait(*source_, Pages(page, 1));
    worst_ = std::max<Steady::duration>(worst_, Steady::now() - begun);
    EXPECT_TRUE(bytes.ok()) << bytes.status();
    return bytes.ok() && *bytes == PageOfVersion(page, 1);
  }
  // Faults, one after the other, all over the image.
  void FetchFor(milliseconds duration) {
    uint64_t page = 0;
    for (const auto end = Steady::now() + duration; Steady::now() < end; ++fetched_) {
      EXPECT_TRUE(Fetch(page));
      page = (page + 1663) % kImagePages;
    }
  }
  int64_t worst_ms() const { return std::chrono::duration_cast<milliseconds>(worst_).count(); }

  std::string directory_;
  std::vector<std::unique_ptr<ServerProcess>> servers_;
  std::unique_ptr<PageServer> connection_;
  std::shared_ptr<PageSource> source_;
  Steady::duration worst_{};
  uint64_t fetched_ = 0;
};

TEST_F(SeveralProcessesTest, KilledOneAfterTheOtherNoFetchFails) {
  Open(3);
  for (size_t i = 0; i < 3; ++i) {
    auto killed = std::async(std::launch::async, [&, i] {
      std::this_thread::sleep_for(milliseconds(200));
      servers_[i]->Signal(SIGKILL);
      servers_[i]->Wait();
    });
    FetchFor(milliseconds(700));
    killed.get();
    StartServer(i);
    ASSERT_TRUE(WaitFor([&] { return connection_->Stats()[i].is_connected; }));
  }
  std::cout << fetched_ << " fetches, the slowest " << worst_ms() << " ms\n";
  EXPECT_LE(worst_, kNotHung);
}

TEST_F(SeveralProcessesTest, AStoppedOneHoldsUpNoFetchForLongerThanTheBound) {
  Open(2);
  for (const size_t i : {0, 1}) {
    worst_ = {};
    auto stopped = std::async(std::launch::async, [&, i] {
      std::this_thread::sleep_for(milliseconds(100));
      servers_[i]->Signal(SIGSTOP);
    });
    FetchFor(milliseconds(1500));
    stopped.get();
    std::cout << "stopped server " << i << ": the slowest fetch " << worst_ms() << " ms\n";
    EXPECT_LE(worst_, kNotHung);
    EXPECT_FALSE(connection_->Stats()[i].is_connected);
    servers_[i]->Signal(SIGCONT);
    ASSERT_TRUE(WaitFor([&] { return connection_->Stats()[i].is_connected; }));
  }
}

TEST_F(SeveralProcessesTest, OneThatDrainsIsLeftInPeace) {
  Open(2);
  auto drained = std::async(std::launch::async, [&] {
    std::this_thread::sleep_for(milliseconds(100));
    servers_[0]->Signal(SIGTERM);
    return servers_[0]->Wait();
  });
  FetchFor(milliseconds(1000));
  EXPECT_EQ(drained.get(), 0);
  std::cout << "a server drained: the slowest fetch " << worst_ms() << " ms\n";
  EXPECT_LE(worst_, kNotHung);
  EXPECT_TRUE(WaitFor([&] { return !connection_->Stats()[0].is_connected; }));
}

TEST_F(SeveralProcessesTest, TheCommandLineTakesTheFirstThatAnswers) {
  StartServer(0);
  StartServer(1);
  const auto admin = *AdminClient::Create({.address = Addresses()});
  servers_[0]->Signal(SIGKILL);
  servers_[0]->Wait();
  const auto volumes = admin->ListVolumes();
  ASSERT_TRUE(volumes.ok()) << volumes.status();
  ASSERT_EQ(volumes->size(), 1u);
  EXPECT_EQ((*volumes)[0].name(), "image");
  servers_[1]->Signal(SIGKILL);
  servers_[1]->Wait();
  EXPECT_EQ(admin->ListVolumes().status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace faultline
