// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_WORKLOAD_COUNTER_H_
#define FAULTLINE_CLIENT_WORKLOAD_COUNTER_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "client/workload/page_pattern.h"

namespace faultline::workload {

// A word that counts its updates on top of what it was at first: updates of several threads may
// come in any order, and whoever knows the beginning can read off how many there have been.
class Counter {
 public:
  // Borrowed.
  Counter(uint64_t* word, uint64_t initial) : word_(word), initial_(initial) {}

  // How many updates it has had. Any number, most likely a huge one, where its word is wrong.
  uint64_t Count() const { return (Load() - initial_) * kInverse; }
  void Update() { std::atomic_ref<uint64_t>(*word_).fetch_add(kStep, std::memory_order_relaxed); }

  // What is wrong, of the word with this index of the memory, that has had `expected` updates.
  std::string Describe(uint64_t word_index, uint64_t expected) const {
    std::string text = DescribeWord(word_index, Load(), initial_ + expected * kStep) + " (after " +
                       std::to_string(expected) + " updates)";
    if (Load() == 0) {
      text += "; zero: the page was lost";
    } else if (Count() < expected) {
      text += "; that is what it was after " + std::to_string(Count()) +
              " updates: an older copy of the page";
    }
    return text;
  }
  // The same, where its Count() cannot be.
  std::string DescribeImpossible(uint64_t word_index) const {
    return DescribeWord(word_index, Load(), initial_) + " (or some updates more)";
  }

 private:
  // Odd, so that it has an inverse modulo 2^64; all bits of the word change with it.
  static constexpr uint64_t kStep = 0xd1342543de82ef95;
  static constexpr uint64_t kInverse = 0x572b5ee77a54e3bd;
  static_assert(kStep * kInverse == 1);

  uint64_t Load() const {
    return std::atomic_ref<uint64_t>(*word_).load(std::memory_order_relaxed);
  }

  uint64_t* word_;
  uint64_t initial_;
};

}  // namespace faultline::workload

#endif  // FAULTLINE_CLIENT_WORKLOAD_COUNTER_H_
