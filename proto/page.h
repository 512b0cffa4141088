// SPDX-License-Identifier: Apache-2.0
//
// Strong types for pages: PageIndex (which page), PageCount (how many), PageRange (a run of them).
// Every conversion to or from bytes is visible by name. All are plain values, free of state.
#ifndef FAULTLINE_PROTO_PAGE_H_
#define FAULTLINE_PROTO_PAGE_H_

#include <algorithm>
#include <compare>
#include <cstdint>

namespace faultline {

// The unit of every fault, fetch, fill and record, in bytes.
inline constexpr uint64_t kPageSize = 4096;
inline constexpr uint64_t kPageShift = 12;
static_assert(kPageSize == uint64_t{1} << kPageShift);

// No volume is larger than this (4 PiB): sums of an index and a count below it never overflow.
inline constexpr uint64_t kMaxVolumePages = uint64_t{1} << 40;

constexpr bool IsPageAligned(uint64_t bytes_or_address) {
  return bytes_or_address % kPageSize == 0;
}

// A number of pages.
class PageCount {
 public:
  constexpr PageCount() = default;
  constexpr explicit PageCount(uint64_t n) : n_(n) {}
  // The pages that `bytes` bytes need, the last one possibly in part.
  static constexpr PageCount CoveringBytes(uint64_t bytes) {
    return PageCount(bytes / kPageSize + (bytes % kPageSize != 0));
  }

  constexpr uint64_t raw() const { return n_; }
  constexpr uint64_t in_bytes() const { return n_ * kPageSize; }

  friend constexpr auto operator<=>(PageCount, PageCount) = default;
  friend constexpr PageCount operator+(PageCount a, PageCount b) { return PageCount(a.n_ + b.n_); }
  friend constexpr PageCount operator-(PageCount a, PageCount b) { return PageCount(a.n_ - b.n_); }
  constexpr PageCount& operator+=(PageCount b) { return *this = *this + b; }
  constexpr PageCount& operator-=(PageCount b) { return *this = *this - b; }

 private:
  uint64_t n_ = 0;
};

// The position of a page in its volume, counted from 0.
class PageIndex {
 public:
  constexpr PageIndex() = default;
  constexpr explicit PageIndex(uint64_t i) : i_(i) {}
  // The page that holds byte `offset` of the volume.
  static constexpr PageIndex Containing(uint64_t offset) { return PageIndex(offset / kPageSize); }

  constexpr uint64_t raw() const { return i_; }
  constexpr uint64_t byte_offset() const { return i_ * kPageSize; }

  friend constexpr auto operator<=>(PageIndex, PageIndex) = default;
  friend constexpr PageIndex operator+(PageIndex a, PageCount n) {
    return PageIndex(a.i_ + n.raw());
  }
  // REQUIRES: b <= a.
  friend constexpr PageCount operator-(PageIndex a, PageIndex b) { return PageCount(a.i_ - b.i_); }
  constexpr PageIndex& operator++() {
    ++i_;
    return *this;
  }
  constexpr PageIndex& operator+=(PageCount n) { return *this = *this + n; }

 private:
  uint64_t i_ = 0;
};

// The pages [first, first + count). May be empty.
struct PageRange {
  PageIndex first;
  PageCount count;

  static constexpr PageRange Single(PageIndex page) { return {page, PageCount(1)}; }
  // REQUIRES: first <= end.
  static constexpr PageRange Between(PageIndex first, PageIndex end) {
    return {first, end - first};
  }

  constexpr PageIndex end() const { return first + count; }
  constexpr bool empty() const { return count.raw() == 0; }
  constexpr uint64_t size_bytes() const { return count.in_bytes(); }
  constexpr bool Contains(PageIndex page) const { return first <= page && page < end(); }
  constexpr bool Contains(PageRange other) const {
    return first <= other.first && other.end() <= end();
  }
  constexpr bool Overlaps(PageRange other) const {
    return first < other.end() && other.first < end();
  }
  // The pages that both hold; empty where there are none.
  constexpr PageRange Intersect(PageRange other) const {
    const PageIndex from = std::max(first, other.first);
    const PageIndex to = std::min(end(), other.end());
    return from < to ? Between(from, to) : PageRange{from, PageCount(0)};
  }

  friend constexpr bool operator==(const PageRange&, const PageRange&) = default;
};

// Whether [first, first + count) is a range that a volume of `size` pages holds; false also where
// the sum overflows, so it is safe on numbers that come from outside.
constexpr bool IsWithin(uint64_t first, uint64_t count, PageCount size) {
  return count <= size.raw() && first <= size.raw() - count;
}

}  // namespace faultline

#endif  // FAULTLINE_PROTO_PAGE_H_
