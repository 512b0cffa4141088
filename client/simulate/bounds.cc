// SPDX-License-Identifier: Apache-2.0
#include "client/simulate/bounds.h"

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>

#include <queue>
#include <utility>
#include <vector>

#include "client/evict/page_queues.h"

namespace faultline {
namespace {

constexpr uint64_t kNever = UINT64_MAX;

// By access: when its page is accessed next, kNever where its content is not wanted any more.
std::vector<uint64_t> NextUses(const std::vector<Access>& accesses) {
  std::vector<uint64_t> next(accesses.size());
  absl::flat_hash_map<uint64_t, uint64_t> seen;  // later in time, by page
  for (uint64_t i = accesses.size(); i-- > 0;) {
    const bool discard = accesses[i].kind() == AccessKind::kDiscard;
    const auto [at, is_new] = seen.try_emplace(accesses[i].page().raw(), kNever);
    next[i] = at->second;
    at->second = discard ? kNever : i;
  }
  return next;
}

}  // namespace

uint64_t MinMisses(const AccessSequence& sequence, PageCount local) {
  const std::vector<uint64_t> next = NextUses(sequence.accesses);
  absl::flat_hash_map<uint64_t, uint64_t> resident;  // the next use, by page
  absl::flat_hash_set<uint64_t> zero;
  // By next use, the last in front. What `resident` does not confirm is out of date.
  std::priority_queue<std::pair<uint64_t, uint64_t>> leaving;
  uint64_t misses = 0;
  for (uint64_t i = 0; i < next.size(); ++i) {
    const uint64_t page = sequence.accesses[i].page().raw();
    if (sequence.accesses[i].kind() == AccessKind::kDiscard) {
      resident.erase(page);
      zero.insert(page);
      continue;
    }
    if (!resident.contains(page) && zero.erase(page) == 0) ++misses;
    resident[page] = next[i];
    leaving.emplace(next[i], page);
    while (resident.size() > local.raw()) {
      const auto [use, last] = leaving.top();
      leaving.pop();
      const auto at = resident.find(last);
      if (at != resident.end() && at->second == use) resident.erase(at);
    }
  }
  return misses;
}

uint64_t LruMisses(const AccessSequence& sequence, PageCount local) {
  constexpr unsigned kResident = 0;
  PageQueues pages;
  absl::flat_hash_set<uint64_t> zero;
  uint64_t misses = 0;
  for (const Access& access : sequence.accesses) {
    const auto found = pages.Find(access.page());
    if (access.kind() == AccessKind::kDiscard) {
      if (found) pages.Remove(*found);
      zero.insert(access.page().raw());
    } else if (found) {
      pages.Move(*found, kResident);
    } else {
      if (zero.erase(access.page().raw()) == 0) ++misses;
      if (pages.size() >= local) pages.Remove(*pages.Front(kResident));
      pages.Push(access.page(), kResident);
    }
  }
  return misses;
}

}  // namespace faultline
