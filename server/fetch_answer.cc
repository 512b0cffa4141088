// SPDX-License-Identifier: Apache-2.0
#include "server/fetch_answer.h"

#include <algorithm>
#include <cstring>

#include "proto/page_codec.h"
#include "proto/wire_field.h"

namespace faultline {

using rpc::FetchResponse;

FetchAnswer::~FetchAnswer() { grpc_slice_unref(payload_); }

void FetchAnswer::Grow(size_t bytes) {
  const size_t least = expected_.raw() * kMaxEncodedPageBytes;
  grpc_slice larger = grpc_slice_malloc_large(std::max(least, 2 * (payload_bytes_ + bytes)));
  memcpy(GRPC_SLICE_START_PTR(larger), GRPC_SLICE_START_PTR(payload_), payload_bytes_);
  grpc_slice_unref(payload_);
  payload_ = larger;
}

void FetchAnswer::Add(PageIndex page, absl::string_view encoded) {
  runs_.Add(PageRange::Single(page), rpc::PageRun::DATA);
  if (encoded.size() > GRPC_SLICE_LENGTH(payload_) - payload_bytes_) Grow(encoded.size());
  memcpy(GRPC_SLICE_START_PTR(payload_) + payload_bytes_, encoded.data(), encoded.size());
  payload_bytes_ += encoded.size();
}

void FetchAnswer::Finish(uint64_t request_id, std::chrono::nanoseconds server,
                         std::chrono::nanoseconds store, grpc::ByteBuffer* message) {
  const auto server_ns = static_cast<uint64_t>(server.count());
  const auto store_ns = static_cast<uint64_t>(store.count());
  const size_t header = VarintFieldSize(request_id) + VarintFieldSize(server_ns) +
                        VarintFieldSize(store_ns) + VarintFieldSize(zeros_beyond_.raw()) +
                        runs_.FieldSize(payload_bytes_);
  grpc_slice head = grpc_slice_malloc(header);
  uint8_t* out = GRPC_SLICE_START_PTR(head);
  out = WriteVarintField(FetchResponse::kRequestIdFieldNumber, request_id, out);
  out = WriteVarintField(FetchResponse::kServerNsFieldNumber, server_ns, out);
  out = WriteVarintField(FetchResponse::kStoreNsFieldNumber, store_ns, out);
  out = WriteVarintField(FetchResponse::kZerosBeyondFieldNumber, zeros_beyond_.raw(), out);
  runs_.WriteField(FetchResponse::kBatchFieldNumber, payload_bytes_, out);
  GRPC_SLICE_SET_LENGTH(payload_, payload_bytes_);
  const grpc::Slice slices[] = {grpc::Slice(head, grpc::Slice::STEAL_REF),
                                grpc::Slice(payload_, grpc::Slice::STEAL_REF)};
  payload_ = grpc_empty_slice();
  *message = grpc::ByteBuffer(slices, payload_bytes_ == 0 ? 1 : 2);
}

}  // namespace faultline
