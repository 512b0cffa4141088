// SPDX-License-Identifier: Apache-2.0
#include "client/evict/fifo_policy.h"

namespace faultline {

void FifoPolicy::OnFill(PageIndex page, FillCause) {
  if (!pages_.Find(page)) pages_.Push(page, kResident);
}

// A program reads a page and writes to it in one go, most of the time: the write tells what the
// fill has told.
void FifoPolicy::OnWrite(PageIndex) {}

void FifoPolicy::OnReturn(PageIndex page, bool wanted) {
  if (pages_.Find(page)) return;
  const PageQueues::Entry entry = pages_.Push(page, kResident);
  pages_.Mark(entry, wanted && second_chance_ == SecondChance::kYes);
}

void FifoPolicy::OnDiscard(PageIndex page) {
  if (const auto entry = pages_.Find(page)) pages_.Remove(*entry);
}

void FifoPolicy::Choose(PageCount count, std::vector<PageIndex>* victims) {
  while (count > PageCount(0)) {
    const auto oldest = pages_.Front(kResident);
    if (!oldest) return;
    if (pages_.marked(*oldest)) {
      pages_.Mark(*oldest, false);
      pages_.Move(*oldest, kResident);
      continue;
    }
    victims->push_back(pages_.page(*oldest));
    pages_.Remove(*oldest);
    count -= PageCount(1);
  }
}

}  // namespace faultline
