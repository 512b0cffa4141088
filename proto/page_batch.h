// SPDX-License-Identifier: Apache-2.0
//
// Building and reading PageBatch messages, on both ends of the wire. Not thread-safe; a builder or
// reader belongs to one thread.
#ifndef FAULTLINE_PROTO_PAGE_BATCH_H_
#define FAULTLINE_PROTO_PAGE_BATCH_H_

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include "proto/page.h"
#include "proto/page_codec.h"
#include "proto/pager.pb.h"

namespace faultline {

// Appends pages to a PageBatch, merging neighbours into runs.
class PageBatchBuilder {
 public:
  // `*batch` is borrowed and must outlive the builder; it is appended to.
  explicit PageBatchBuilder(rpc::PageBatch* batch) : batch_(batch) {}

  // Adds one page in its encoded form; one of zeros becomes part of a ZERO run, without payload.
  void Add(PageIndex page, absl::string_view encoded);
  // Adds pages that read as zero. `range` may be empty.
  void AddZero(PageRange range);
  // Encodes `bytes` into the batch, with no copy in between.
  void Encode(PageIndex page, PageBytes bytes, Codec preferred);

  PageCount page_count() const { return page_count_; }
  size_t payload_bytes() const { return batch_->pages().size(); }

 private:
  void AddToRun(PageRange range, rpc::PageRun::Kind kind);

  rpc::PageBatch* batch_;
  PageCount page_count_;
};

// The pages that `batch` names in its runs, or INVALID_ARGUMENT where a run is empty, of an unknown
// kind, or they are more than `limit` pages in all, or OUT_OF_RANGE where one reaches beyond
// `volume_size`.
absl::StatusOr<PageCount> CountPages(const google::protobuf::RepeatedPtrField<rpc::PageRun>& runs,
                                     PageCount volume_size, PageCount limit);

// Calls `data` for each page with a payload and `zero` for each run without, in the order of the
// batch. Structure only: the encoded pages are not verified. DATA_LOSS where the payload does not
// hold exactly the pages that the runs name; the calls made before that stand.
// REQUIRES: CountPages() accepts the runs.
absl::Status ForEachPage(const rpc::PageBatch& batch,
                         absl::FunctionRef<absl::Status(PageIndex, absl::string_view encoded)> data,
                         absl::FunctionRef<absl::Status(PageRange)> zero);

}  // namespace faultline

#endif  // FAULTLINE_PROTO_PAGE_BATCH_H_
