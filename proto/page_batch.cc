// SPDX-License-Identifier: Apache-2.0
#include "proto/page_batch.h"

#include <absl/strings/str_cat.h>

namespace faultline {

void PageBatchBuilder::AddToRun(PageRange range, rpc::PageRun::Kind kind) {
  if (range.empty()) return;
  page_count_ += range.count;
  if (const int n = batch_->runs_size(); n > 0) {
    rpc::PageRun* last = batch_->mutable_runs(n - 1);
    if (last->kind() == kind && last->first() + last->count() == range.first.raw()) {
      last->set_count(last->count() + range.count.raw());
      return;
    }
  }
  rpc::PageRun* run = batch_->add_runs();
  run->set_first(range.first.raw());
  run->set_count(range.count.raw());
  run->set_kind(kind);
}

void PageBatchBuilder::Add(PageIndex page, absl::string_view encoded) {
  if (IsEncodedZeroPage(encoded)) {
    AddZero(PageRange::Single(page));
    return;
  }
  AddToRun(PageRange::Single(page), rpc::PageRun::DATA);
  absl::StrAppend(batch_->mutable_pages(), encoded);
}

void PageBatchBuilder::AddZero(PageRange range) { AddToRun(range, rpc::PageRun::ZERO); }

void PageBatchBuilder::Encode(PageIndex page, PageBytes bytes, Codec preferred) {
  if (IsZeroPage(bytes)) {
    AddZero(PageRange::Single(page));
    return;
  }
  AddToRun(PageRange::Single(page), rpc::PageRun::DATA);
  EncodePage(page, bytes, preferred, batch_->mutable_pages());
}

absl::StatusOr<PageCount> CountPages(const google::protobuf::RepeatedPtrField<rpc::PageRun>& runs,
                                     PageCount volume_size, PageCount limit) {
  PageCount total;
  for (const rpc::PageRun& run : runs) {
    if (run.count() == 0) return absl::InvalidArgumentError("a run of pages is empty");
    if (run.kind() != rpc::PageRun::DATA && run.kind() != rpc::PageRun::ZERO) {
      return absl::InvalidArgumentError(
          absl::StrCat("a run of pages has the unknown kind ", static_cast<int>(run.kind())));
    }
    if (!IsWithin(run.first(), run.count(), volume_size)) {
      return absl::OutOfRangeError(absl::StrCat("pages ", run.first(), " to ",
                                                run.first() + (run.count() - 1),
                                                " reach beyond the volume's ", volume_size.raw()));
    }
    if (run.count() > limit.raw() - total.raw()) {
      return absl::InvalidArgumentError(
          absl::StrCat("more than ", limit.raw(), " pages in one message"));
    }
    total += PageCount(run.count());
  }
  return total;
}

absl::Status ForEachPage(const rpc::PageBatch& batch,
                         absl::FunctionRef<absl::Status(PageIndex, absl::string_view encoded)> data,
                         absl::FunctionRef<absl::Status(PageRange)> zero) {
  absl::string_view rest = batch.pages();
  for (const rpc::PageRun& run : batch.runs()) {
    const PageRange range{PageIndex(run.first()), PageCount(run.count())};
    if (run.kind() == rpc::PageRun::ZERO) {
      if (absl::Status status = zero(range); !status.ok()) return status;
      continue;
    }
    for (PageIndex page = range.first; page < range.end(); ++page) {
      absl::StatusOr<absl::string_view> encoded = TakeEncodedPage(&rest);
      if (!encoded.ok()) {
        return absl::DataLossError(
            absl::StrCat("page ", page.raw(), ": ", encoded.status().message()));
      }
      if (absl::Status status = data(page, *encoded); !status.ok()) return status;
    }
  }
  if (!rest.empty()) {
    return absl::DataLossError(
        absl::StrCat(rest.size(), " bytes follow the last page of the batch"));
  }
  return absl::OkStatus();
}

}  // namespace faultline
