// SPDX-License-Identifier: Apache-2.0
//
// FetchRaces: fetches that more than one server may be asked for, of which the first answer counts.
//
// A fetch goes to the server that its place in the volume belongs to, so that each server's caches
// hold a part of their own (rendezvous hashing over those that can be used). From there
//   it fails        and goes to the next server at once: a failover;
//   it is slow      for a demand fetch: slower than 95 % of that server's are. It goes to a second
//                   server, too: a hedge. At most one in twenty does, with 10 in a row at most, so
//                   that servers that are slow because they are busy do not get much busier;
//   nothing comes   from its server at all for kDemandSilence (kSilence where nobody waits) while
//   it
//                   is asked: the server is silent. What it was asked for goes to others, and
//                   so does all that is new, until it is heard of again.
// So a fault that can be served at all waits for at most kDemandSilence + kSilenceTick more than a
// fetch takes, whatever becomes of one server.
#ifndef FAULTLINE_CLIENT_REMOTE_FETCH_RACES_H_
#define FAULTLINE_CLIENT_REMOTE_FETCH_RACES_H_

#include <absl/time/time.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/remote/peer.h"
#include "client/source/page_source.h"
#include "proto/mutex.h"

namespace faultline {

inline constexpr std::chrono::milliseconds kDemandSilence{500};
// A message of a bulk fetch may take seconds by itself on a slow link.
inline constexpr std::chrono::milliseconds kSilence{5000};
inline constexpr std::chrono::milliseconds kSilenceTick{50};
static_assert(kMostHedgeDelay < kDemandSilence && kSilenceTick < kDemandSilence);
// Of demand fetches, one in so many may be hedged, and so many right after each other.
inline constexpr int kFetchesPerHedge = 20;
inline constexpr int kHedgesInARow = 10;

// A volume, at the servers where it is open. Thread-safe.
class SharedVolume {
 public:
  struct Open {
    Peer* peer = nullptr;
    std::shared_ptr<PageSource> source;  // null: none
    // After how long a second server may be asked; where there is none, for ever.
    Peer::Clock::duration hedge_delay = Peer::Clock::duration::max();
  };

  explicit SharedVolume(std::string volume);

  void Add(Open open);
  void Remove(const Peer* peer);
  bool IsOpenAt(const Peer* peer) const;
  // Which server is to be asked for the pages from `first` on, of those that are not `tried`: one
  // that can be used; where there is none and `any` says so, another.
  enum class Among { kUsable, kAny };
  Open Choose(PageIndex first, const std::vector<const Peer*>& tried, Among among) const;

  const std::string name;
  const std::shared_ptr<FetchStages> stages = std::make_shared<FetchStages>();

 private:
  const uint64_t hash_;
  mutable Mutex mu_;
  std::vector<Open> open_ ABSL_GUARDED_BY(mu_);
};

// Thread-safe.
class FetchRaces {
 public:
  FetchRaces();
  ~FetchRaces() { Stop(); }
  FetchRaces(const FetchRaces&) = delete;
  FetchRaces& operator=(const FetchRaces&) = delete;

  // As PageSource::Fetch().
  void Start(std::shared_ptr<SharedVolume> volume, PageRange range, FetchLane lane,
             absl::Time deadline, PageSource::FetchDone done);

  // Asks no second server any more. What is under way goes on.
  void Stop();

 private:
  using Clock = Peer::Clock;
  class Race;
  using RacePtr = std::shared_ptr<Race>;
  enum class Why { kFirst, kHedge, kFailover };

  void Send(const RacePtr& race, const SharedVolume::Open& to, Why why);
  void OnAnswer(const RacePtr& race, Peer* peer, Why why, Clock::time_point sent,
                absl::StatusOr<std::span<const FetchedRun>> runs);
  // Sends it to the next server that can be used; false where there is none.
  bool SendToNext(const RacePtr& race, Why why);

  void Watch();
  // When there is next something to be looked at.
  Clock::time_point NextLook() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Moves those of `*races` to `*due` whose time has come, and drops those that are done.
  static void TakeDue(std::deque<RacePtr>* races, Clock::time_point now, std::vector<RacePtr>* due);
  // Finds silent servers, and sends on what waits for those that cannot be used. False where
  // nothing more can be learned from `race`.
  bool LookAtOverdue(const RacePtr& race, Clock::time_point now);
  bool TakeHedge();

  std::atomic<int> hedge_credit_ = kFetchesPerHedge * kHedgesInARow;  // a hedge takes 20
  Mutex mu_;
  CondVar changed_;
  std::deque<RacePtr> demand_ ABSL_GUARDED_BY(mu_);  // not slow yet, in the order of their start
  std::deque<RacePtr> others_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  // Of the thread.
  std::vector<RacePtr> overdue_;
  Clock::time_point next_tick_;  // when they are looked at again
  std::thread thread_;           // last: uses what stands above
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_FETCH_RACES_H_
