// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_WORKLOAD_PAGE_PATTERN_H_
#define FAULTLINE_CLIENT_WORKLOAD_PAGE_PATTERN_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "client/churn/random.h"
#include "proto/page.h"

namespace faultline::workload {

inline constexpr uint64_t kWordsPerPage = kPageSize / sizeof(uint64_t);

// What the pages of a workload hold. Every word tells, to who knows the seed, to which page, which
// place and which version of the page it belongs; no codec makes such pages smaller. A plain value.
class PagePattern {
 public:
  static constexpr uint64_t kMaxVersions = uint64_t{1} << 24;
  static constexpr uint64_t kMaxPages = uint64_t{1} << 31;

  explicit PagePattern(uint64_t seed) : key_(churn::Mix(seed + 1)) {}

  // Of version 0, what was there at first, or of the number of the write that has put it there.
  uint64_t Word(uint64_t page, uint64_t version, uint64_t index) const {
    return churn::Mix((version << 40 | page << 9 | index) ^ key_);
  }

  // Writes the words [first, first + count) of a page that begins at `words`.
  void Write(uint64_t page, uint64_t version, uint64_t first, uint64_t count,
             uint64_t* words) const {
    for (uint64_t i = first; i < first + count; ++i) words[i] = Word(page, version, i);
  }

  // Compares them, and adds them to `*sum`. The first that is wrong, or first + count.
  uint64_t Check(uint64_t page, uint64_t version, uint64_t first, uint64_t count,
                 const uint64_t* words, uint64_t* sum) const {
    uint64_t difference = 0, found = 0;
    for (uint64_t i = first; i < first + count; ++i) {
      found += words[i];
      difference |= words[i] ^ Word(page, version, i);
    }
    *sum += found;
    uint64_t wrong = first + count;
    if (difference != 0) {
      wrong = first;
      while (wrong < first + count && words[wrong] == Word(page, version, wrong)) ++wrong;
    }
    return wrong;
  }

  // "page 7 of the memory, its byte 24 (byte 28696 of all): found 0x.., expected 0x.. (written 3
  // times); that is ...", where it can tell what has been found.
  std::string Describe(uint64_t page, uint64_t version, uint64_t index, uint64_t found) const;

 private:
  uint64_t key_;
};

// "page 7 of the memory, its byte 24 (byte 28696 of all): found 0x..12, expected 0x..34"
std::string DescribeWord(uint64_t word_index, uint64_t found, uint64_t expected);

}  // namespace faultline::workload

#endif  // FAULTLINE_CLIENT_WORKLOAD_PAGE_PATTERN_H_
