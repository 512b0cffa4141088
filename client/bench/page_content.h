// SPDX-License-Identifier: Apache-2.0
//
// What the pages of a benchmark's volume hold, so that whoever reads them can tell whether they are
// right. Pure; without anything that a program with paged memory should not have.
#ifndef FAULTLINE_CLIENT_BENCH_PAGE_CONTENT_H_
#define FAULTLINE_CLIENT_BENCH_PAGE_CONTENT_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "proto/page.h"

namespace faultline::bench {

struct PageContent {
  enum Kind {
    kRandom,  // no codec makes it smaller
    kHalf,    // the second half of each page is one word over and over
  };
  Kind kind = kRandom;
  uint64_t seed = 1;

  // The eight bytes at 8 * `index` of a page: of its own for every seed, page and place.
  uint64_t Word(PageIndex page, size_t index) const {
    const bool repeats = kind == kHalf && index >= kWords / 2;
    return Mix(Mix(seed) ^ (page.raw() * kWords + (repeats ? kWords / 2 : index)));
  }

  // Writes kPageSize bytes.
  void Fill(PageIndex page, std::byte* to) const {
    for (size_t i = 0; i < kWords; ++i) {
      const uint64_t word = Word(page, i);
      memcpy(to + i * sizeof word, &word, sizeof word);
    }
  }

  static constexpr size_t kWords = kPageSize / sizeof(uint64_t);

 private:
  // SplitMix64: a bijection that spreads every bit over all others.
  static constexpr uint64_t Mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  }
};

}  // namespace faultline::bench

#endif  // FAULTLINE_CLIENT_BENCH_PAGE_CONTENT_H_
