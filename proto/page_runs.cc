// SPDX-License-Identifier: Apache-2.0
#include "proto/page_runs.h"

#include "proto/wire_field.h"

namespace faultline {

using rpc::PageBatch;
using rpc::PageRun;

void PageRuns::Add(PageRange range, PageRun::Kind kind) {
  if (range.empty()) return;
  page_count_ += range.count;
  if (last_.kind == kind && last_.range.end() == range.first) {
    last_.range.count += range.count;
    return;
  }
  if (!last_.range.empty()) earlier_.push_back(last_);
  last_ = {range, kind};
}

size_t PageRuns::RunSize(const Run& run) {
  return VarintFieldSize(run.range.first.raw()) + VarintFieldSize(run.range.count.raw()) +
         VarintFieldSize(run.kind);
}

uint8_t* PageRuns::WriteRun(const Run& run, uint8_t* out) {
  out = WriteBytesHeader(PageBatch::kRunsFieldNumber, RunSize(run), out);
  out = WriteVarintField(PageRun::kFirstFieldNumber, run.range.first.raw(), out);
  out = WriteVarintField(PageRun::kCountFieldNumber, run.range.count.raw(), out);
  return WriteVarintField(PageRun::kKindFieldNumber, run.kind, out);
}

// All of it, the payload included.
size_t PageRuns::BatchSize(size_t payload_bytes) const {
  const auto size = [](const Run& run) {
    const size_t inner = RunSize(run);
    return BytesHeaderSize(inner) + inner;
  };
  size_t total = last_.range.empty() ? 0 : size(last_);
  for (const Run& run : earlier_) total += size(run);
  if (payload_bytes > 0) total += BytesHeaderSize(payload_bytes) + payload_bytes;
  return total;
}

size_t PageRuns::FieldSize(size_t payload_bytes) const {
  const size_t batch = BatchSize(payload_bytes);
  return BytesHeaderSize(batch) + batch - payload_bytes;
}

uint8_t* PageRuns::WriteField(int field, size_t payload_bytes, uint8_t* out) const {
  out = WriteBytesHeader(field, BatchSize(payload_bytes), out);
  for (const Run& run : earlier_) out = WriteRun(run, out);
  if (!last_.range.empty()) out = WriteRun(last_, out);
  if (payload_bytes > 0) out = WriteBytesHeader(PageBatch::kPagesFieldNumber, payload_bytes, out);
  return out;
}

}  // namespace faultline
