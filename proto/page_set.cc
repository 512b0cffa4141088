// SPDX-License-Identifier: Apache-2.0
#include "proto/page_set.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace faultline {
namespace {

constexpr uint64_t kWordPages = 64;
constexpr uint64_t kChunkWords = kPageSize / sizeof(uint64_t);
static_assert(PageSet::kChunkPages.raw() == kChunkWords * kWordPages);
static_assert(std::endian::native == std::endian::little,
              "a chunk's bytes are the bitmap's memory as it is");

constexpr size_t WordOf(PageIndex page) { return page.raw() / kWordPages; }
constexpr size_t ChunkOf(PageIndex page) { return page.raw() / PageSet::kChunkPages.raw(); }

// The bits of a word from that of `page` on.
constexpr uint64_t BitsFrom(PageIndex page) { return ~uint64_t{0} << (page.raw() % kWordPages); }

constexpr size_t ChunksOf(PageCount volume_size) {
  const uint64_t chunk = PageSet::kChunkPages.raw();
  return volume_size.raw() / chunk + (volume_size.raw() % chunk != 0);
}

absl::Status TooManyRuns() {
  return absl::ResourceExhaustedError(absl::StrCat("a set of pages has more than ", kMaxPageSetRuns,
                                                   " runs, the most that are kept"));
}

}  // namespace

absl::StatusOr<PageSet> PageSet::Create(PageCount volume_size) {
  if (volume_size > kMaxPageSetVolume) {
    return absl::FailedPreconditionError(absl::StrCat("a volume of ", volume_size.raw(),
                                                      " pages has no sets of pages; the most is ",
                                                      kMaxPageSetVolume.raw()));
  }
  // At least one chunk, so that no memory means none was left.
  const size_t words = std::max<size_t>(ChunksOf(volume_size), 1) * kChunkWords;
  // Not zeroed by hand: what is fresh from the kernel is zero, and takes no memory until it is
  // written to.
  Words zeros(static_cast<uint64_t*>(std::calloc(words, sizeof(uint64_t))));
  if (zeros == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for a set of ", volume_size.raw(), " pages"));
  }
  return PageSet(volume_size, std::move(zeros));
}

PageSet::PageSet(PageCount volume_size, Words words)
    : volume_size_(volume_size),
      words_(std::move(words)),
      used_(ChunksOf(volume_size) / 64 + 1, 0) {}

void PageSet::AddBits(size_t word, uint64_t bits) {
  count_ += PageCount(static_cast<uint64_t>(std::popcount(bits & ~words_[word])));
  words_[word] |= bits;
}

bool PageSet::Insert(PageIndex page) {
  const size_t word = WordOf(page);
  const uint64_t bit = uint64_t{1} << (page.raw() % kWordPages);
  if ((words_[word] & bit) != 0) return false;
  words_[word] |= bit;
  count_ += PageCount(1);
  MarkUsed(ChunkOf(page));
  return true;
}

void PageSet::Insert(PageRange range) {
  while (!range.empty()) {
    const PageIndex page = range.first;
    const PageIndex word_end((WordOf(page) + 1) * kWordPages);
    const PageIndex end = std::min(word_end, range.end());
    uint64_t bits = BitsFrom(page);
    if (end < word_end) bits &= ~BitsFrom(end);
    MarkUsed(ChunkOf(page));
    AddBits(WordOf(page), bits);
    range = PageRange::Between(end, range.end());
  }
}

void PageSet::Merge(const PageSet& other) {
  for (size_t chunk = 0; chunk < other.chunks(); ++chunk) {
    if (other.ChunkIsEmpty(chunk)) continue;
    MarkUsed(chunk);
    for (size_t word = chunk * kChunkWords; word < (chunk + 1) * kChunkWords; ++word) {
      AddBits(word, other.words_[word]);
    }
  }
}

void PageSet::Clear() {
  for (size_t chunk = 0; chunk < chunks(); ++chunk) {
    if (!ChunkIsEmpty(chunk)) memset(&words_[chunk * kChunkWords], 0, kPageSize);
  }
  std::fill(used_.begin(), used_.end(), 0);
  count_ = PageCount(0);
}

bool PageSet::Contains(PageIndex page) const {
  return (words_[WordOf(page)] >> (page.raw() % kWordPages) & 1) != 0;
}

PageIndex PageSet::FindMember(PageIndex from) const {
  const PageIndex end{volume_size_.raw()};
  while (from < end) {
    if (ChunkIsEmpty(ChunkOf(from))) {
      from = PageIndex((ChunkOf(from) + 1) * kChunkPages.raw());
      continue;
    }
    const uint64_t bits = words_[WordOf(from)] & BitsFrom(from);
    if (bits != 0) {
      return PageIndex(WordOf(from) * kWordPages + static_cast<uint64_t>(std::countr_zero(bits)));
    }
    from = PageIndex((WordOf(from) + 1) * kWordPages);
  }
  return end;
}

PageIndex PageSet::FindGap(PageIndex from) const {
  const PageIndex end{volume_size_.raw()};
  while (from < end) {
    const uint64_t gaps = ~words_[WordOf(from)] & BitsFrom(from);
    if (gaps != 0) {
      const PageIndex gap(WordOf(from) * kWordPages +
                          static_cast<uint64_t>(std::countr_zero(gaps)));
      return std::min(gap, end);
    }
    from = PageIndex((WordOf(from) + 1) * kWordPages);
  }
  return end;
}

PageRange PageSet::NextRun(PageIndex from) const {
  const PageIndex first = FindMember(from);
  return PageRange::Between(first, FindGap(first));
}

size_t PageSet::CountRuns() const {
  size_t runs = 0;
  for (PageRange run = NextRun(PageIndex(0)); !run.empty(); run = NextRun(run.end())) ++runs;
  return runs;
}

absl::StatusOr<std::vector<uint64_t>> PageSet::EncodeRuns() const {
  std::vector<uint64_t> numbers;
  PageIndex next;
  for (PageRange run = NextRun(next); !run.empty(); run = NextRun(next)) {
    if (numbers.size() == 2 * kMaxPageSetRuns) return TooManyRuns();
    numbers.push_back((run.first - next).raw());
    numbers.push_back(run.count.raw());
    next = run.end();
  }
  return numbers;
}

absl::StatusOr<PageSet> PageSet::DecodeRuns(PageCount volume_size,
                                            std::span<const uint64_t> numbers) {
  if (numbers.size() > 2 * kMaxPageSetRuns) return TooManyRuns();
  if (numbers.size() % 2 != 0) {
    return absl::InvalidArgumentError("a set of pages ends in the middle of a run");
  }
  absl::StatusOr<PageSet> set = Create(volume_size);
  if (!set.ok()) return set;
  PageIndex next;
  for (size_t i = 0; i < numbers.size(); i += 2) {
    const uint64_t gap = numbers[i];
    const uint64_t count = numbers[i + 1];
    const PageCount left = volume_size - PageCount(next.raw());
    if (count == 0 || (gap == 0 && i > 0)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "run ", i / 2, " of a set of pages is empty, or follows the one before without a gap"));
    }
    if (!IsWithin(gap, count, left)) {
      return absl::OutOfRangeError(absl::StrCat(
          "run ", i / 2, " of a set of pages, ", count, " pages at ", gap, " after page ",
          next.raw(), ", reaches beyond the volume's ", volume_size.raw()));
    }
    const PageRange run{next + PageCount(gap), PageCount(count)};
    set->Insert(run);
    next = run.end();
  }
  return set;
}

size_t PageSet::chunks() const { return ChunksOf(volume_size_); }

bool PageSet::ChunkIsEmpty(size_t chunk) const {
  return (used_[chunk / 64] >> chunk % 64 & 1) == 0;
}

PageBytes PageSet::Chunk(size_t chunk) const {
  return PageBytes(reinterpret_cast<const std::byte*>(&words_[chunk * kChunkWords]), kPageSize);
}

absl::Status PageSet::MergeChunk(size_t chunk, PageBytes bits) {
  uint64_t words[kChunkWords];
  memcpy(words, bits.data(), kPageSize);
  const size_t first = chunk * kChunkWords;
  for (size_t i = 0; i < kChunkWords; ++i) {
    const PageIndex page((first + i) * kWordPages);
    const PageIndex end{volume_size_.raw()};
    uint64_t beyond = 0;
    if (end <= page) {
      beyond = ~uint64_t{0};
    } else if (end - page < PageCount(kWordPages)) {
      beyond = BitsFrom(end);
    }
    if ((words[i] & beyond) != 0) {
      return absl::DataLossError(absl::StrCat("chunk ", chunk, " of a set of pages names pages ",
                                              "beyond the volume's ", volume_size_.raw()));
    }
  }
  MarkUsed(chunk);
  for (size_t i = 0; i < kChunkWords; ++i) AddBits(first + i, words[i]);
  return absl::OkStatus();
}

}  // namespace faultline
