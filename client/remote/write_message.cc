// SPDX-License-Identifier: Apache-2.0
#include "client/remote/write_message.h"

#include <grpc/slice.h>

#include "proto/wire_field.h"

namespace faultline {

using rpc::WriteRequest;

void WriteMessage::Add(PageIndex page, PageBytes bytes, Codec preferred) {
  if (IsZeroPage(bytes)) {
    AddZero(page);
    return;
  }
  if (payload_.size() == 0) {
    payload_ = grpc::Slice(grpc_slice_malloc_large(max_pages_ * kMaxEncodedPageBytes),
                           grpc::Slice::STEAL_REF);
  }
  runs_.Add(PageRange::Single(page), rpc::PageRun::DATA);
  auto* const begin = reinterpret_cast<char*>(const_cast<uint8_t*>(payload_.begin()));
  payload_bytes_ += EncodePage(page, bytes, preferred, begin + payload_bytes_);
}

grpc::ByteBuffer WriteMessage::Finish(uint64_t request_id) const {
  // What would follow the batch by its number goes before it: a reader minds no order.
  const size_t size = VarintFieldSize(request_id) + VarintFieldSize(writer_.volume_id) +
                      VarintFieldSize(writer_.epoch) + VarintFieldSize(writer_.generation) +
                      runs_.FieldSize(payload_bytes_);
  grpc_slice head = grpc_slice_malloc(size);
  uint8_t* out = GRPC_SLICE_START_PTR(head);
  out = WriteVarintField(WriteRequest::kRequestIdFieldNumber, request_id, out);
  out = WriteVarintField(WriteRequest::kVolumeIdFieldNumber, writer_.volume_id, out);
  out = WriteVarintField(WriteRequest::kEpochFieldNumber, writer_.epoch, out);
  out = WriteVarintField(WriteRequest::kGenerationFieldNumber, writer_.generation, out);
  runs_.WriteField(WriteRequest::kBatchFieldNumber, payload_bytes_, out);
  const grpc::Slice slices[] = {grpc::Slice(head, grpc::Slice::STEAL_REF),
                                payload_.sub(0, payload_bytes_)};
  return grpc::ByteBuffer(slices, payload_bytes_ == 0 ? 1 : 2);
}

}  // namespace faultline
