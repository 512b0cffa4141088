// SPDX-License-Identifier: Apache-2.0
#include "client/remote/fetch_races.h"

#include <absl/container/inlined_vector.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <pthread.h>
#include <xxhash.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "proto/log.h"

namespace faultline {
namespace {

// Pages that are neighbours belong to one server in pieces of 1 MiB: no larger than what a drain
// fetches at a time, and a multiple of what stores keep together.
constexpr uint64_t kPagesPerPlace = 256;

// Of all of them, the server whose weight is the greatest is asked: where one comes or goes, only
// its own places change their server. All clients agree on it.
uint64_t WeightOf(uint64_t volume, uint64_t place, const Peer& peer) {
  const uint64_t parts[] = {volume, place, peer.hash};
  return XXH3_64bits(parts, sizeof parts);
}

// Whether the server has said something, and not we ourselves for it.
bool IsFromServer(const absl::Status& status) {
  return !absl::IsUnavailable(status) && !absl::IsCancelled(status) &&
         !absl::IsDeadlineExceeded(status);
}

}  // namespace

SharedVolume::SharedVolume(std::string volume)
    : name(std::move(volume)), hash_(XXH3_64bits(name.data(), name.size())) {}

void SharedVolume::Add(Open open) {
  MutexLock lock(mu_);
  open_.push_back(std::move(open));
}

void SharedVolume::Remove(const Peer* peer) {
  MutexLock lock(mu_);
  std::erase_if(open_, [peer](const Open& open) { return open.peer == peer; });
}

bool SharedVolume::IsOpenAt(const Peer* peer) const {
  MutexLock lock(mu_);
  return std::any_of(open_.begin(), open_.end(),
                     [peer](const Open& open) { return open.peer == peer; });
}

SharedVolume::Open SharedVolume::Choose(PageIndex first, const std::vector<const Peer*>& tried,
                                        Among among) const {
  const uint64_t place = first.raw() / kPagesPerPlace;
  Open chosen;
  bool chosen_usable = false;
  uint64_t chosen_weight = 0;
  int usable_peers = 0;
  auto delay = Peer::Clock::duration::max();
  MutexLock lock(mu_);
  for (const Open& open : open_) {
    const bool usable = open.peer->usable();
    if (usable) {
      ++usable_peers;
      delay = std::min<Peer::Clock::duration>(delay, open.peer->latency.value());
    }
    if ((!usable && among == Among::kUsable) ||
        std::find(tried.begin(), tried.end(), open.peer) != tried.end()) {
      continue;
    }
    const uint64_t weight = WeightOf(hash_, place, *open.peer);
    if (chosen.source == nullptr || usable > chosen_usable ||
        (usable == chosen_usable && weight > chosen_weight)) {
      chosen = open;
      chosen_usable = usable;
      chosen_weight = weight;
    }
  }
  if (usable_peers > 1) chosen.hedge_delay = delay;
  return chosen;
}

// One fetch.
class FetchRaces::Race {
 public:
  Race(std::shared_ptr<SharedVolume> of, PageRange pages, FetchLane through, absl::Time until,
       PageSource::FetchDone done)
      : volume(std::move(of)),
        range(pages),
        lane(through),
        deadline(until),
        done_(std::move(done)) {}

  struct Try {
    Peer* peer;
    Clock::time_point sent;
    bool answered = false;
  };

  // False where it has ended.
  bool Begin(Peer* peer, Clock::time_point now) {
    MutexLock lock(mu_);
    if (done_ == nullptr) return false;
    tries_.push_back({peer, now});
    return true;
  }

  // A try at `peer` has ended. Whoever gets the callback ends the race: for an answer the first,
  // for an error the last.
  PageSource::FetchDone End(const Peer* peer, bool ok) {
    MutexLock lock(mu_);
    bool others = false;
    for (Try& one : tries_) {
      if (one.peer == peer) one.answered = true;
      others |= !one.answered;
    }
    return ok || !others ? std::exchange(done_, nullptr) : nullptr;
  }

  bool ended() const {
    MutexLock lock(mu_);
    return done_ == nullptr;
  }
  absl::InlinedVector<Try, 2> tries() const {
    MutexLock lock(mu_);
    return tries_;
  }
  std::vector<const Peer*> tried() const {
    MutexLock lock(mu_);
    std::vector<const Peer*> peers;
    for (const Try& one : tries_) peers.push_back(one.peer);
    return peers;
  }

  const std::shared_ptr<SharedVolume> volume;
  const PageRange range;
  const FetchLane lane;
  const absl::Time deadline;
  Clock::time_point look_at;  // constant once the race is watched

 private:
  mutable Mutex mu_;
  PageSource::FetchDone done_ ABSL_GUARDED_BY(mu_);
  absl::InlinedVector<Try, 2> tries_ ABSL_GUARDED_BY(mu_);
};

FetchRaces::FetchRaces() : thread_([this] { Watch(); }) {
  pthread_setname_np(thread_.native_handle(), "fl-hedge");
}

void FetchRaces::Stop() {
  {
    MutexLock lock(mu_);
    if (stopping_) return;
    stopping_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

void FetchRaces::Start(std::shared_ptr<SharedVolume> volume, PageRange range, FetchLane lane,
                       absl::Time deadline, PageSource::FetchDone done) {
  const bool demand = lane == FetchLane::kDemand;
  const SharedVolume::Open first = volume->Choose(range.first, {}, SharedVolume::Among::kAny);
  if (first.source == nullptr) {
    std::move(done)(absl::UnavailableError(
        absl::StrCat("no page server has volume \"", volume->name, "\" at the moment")));
    return;
  }
  const auto race =
      std::make_shared<Race>(std::move(volume), range, lane, deadline, std::move(done));
  const auto patience = std::min<Clock::duration>(
      demand ? first.hedge_delay : Clock::duration(kDemandSilence), kDemandSilence);
  race->look_at = Clock::now() + patience;
  if (demand) {
    const int credit = hedge_credit_.load(std::memory_order_relaxed);
    if (credit < kFetchesPerHedge * kHedgesInARow) hedge_credit_.fetch_add(1);
  }
  Send(race, first, Why::kFirst);
  if (race->ended()) return;
  MutexLock lock(mu_);
  std::deque<RacePtr>& races = demand ? demand_ : others_;
  races.push_back(race);
  if (races.size() == 1) changed_.Signal();
}

void FetchRaces::Send(const RacePtr& race, const SharedVolume::Open& to, Why why) {
  const Clock::time_point now = Clock::now();
  if (!race->Begin(to.peer, now)) return;
  if (why == Why::kHedge) to.peer->hedges.fetch_add(1, std::memory_order_relaxed);
  if (why == Why::kFailover) to.peer->failovers.fetch_add(1, std::memory_order_relaxed);
  to.source->Fetch(race->range, race->lane, race->deadline,
                   [this, race, peer = to.peer, why, now](auto runs) {
                     OnAnswer(race, peer, why, now, std::move(runs));
                   });
}

bool FetchRaces::SendToNext(const RacePtr& race, Why why) {
  const SharedVolume::Open next =
      race->volume->Choose(race->range.first, race->tried(), SharedVolume::Among::kUsable);
  if (next.source == nullptr) return false;
  Send(race, next, why);
  return true;
}

void FetchRaces::OnAnswer(const RacePtr& race, Peer* peer, Why why, Clock::time_point sent,
                          absl::StatusOr<std::span<const FetchedRun>> runs) {
  const absl::Status& status = runs.status();
  const Clock::time_point now = Clock::now();
  if (IsFromServer(status)) peer->Heard(now);
  // Looked at again in a moment; what comes until then goes elsewhere.
  if (absl::IsUnavailable(status)) peer->ready = false;
  if (runs.ok() && race->lane == FetchLane::kDemand) peer->latency.Record(now - sent);
  // A page that is damaged, or gone, at one server may be had from another.
  if (!runs.ok() && !absl::IsCancelled(status) && absl::Now() < race->deadline && !race->ended()) {
    SendToNext(race, Why::kFailover);
  }
  PageSource::FetchDone done = race->End(peer, runs.ok());
  if (done == nullptr) return;
  if (why == Why::kHedge && runs.ok()) {
    peer->hedges_won.fetch_add(1, std::memory_order_relaxed);
  }
  std::move(done)(std::move(runs));
}

bool FetchRaces::TakeHedge() {
  // Of this thread only; others add.
  if (hedge_credit_.load(std::memory_order_relaxed) < kFetchesPerHedge) return false;
  hedge_credit_.fetch_sub(kFetchesPerHedge);
  return true;
}

FetchRaces::Clock::time_point FetchRaces::NextLook() const {
  Clock::time_point at = overdue_.empty() ? Clock::time_point::max() : next_tick_;
  if (!demand_.empty()) at = std::min(at, demand_.front()->look_at);
  if (!others_.empty()) at = std::min(at, others_.front()->look_at);
  return at;
}

void FetchRaces::TakeDue(std::deque<RacePtr>* races, Clock::time_point now,
                         std::vector<RacePtr>* due) {
  while (!races->empty()) {
    const bool ended = races->front()->ended();
    if (!ended && races->front()->look_at > now) return;
    if (!ended) due->push_back(std::move(races->front()));
    races->pop_front();
  }
}

void FetchRaces::Watch() {
  for (;;) {
    std::vector<RacePtr> slow;
    std::vector<RacePtr> late;
    Clock::time_point now;
    {
      MutexLock lock(mu_);
      now = Clock::now();
      for (auto at = NextLook(); !stopping_ && at > now; at = NextLook()) {
        at == Clock::time_point::max() ? changed_.Wait(mu_)
                                       : static_cast<void>(changed_.WaitUntil(mu_, at));
        now = Clock::now();
      }
      if (stopping_) return;
      TakeDue(&demand_, now, &slow);
      TakeDue(&others_, now, &late);
    }
    for (const RacePtr& race : slow) {
      const auto tries = race->tries();
      const bool first_try = tries.size() == 1 && tries.front().peer->usable();
      const auto next =
          race->volume->Choose(race->range.first, race->tried(), SharedVolume::Among::kUsable);
      if (first_try && next.source != nullptr && TakeHedge()) Send(race, next, Why::kHedge);
    }
    overdue_.insert(overdue_.end(), slow.begin(), slow.end());
    overdue_.insert(overdue_.end(), late.begin(), late.end());
    if (now < next_tick_) continue;
    next_tick_ = now + kSilenceTick;
    std::erase_if(overdue_, [&](const RacePtr& race) { return !LookAtOverdue(race, now); });
  }
}

bool FetchRaces::LookAtOverdue(const RacePtr& race, Clock::time_point now) {
  const auto limit = race->lane == FetchLane::kDemand ? kDemandSilence : kSilence;
  bool awaited = false;
  bool can_be_had = false;
  for (const Race::Try& one : race->tries()) {
    if (one.answered) continue;
    const auto quiet_for = now - std::max(one.sent, one.peer->heard.load());
    if (quiet_for >= limit && !one.peer->silent.exchange(true)) {
      LogWarning(absl::StrCat("page server ", one.peer->server.address,
                              " does not answer; its fetches go to others"));
    }
    // What it owes may still show that it is silent.
    awaited |= !one.peer->silent;
    can_be_had |= one.peer->usable();
  }
  if (race->ended()) return awaited;
  if (!can_be_had) SendToNext(race, Why::kFailover);
  return true;
}

}  // namespace faultline
