// SPDX-License-Identifier: Apache-2.0
#include "client/churn/storm.h"

#include <sys/mman.h>

#include <algorithm>
#include <memory>
#include <thread>

namespace faultline::churn {
namespace {

void DiscardPage(Company* company, unsigned thread, uint64_t number, Slot& slot, uint32_t page) {
  Progress& progress = company->tally->of_thread(thread);
  Tally::OfOperation& counts = company->tally->of(Operation::kDontNeed);
  const uint64_t address = slot.AddressOf(page);
  const uint64_t begin = NowNanos();
  progress.Begin(Operation::kDontNeed, number, address);
  const bool done = madvise(reinterpret_cast<void*>(address), kPageSize, MADV_DONTNEED) == 0;
  progress.End();
  counts.latency.Record(NowNanos() - begin);
  (done ? counts.done : counts.refused).fetch_add(1, std::memory_order_relaxed);
  if (done && company->memory == MemoryKind::kAnon) slot.shadows[page].Discard();
  slot.Note({.number = number,
             .operation = Operation::kDontNeed,
             .refused = !done,
             .first = page,
             .count = 1,
             .address = slot.address});
}

}  // namespace

void RunStorm(Company* company, unsigned threads, uint64_t count, std::vector<Slot> slots) {
  std::vector<std::vector<Slot>> shares(threads);
  for (size_t i = 0; i < slots.size(); ++i) shares[i % threads].push_back(slots[i]);
  std::vector<std::thread> all;
  for (unsigned thread = 0; thread < threads; ++thread) {
    all.emplace_back([=, &share = shares[thread]] {
      Random random{company->seed, thread};
      const uint64_t mine = count / threads + (thread < count % threads ? 1 : 0);
      // Each page once, and again only when all have had their turn.
      std::vector<uint64_t> order(share.size() * kSlotPages);
      for (size_t i = 0; i < order.size(); ++i) order[i] = i;
      for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.Below(i)]);
      for (uint64_t i = 0; i < mine && !company->tally->stop; ++i) {
        const uint64_t which = order[i % order.size()];
        DiscardPage(company, thread, i, share[which / kSlotPages],
                    static_cast<uint32_t>(which % kSlotPages));
      }
      Worker worker(company, thread);
      worker.TakeSlots(std::move(share));
      worker.Finish(1);
      worker.UnmapSlots();
    });
  }
  for (std::thread& thread : all) thread.join();
}

}  // namespace faultline::churn
