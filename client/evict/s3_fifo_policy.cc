// SPDX-License-Identifier: Apache-2.0
#include "client/evict/s3_fifo_policy.h"

#include <algorithm>

namespace faultline {
namespace {

enum : unsigned { kSmall, kMain, kGhost };

// The small queue's share of what is resident, as in the paper.
constexpr uint64_t kSmallPercent = 10;

// The length of the ghost queue, by capacity. The paper's is as long as the main queue; but here
// pages that wait in the victim stage are in it too, and a main queue without access bits is slower
// to lose what came in by mistake. README.md has the measurement.
constexpr uint64_t kGhostPercent = 75;

}  // namespace

S3FifoPolicy::S3FifoPolicy(PageCount capacity)
    : max_ghosts_(std::max<uint64_t>(
          1, capacity.raw() / 100 * kGhostPercent + capacity.raw() % 100 * kGhostPercent / 100)) {}

void S3FifoPolicy::OnFill(PageIndex page, FillCause cause) {
  const auto known = pages_.Find(page);
  if (!known) {
    pages_.Push(page, kSmall);
  } else if (pages_.queue(*known) == kGhost) {
    // A guess is no use of the page.
    pages_.Move(*known, cause == FillCause::kDemand ? kMain : kSmall);
  }
}

void S3FifoPolicy::OnWrite(PageIndex page) {
  // In the small queue it tells nothing: it belongs to the use that the page was filled for, most
  // of the time.
  const auto known = pages_.Find(page);
  if (known && pages_.queue(*known) == kMain) pages_.Mark(*known, true);
}

void S3FifoPolicy::OnReturn(PageIndex page, bool wanted) {
  auto known = pages_.Find(page);
  if (known && pages_.queue(*known) != kGhost) return;
  if (known) {
    pages_.Move(*known, kMain);
  } else {
    known = pages_.Push(page, kMain);
  }
  // One that could not be evicted (it is pinned, say) is not tried again soon.
  pages_.Mark(*known, wanted);
}

void S3FifoPolicy::OnDiscard(PageIndex page) {
  if (const auto known = pages_.Find(page)) pages_.Remove(*known);
}

void S3FifoPolicy::Choose(PageCount count, std::vector<PageIndex>* victims) {
  while (count > PageCount(0)) {
    const auto small = pages_.Front(kSmall);
    const auto main = pages_.Front(kMain);
    if (small && (!main || pages_.size(kSmall).raw() > resident().raw() * kSmallPercent / 100)) {
      Leave(*small, victims);
    } else if (!main) {
      return;
    } else if (pages_.marked(*main)) {
      pages_.Mark(*main, false);
      pages_.Move(*main, kMain);
      continue;
    } else {
      Leave(*main, victims);
    }
    count -= PageCount(1);
  }
}

void S3FifoPolicy::Leave(PageQueues::Entry entry, std::vector<PageIndex>* victims) {
  victims->push_back(pages_.page(entry));
  pages_.Move(entry, kGhost);
  if (pages_.size(kGhost) > max_ghosts_) pages_.Remove(*pages_.Front(kGhost));
}

PageCount S3FifoPolicy::resident() const { return pages_.size(kSmall) + pages_.size(kMain); }

}  // namespace faultline
