// SPDX-License-Identifier: Apache-2.0
//
// Pattern: what the pages of a churn are filled with. Every page has bytes of its own, in every
// place, and every eight bytes tell where they belong, so that a page at a wrong place, an old one
// and one that is torn are told apart.
#ifndef FAULTLINE_CLIENT_CHURN_PATTERN_H_
#define FAULTLINE_CLIENT_CHURN_PATTERN_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "client/churn/random.h"
#include "proto/page.h"

namespace faultline::churn {

inline constexpr size_t kWordsPerPage = kPageSize / sizeof(uint64_t);

using PageView = std::span<const std::byte, kPageSize>;

// What a page is filled with.
struct Stamp {
  enum Kind : uint8_t {
    kZero,     // zeros; `number` is 0
    kVolume,   // page `number` of the volume
    kWritten,  // the target's write `number`
    kFile,     // page `number` of a memfd, written through the file, and of no volume
  };
  Kind kind = kZero;
  uint64_t number = 0;  // below 2^50

  friend constexpr bool operator==(Stamp, Stamp) = default;
};

// A plain value; allocates nothing.
class Pattern {
 public:
  explicit Pattern(uint64_t seed) : key_(Mix(seed + 1)) {}

  // The eight bytes at 8 * `index` of a page.
  uint64_t Word(Stamp stamp, size_t index) const {
    if (stamp.kind == Stamp::kZero) return 0;
    return Mix((uint64_t{stamp.kind} << 59 | stamp.number << 9 | index) ^ key_);
  }
  // Writes kPageSize bytes to `page`.
  void Fill(Stamp stamp, std::byte* page) const;

  // What some bytes of a page are.
  struct Recognised {
    bool known = false;
    Stamp stamp;
    size_t index = 0;  // their place in a page of that stamp, in words
  };
  Recognised Recognise(uint64_t word) const;

  // Writes, to `text`, what each part of `page` is, as "page 7 of the volume", or "zeros up to byte
  // 512, then write 9". Async-signal-safe. REQUIRES: size > 0.
  void Describe(PageView page, char* text, size_t size) const;

 private:
  uint64_t key_;
};

// Writes the stamp's name to `text`. Async-signal-safe.
void DescribeStamp(Stamp stamp, char* text, size_t size);

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_PATTERN_H_
