// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_PROTO_URGENCY_H_
#define FAULTLINE_PROTO_URGENCY_H_

namespace faultline {

// How urgent the work of a thread is. Bulk work gets a third of the share of others where there is
// not enough of the processor: what it competes with is the target, or a fault of it. And a thread
// that wakes up takes it at once from one whose work is less urgent, instead of after some
// milliseconds, because the kernel is told in slices of what length each wants to be served.
enum class Urgency {
  kFault,  // serves page faults: more urgent than ordinary threads, those of the target among them
  kMixed,  // some of its work is awaited by a fault, some is not
  kBulk,   // nobody waits for it; a thread cannot leave this again
};

// For the calling thread, and those that it starts from here on.
//
// (sched_setattr() with a sched_runtime for SCHED_OTHER, and the scheduler's PREEMPT_SHORT: Linux
// 6.12. Before that it has no effect.)
void SetUrgency(Urgency urgency);

}  // namespace faultline

#endif  // FAULTLINE_PROTO_URGENCY_H_
