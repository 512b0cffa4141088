// SPDX-License-Identifier: Apache-2.0
//
// Prefetcher: guesses which pages a target touches next, from those that it has touched.
#ifndef FAULTLINE_CLIENT_PREFETCH_PREFETCHER_H_
#define FAULTLINE_CLIENT_PREFETCH_PREFETCHER_H_

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <memory>
#include <vector>

#include "proto/page.h"

namespace faultline {

// Where prefetched pages wait for the target. Memory has no access bits that a pager could read, so
// what is mapped is never heard of again: whether a guess was good is seen by staged pages alone.
enum class Placement {
  kStaged,  // kept by the agent: the first touch still faults, is served at once, and is noticed
  kMapped,  // put into the target's memory: a touch costs, and tells, nothing
};

struct Guess {
  PageRange pages;
  Placement placement;
};

// How the page of a touch was found.
enum class TouchKind {
  kMiss,  // it had to be fetched
  kHit,   // it was staged, or on its way, by a guess
};

// A policy. Pure: no I/O, no locks, no clock. Not thread-safe; belongs to the one reader of an
// attachment, so a call has to take well below a microsecond and should not allocate.
class Prefetcher {
 public:
  virtual ~Prefetcher() = default;

  // The target waits for `page`. Appends what it may touch next to `*ahead`, soonest first, at most
  // kMaxGuesses guesses of kMaxPrefetchWindow pages in all. Guesses may name pages that are there
  // already, or that no volume has: whoever carries them out leaves those out.
  virtual void OnTouch(PageIndex page, TouchKind kind, std::vector<Guess>* ahead) = 0;

  // A staged page was dropped, and nobody had touched it.
  virtual void OnWaste(PageIndex page) = 0;
};

inline constexpr PageCount kMaxPrefetchWindow{512};
inline constexpr size_t kMaxGuesses = 64;

enum class PrefetchPolicy {
  kNone,
  kSequential,  // ascending runs; the window doubles
  kMajority,    // the stride that most of the last touches agree on (Leap)
  kStreams,     // a stride for each of several regions that are being walked through
  kCluster,     // as majority, and where nobody walks, what lies around a page that was missed
};

// Parses "none", "sequential", "majority", "streams" or "cluster".
absl::StatusOr<PrefetchPolicy> ParsePrefetchPolicy(absl::string_view name);
absl::string_view PrefetchPolicyName(PrefetchPolicy policy);

// Null for kNone.
std::unique_ptr<Prefetcher> NewPrefetcher(PrefetchPolicy policy);

// What becomes of the pages that faults ask for, the working set of the program.
enum class WorkingSetUse {
  kNone,
  kRecord,  // added to what is kept with the volume
  kReplay,  // what is kept is fetched from the beginning, in about the order that is kept
  kBoth,
};

// Parses "none", "record", "replay" or "both".
absl::StatusOr<WorkingSetUse> ParseWorkingSetUse(absl::string_view name);
absl::string_view WorkingSetUseName(WorkingSetUse use);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_PREFETCH_PREFETCHER_H_
