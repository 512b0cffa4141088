// SPDX-License-Identifier: Apache-2.0
#include "server/fetch_answer.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>

#include <algorithm>
#include <cstring>

#include "proto/page_codec.h"

namespace faultline {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedOutputStream;
using rpc::FetchResponse;
using rpc::PageBatch;
using rpc::PageRun;

constexpr uint32_t VarintTag(int field) {
  return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_VARINT);
}
constexpr uint32_t BytesTag(int field) {
  return WireFormatLite::MakeTag(field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}

// A field that is zero is left out. All our tags are of one byte.
size_t VarintFieldSize(uint64_t value) {
  return value == 0 ? 0 : 1 + CodedOutputStream::VarintSize64(value);
}

uint8_t* WriteVarintField(int field, uint64_t value, uint8_t* out) {
  if (value == 0) return out;
  out = CodedOutputStream::WriteTagToArray(VarintTag(field), out);
  return CodedOutputStream::WriteVarint64ToArray(value, out);
}

// What stands in front of `size` bytes of a field.
size_t BytesHeaderSize(size_t size) { return 1 + CodedOutputStream::VarintSize64(size); }

uint8_t* WriteBytesHeader(int field, size_t size, uint8_t* out) {
  out = CodedOutputStream::WriteTagToArray(BytesTag(field), out);
  return CodedOutputStream::WriteVarint64ToArray(size, out);
}

size_t RunSize(PageRange range, PageRun::Kind kind) {
  return VarintFieldSize(range.first.raw()) + VarintFieldSize(range.count.raw()) +
         VarintFieldSize(kind);
}

uint8_t* WriteRun(PageRange range, PageRun::Kind kind, uint8_t* out) {
  out = WriteBytesHeader(PageBatch::kRunsFieldNumber, RunSize(range, kind), out);
  out = WriteVarintField(PageRun::kFirstFieldNumber, range.first.raw(), out);
  out = WriteVarintField(PageRun::kCountFieldNumber, range.count.raw(), out);
  return WriteVarintField(PageRun::kKindFieldNumber, kind, out);
}

}  // namespace

FetchAnswer::~FetchAnswer() { grpc_slice_unref(payload_); }

void FetchAnswer::AddToRun(PageRange range, PageRun::Kind kind) {
  if (range.empty()) return;
  page_count_ += range.count;
  if (last_.kind == kind && last_.range.end() == range.first) {
    last_.range.count += range.count;
    return;
  }
  if (!last_.range.empty()) earlier_.push_back(last_);
  last_ = {range, kind};
}

void FetchAnswer::Grow(size_t bytes) {
  const size_t least = expected_.raw() * kMaxEncodedPageBytes;
  grpc_slice larger = grpc_slice_malloc_large(std::max(least, 2 * (payload_bytes_ + bytes)));
  memcpy(GRPC_SLICE_START_PTR(larger), GRPC_SLICE_START_PTR(payload_), payload_bytes_);
  grpc_slice_unref(payload_);
  payload_ = larger;
}

void FetchAnswer::Add(PageIndex page, absl::string_view encoded) {
  AddToRun(PageRange::Single(page), PageRun::DATA);
  if (encoded.size() > GRPC_SLICE_LENGTH(payload_) - payload_bytes_) Grow(encoded.size());
  memcpy(GRPC_SLICE_START_PTR(payload_) + payload_bytes_, encoded.data(), encoded.size());
  payload_bytes_ += encoded.size();
}

void FetchAnswer::AddZero(PageRange range) { AddToRun(range, PageRun::ZERO); }

size_t FetchAnswer::RunsSize() const {
  const auto size = [](const Run& run) {
    const size_t inner = RunSize(run.range, run.kind);
    return BytesHeaderSize(inner) + inner;
  };
  size_t total = last_.range.empty() ? 0 : size(last_);
  for (const Run& run : earlier_) total += size(run);
  return total;
}

uint8_t* FetchAnswer::WriteRuns(uint8_t* out) const {
  for (const Run& run : earlier_) out = WriteRun(run.range, run.kind, out);
  return last_.range.empty() ? out : WriteRun(last_.range, last_.kind, out);
}

void FetchAnswer::Finish(uint64_t request_id, std::chrono::nanoseconds server,
                         std::chrono::nanoseconds store, grpc::ByteBuffer* message) {
  const auto server_ns = static_cast<uint64_t>(server.count());
  const auto store_ns = static_cast<uint64_t>(store.count());
  const size_t pages_header = payload_bytes_ == 0 ? 0 : BytesHeaderSize(payload_bytes_);
  const size_t batch = RunsSize() + pages_header + payload_bytes_;
  const size_t header = VarintFieldSize(request_id) + VarintFieldSize(server_ns) +
                        VarintFieldSize(store_ns) + VarintFieldSize(zeros_beyond_.raw()) +
                        BytesHeaderSize(batch) + batch - payload_bytes_;
  grpc_slice head = grpc_slice_malloc(header);
  uint8_t* out = GRPC_SLICE_START_PTR(head);
  out = WriteVarintField(FetchResponse::kRequestIdFieldNumber, request_id, out);
  out = WriteVarintField(FetchResponse::kServerNsFieldNumber, server_ns, out);
  out = WriteVarintField(FetchResponse::kStoreNsFieldNumber, store_ns, out);
  out = WriteVarintField(FetchResponse::kZerosBeyondFieldNumber, zeros_beyond_.raw(), out);
  out = WriteBytesHeader(FetchResponse::kBatchFieldNumber, batch, out);
  out = WriteRuns(out);
  if (payload_bytes_ > 0) WriteBytesHeader(PageBatch::kPagesFieldNumber, payload_bytes_, out);
  GRPC_SLICE_SET_LENGTH(payload_, payload_bytes_);
  const grpc::Slice slices[] = {grpc::Slice(head, grpc::Slice::STEAL_REF),
                                grpc::Slice(payload_, grpc::Slice::STEAL_REF)};
  payload_ = grpc_empty_slice();
  *message = grpc::ByteBuffer(slices, payload_bytes_ == 0 ? 1 : 2);
}

}  // namespace faultline
