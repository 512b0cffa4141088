// SPDX-License-Identifier: Apache-2.0
#include "client/evict/page_queues.h"

#include <utility>

namespace faultline {
namespace {

constexpr size_t kFirstIndexSize = 1024;

// Spreads pages that lie in any pattern (the finalizer of MurmurHash3).
uint64_t Mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccd;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53;
  return x ^ x >> 33;
}

}  // namespace

PageQueues::PageQueues() : index_(kFirstIndexSize, kNone) {
  for (unsigned queue = 0; queue < kMaxQueues; ++queue) {
    const uint32_t head = NewNode();
    node(head).previous = node(head).next = head;
  }
}

std::optional<PageQueues::Entry> PageQueues::Find(PageIndex page) const {
  const uint32_t i = index_[Slot(page.raw())];
  if (i == kNone) return std::nullopt;
  return Entry(i);
}

std::optional<PageQueues::Entry> PageQueues::Front(unsigned queue) const {
  const uint32_t i = node(queue).next;
  if (i == queue) return std::nullopt;
  return Entry(i);
}

PageQueues::Entry PageQueues::Push(PageIndex page, unsigned queue) {
  // Three quarters full at most: a search then looks at two places on average.
  if ((used_ + 1) * 4 > index_.size() * 3) GrowIndex();
  const uint32_t i = NewNode();
  ++used_;
  node(i).page = page.raw() & (kMaxVolumePages - 1);
  node(i).marked = 0;
  index_[Slot(page.raw())] = i;
  Link(i, queue);
  return Entry(i);
}

void PageQueues::Move(Entry entry, unsigned queue) {
  Unlink(entry.node_);
  Link(entry.node_, queue);
}

void PageQueues::Remove(Entry entry) {
  const uint32_t i = entry.node_;
  EraseFromIndex(node(i).page);
  Unlink(i);
  --used_;
  node(i).next = free_;
  free_ = i;
}

uint32_t PageQueues::NewNode() {
  if (free_ != kNone) return std::exchange(free_, node(free_).next);
  if (made_ % kBlockNodes == 0) blocks_.push_back(std::make_unique<Node[]>(kBlockNodes));
  return made_++;
}

void PageQueues::Link(uint32_t i, unsigned queue) {
  Node& head = node(queue);
  Node& added = node(i);
  added.queue = queue % kMaxQueues;
  added.previous = head.previous;
  added.next = queue;
  node(head.previous).next = i;
  head.previous = i;
  ++sizes_[queue];
}

void PageQueues::Unlink(uint32_t i) {
  const Node& taken = node(i);
  node(taken.previous).next = taken.next;
  node(taken.next).previous = taken.previous;
  --sizes_[taken.queue];
}

size_t PageQueues::Home(uint64_t page) const { return Mix(page) & (index_.size() - 1); }

size_t PageQueues::Slot(uint64_t page) const {
  size_t slot = Home(page);
  while (index_[slot] != kNone && node(index_[slot]).page != page) {
    slot = (slot + 1) & (index_.size() - 1);
  }
  return slot;
}

void PageQueues::EraseFromIndex(uint64_t page) {
  const size_t mask = index_.size() - 1;
  size_t hole = Slot(page);
  // Whoever stands behind the hole and would be looked for before it moves into it.
  for (size_t slot = (hole + 1) & mask; index_[slot] != kNone; slot = (slot + 1) & mask) {
    const size_t home = Home(node(index_[slot]).page);
    if (((slot - home) & mask) < ((slot - hole) & mask)) continue;
    index_[hole] = index_[slot];
    hole = slot;
  }
  index_[hole] = kNone;
}

void PageQueues::GrowIndex() {
  std::vector<uint32_t> old(index_.size() * 2, kNone);
  old.swap(index_);
  for (const uint32_t i : old) {
    if (i != kNone) index_[Slot(node(i).page)] = i;
  }
}

}  // namespace faultline
