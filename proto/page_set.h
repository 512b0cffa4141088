// SPDX-License-Identifier: Apache-2.0
//
// PageSet: some of the pages of one volume, as a bitmap. A working set is one: the pages that a
// program's faults have asked for, recorded in one run and prefetched in the next.
//
// The bitmap is divided into chunks of one page (4096 bytes, and so 32768 pages of the volume
// each), the unit in which it is stored. Chunks without a page of the set are never touched, so
// they cost address space but no memory, and no time when the set is walked.
#ifndef FAULTLINE_PROTO_PAGE_SET_H_
#define FAULTLINE_PROTO_PAGE_SET_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "proto/page.h"
#include "proto/page_codec.h"

namespace faultline {

// A volume larger than this (4 TiB) has no sets of pages: the bitmap is 128 MiB of address space.
inline constexpr PageCount kMaxPageSetVolume{uint64_t{1} << 30};
// A set of more runs than this is neither sent nor stored. In the form of EncodeRuns() so many take
// less than 4.1 MiB as varints, a quarter of the largest message that a server takes by default.
inline constexpr size_t kMaxPageSetRuns = size_t{1} << 20;

// Not thread-safe. Moved-from sets may only be destroyed or assigned to.
class PageSet {
 public:
  // An empty set of pages of a volume of `volume_size`. FAILED_PRECONDITION where the volume is
  // larger than kMaxPageSetVolume. No later call allocates memory, but for EncodeRuns().
  static absl::StatusOr<PageSet> Create(PageCount volume_size);

  // Adds one page; false if it was there. A few instructions. REQUIRES: the volume has it.
  bool Insert(PageIndex page);
  // Adds pages. REQUIRES: the volume has them.
  void Insert(PageRange range);
  // Adds the pages of `other`. REQUIRES: `other` is of a volume that is not larger.
  void Merge(const PageSet& other);
  void Clear();

  // REQUIRES: the volume has `page`.
  bool Contains(PageIndex page) const;
  PageCount count() const { return count_; }
  bool empty() const { return count_.raw() == 0; }
  PageCount volume_size() const { return volume_size_; }
  size_t CountRuns() const;

  // The first pages of the set at or after `from`, as many as there are without a gap; empty where
  // there are none. A set is walked in ascending order by
  //   for (r = set.NextRun(PageIndex(0)); !r.empty(); r = set.NextRun(r.end()))
  PageRange NextRun(PageIndex from) const;

  // The set as numbers, two for each run, ascending: the pages left out since the end of the run
  // before (or the volume's first page), and the pages of the run. RESOURCE_EXHAUSTED where there
  // are more than kMaxPageSetRuns.
  absl::StatusOr<std::vector<uint64_t>> EncodeRuns() const;
  // Reads what EncodeRuns() makes, from a source that is not trusted. INVALID_ARGUMENT where it is
  // not in that form, with runs that are neither empty nor touch each other; OUT_OF_RANGE where
  // they reach beyond the volume; RESOURCE_EXHAUSTED where there are too many.
  static absl::StatusOr<PageSet> DecodeRuns(PageCount volume_size,
                                            std::span<const uint64_t> numbers);

  // The bitmap itself, for storing it. Bit i % 8 of byte i / 8 of a chunk stands for its page i.
  static constexpr PageCount kChunkPages{kPageSize * 8};
  size_t chunks() const;
  bool ChunkIsEmpty(size_t chunk) const;
  // Valid, and up to date, as long as the set. REQUIRES: chunk < chunks().
  PageBytes Chunk(size_t chunk) const;
  // Adds the pages of a chunk. DATA_LOSS, with nothing added, where it holds pages that the volume
  // does not have. REQUIRES: chunk < chunks().
  absl::Status MergeChunk(size_t chunk, PageBytes bits);

 private:
  struct Free {
    void operator()(uint64_t* words) const { std::free(words); }
  };
  using Words = std::unique_ptr<uint64_t[], Free>;

  PageSet(PageCount volume_size, Words words);

  void MarkUsed(size_t chunk) { used_[chunk / 64] |= uint64_t{1} << (chunk % 64); }
  // Adds bits to a word, and counts those that are new. REQUIRES: its chunk is marked.
  void AddBits(size_t word, uint64_t bits);
  // The first page at or after `from` that is in the set, or the end of the volume.
  PageIndex FindMember(PageIndex from) const;
  // The first page at or after `from` that is not in the set, or the end of the volume.
  PageIndex FindGap(PageIndex from) const;

  PageCount volume_size_;
  PageCount count_;
  Words words_;                 // whole chunks; bits beyond the volume are never set
  std::vector<uint64_t> used_;  // one bit for each chunk that was ever written to
};

}  // namespace faultline

#endif  // FAULTLINE_PROTO_PAGE_SET_H_
