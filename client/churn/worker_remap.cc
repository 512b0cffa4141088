// SPDX-License-Identifier: Apache-2.0
//
// Worker's operations on addresses: what is where, and how much of it.
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "client/churn/worker.h"
#include "client/churn/worker_timed.h"

namespace faultline::churn {
namespace {

// Below it a slot is not made smaller.
constexpr uint32_t kFewestPages = 8;
constexpr uint32_t kMaxGrowth = 8;

// Addresses where nothing else is, at which something may be mapped over: 0 where there are none.
uint64_t Reserve(uint64_t bytes) {
  void* at = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return at == MAP_FAILED ? 0 : reinterpret_cast<uint64_t>(at);
}

}  // namespace

bool Worker::CanSpareSlots() const { return slots_.size() > 4; }

void Worker::Forget(Slot& slot) {
  if (&slot != &slots_.back()) slot = slots_.back();
  slots_.pop_back();
}

// A reservation whose mremap was refused stays where it is: by then it may be gone and its
// addresses another thread's, and there is no call that unmaps only what is ours.
bool Worker::MoveTo(Operation operation, Slot& slot, uint64_t to) {
  const bool raced =
      operation == Operation::kMove && depth_ == 0 && company_->fork_race.BeginMove(slot, to);
  vacated_->Publish(slot.address);
  const bool done = Timed(operation, slot.address, [&] {
                      return mremap(At(slot.address), slot.bytes(), slot.bytes(),
                                    MREMAP_MAYMOVE | MREMAP_FIXED, At(to)) == MAP_FAILED
                                 ? -1
                                 : 0;
                    }) == 0;
  if (raced) company_->fork_race.EndMove();
  if (done) slot.address = to;
  Note(operation, slot, {0, slot.pages}, done);
  return done;
}

void Worker::Move(Slot& slot) {
  const bool with_room = random_.OneIn(2) && slot.pages + kMaxGrowth <= slot.room;
  const uint64_t room_bytes = with_room ? kMaxGrowth * kPageSize : 0;
  const uint64_t to = Reserve(slot.bytes() + room_bytes);
  if (to == 0) return Note(Operation::kMove, slot, {0, slot.pages}, false);
  // So that it can grow in place later.
  if (with_room) munmap(At(to + slot.bytes()), room_bytes);
  if (MoveTo(Operation::kMove, slot, to)) {
    CheckSome(Operation::kMove, slot, static_cast<uint32_t>(random_.Below(3)));
  }
}

void Worker::MoveVacated(Slot& slot) {
  const std::optional<uint64_t> to = vacated_->Claim(slot.bytes(), &random_);
  if (!to.has_value()) return Note(Operation::kMoveVacated, slot, {0, slot.pages}, false);
  if (MoveTo(Operation::kMoveVacated, slot, *to)) {
    CheckSome(Operation::kMoveVacated, slot, static_cast<uint32_t>(random_.Below(4)));
  }
}

void Worker::MoveOver(Slot& slot) {
  Slot& other = slots_[random_.Below(slots_.size())];
  if (&other == &slot || other.pages < slot.pages || !CanSpareSlots()) {
    return Note(Operation::kMoveOver, slot, {0, slot.pages}, false);
  }
  const uint64_t to = other.address;
  const uint64_t rest = other.bytes() - slot.bytes();
  if (MoveTo(Operation::kMoveOver, slot, to)) {
    if (rest > 0) munmap(At(to + slot.bytes()), rest);
    CheckSome(Operation::kMoveOver, slot, 2);
  }
  Forget(other);  // refused or not, it may be gone
}

void Worker::Grow(Slot& slot) {
  const uint32_t room = slot.room - slot.pages;
  if (room == 0) return Note(Operation::kGrow, slot, {slot.pages, 0}, false);
  const auto extra =
      static_cast<uint32_t>(random_.Between(1, std::min<uint64_t>(room, kMaxGrowth)));
  const bool may_move = random_.OneIn(2);
  if (may_move) vacated_->Publish(slot.address);
  void* const at = Timed(Operation::kGrow, slot.address, [&] {
    return mremap(At(slot.address), slot.bytes(), slot.bytes() + extra * kPageSize,
                  may_move ? MREMAP_MAYMOVE : 0);
  });
  const bool done = at != MAP_FAILED;
  if (done) {
    slot.address = reinterpret_cast<uint64_t>(at);
    for (uint32_t i = 0; i < extra && company_->memory == MemoryKind::kAnon; ++i) {
      slot.shadows[slot.pages + i] = PageShadow();
    }
    slot.pages += extra;
  }
  Note(Operation::kGrow, slot, {slot.pages - (done ? extra : 0), extra}, done);
  if (!done) return;
  CheckPage(Operation::kGrow, slot, slot.pages - 1 - static_cast<uint32_t>(random_.Below(extra)));
  CheckSome(Operation::kGrow, slot, 1);
}

void Worker::Shrink(Slot& slot) {
  if (slot.pages <= kFewestPages) return Note(Operation::kShrink, slot, {slot.pages, 0}, false);
  const auto count = static_cast<uint32_t>(
      random_.Between(1, std::min<uint64_t>(slot.pages - kFewestPages, kMaxGrowth)));
  const Pages tail{slot.pages - count, count};
  // What the object has there growth will show again, so it must be known.
  if (company_->memory != MemoryKind::kAnon) CheckAll(Operation::kShrink, slot, tail);
  vacated_->Publish(slot.AddressOf(tail.first));
  const bool done =
      Timed(Operation::kShrink, slot.address, [&] {
        return mremap(At(slot.address), slot.bytes(), tail.first * kPageSize, 0) == MAP_FAILED ? -1
                                                                                               : 0;
      }) == 0;
  if (done) slot.pages = tail.first;
  Note(Operation::kShrink, slot, tail, done);
}

void Worker::DontUnmap(Slot& slot) {
  // Two mappings of one shared object, with pages that nobody has filled yet: the agent could not
  // tell what they are. So they are touched first.
  if (company_->memory != MemoryKind::kAnon) {
    CheckAll(Operation::kDontUnmap, slot, {0, slot.pages});
  }
  const uint64_t old_address = slot.address;
  uint64_t to = random_.OneIn(2) ? Reserve(slot.bytes()) : 0;
  void* const at = Timed(Operation::kDontUnmap, old_address, [&] {
    return mremap(At(old_address), slot.bytes(), slot.bytes(),
                  MREMAP_MAYMOVE | MREMAP_DONTUNMAP | (to != 0 ? MREMAP_FIXED : 0), At(to));
  });
  const bool done = at != MAP_FAILED;
  if (done) slot.address = reinterpret_cast<uint64_t>(at);
  Note(Operation::kDontUnmap, slot, {0, slot.pages}, done);
  if (!done) return;
  CheckSome(Operation::kDontUnmap, slot, 1);
  CheckLeftBehind(slot, old_address);
}

void Worker::CheckLeftBehind(Slot& slot, uint64_t old_address) {
  Slot old = slot;
  old.address = old_address;
  if (company_->memory == MemoryKind::kAnon) {
    for (PageShadow& shadow : old.shadows) shadow.Discard();
  }
  CheckSome(Operation::kDontUnmap, old, 2);
  if (company_->memory == MemoryKind::kAnon && random_.OneIn(4) &&
      slots_.size() < slots_.capacity()) {
    WritePage(old, static_cast<uint32_t>(random_.Below(old.pages)));
    old.id = next_slot_++;
    slots_.push_back(old);  // stays, as a slot of its own
    return;
  }
  vacated_->Publish(old_address);
  Timed(Operation::kUnmap, old_address, [&] { return munmap(At(old_address), old.bytes()); });
}

void Worker::Unmap(Slot& slot) {
  if (random_.OneIn(3) && CanSpareSlots()) {
    vacated_->Publish(slot.address);
    Timed(Operation::kUnmap, slot.address, [&] { return munmap(At(slot.address), slot.bytes()); });
    Note(Operation::kUnmap, slot, {0, slot.pages}, true);
    return Forget(slot);
  }
  if (slot.pages < 2 * kFewestPages) {
    return Note(Operation::kUnmap, slot, {0, slot.pages}, false);
  }
  const auto count = static_cast<uint32_t>(random_.Between(1, slot.pages - kFewestPages));
  switch (random_.Below(3)) {
    case 0:
      UnmapPart(slot, {0, count});
      return CutFront(slot, count);
    case 1:
      UnmapPart(slot, {slot.pages - count, count});
      return CutBack(slot, count);
    default:
      break;
  }
  const auto first = static_cast<uint32_t>(random_.Between(1, slot.pages - count));
  const uint32_t behind = slot.pages - first - count;
  UnmapPart(slot, {first, count});
  if (behind == 0) return CutBack(slot, count);
  const bool kept = slots_.size() < slots_.capacity();
  if (!kept) UnmapPart(slot, {first + count, behind});
  if (kept) {
    Slot tail = slot;
    tail.id = next_slot_++;
    CutFront(tail, first + count);
    slots_.push_back(tail);  // `slot` stays valid: there is capacity
  }
  CutBack(slot, slot.pages - first);
}

void Worker::UnmapPart(Slot& slot, Pages part) {
  const uint64_t address = slot.AddressOf(part.first);
  vacated_->Publish(address);
  Timed(Operation::kUnmap, address, [&] { return munmap(At(address), part.count * kPageSize); });
  Note(Operation::kUnmap, slot, part, true);
}

void Worker::CutFront(Slot& slot, uint32_t pages) {
  slot.address += pages * kPageSize;
  slot.file_page += pages;
  slot.pages -= pages;
  std::copy(slot.shadows.begin() + pages, slot.shadows.end(), slot.shadows.begin());
  // The object has no more behind it than before; private memory can grow as it likes.
  if (company_->memory != MemoryKind::kAnon) slot.room -= pages;
}

void Worker::CutBack(Slot& slot, uint32_t pages) {
  slot.pages -= pages;
  // Growth would show what another slot has, or what nobody has touched.
  if (company_->memory != MemoryKind::kAnon) slot.room = slot.pages;
}

void Worker::MapOver(Slot& slot) {
  if (slot.pages < 2 * kFewestPages) {
    return Note(Operation::kMapOver, slot, {0, slot.pages}, false);
  }
  const auto count = static_cast<uint32_t>(random_.Between(1, slot.pages - kFewestPages));
  const Pages tail{slot.pages - count, count};
  const uint64_t address = slot.AddressOf(tail.first);
  const bool done = Timed(Operation::kMapOver, address, [&] {
                      return mmap(At(address), count * kPageSize, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED
                                 ? -1
                                 : 0;
                    }) == 0;
  Note(Operation::kMapOver, slot, tail, done);
  if (!done) return;
  // Memory like any other, and nothing of the slot's.
  Slot over = slot;
  for (PageShadow& shadow : over.shadows) shadow.Discard();
  const uint32_t page = tail.first + static_cast<uint32_t>(random_.Below(count));
  CheckPage(Operation::kMapOver, over, page);
  WritePage(over, page);
  CheckPage(Operation::kMapOver, over, page);
  UnmapPart(slot, tail);
  CutBack(slot, count);
}

}  // namespace faultline::churn
