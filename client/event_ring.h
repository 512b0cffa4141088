// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVENT_RING_H_
#define FAULTLINE_CLIENT_EVENT_RING_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <vector>

namespace faultline {

enum class MemoryEventKind : uint8_t { kFork, kRemap, kRemove, kUnmap };
inline constexpr int kMemoryEventKinds = 4;

inline constexpr uint64_t kNoPage = UINT64_MAX;

// A change of its memory that the kernel has told of, as it was read.
struct MemoryEvent {
  uint64_t sequence = 0;  // counted from 1
  MemoryEventKind kind = MemoryEventKind::kFork;
  uint64_t start = 0, length = 0;  // of the addresses that it is about; of a fork 0
  uint64_t page = kNoPage;         // of the volume, that was at the first of them
  std::chrono::system_clock::time_point when;
};

// The last events of one attachment. One thread adds them, holding locks that others wait for: it
// never waits itself, not even for who reads. Any number of threads may read.
class EventRing {
 public:
  static constexpr size_t kCapacity = 128;

  // For one thread at a time.
  void Add(const MemoryEvent& event) {
    const uint64_t sequence = last_.load(std::memory_order_relaxed) + 1;
    Slot& slot = slots_[sequence % kCapacity];
    slot.sequence.store(kBeingWritten, std::memory_order_relaxed);
    // Each is released, so that who sees one of them new sees that the slot is being written, too.
    slot.kind.store(event.kind, std::memory_order_release);
    slot.start.store(event.start, std::memory_order_release);
    slot.length.store(event.length, std::memory_order_release);
    slot.page.store(event.page, std::memory_order_release);
    slot.when.store(event.when.time_since_epoch().count(), std::memory_order_release);
    slot.sequence.store(sequence, std::memory_order_release);
    last_.store(sequence, std::memory_order_release);
  }

  // How many there were.
  uint64_t last() const { return last_.load(std::memory_order_acquire); }

  // The events behind `sequence`, in order, as far as they are still there: those that are missing
  // were overwritten.
  std::vector<MemoryEvent> After(uint64_t sequence) const {
    const uint64_t end = last();
    if (sequence >= end) return {};
    const uint64_t kept = end > kCapacity ? end - kCapacity : 0;
    std::vector<MemoryEvent> events;
    for (uint64_t next = std::max(sequence, kept) + 1; next <= end; ++next) {
      const Slot& slot = slots_[next % kCapacity];
      const uint64_t before = slot.sequence.load(std::memory_order_acquire);
      MemoryEvent event;
      event.sequence = next;
      event.kind = slot.kind.load(std::memory_order_acquire);
      event.start = slot.start.load(std::memory_order_acquire);
      event.length = slot.length.load(std::memory_order_acquire);
      event.page = slot.page.load(std::memory_order_acquire);
      event.when = std::chrono::system_clock::time_point(
          std::chrono::system_clock::duration(slot.when.load(std::memory_order_acquire)));
      const uint64_t after = slot.sequence.load(std::memory_order_relaxed);
      if (before == next && after == next) events.push_back(event);
    }
    return events;
  }

 private:
  static constexpr uint64_t kBeingWritten = 0;
  struct Slot {
    std::atomic<uint64_t> sequence = 0;  // of the event that is there
    std::atomic<MemoryEventKind> kind = MemoryEventKind::kFork;
    std::atomic<uint64_t> start = 0, length = 0, page = 0;
    std::atomic<std::chrono::system_clock::rep> when = 0;
  };

  std::array<Slot, kCapacity> slots_;
  std::atomic<uint64_t> last_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVENT_RING_H_
