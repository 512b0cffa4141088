// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_SIMULATE_SIMULATOR_H_
#define FAULTLINE_CLIENT_SIMULATE_SIMULATOR_H_

#include <cstdint>

#include "client/evict/eviction_policy.h"
#include "client/prefetch/prefetcher.h"
#include "client/simulate/access.h"

namespace faultline {

struct LocalMemory {
  PageCount local;         // all of it
  PageCount victim_stage;  // the part of it in which chosen pages wait
  // Pages that are chosen at a time; of a small memory, an eighth at most.
  PageCount batch{64};

  // What the policy looks after.
  PageCount mapped() const { return local - victim_stage; }
};

struct SimulationResult {
  uint64_t accesses = 0;
  uint64_t misses = 0;         // waited for a page from the source
  uint64_t victim_hits = 0;    // found their page in the victim stage
  uint64_t prefetch_hits = 0;  // found it staged by a guess
  uint64_t zero_fills = 0;     // first touches of discarded pages
  uint64_t pages_in = 0;       // fetched, guesses among them
  uint64_t pages_out = 0;      // that were dirty when they left
  uint64_t dropped_clean = 0;  // that left without being written
  uint64_t wasted = 0;         // guesses that were dropped untouched (only staged ones are known)

  friend bool operator==(const SimulationResult&, const SimulationResult&) = default;
};

// Runs a program in a memory that is smaller than what it touches, with the policy and the
// prefetcher (null: none) that the agent runs, which hear of what they would hear of there: a
// policy of fills, of first writes and of pages that are wanted back from the victim stage, but not
// of accesses to pages that are there; a prefetcher of faults that the source or its own guesses
// serve.
//
// What is simulated: every page is on the source at the start. Fetches take no time: a guess has
// arrived before the next access. When the pages that are mapped are too many, a batch of them is
// chosen and waits in the victim stage, first in, first out; what leaves it is written, if it is
// dirty, and gone. Guesses that wait to be touched do so beside local memory, in as many pages as
// the agent has for them. The first touch of a discarded page fills it with zeros and counts as a
// write.
//
// REQUIRES: local.victim_stage < local.local, local.batch > 0. Both objects are new.
SimulationResult Simulate(const AccessSequence& sequence, const LocalMemory& local,
                          EvictionPolicy* policy, Prefetcher* prefetcher);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SIMULATE_SIMULATOR_H_
