// SPDX-License-Identifier: Apache-2.0
#include "client/churn/shadow.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>

namespace faultline::churn {

void PageShadow::Write(size_t first, size_t length, uint64_t number) {
  if (first == 0 && length == kPageSize) {
    *this = PageShadow({.kind = Stamp::kWritten, .number = number});
    return;
  }
  written_since_ = true;
  parts_[part_count_++] = {.number = number,
                           .first = static_cast<uint16_t>(first),
                           .length = static_cast<uint16_t>(length)};
}

void PageShadow::DiscardLazily() {
  if (base_ == Stamp{} && part_count_ == 0) return;
  may_be_zero_ = true;
  written_since_ = false;
  freed_parts_ = part_count_;
}

void PageShadow::Expected(const Pattern& pattern, Version version, std::byte* page) const {
  pattern.Fill(version == Version::kKept ? base_ : Stamp{}, page);
  for (size_t i = version == Version::kKept ? 0 : freed_parts_; i < part_count_; ++i) {
    std::byte written[kPageSize];
    pattern.Fill({.kind = Stamp::kWritten, .number = parts_[i].number}, written);
    memcpy(page + parts_[i].first, written + parts_[i].first, parts_[i].length);
  }
}

PageShadow::Verdict PageShadow::Check(const Pattern& pattern, PageView found) {
  std::byte expected[kPageSize];
  Expected(pattern, Version::kKept, expected);
  if (memcmp(expected, found.data(), kPageSize) == 0) {
    // It was written since and is still here: the kernel will not free it any more.
    if (may_be_zero_ && written_since_) may_be_zero_ = written_since_ = false;
    return {};
  }
  if (may_be_zero_) {
    std::byte freed[kPageSize];
    Expected(pattern, Version::kFreed, freed);
    if (memcmp(freed, found.data(), kPageSize) == 0) {
      base_ = {};
      std::copy(parts_.begin() + freed_parts_, parts_.begin() + part_count_, parts_.begin());
      part_count_ = static_cast<uint8_t>(part_count_ - freed_parts_);
      may_be_zero_ = written_since_ = false;
      freed_parts_ = 0;
      return {};
    }
  }
  Verdict verdict;
  for (size_t i = kPageSize; i-- > 0;) {
    if (expected[i] == found[i]) continue;
    ++verdict.wrong_bytes;
    verdict.first_wrong = i;
  }
  return verdict;
}

void PageShadow::Describe(char* text, size_t size) const {
  DescribeStamp(base_, text, size);
  for (size_t i = 0; i < part_count_; ++i) {
    const size_t used = strlen(text);
    snprintf(text + used, size - used, ", then bytes %u to %u by write %" PRIu64, parts_[i].first,
             parts_[i].first + parts_[i].length - 1u, parts_[i].number);
  }
  if (may_be_zero_) {
    const size_t used = strlen(text);
    snprintf(text + used, size - used, " (or zeros: freed lazily before the last %d of these)",
             part_count_ - freed_parts_);
  }
}

}  // namespace faultline::churn
