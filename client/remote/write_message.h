// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_REMOTE_WRITE_MESSAGE_H_
#define FAULTLINE_CLIENT_REMOTE_WRITE_MESSAGE_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <cstdint>

#include "proto/page_codec.h"
#include "proto/page_runs.h"

namespace faultline {

// Makes a WriteRequest in its wire form, with each page encoded straight to where gRPC sends it
// from: the generated class would copy all of them twice more. Not thread-safe.
class WriteMessage {
 public:
  struct Writer {
    uint64_t volume_id = 0, epoch = 0, generation = 0;
  };

  WriteMessage() = default;
  // At most `max_pages` are added that are not zero.
  WriteMessage(const Writer& writer, size_t max_pages) : writer_(writer), max_pages_(max_pages) {}

  // A page of zeros becomes part of a ZERO run.
  void Add(PageIndex page, PageBytes bytes, Codec preferred);
  void AddZero(PageIndex page) { runs_.Add(PageRange::Single(page), rpc::PageRun::ZERO); }

  // May be called again.
  grpc::ByteBuffer Finish(uint64_t request_id) const;

 private:
  Writer writer_;
  size_t max_pages_ = 0;
  PageRuns runs_;
  grpc::Slice payload_;  // as large as it may become; empty before the first page
  size_t payload_bytes_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_REMOTE_WRITE_MESSAGE_H_
