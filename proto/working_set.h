// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_PROTO_WORKING_SET_H_
#define FAULTLINE_PROTO_WORKING_SET_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "proto/page_set.h"

namespace faultline {

// Pages of a volume that the faults of programs have asked for, and of the first of them in which
// order: a later run needs them in about the same one, and most of all the first soon.
//
// Not thread-safe. Moved-from sets may only be destroyed or assigned to.
class WorkingSet {
 public:
  // Of so many pages, 32 MiB of them, the order is kept: what a program begins with. In that of the
  // volume, what follows comes several times faster.
  static constexpr size_t kMaxFirst = size_t{1} << 13;

  // An empty one; the errors of PageSet::Create().
  static absl::StatusOr<WorkingSet> Create(PageCount volume_size);
  // Of whose pages no order is known.
  explicit WorkingSet(PageSet pages) : pages_(std::move(pages)) {}

  // Adds a page, as the last, unless it is there; takes no memory if this was made by Create().
  // REQUIRES: the volume has it.
  void Insert(PageIndex page);
  // Adds what `later` has behind what is there, in its order. REQUIRES: it is of a volume that is
  // not larger.
  void Merge(const WorkingSet& later);

  const PageSet& pages() const { return pages_; }
  // Some of them, each once, in the order in which they were first asked for.
  std::span<const PageIndex> first() const { return first_; }

  // Sets first(), from a source that is not trusted. INVALID_ARGUMENT, with first() left empty,
  // where one of them is not in pages() or comes twice; RESOURCE_EXHAUSTED where there are more
  // than kMaxFirst.
  absl::Status SetFirst(std::vector<PageIndex> first);

  // first() as numbers: how far each is from the one before, the first from page 0.
  std::vector<int64_t> EncodeFirst() const;
  // SetFirst() of what EncodeFirst() has made.
  absl::Status DecodeFirst(std::span<const int64_t> steps);

 private:
  PageSet pages_;
  std::vector<PageIndex> first_;
};

}  // namespace faultline

#endif  // FAULTLINE_PROTO_WORKING_SET_H_
