// SPDX-License-Identifier: Apache-2.0
#include "client/remote/several_servers.h"

#include <absl/functional/function_ref.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/time/clock.h>
#include <pthread.h>

#include <algorithm>
#include <random>
#include <thread>
#include <utility>

#include "client/remote/fetch_races.h"
#include "client/remote/peer.h"
#include "client/remote/roaming_writer.h"
#include "proto/log.h"

namespace faultline {
namespace {

using Clock = Peer::Clock;
using Wait = ServerConnection::Wait;

// How soon a server that has come back, or says that it does not serve, is known to.
constexpr std::chrono::milliseconds kStateTick{100};
// How often names are looked up.
constexpr std::chrono::seconds kLookUpInterval{10};
// Of one call to one of several servers. A writer may have to wait for the end of another.
constexpr absl::Duration kReadTry = absl::Seconds(2);
constexpr absl::Duration kWriteTry = absl::Seconds(5);
// Before a server is asked again that did not let a volume be opened, or a writer go on.
constexpr std::chrono::seconds kOpenAgain{1};
// A connection that has stood for so long since its server fell silent is one to a server that has
// answered the questions of gRPC's keepalive.
constexpr std::chrono::milliseconds kProvenAlive =
    kKeepaliveOfSeveral.time + kKeepaliveOfSeveral.timeout + std::chrono::seconds(1);
// Addresses that names may have in the life of this process.
constexpr size_t kMaxAddresses = 256;

class SharedSource final : public PageSource {
 public:
  SharedSource(FetchRaces* races, std::shared_ptr<SharedVolume> volume,
               const rpc::OpenVolumeResponse& opened)
      : races_(races),
        volume_(std::move(volume)),
        size_(PageCount::CoveringBytes(opened.size_bytes())),
        max_fetch_(opened.max_pages_per_request()) {}

  void Fetch(PageRange range, FetchLane lane, absl::Time deadline, FetchDone done) override {
    races_->Start(volume_, range, lane, deadline, std::move(done));
  }
  PageCount size() const override { return size_; }
  PageCount max_fetch() const override { return max_fetch_; }
  const FetchStages* stages() const override { return volume_->stages.get(); }

 private:
  FetchRaces* const races_;
  const std::shared_ptr<SharedVolume> volume_;
  const PageCount size_, max_fetch_;
};

class SeveralServers final : public PageServer {
 public:
  SeveralServers(std::vector<ServerEntry> entries, const PageServerOptions& options);
  ~SeveralServers() override;

  absl::StatusOr<std::shared_ptr<PageSource>> OpenVolume(absl::string_view volume,
                                                         absl::Time deadline) override;
  absl::StatusOr<VolumeIo> OpenVolumeIo(absl::string_view volume, absl::Time deadline) override;
  absl::StatusOr<WorkingSet> GetWorkingSet(absl::string_view volume, absl::Time deadline) override;
  absl::Status MergeWorkingSet(absl::string_view volume, const WorkingSet& pages,
                               absl::Time deadline) override;
  bool IsReachable(absl::Duration patience) override;
  std::vector<PageServerStats> Stats() override;
  Pollable* pollable() override { return &threads_; }

 private:
  // What the thread knows of a peer's silence.
  struct Silence {
    Clock::time_point since;
    bool was_disconnected = false;
  };
  // A volume that is to be open at every server.
  struct Reading {
    std::weak_ptr<SharedVolume> volume;
    uint64_t identity;
    PageCount max_fetch;
    std::vector<std::pair<const Peer*, Clock::time_point>> not_before;  // of those that refused
  };
  struct Writing {
    std::weak_ptr<RoamingWriter> writer;
    Clock::time_point not_before;
    bool was_refused = false;  // since it had a server
  };
  using TryOne = absl::FunctionRef<absl::Status(Peer& peer, absl::Time deadline)>;

  // Tries one server after the other until one does it, or has another answer than that it cannot
  // be reached.
  absl::Status OnAny(absl::string_view volume, absl::Duration one_try, absl::Time deadline,
                     TryOne try_one);
  std::vector<Peer*> Peers();
  std::vector<Peer*> UsablePeers();

  void LookUp();
  // The servers are those of `found` from here on.
  void List(const std::vector<ServerAddress>& found);
  void LookAfterPeers();
  void LookAt(Peer* peer, Silence* silence, Clock::time_point now);
  void OpenEverywhere(Reading* reading, Clock::time_point now);
  void OpenAt(Peer* peer, SharedVolume* volume, Reading* reading, Clock::time_point now);
  void MoveWriter(Writing* writing, Clock::time_point now);
  // Until the time, or the end; false at the end.
  bool Sleep(Clock::duration duration);

  // Constant after construction.
  const std::vector<ServerEntry> entries_;
  const PageServerOptions options_;
  CompletionThreads threads_;

  Mutex mu_;
  CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::unique_ptr<Peer>> peers_ ABSL_GUARDED_BY(mu_);  // none is ever removed
  std::vector<Reading> new_readings_ ABSL_GUARDED_BY(mu_);  // which the thread has yet to take up
  std::vector<Writing> new_writings_ ABSL_GUARDED_BY(mu_);

  FetchRaces races_;
  std::thread look_up_;  // not joinable where there is no name
  std::thread look_after_;
};

SeveralServers::SeveralServers(std::vector<ServerEntry> entries, const PageServerOptions& options)
    : entries_(std::move(entries)), options_(options), threads_(options.threads) {
  std::vector<ServerAddress> known;
  bool any_name = false;
  for (const ServerEntry& entry : entries_) {
    if (IsNumeric(entry)) {
      known.push_back({entry.address, ""});
    } else {
      any_name = true;
    }
  }
  List(known);
  if (any_name) {
    look_up_ = std::thread([this] { LookUp(); });
    pthread_setname_np(look_up_.native_handle(), "fl-lookup");
  }
  look_after_ = std::thread([this] { LookAfterPeers(); });
  pthread_setname_np(look_after_.native_handle(), "fl-servers");
}

SeveralServers::~SeveralServers() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
    changed_.SignalAll();
  }
  if (look_up_.joinable()) look_up_.join();
  look_after_.join();
  races_.Stop();
  for (Peer* peer : Peers()) peer->connection.Shutdown();
  threads_.Stop();
}

std::vector<Peer*> SeveralServers::Peers() {
  std::vector<Peer*> peers;
  MutexLock lock(mu_);
  peers.reserve(peers_.size());
  for (const auto& peer : peers_) peers.push_back(peer.get());
  return peers;
}

std::vector<Peer*> SeveralServers::UsablePeers() {
  std::vector<Peer*> peers = Peers();
  std::erase_if(peers, [](const Peer* peer) { return !peer->usable(); });
  return peers;
}

absl::Status SeveralServers::OnAny(absl::string_view volume, absl::Duration one_try,
                                   absl::Time deadline, TryOne try_one) {
  absl::Status unreachable = absl::UnavailableError("none of them can be connected to");
  do {
    absl::Status answer;
    // Each volume begins with another.
    std::vector<Peer*> peers = UsablePeers();
    if (!peers.empty()) {
      std::rotate(peers.begin(),
                  peers.begin() + static_cast<std::ptrdiff_t>(
                                      XXH3_64bits(volume.data(), volume.size()) % peers.size()),
                  peers.end());
    }
    for (Peer* peer : peers) {
      absl::Status status = try_one(*peer, std::min(deadline, absl::Now() + one_try));
      if (status.ok()) return status;
      (absl::IsUnavailable(status) ? unreachable : answer) = std::move(status);
    }
    if (!answer.ok()) return answer;
    absl::SleepFor(absl::Milliseconds(20));
  } while (absl::Now() < deadline);
  return absl::UnavailableError(absl::StrCat("cannot reach any of the page servers ",
                                             options_.address, " (", unreachable.message(),
                                             "); check that faultline-server runs there"));
}

absl::StatusOr<std::shared_ptr<PageSource>> SeveralServers::OpenVolume(absl::string_view volume,
                                                                       absl::Time deadline) {
  std::shared_ptr<PageSource> source;
  absl::Status status =
      OnAny(volume, kReadTry, deadline, [&](Peer& peer, absl::Time until) -> absl::Status {
        const auto opened = peer.connection.OpenForReading(volume, Wait::kNever, until);
        if (!opened.ok()) return opened.status();
        auto shared = std::make_shared<SharedVolume>(std::string(volume));
        shared->Add({&peer, peer.connection.NewSource(*opened, shared->stages)});
        source = std::make_shared<SharedSource>(&races_, shared, *opened);
        MutexLock lock(mu_);
        new_readings_.push_back({shared, opened->identity(), source->max_fetch(), {}});
        changed_.SignalAll();
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  return source;
}

absl::StatusOr<VolumeIo> SeveralServers::OpenVolumeIo(absl::string_view volume,
                                                      absl::Time deadline) {
  std::random_device random;
  const uint64_t number =
      std::uniform_int_distribution<uint64_t>(1, std::numeric_limits<uint64_t>::max())(random);
  VolumeIo io;
  absl::Status status =
      OnAny(volume, kWriteTry, deadline, [&](Peer& peer, absl::Time until) -> absl::Status {
        const auto opened =
            peer.connection.Open(RoamingWriter::OpenRequest(volume, number), Wait::kNever, until);
        if (!opened.ok()) return opened.status();
        const auto writer =
            std::make_shared<RoamingWriter>(std::string(volume), number, &peer, *opened);
        io.source = std::make_shared<SharedSource>(&races_, writer->volume(), *opened);
        io.sink = writer->NewSink();
        MutexLock lock(mu_);
        new_writings_.push_back({writer, Clock::time_point(), false});
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  return io;
}

absl::StatusOr<WorkingSet> SeveralServers::GetWorkingSet(absl::string_view volume,
                                                         absl::Time deadline) {
  absl::StatusOr<WorkingSet> set = absl::UnknownError("not asked for");
  absl::Status status =
      OnAny(volume, kWriteTry, deadline, [&](Peer& peer, absl::Time until) -> absl::Status {
        set = peer.connection.GetWorkingSet(volume, Wait::kNever, until);
        return set.status();
      });
  if (!status.ok()) return status;
  return set;
}

absl::Status SeveralServers::MergeWorkingSet(absl::string_view volume, const WorkingSet& pages,
                                             absl::Time deadline) {
  return OnAny(volume, kWriteTry, deadline, [&](Peer& peer, absl::Time until) {
    return peer.connection.MergeWorkingSet(volume, pages, Wait::kNever, until);
  });
}

bool SeveralServers::IsReachable(absl::Duration patience) {
  const absl::Time end = absl::Now() + patience;
  while (UsablePeers().empty()) {
    if (absl::Now() >= end) return false;
    absl::SleepFor(absl::Milliseconds(10));
  }
  return true;
}

std::vector<PageServerStats> SeveralServers::Stats() {
  std::vector<PageServerStats> all;
  for (const Peer* peer : Peers()) {
    all.push_back({.address = peer->server.address,
                   .is_connected = peer->usable(),
                   .fetches = peer->connection.fetches(),
                   .hedges = peer->hedges,
                   .hedges_won = peer->hedges_won,
                   .failovers = peer->failovers});
  }
  return all;
}

bool SeveralServers::Sleep(Clock::duration duration) {
  const Clock::time_point end = Clock::now() + duration;
  MutexLock lock(mu_);
  while (!stopping_ && Clock::now() < end) changed_.WaitUntil(mu_, end);
  return !stopping_;
}

void SeveralServers::LookUp() {
  bool failed = false;
  do {
    std::vector<ServerAddress> found;
    absl::Status status;
    for (const ServerEntry& entry : entries_) {
      const absl::StatusOr<std::vector<ServerAddress>> servers = LookUpServers(entry);
      status.Update(servers.status());
      if (servers.ok()) found.insert(found.end(), servers->begin(), servers->end());
    }
    if (status.ok()) {
      List(found);
    } else if (!failed) {
      LogWarning(absl::StrCat(status.message(), "; those that are known stay"));
    }
    failed = !status.ok();
  } while (Sleep(failed ? Clock::duration(kOpenAgain) : Clock::duration(kLookUpInterval)));
}

void SeveralServers::List(const std::vector<ServerAddress>& found) {
  MutexLock lock(mu_);
  // Those that are used already stay; of others that are too many, each client takes its own.
  std::vector<ServerAddress> fresh = found;
  size_t used = 0;
  for (const auto& peer : peers_) {
    const bool stays = std::erase(fresh, peer->server) > 0;
    const bool listed = stays && used < kMaxServers;
    used += listed;
    if (peer->listed.exchange(listed) != listed) {
      LogInfo(absl::StrCat("page server ", peer->server.address,
                           listed ? " is used again" : " is not used any more"));
    }
  }
  if (used + fresh.size() > kMaxServers) {
    std::shuffle(fresh.begin(), fresh.end(), std::minstd_rand(std::random_device()()));
  }
  for (const ServerAddress& server : fresh) {
    if (used == kMaxServers) break;
    if (peers_.size() == kMaxAddresses) {
      LogWarning(absl::StrCat("page server ", server.address, " is not used: ", kMaxAddresses,
                              " addresses were, and no more can be until the next start"));
      break;
    }
    peers_.push_back(std::make_unique<Peer>(server, options_.tls, options_, &threads_));
    ++used;
  }
}

void SeveralServers::LookAfterPeers() {
  std::vector<std::pair<Peer*, Silence>> peers;
  std::vector<Reading> readings;
  std::vector<Writing> writings;
  do {
    for (Peer* peer : Peers()) {
      const bool known = std::any_of(peers.begin(), peers.end(),
                                     [peer](const auto& one) { return one.first == peer; });
      if (!known) peers.emplace_back(peer, Silence());
    }
    {
      MutexLock lock(mu_);
      std::move(new_readings_.begin(), new_readings_.end(), std::back_inserter(readings));
      std::move(new_writings_.begin(), new_writings_.end(), std::back_inserter(writings));
      new_readings_.clear();
      new_writings_.clear();
    }
    const Clock::time_point now = Clock::now();
    for (auto& [peer, silence] : peers) LookAt(peer, &silence, now);
    std::erase_if(readings, [](const Reading& one) { return one.volume.expired(); });
    std::erase_if(writings, [](const Writing& one) { return one.writer.expired(); });
    for (Writing& writing : writings) MoveWriter(&writing, now);
    for (Reading& reading : readings) OpenEverywhere(&reading, now);
  } while (Sleep(kStateTick));
}

void SeveralServers::LookAt(Peer* peer, Silence* silence, Clock::time_point now) {
  if (!peer->listed) return;
  const bool connected = peer->connection.State() == GRPC_CHANNEL_READY;
  if (peer->ready.exchange(connected) != connected) {
    LogInfo(absl::StrCat("page server ", peer->server.address,
                         connected ? " serves" : " cannot be reached, or does not serve"));
  }
  if (!peer->silent) {
    *silence = {now, false};
    return;
  }
  silence->was_disconnected |= !connected;
  if (connected && (silence->was_disconnected || now - silence->since > kProvenAlive)) {
    peer->Heard(now);
  }
}

void SeveralServers::OpenEverywhere(Reading* reading, Clock::time_point now) {
  const std::shared_ptr<SharedVolume> volume = reading->volume.lock();
  if (volume == nullptr) return;
  for (Peer* peer : UsablePeers()) {
    if (!volume->IsOpenAt(peer)) OpenAt(peer, volume.get(), reading, now);
  }
}

void SeveralServers::OpenAt(Peer* peer, SharedVolume* volume, Reading* reading,
                            Clock::time_point now) {
  const auto refused = std::find_if(reading->not_before.begin(), reading->not_before.end(),
                                    [peer](const auto& one) { return one.first == peer; });
  const bool first = refused == reading->not_before.end();
  if (!first && now < refused->second) return;
  const auto opened =
      peer->connection.OpenForReading(volume->name, Wait::kNever, absl::Now() + kReadTry);
  absl::Status status = opened.status();
  if (status.ok() && (opened->identity() == 0 || opened->identity() != reading->identity)) {
    status = absl::NotFoundError("it has another volume of that name");
  } else if (status.ok() && PageCount(opened->max_pages_per_request()) < reading->max_fetch) {
    status = absl::InternalError("it allows for fewer pages per request");
  }
  if (status.ok()) {
    volume->Add({peer, peer->connection.NewSource(*opened, volume->stages)});
    return;
  }
  const Clock::time_point again = now + kOpenAgain;
  if (!first) {
    refused->second = again;
    return;
  }
  reading->not_before.emplace_back(peer, again);
  LogWarning(absl::StrCat("volume \"", volume->name, "\" is not read from page server ",
                          peer->server.address, ": ", status.message()));
}

void SeveralServers::MoveWriter(Writing* writing, Clock::time_point now) {
  const std::shared_ptr<RoamingWriter> writer = writing->writer.lock();
  if (writer == nullptr) return;
  if (writer->is_settled()) writing->was_refused = false;
  if (writer->is_settled() || now < writing->not_before) return;
  for (Peer* peer : UsablePeers()) {
    const absl::Status status = writer->Move(peer, absl::Now() + kWriteTry);
    if (status.ok()) return;
    if (!std::exchange(writing->was_refused, true)) {
      LogWarning(absl::StrCat("volume \"", writer->volume()->name,
                              "\" cannot be written at page server ", peer->server.address, ": ",
                              status.message()));
    }
    if (absl::IsFailedPrecondition(status)) return;
  }
  writing->not_before = Clock::now() + kOpenAgain;
}

}  // namespace

std::unique_ptr<PageServer> NewSeveralServers(std::vector<ServerEntry> servers,
                                              const PageServerOptions& options) {
  return std::make_unique<SeveralServers>(std::move(servers), options);
}

}  // namespace faultline
