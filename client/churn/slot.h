// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CHURN_SLOT_H_
#define FAULTLINE_CLIENT_CHURN_SLOT_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "client/churn/operation.h"
#include "client/churn/shadow.h"

namespace faultline::churn {

// Pages of a volume that one slot begins with, and that it can grow to.
inline constexpr uint32_t kSlotPages = 32;
inline constexpr uint32_t kMaxSlotPages = 64;

// A piece of memory that one thread does its operations on, and what it must read as. A plain value
// that allocates nothing.
struct Slot {
  uint64_t id = 0;  // for reports
  uint64_t address = 0;
  uint32_t pages = 0;
  // Growth ends here: for shared memory with the object behind it, or where another slot's part of
  // that begins.
  uint32_t room = kMaxSlotPages;
  uint64_t file_page = 0;  // of a memfd, behind the slot's first page
  // Of shared memory also beyond `pages`: what the object has there, and growth shows again.
  std::array<PageShadow, kMaxSlotPages> shadows;

  // The part [first, first + count) that mprotect has split off.
  struct Protection {
    uint32_t first = 0, count = 0;
    int prot = 0;
    bool Covers(uint32_t page) const { return page - first < count; }
  } protection;  // count 0: none
  enum class ForkAdvice : uint8_t { kNone, kWipe, kDontFork } advice = ForkAdvice::kNone;

  struct Event {
    uint64_t number = 0;  // of the operation
    Operation operation = Operation::kRead;
    uint8_t depth = 0;  // of the process: 0 the parent, 1 its child, ...
    bool refused = false;
    uint32_t first = 0, count = 0;  // pages
    uint64_t address = 0;           // after it
  };
  std::array<Event, 12> history;
  uint32_t events = 0;

  uint64_t bytes() const;
  uint64_t AddressOf(uint32_t page) const;
  void Note(const Event& event) { history[events++ % history.size()] = event; }
  // Writes what was done to it, the newest first. Async-signal-safe.
  void DescribeHistory(char* text, size_t size) const;
};

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_SLOT_H_
