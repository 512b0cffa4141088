// SPDX-License-Identifier: Apache-2.0
//
// Several servers, each a process of its own, on one namespace of RADOS: servers and OSDs are
// killed and stopped at random while four writers write versions of pages and read them back.
//
//   FAULTLINE_RADOS=DIR FAULTLINE_LOSS_SECONDS=300 FAULTLINE_LOSS_SEED=7 rados_loss_test
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/time/clock.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/bench/child_process.h"
#include "client/remote/admin_client.h"
#include "client/remote/page_server.h"
#include "client/source/page_io_testing.h"
#include "proto/page_testing.h"
#include "storage/rados_testing.h"

namespace faultline {
namespace {

using Steady = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kServers = 3;
constexpr size_t kWriters = 4;
// Of each volume: some neighbours, and others in extents of their own.
constexpr uint64_t kPages = 96;
uint64_t PageNumber(uint64_t i) { return i < 64 ? i * 2 : i * 64; }
constexpr uint64_t kVolumeBytes = uint64_t{128} * 64 * kPageSize;
// Of whoever asks a server that may stand still.
constexpr absl::Duration kReadPatience = absl::Seconds(2);
constexpr absl::Duration kWritePatience = absl::Seconds(40);

uint64_t NumberFromEnvironment(const char* name, uint64_t otherwise) {
  const char* const value = getenv(name);
  return value == nullptr ? otherwise : strtoull(value, nullptr, 10);
}

std::string VolumeName(size_t writer) { return absl::StrCat("v", writer); }

// What a page of a volume holds tells volume, page and version.
uint64_t Marked(size_t writer, uint64_t page) { return writer << 20 | page; }
std::string Content(size_t writer, uint64_t page, uint64_t version) {
  return PageOfVersion(Marked(writer, page), version);
}
// ~0 where it is of no version: another page's, or torn.
uint64_t VersionIn(size_t writer, uint64_t page, const std::string& bytes) {
  uint64_t word = 0;
  memcpy(&word, bytes.data(), sizeof word);
  const uint64_t version = word == 0 ? 0 : (word ^ Marked(writer, page) << 12 ^ 1) >> 44;
  return bytes == Content(writer, page, version) ? version : ~uint64_t{0};
}

absl::StatusOr<std::string> Fetch(PageSource& source, uint64_t page) {
  auto result = std::make_shared<std::promise<absl::StatusOr<std::string>>>();
  source.Fetch(Pages(page, 1), FetchLane::kDemand, absl::Now() + kReadPatience,
               [result](absl::StatusOr<std::span<const FetchedRun>> runs) {
                 if (!runs.ok()) return result->set_value(runs.status());
                 const FetchedRun& run = runs->front();
                 std::string bytes(kPageSize, '\0');
                 if (run.bytes != nullptr) memcpy(bytes.data(), run.bytes, kPageSize);
                 result->set_value(std::move(bytes));
               });
  return result->get_future().get();
}

// The servers, and connections to each of them alone and to all.
class Servers {
 public:
  Servers() {
    std::string path = absl::StrCat(testing::TempDir(), "/loss_XXXXXX");
    directory_ = mkdtemp(path.data());
    for (size_t i = 0; i < kServers; ++i) {
      Start(i);
      alone_[i] = *PageServer::Create({.address = AddressOf(i)});
      admin_[i] =
          *AdminClient::Create({.address = AddressOf(i), .call_timeout = absl::Seconds(10)});
    }
    for (size_t i = 0; i < kServers; ++i) EXPECT_TRUE(WaitUntilItServes(i));
  }
  ~Servers() {
    for (auto& process : processes_) process = ChildProcess();
    if (testing::Test::HasFailure()) {
      const std::string tails = absl::StrCat("tail -n 30 ", directory_, "/*.log >&2");
      if (system(tails.c_str()) != 0) std::cerr << "no logs\n";
    }
    std::filesystem::remove_all(directory_);
  }
  Servers(const Servers&) = delete;
  Servers& operator=(const Servers&) = delete;

  std::string AddressOf(size_t i) const { return absl::StrCat("unix:", directory_, "/s", i); }
  // Of all, this one first.
  std::string AddressesFrom(size_t first) const {
    std::vector<std::string> all;
    for (size_t i = 0; i < kServers; ++i) all.push_back(AddressOf((first + i) % kServers));
    return absl::StrJoin(all, ",");
  }
  PageServer& alone(size_t i) { return *alone_[i]; }
  AdminClient& admin(size_t i) { return *admin_[i]; }

  void Signal(size_t i, int signal) { kill(processes_[i].pid(), signal); }
  void KillAndRestart(size_t i) {
    Signal(i, SIGKILL);
    processes_[i].Wait();
    Start(i);
  }
  bool WaitUntilItServes(size_t i) {
    for (const auto end = Steady::now() + std::chrono::seconds(60); Steady::now() < end;
         std::this_thread::sleep_for(milliseconds(20))) {
      if (admin_[i]->ListVolumes().ok()) return true;
    }
    return false;
  }

 private:
  void Start(size_t i) {
    const std::string log = absl::StrCat(directory_, "/s", i, ".log");
    const UniqueFd file(open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    auto process = ChildProcess::Start(
        {FAULTLINE_SERVER_PROGRAM, "--listen=" + AddressOf(i), "--store=" + location_,
         "--rados-conf=" + RadosOptions().rados_conf},
        {.in = -1, .out = file.get(), .err = file.get()}, {}, ChildProcess::TlsVariables::kDropped);
    ASSERT_TRUE(process.ok()) << process.status();
    processes_[i] = *std::move(process);
  }

  const std::string location_ = NewLocation();
  std::string directory_;
  std::array<ChildProcess, kServers> processes_;
  std::array<std::unique_ptr<PageServer>, kServers> alone_;
  std::array<std::unique_ptr<AdminClient>, kServers> admin_;
};

struct Figures {
  std::atomic<uint64_t> acknowledged = 0, in_doubt = 0, refused = 0, reads = 0, unanswered = 0;
  std::atomic<uint64_t> kills = 0, stops = 0, osd_kills = 0, osd_stops = 0, snapshots = 0,
                        thefts = 0;
  std::atomic<int64_t> longest_ms = 0;
};

// Writes one volume, and reads it through whichever server.
class Writer {
 public:
  Writer(size_t number, Servers* servers, Figures* figures, uint64_t seed)
      : number_(number), servers_(servers), figures_(figures), random_(seed) {
    connection_ = *PageServer::Create({.address = servers->AddressesFrom(number)});
  }

  void Run(const std::atomic<bool>* stop) {
    while (!*stop && !testing::Test::HasFailure()) {
      if (io_.sink == nullptr) {
        Open();
        continue;
      }
      WriteSome();
      for (int i = 0; i < 2; ++i) ReadOne(random_() % kServers, random_() % kPages);
    }
    io_ = {};
  }
  // After Run(), when all servers serve: every page, through each of them.
  void ReadAll() {
    for (size_t server = 0; server < kServers; ++server) {
      for (uint64_t i = 0; i < kPages; ++i) {
        const auto end = Steady::now() + std::chrono::seconds(60);
        while (!ReadOne(server, i)) ASSERT_LT(Steady::now(), end) << "no answer from " << server;
      }
    }
  }

 private:
  void Open() {
    auto io = connection_->OpenVolumeIo(VolumeName(number_), absl::Now() + absl::Seconds(10));
    if (io.ok()) io_ = *std::move(io);
  }

  void WriteSome() {
    std::map<uint64_t, uint64_t> marked;  // the number that is in the page, and its index
    const uint64_t version = ++version_;
    const uint64_t count = 1 + random_() % 8;
    while (marked.size() < count) {
      const uint64_t i = random_() % kPages;
      marked[PageNumber(i)] = i;
    }
    std::vector<std::string> bytes;
    std::vector<PageToWrite> pages;
    for (const auto& [page, i] : marked) {
      sent_[i] = version;
      bytes.push_back(Content(number_, page, version));
    }
    for (const auto& [page, i] : marked) {
      const std::string& content = bytes[pages.size()];
      pages.push_back({PageIndex(page), reinterpret_cast<const std::byte*>(content.data())});
    }
    const auto begun = Steady::now();
    auto done = std::make_shared<std::promise<absl::Status>>();
    io_.sink->Write(pages, absl::Now() + kWritePatience,
                    [done](absl::Status status) { done->set_value(std::move(status)); });
    const absl::Status status = done->get_future().get();
    const auto took = std::chrono::duration_cast<milliseconds>(Steady::now() - begun).count();
    figures_->longest_ms = std::max<int64_t>(figures_->longest_ms, took);
    if (status.ok()) {
      for (const auto& [page, i] : marked) least_[i] = version;
      figures_->acknowledged += 1;
    } else if (absl::IsFailedPrecondition(status)) {
      figures_->refused += 1;  // somebody else has opened it for writing
      io_ = {};
    } else {
      EXPECT_TRUE(IsRetryable(status)) << status;
      figures_->in_doubt += 1;
    }
  }

  // False where there was no answer.
  bool ReadOne(size_t server, uint64_t i) {
    std::shared_ptr<PageSource>& source = sources_[server];
    if (source == nullptr) {
      auto opened =
          servers_->alone(server).OpenVolume(VolumeName(number_), absl::Now() + kReadPatience);
      if (!opened.ok()) return false;
      source = *std::move(opened);
    }
    const auto bytes = Fetch(*source, PageNumber(i));
    if (!bytes.ok()) {
      EXPECT_TRUE(IsRetryable(bytes.status())) << bytes.status();
      figures_->unanswered += 1;
      return false;
    }
    const uint64_t version = VersionIn(number_, PageNumber(i), *bytes);
    EXPECT_GE(version, least_[i]) << Where(server, i) << " went back";
    EXPECT_LE(version, sent_[i]) << Where(server, i) << " is torn, or another's";
    least_[i] = std::max(least_[i], version);
    figures_->reads += 1;
    return true;
  }
  std::string Where(size_t server, uint64_t i) const {
    return absl::StrCat("volume ", number_, ", page ", PageNumber(i), ", read through server ",
                        server);
  }

  const size_t number_;
  Servers* const servers_;
  Figures* const figures_;
  std::mt19937_64 random_;
  std::unique_ptr<PageServer> connection_;
  VolumeIo io_;
  std::array<std::shared_ptr<PageSource>, kServers> sources_;
  uint64_t version_ = 0;
  std::array<uint64_t, kPages> sent_ = {};
  // That was acknowledged or read: no read may find an older one from then on.
  std::array<uint64_t, kPages> least_ = {};
};

class RadosLoss : public testing::Test {
 protected:
  RadosLoss() {
    std::cout << "FAULTLINE_LOSS_SEED=" << seed_ << std::endl;
    for (size_t i = 0; i < kWriters; ++i) {
      rpc::CreateVolumeRequest request;
      request.set_name(VolumeName(i));
      request.set_size_bytes(kVolumeBytes);
      const auto made = servers_.admin(i % kServers).CreateVolume(request);
      EXPECT_TRUE(made.ok()) << made.status();
    }
  }

  void Pause(uint64_t least_ms, uint64_t most_ms) {
    std::this_thread::sleep_for(milliseconds(least_ms + random_() % (most_ms - least_ms)));
  }
  // Takes the volume from the server that has it, and its writer goes on.
  void TakeASnapshot() {
    const std::string volume = VolumeName(random_() % kWriters);
    const std::string name = absl::StrCat(volume, ".", ++snapshots_);
    AdminClient& admin = servers_.admin(random_() % kServers);
    if (!admin.SnapshotVolume(volume, name).ok()) return;
    figures_.snapshots += 1;
    if (random_() % 3 != 0) admin.DeleteVolume(name).IgnoreError();
  }
  // Becomes the writer of a volume, which its own then has to become again.
  void Steal() {
    const std::string volume = VolumeName(random_() % kWriters);
    PageServer& server = servers_.alone(random_() % kServers);
    if (server.OpenVolumeIo(volume, absl::Now() + absl::Seconds(5)).ok()) figures_.thefts += 1;
  }
  void DisturbServers() {
    const size_t server = random_() % kServers;
    switch (random_() % 6) {
      case 0:
      case 1:
        figures_.kills += 1;
        return servers_.KillAndRestart(server);
      case 2:
        figures_.stops += 1;
        servers_.Signal(server, SIGSTOP);
        Pause(300, 5000);
        return servers_.Signal(server, SIGCONT);
      case 3:
        return Steal();
      default:
        return TakeASnapshot();
    }
  }
  // For a thread of its own.
  void DisturbOsds(const std::atomic<bool>* stop) {
    std::mt19937_64 random(seed_ + 1000);
    while (!*stop) {
      const std::string osd = absl::StrCat(random() % 3);
      std::this_thread::sleep_for(milliseconds(500 + random() % 2000));
      if (random() % 3 == 0) {
        figures_.osd_stops += 1;
        Cluster("kill", osd + " STOP");
        std::this_thread::sleep_for(milliseconds(500 + random() % 7000));
        Cluster("kill", osd + " CONT");
      } else {
        figures_.osd_kills += 1;
        Cluster("kill", osd);
        std::this_thread::sleep_for(milliseconds(random() % 3000));
        Cluster("osd", osd);
      }
      Cluster("wait");
    }
  }
  void Print() const {
    const Figures& f = figures_;
    std::cout << f.acknowledged << " writes acknowledged, " << f.in_doubt << " in doubt, "
              << f.refused << " refused, the longest " << f.longest_ms << " ms; " << f.reads
              << " reads checked, " << f.unanswered << " unanswered; servers killed " << f.kills
              << ", stopped " << f.stops << ", writers replaced " << f.thefts << ", snapshots "
              << f.snapshots << "; OSDs killed " << f.osd_kills << ", stopped " << f.osd_stops
              << std::endl;
  }

  const uint64_t seed_ = NumberFromEnvironment("FAULTLINE_LOSS_SEED", std::random_device{}());
  std::mt19937_64 random_{seed_};
  Servers servers_;
  Figures figures_;
  uint64_t snapshots_ = 0;
};

TEST_F(RadosLoss, EveryAcknowledgedVersionIsReadThroughEveryServer) {
  const std::chrono::seconds length(NumberFromEnvironment("FAULTLINE_LOSS_SECONDS", 8));
  std::vector<std::unique_ptr<Writer>> writers;
  std::vector<std::thread> threads;
  std::atomic<bool> stop = false;
  for (size_t i = 0; i < kWriters; ++i) {
    writers.push_back(std::make_unique<Writer>(i, &servers_, &figures_, seed_ + 1 + i));
    threads.emplace_back([&, i] { writers[i]->Run(&stop); });
  }
  std::thread osds([&] { DisturbOsds(&stop); });
  for (const auto end = Steady::now() + length; Steady::now() < end && !HasFailure();) {
    Pause(100, 1500);
    DisturbServers();
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  osds.join();
  for (size_t i = 0; i < kServers; ++i) ASSERT_TRUE(servers_.WaitUntilItServes(i)) << i;
  for (const auto& writer : writers) writer->ReadAll();
  Print();
  EXPECT_GT(figures_.acknowledged, 0u);
}

TEST_F(RadosLoss, AServerThatWasStoppedAndReplacedChangesNothingWhenItGoesOn) {
  constexpr size_t kRounds = 3;
  for (size_t round = 0; round < kRounds; ++round) {
    // Many writes are on their way to it, and from it to OSDs, when it stops.
    auto before = servers_.alone(0).OpenVolumeIo(VolumeName(0), absl::Now() + absl::Minutes(1));
    ASSERT_TRUE(before.ok()) << before.status();
    std::map<uint64_t, std::future<absl::Status>> writes;  // by page
    std::map<uint64_t, uint64_t> sent;
    for (uint64_t i = 0; i < kPages; ++i) sent[PageNumber(i)] = 10 * round + 1;
    ASSERT_TRUE(WriteAndWait(*before->sink, sent).ok());
    for (auto& [page, version] : sent) {
      ++version;
      writes[page] = StartWrite(*before->sink, {{page, version}});
    }
    std::this_thread::sleep_for(milliseconds(random_() % 30));
    servers_.Signal(0, SIGSTOP);
    auto next = servers_.alone(1).OpenVolumeIo(VolumeName(0), absl::Now() + absl::Minutes(1));
    ASSERT_TRUE(next.ok()) << next.status();
    std::map<uint64_t, std::string> taken;
    for (const auto& [page, version] : sent) {
      const auto bytes = FetchUntilAnswered(*next->source, Pages(page, 1));
      ASSERT_TRUE(bytes.ok()) << bytes.status();
      const bool is_one =
          *bytes == PageOfVersion(page, version) || *bytes == PageOfVersion(page, version - 1);
      ASSERT_TRUE(is_one) << "page " << page << " is torn";
      taken[page] = *bytes;
    }
    // Nor does it undo what the next one writes.
    ASSERT_TRUE(WriteAndWait(*next->sink, {{0, 10 * round + 5}}).ok());
    taken[0] = PageOfVersion(0, 10 * round + 5);
    servers_.Signal(0, SIGCONT);
    size_t refused = 0;
    for (const auto& [page, version] : sent) {
      const absl::Status written = writes.at(page).get();
      refused += !written.ok();
      if (!written.ok() || page == 0) continue;
      ASSERT_TRUE(taken[page] == PageOfVersion(page, version))
          << "page " << page << " was acknowledged, and the next writer does not have it";
    }
    for (const auto& [page, version] : sent) {
      const absl::Status late = WriteAndWait(*before->sink, {{page, version + 1}});
      ASSERT_EQ(late.code(), absl::StatusCode::kFailedPrecondition) << late;
    }
    std::cout << refused << " of " << writes.size() << " writes were not acknowledged\n";
    for (size_t server = 0; server < 2; ++server) {
      auto source =
          servers_.alone(server).OpenVolume(VolumeName(0), absl::Now() + absl::Minutes(1));
      ASSERT_TRUE(source.ok()) << source.status();
      for (const auto& [page, bytes] : taken) {
        const auto found = FetchUntilAnswered(**source, Pages(page, 1));
        ASSERT_TRUE(found.ok()) << found.status();
        ASSERT_TRUE(*found == bytes) << "page " << page << ", read through server " << server;
      }
    }
  }
}

}  // namespace
}  // namespace faultline
