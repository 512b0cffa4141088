// SPDX-License-Identifier: Apache-2.0
#include "client/simulate/simulator.h"

#include <absl/container/flat_hash_map.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "client/evict/page_queues.h"
#include "client/fault/staged_pages.h"

namespace faultline {
namespace {

constexpr unsigned kVictims = 0;

class Simulation {
 public:
  Simulation(const AccessSequence& sequence, const LocalMemory& local, EvictionPolicy* policy,
             Prefetcher* prefetcher)
      : sequence_(sequence),
        local_(local),
        batch_(std::clamp(local.mapped().raw() / 8, uint64_t{1}, local.batch.raw())),
        policy_(policy),
        prefetcher_(prefetcher),
        staged_(kMaxStagedPages) {}

  SimulationResult Run() {
    for (const Access& access : sequence_.accesses) {
      if (access.kind() == AccessKind::kDiscard) {
        Discard(access.page());
      } else {
        ++result_.accesses;
        Touch(access.page(), access.kind() == AccessKind::kWrite);
      }
    }
    return result_;
  }

 private:
  // Where a page is. Those that are staged by a guess are absent.
  enum class Place : uint8_t { kAbsent, kMapped, kVictim };

  struct Page {
    Place place = Place::kAbsent;
    bool dirty = false;  // differs from what the source has
    bool zero = false;   // discarded, and not touched since
  };

  void Touch(PageIndex page, bool write) {
    Page& state = pages_[page.raw()];
    switch (state.place) {
      case Place::kMapped:
        break;
      case Place::kVictim:
        ++result_.victim_hits;
        victims_.Remove(*victims_.Find(page));
        state.place = Place::kMapped;
        policy_->OnReturn(page, /*wanted=*/true);
        break;
      case Place::kAbsent:
        return Fault(page, write);
    }
    if (write && !state.dirty) {
      state.dirty = true;
      policy_->OnWrite(page);
    }
    MakeRoom();
  }

  void Fault(PageIndex page, bool write) {
    Page& state = pages_[page.raw()];
    if (state.zero) {
      ++result_.zero_fills;
      state.zero = false;
      Map(page, /*dirty=*/true, FillCause::kDemand);
      return;
    }
    const bool hit = staged_.Take(page).has_value();
    ++(hit ? result_.prefetch_hits : result_.misses);
    if (!hit) ++result_.pages_in;
    Map(page, write, FillCause::kDemand);
    if (prefetcher_ == nullptr) return;
    guesses_.clear();
    prefetcher_->OnTouch(page, hit ? TouchKind::kHit : TouchKind::kMiss, &guesses_);
    for (const Guess& guess : guesses_) CarryOut(guess);
  }

  void CarryOut(const Guess& guess) {
    const PageRange range = guess.pages.Intersect(PageRange{PageIndex(0), sequence_.volume});
    for (PageIndex page = range.first; page < range.end(); ++page) {
      const auto known = pages_.find(page.raw());
      const bool wanted =
          known == pages_.end() || (known->second.place == Place::kAbsent && !known->second.zero);
      if (!wanted || staged_.Has(page)) continue;
      ++result_.pages_in;
      if (guess.placement == Placement::kMapped) {
        Map(page, /*dirty=*/false, FillCause::kAhead);
      } else if (const std::optional<PageIndex> dropped = staged_.Put(page, nullptr)) {
        ++result_.wasted;
        prefetcher_->OnWaste(*dropped);
      }
    }
  }

  void Map(PageIndex page, bool dirty, FillCause cause) {
    Page& state = pages_[page.raw()];
    state.place = Place::kMapped;
    state.dirty = dirty;
    policy_->OnFill(page, cause);
    MakeRoom();
  }

  void MakeRoom() {
    const PageCount resident = policy_->resident();
    if (resident <= local_.mapped()) return;
    chosen_.clear();
    policy_->Choose(std::max(resident - local_.mapped(), PageCount(batch_)), &chosen_);
    for (PageIndex page : chosen_) {
      pages_[page.raw()].place = Place::kVictim;
      victims_.Push(page, kVictims);
    }
    while (victims_.size() > local_.victim_stage) {
      const PageQueues::Entry oldest = *victims_.Front(kVictims);
      Page& state = pages_[victims_.page(oldest).raw()];
      ++(state.dirty ? result_.pages_out : result_.dropped_clean);
      state = Page();
      victims_.Remove(oldest);
    }
  }

  void Discard(PageIndex page) {
    policy_->OnDiscard(page);
    if (const auto victim = victims_.Find(page)) victims_.Remove(*victim);
    staged_.Take(page);
    pages_[page.raw()] = Page{Place::kAbsent, false, /*zero=*/true};
  }

  const AccessSequence& sequence_;
  const LocalMemory local_;
  const uint64_t batch_;
  EvictionPolicy* const policy_;
  Prefetcher* const prefetcher_;

  absl::flat_hash_map<uint64_t, Page> pages_;
  PageQueues victims_;
  StagedPages staged_;
  std::vector<PageIndex> chosen_;
  std::vector<Guess> guesses_;
  SimulationResult result_;
};

}  // namespace

SimulationResult Simulate(const AccessSequence& sequence, const LocalMemory& local,
                          EvictionPolicy* policy, Prefetcher* prefetcher) {
  return Simulation(sequence, local, policy, prefetcher).Run();
}

}  // namespace faultline
