// SPDX-License-Identifier: Apache-2.0
#include "proto/urgency.h"

#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

namespace faultline {
namespace {

// struct sched_attr of the kernel, in its first version; glibc 2.36 has none.
struct SchedAttr {
  uint32_t size = sizeof(SchedAttr);
  uint32_t policy = 0;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime_ns = 0;
  uint64_t deadline_ns = 0;
  uint64_t period_ns = 0;
};
static_assert(sizeof(SchedAttr) == 48);

// How much less of the processor bulk work gets than others where there is not enough: a third.
constexpr int32_t kBulkNice = 5, kLastNice = 19;

// The kernel takes 0.1 to 100 ms; its own default is about 3 ms.
uint64_t SliceOf(Urgency urgency) {
  switch (urgency) {
    case Urgency::kFault:
      return 100'000;
    case Urgency::kMixed:
      return 10'000'000;
    case Urgency::kBulk:
      break;
  }
  return 100'000'000;
}

}  // namespace

void SetUrgency(Urgency urgency) {
  SchedAttr attr;
  if (syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0) != 0) return;
  attr.runtime_ns = SliceOf(urgency);
  if (urgency == Urgency::kBulk) attr.nice = std::min(attr.nice + kBulkNice, kLastNice);
  syscall(SYS_sched_setattr, 0, &attr, 0);  // where it is refused, nothing is lost but latency
}

}  // namespace faultline
