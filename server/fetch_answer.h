// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_SERVER_FETCH_ANSWER_H_
#define FAULTLINE_SERVER_FETCH_ANSWER_H_

#include <absl/strings/string_view.h>
#include <grpc/slice.h>
#include <grpcpp/support/byte_buffer.h>

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "proto/page.h"
#include "proto/page_runs.h"

namespace faultline {

// Makes a FetchResponse with pages in its wire form: the bytes that the generated class would make,
// but each page is copied only once, from the store to where gRPC sends it from. Not thread-safe.
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
  void AddZero(PageRange range) { runs_.Add(range, rpc::PageRun::ZERO); }

  PageCount page_count() const { return runs_.page_count(); }
  // Whether the last page is a zero one.
  bool ends_in_zeros() const { return runs_.ends_in_zeros(); }

  // Tells of pages behind the last one that are zero.
  void NoteZerosBeyond(PageCount pages) { zeros_beyond_ = pages; }

  // Makes the message, with the times that it tells. Call once, last.
  void Finish(uint64_t request_id, std::chrono::nanoseconds server, std::chrono::nanoseconds store,
              grpc::ByteBuffer* message);

 private:
  // Makes room for `bytes` more of payload.
  void Grow(size_t bytes);

  const PageCount expected_;
  PageCount zeros_beyond_;
  PageRuns runs_;
  // As large as the room is; null before there is payload.
  grpc_slice payload_ = grpc_empty_slice();
  size_t payload_bytes_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_SERVER_FETCH_ANSWER_H_
