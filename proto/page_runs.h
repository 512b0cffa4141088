// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_PROTO_PAGE_RUNS_H_
#define FAULTLINE_PROTO_PAGE_RUNS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "proto/page.h"
#include "proto/pager.pb.h"

namespace faultline {

// The runs of a PageBatch, and the wire form of all of it but the encoded pages: for who sends
// those from where they are, instead of copying them into a message. Not thread-safe.
class PageRuns {
 public:
  // Merges neighbours. `range` may be empty.
  void Add(PageRange range, rpc::PageRun::Kind kind);

  PageCount page_count() const { return page_count_; }
  // Whether the last page is a zero one.
  bool ends_in_zeros() const { return !last_.range.empty() && last_.kind == rpc::PageRun::ZERO; }

  // Of a field that holds the batch, all but the `payload_bytes` of encoded pages, which follow it.
  size_t FieldSize(size_t payload_bytes) const;
  // Writes that; returns its end.
  uint8_t* WriteField(int field, size_t payload_bytes, uint8_t* out) const;

 private:
  struct Run {
    PageRange range;
    rpc::PageRun::Kind kind = rpc::PageRun::DATA;
  };

  static size_t RunSize(const Run& run);
  static uint8_t* WriteRun(const Run& run, uint8_t* out);
  size_t BatchSize(size_t payload_bytes) const;

  PageCount page_count_;
  // The run that grows, and those before it; nearly always there is just one.
  Run last_;
  std::vector<Run> earlier_;
};

}  // namespace faultline

#endif  // FAULTLINE_PROTO_PAGE_RUNS_H_
