// SPDX-License-Identifier: Apache-2.0
//
// hash-table: a table with open addressing, three fifths full, in which random keys are looked up
// and their values updated. Before one operation of 16, a key that is not there is looked up.
#include <algorithm>
#include <bit>
#include <optional>

#include "client/workload/counter.h"
#include "client/workload/update_stream.h"
#include "client/workload/work_context.h"

namespace faultline::workload {
namespace {

using Multiplied = unsigned __int128;

class HashTableWorkload final : public Workload {
 public:
  explicit HashTableWorkload(WorkContext* context)
      : context_(*context),
        slots_(context->memory().size() / sizeof(Slot)),
        keys_(slots_ * 3 / 5),
        seed_(context->options().seed) {
    // Key 0 would be an empty slot.
    salt_ = churn::Mix(seed_ + 0x6b657973);
    if (churn::Unmix(0) - salt_ < 2 * keys_) salt_ += 2 * keys_;
    stream_.emplace(*context->options().operations, seed_, *context->options().write_share,
                    [this](uint64_t bits) { return Below(keys_, bits); });
  }

  void Prepare(uint64_t round) override;
  uint64_t Work() override;
  uint64_t Verify() override;
  std::span<std::byte> Content() const override {
    return context_.memory().first(slots_ * sizeof(Slot));
  }

 private:
  struct Slot {
    uint64_t key;  // 0: empty
    uint64_t value;
  };

  static uint64_t Below(uint64_t n, uint64_t bits) {
    return static_cast<uint64_t>(Multiplied{bits} * n >> 64);
  }

  Slot* table() const { return reinterpret_cast<Slot*>(context_.words()); }
  // Of key number k; those from keys_ on are not in the table. And back.
  uint64_t Key(uint64_t k) const { return churn::Mix(k + salt_); }
  uint64_t NumberOf(uint64_t key) const { return churn::Unmix(key) - salt_; }
  // Keys are random already.
  uint64_t Home(uint64_t key) const { return Below(slots_, key); }
  Counter CounterOf(Slot* slot) const { return {&slot->value, churn::Mix(slot->key ^ seed_)}; }
  uint64_t WordOf(const Slot* slot) const {
    return static_cast<uint64_t>(slot - table()) * (sizeof(Slot) / sizeof(uint64_t)) + 1;
  }

  void Insert(uint64_t key);
  // Null where it is not there.
  Slot* Find(unsigned thread, uint64_t key) const;
  void LookUp(unsigned thread, const Access& access);
  void ReportMissing(uint64_t k);
  // False where the slot is wrong, which is reported.
  bool CheckSlot(Slot* slot);
  void Locate();

  WorkContext& context_;
  const uint64_t slots_, keys_, seed_;
  uint64_t salt_;
  std::optional<UpdateStream> stream_;
};

// In some passes over the keys, each of which inserts those that belong into one part of the table:
// memory that is filled from end to end has to come once.
void HashTableWorkload::Prepare(uint64_t) {
  constexpr uint64_t kLeastPart = uint64_t{4} << 20, kMostParts = 16;
  const uint64_t parts = std::clamp<uint64_t>(slots_ * sizeof(Slot) / kLeastPart, 1, kMostParts);
  for (uint64_t part = 0; part < parts; ++part) {
    const uint64_t begin = slots_ / parts * part;
    const uint64_t end = part + 1 == parts ? slots_ : slots_ / parts * (part + 1);
    for (uint64_t k = 0; k < keys_; ++k) {
      const uint64_t home = Home(Key(k));
      if (home >= begin && home < end) Insert(Key(k));
    }
  }
}

void HashTableWorkload::Insert(uint64_t key) {
  uint64_t at = Home(key);
  while (table()[at].key != 0) at = at + 1 < slots_ ? at + 1 : 0;
  context_.NoteAccess(0, &table()[at], AccessKind::kWrite);
  table()[at] = {key, churn::Mix(key ^ seed_)};
}

HashTableWorkload::Slot* HashTableWorkload::Find(unsigned thread, uint64_t key) const {
  uint64_t at = Home(key);
  // Bounded: a table that has lost its empty slots must not hold it for ever.
  for (uint64_t probes = 0; probes < slots_; ++probes) {
    Slot* slot = &table()[at];
    context_.NoteAccess(thread, slot, AccessKind::kRead);
    if (slot->key == key) return slot;
    if (slot->key == 0) return nullptr;
    at = at + 1 < slots_ ? at + 1 : 0;
  }
  return nullptr;
}

uint64_t HashTableWorkload::Work() {
  const uint64_t operations = stream_->operations();
  context_.RunThreads([&](unsigned thread) {
    OperationTimer timer(&context_, thread);
    const uint64_t end = context_.ShareBegin(operations, thread + 1);
    for (uint64_t i = context_.ShareBegin(operations, thread); i < end; ++i) {
      constexpr uint64_t kAbsentEvery = 16;
      const Access access = stream_->At(i);
      if (i % kAbsentEvery == 0) {
        const Slot* slot = timer.Time([&] { return Find(thread, Key(keys_ + access.target)); });
        if (slot != nullptr) {
          context_.ReportWrong("slot " + std::to_string(slot - table()) +
                               " has a key that was never inserted; " +
                               DescribeWord(WordOf(slot) - 1, slot->key, 0));
        }
      }
      timer.Time([&] { LookUp(thread, access); });
      if (context_.wrong()) return;
    }
  });
  return operations;
}

void HashTableWorkload::LookUp(unsigned thread, const Access& access) {
  Slot* slot = Find(thread, Key(access.target));
  if (slot == nullptr) {
    ReportMissing(access.target);
    return;
  }
  Counter counter = CounterOf(slot);
  if (counter.Count() > stream_->operations()) {
    context_.ReportWrong(counter.DescribeImpossible(WordOf(slot)));
    return;
  }
  if (!access.updates) return;
  context_.NoteAccess(thread, slot, AccessKind::kWrite);
  counter.Update();
}

void HashTableWorkload::ReportMissing(uint64_t k) {
  const uint64_t home = Home(Key(k));
  context_.ReportWrong("key number " + std::to_string(k) + ", which was inserted at slot " +
                       std::to_string(home) + " or behind it, is missing; the first word there: " +
                       DescribeWord(WordOf(&table()[home]) - 1, table()[home].key, Key(k)));
}

bool HashTableWorkload::CheckSlot(Slot* slot) {
  const uint64_t word = WordOf(slot);
  if (slot->key == 0) {
    if (slot->value == 0) return true;
    context_.ReportWrong("an empty slot is not empty; " + DescribeWord(word, slot->value, 0));
    return false;
  }
  if (NumberOf(slot->key) >= keys_) {
    context_.ReportWrong("slot " + std::to_string(slot - table()) +
                         " has a key that was never inserted; " +
                         DescribeWord(word - 1, slot->key, 0));
    return false;
  }
  if (CounterOf(slot).Count() <= stream_->operations()) return true;
  context_.ReportWrong(CounterOf(slot).DescribeImpossible(word));
  return false;
}

uint64_t HashTableWorkload::Verify() {
  uint64_t found_keys = 0, expected_keys = 0, weight = 0, checksum = 0;
  for (Slot* slot = table(); slot < table() + slots_; ++slot) {
    if (!CheckSlot(slot)) return 0;
    if (slot->key == 0) continue;
    found_keys += UpdateStream::Weight(slot->key);
    weight += CounterOf(slot).Count() * UpdateStream::Weight(NumberOf(slot->key));
    checksum = std::rotl(checksum, 7) + slot->key + slot->value;
  }
  for (uint64_t k = 0; k < keys_; ++k) expected_keys += UpdateStream::Weight(Key(k));
  if (found_keys != expected_keys || weight != stream_->WeightOfUpdates()) Locate();
  return checksum;
}

void HashTableWorkload::Locate() {
  stream_->CountUpdates(keys_, [this](uint64_t k, uint64_t expected) {
    Slot* slot = Find(0, Key(k));
    if (slot == nullptr) {
      ReportMissing(k);
    } else if (CounterOf(slot).Count() != expected) {
      context_.ReportWrong(CounterOf(slot).Describe(WordOf(slot), expected));
    }
    return !context_.wrong();
  });
}

}  // namespace

std::unique_ptr<Workload> MakeHashTableWorkload(WorkContext* context) {
  return std::make_unique<HashTableWorkload>(context);
}

}  // namespace faultline::workload
