// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_SERVER_FETCH_ANSWER_H_
#define FAULTLINE_SERVER_FETCH_ANSWER_H_

#include <absl/strings/string_view.h>
#include <grpc/slice.h>
#include <grpcpp/support/byte_buffer.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "proto/page.h"
#include "proto/pager.pb.h"

namespace faultline {

// Makes a FetchResponse with pages in its wire form: the bytes that the generated class would make,
// but each page is copied only once, from the store to where gRPC sends it from. The one place that
// knows that form. Not thread-safe.
class FetchAnswer {
 public:
  // `expected` is how many pages come; more or fewer do no harm.
  explicit FetchAnswer(PageCount expected) : expected_(expected) {}
  ~FetchAnswer();
  FetchAnswer(const FetchAnswer&) = delete;
  FetchAnswer& operator=(const FetchAnswer&) = delete;

  // Adds one page in its encoded form. REQUIRES: it is not a page of zeros.
  void Add(PageIndex page, absl::string_view encoded);
  // Adds pages that read as zero. `range` may be empty.
  void AddZero(PageRange range);

  PageCount page_count() const { return page_count_; }
  // Whether the last page is a zero one.
  bool ends_in_zeros() const { return !last_.range.empty() && last_.kind == rpc::PageRun::ZERO; }

  // Tells of pages behind the last one that are zero.
  void NoteZerosBeyond(PageCount pages) { zeros_beyond_ = pages; }

  // Makes the message, with the times that it tells. Call once, last.
  void Finish(uint64_t request_id, std::chrono::nanoseconds server, std::chrono::nanoseconds store,
              grpc::ByteBuffer* message);

 private:
  struct Run {
    PageRange range;
    rpc::PageRun::Kind kind = rpc::PageRun::DATA;
  };

  void AddToRun(PageRange range, rpc::PageRun::Kind kind);
  // Makes room for `bytes` more of payload.
  void Grow(size_t bytes);
  size_t RunsSize() const;
  uint8_t* WriteRuns(uint8_t* out) const;

  const PageCount expected_;
  PageCount page_count_;
  PageCount zeros_beyond_;
  // The run that grows, and those before it; nearly always there is just one.
  Run last_;
  std::vector<Run> earlier_;
  // As large as the room is; null before there is payload.
  grpc_slice payload_ = grpc_empty_slice();
  size_t payload_bytes_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_FETCH_ANSWER_H_
