// SPDX-License-Identifier: Apache-2.0
//
// PageShadow: what a page must read as, byte for byte, after all that was done to it.
#ifndef FAULTLINE_CLIENT_CHURN_SHADOW_H_
#define FAULTLINE_CLIENT_CHURN_SHADOW_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "client/churn/pattern.h"

namespace faultline::churn {

// Kept as the stamps of which the page is made, not as bytes. A plain value that allocates nothing:
// a forked child goes on with the copy that fork() gave it. Not thread-safe.
class PageShadow {
 public:
  PageShadow() = default;
  explicit PageShadow(Stamp base) : base_(base) {}

  // Bytes [first, first + length) were overwritten with those of `number`'s page at the same place.
  // Only as long as CanWritePart(); a whole page can always be written.
  void Write(size_t first, size_t length, uint64_t number);
  bool CanWritePart() const { return part_count_ < kParts; }

  // MADV_DONTNEED of private memory, MADV_REMOVE, MREMAP_DONTUNMAP: zeros from now on.
  void Discard() { *this = PageShadow(); }
  // MADV_FREE: as it is, or zeros, and from one to the other at any time until it is written.
  void DiscardLazily();

  struct Verdict {
    size_t wrong_bytes = 0;
    size_t first_wrong = 0;  // byte of the page, where there is one
  };
  // Compares. What is seen of a page that was discarded lazily decides what may be seen later.
  Verdict Check(const Pattern& pattern, PageView found);

  // Whether the page may be zeros, too.
  bool may_be_zero() const { return may_be_zero_; }
  // Writes kPageSize bytes: as the page must be; or as it may be instead, if may_be_zero().
  enum class Version { kKept, kFreed };
  void Expected(const Pattern& pattern, Version version, std::byte* page) const;
  // As text, for a report. Async-signal-safe.
  void Describe(char* text, size_t size) const;

 private:
  struct Part {
    uint64_t number = 0;
    uint16_t first = 0;
    uint16_t length = 0;
  };
  static constexpr uint8_t kParts = 3;

  Stamp base_;
  std::array<Part, kParts> parts_;  // the later ones lie over the earlier ones
  uint8_t part_count_ = 0;
  // MADV_FREE has hit it with parts_[0, freed_parts_) there; the page is as a whole from before it,
  // or nothing is. Written since: the kernel keeps it from then on as it was then.
  bool may_be_zero_ = false;
  bool written_since_ = false;
  uint8_t freed_parts_ = 0;
};

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_SHADOW_H_
