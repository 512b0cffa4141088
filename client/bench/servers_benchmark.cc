// SPDX-License-Identifier: Apache-2.0
//
// What several page servers cost beside one: random pages, many fetches under way, by a client that
// has one server and by one that has three, in turns, with stores in memory. On one machine three
// serve no more than one where the processors are what there is too little of; so it shows whether
// they do anything for each other, or the client for all of them.
//
//   servers_benchmark [SECONDS]
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "client/bench/process_cpu.h"
#include "client/bench/served_volume.h"
#include "client/bench/statistics.h"
#include "proto/mutex.h"

namespace faultline::bench {
namespace {

using std::chrono::steady_clock;

constexpr uint64_t kPages = 16384;
constexpr int kUnderWay = 64;
constexpr size_t kServers = 3;
constexpr char kVolume[] = "benchmark";

// A client of the servers at `address`, which keeps so many fetches of one page under way.
class Client {
 public:
  explicit Client(const std::string& address) {
    server_ = Reach(address);
    auto source = server_->OpenVolume(kVolume, absl::Now() + absl::Seconds(20));
    Require(source.status(), "opening the volume");
    source_ = *std::move(source);
  }

  // The pages that have come within a second.
  uint64_t RunForASecond() {
    const auto end = steady_clock::now() + std::chrono::seconds(1);
    uint64_t pages = 0;
    MutexLock lock(mu_);
    while (steady_clock::now() < end) {
      while (under_way_ == kUnderWay) changed_.Wait(mu_);
      ++under_way_;
      ++pages;
      mu_.Unlock();
      source_->Fetch({PageIndex(random_() % kPages), PageCount(1)}, FetchLane::kDemand,
                     absl::Now() + absl::Seconds(20),
                     [this](absl::StatusOr<std::span<const FetchedRun>> runs) {
                       Require(runs.status(), "fetching");
                       MutexLock done(mu_);
                       if (under_way_-- == kUnderWay) changed_.SignalAll();
                     });
      mu_.Lock();
    }
    while (under_way_ > 0)
      changed_.WaitUntil(mu_, steady_clock::now() + std::chrono::milliseconds(1));
    return pages;
  }

 private:
  std::unique_ptr<PageServer> server_;
  std::shared_ptr<PageSource> source_;
  std::mt19937_64 random_{1};
  Mutex mu_;
  CondVar changed_;
  int under_way_ ABSL_GUARDED_BY(mu_) = 0;
};

int Run(int seconds) {
  const TemporaryDirectory temporary = MakeDirectory("/dev/shm");
  const std::string& directory = temporary.path();
  // Copies of one raw image, in memory: the same volume for a client, and nothing shared but that.
  const std::string image = directory + "/" + kVolume;
  std::ofstream file(image, std::ios::binary);
  std::array<std::byte, kPageSize> bytes;
  for (uint64_t page = 0; page < kPages; ++page) {
    PageContent().Fill(PageIndex(page), bytes.data());
    file.write(reinterpret_cast<const char*>(bytes.data()), kPageSize);
  }
  file.close();
  Require(file ? absl::OkStatus() : absl::UnknownError("/dev/shm is full"), "making the volume");
  std::vector<std::unique_ptr<ServerProcess>> servers;
  std::vector<std::string> addresses;
  for (size_t i = 0; i < kServers; ++i) {
    servers.push_back(std::make_unique<ServerProcess>(
        absl::StrCat(directory, "/", i), std::vector<std::string>{"--store=file:" + image}));
    addresses.push_back(servers.back()->address());
  }
  Client one(addresses[0]), all(absl::StrJoin(addresses, ","));
  const auto cpu_of_servers = [&] {
    double micros = 0;
    for (const auto& server : servers) micros += ProcessCpuMicros(server->pid());
    return micros;
  };
  std::vector<double> rate[2], server_cpu[2], client_cpu[2];
  for (int turn = -2; turn < seconds; ++turn) {  // the first two warm up
    const size_t which = static_cast<size_t>(turn + 2) % 2;
    const double servers_before = cpu_of_servers(), client_before = ProcessCpuMicros(getpid());
    const auto pages = static_cast<double>((which == 0 ? one : all).RunForASecond());
    if (turn < 0) continue;
    rate[which].push_back(pages);
    server_cpu[which].push_back((cpu_of_servers() - servers_before) / pages);
    client_cpu[which].push_back((ProcessCpuMicros(getpid()) - client_before) / pages);
  }
  for (size_t which = 0; which < 2; ++which) {
    const Spread pages = SpreadOf(rate[which]);
    printf(
        "%zu servers: %8.0f pages/s [%.0f, %.0f]  processor time a page: %5.2f us of servers, "
        "%5.2f us of the client\n",
        which == 0 ? size_t{1} : kServers, pages.median, pages.min, pages.max,
        Quantile(server_cpu[which], 0.5), Quantile(client_cpu[which], 0.5));
  }
  printf("of one server: pages/s %.2f, processor time a page %.2f\n",
         Quantile(rate[1], 0.5) / Quantile(rate[0], 0.5),
         (Quantile(server_cpu[1], 0.5) + Quantile(client_cpu[1], 0.5)) /
             (Quantile(server_cpu[0], 0.5) + Quantile(client_cpu[0], 0.5)));
  return 0;
}

}  // namespace
}  // namespace faultline::bench

int main(int argc, char** argv) {
  return faultline::bench::Run(argc > 1 ? std::max(2, atoi(argv[1])) : 20);
}
