// SPDX-License-Identifier: Apache-2.0
//
// EvictionPolicy: which pages leave when there is no room. A policy is told what is seen of the
// program's accesses, which is little: a page that is there can be read without anybody noticing.
// What is seen is that a page had to be filled, that it was written to for the first time since,
// and that one which was chosen is wanted back while the agent still has its bytes (the victim
// stage), which is the sign of use that tells most.
#ifndef FAULTLINE_CLIENT_EVICT_EVICTION_POLICY_H_
#define FAULTLINE_CLIENT_EVICT_EVICTION_POLICY_H_

#include <vector>

#include "proto/page.h"

namespace faultline {

// Why a page was filled.
enum class FillCause {
  kDemand,  // a thread waited for it
  kAhead,   // a guess that nobody has touched yet, as far as is known
};

// Pure: no clock, no threads, no I/O; the same calls give the same victims. Not thread-safe. A page
// is resident from OnFill() or OnReturn() until it is chosen or discarded; calls for a page in the
// other state are no errors, and do nothing but what can be learnt from them.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;

  virtual void OnFill(PageIndex page, FillCause cause) = 0;
  // The first write to a resident page since it was filled.
  virtual void OnWrite(PageIndex page) = 0;
  // A page that was chosen is resident again: a fault has taken it out of the victim stage
  // (`wanted`), or it could not be evicted.
  virtual void OnReturn(PageIndex page, bool wanted) = 0;
  // The program has discarded it.
  virtual void OnDiscard(PageIndex page) = 0;

  // Appends up to `count` resident pages, the first to leave first; they count as not resident from
  // here on. Fewer only where no more are resident.
  virtual void Choose(PageCount count, std::vector<PageIndex>* victims) = 0;

  virtual PageCount resident() const = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_EVICTION_POLICY_H_
