// SPDX-License-Identifier: Apache-2.0
#include "server/write_batch.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "proto/page_batch.h"
#include "proto/page_codec.h"

namespace faultline {
namespace {

// INVALID_ARGUMENT where a page stands twice among the pages and trims, which must be ascending.
absl::Status CheckDisjoint(const VolumeWrites& writes) {
  const auto twice = [](PageIndex page) {
    return absl::InvalidArgumentError(
        absl::StrCat("page ", page.raw(), " stands twice in one write"));
  };
  PageIndex pages_end;
  PageIndex trims_end;
  auto trim = writes.trims.begin();
  const auto check_trims_before = [&](PageIndex end) {
    for (; trim != writes.trims.end() && trim->first < end; ++trim) {
      if (trim->first < trims_end) return twice(trim->first);
      if (trim->first < pages_end) return twice(trim->first);
      trims_end = trim->end();
    }
    return absl::OkStatus();
  };
  for (const VolumeWrites::Page& page : writes.pages) {
    if (page.page < pages_end) return twice(page.page);
    if (absl::Status status = check_trims_before(page.page + PageCount(1)); !status.ok()) {
      return status;
    }
    if (page.page < trims_end) return twice(page.page);
    pages_end = page.page + PageCount(1);
  }
  return check_trims_before(PageIndex(kMaxVolumePages));
}

}  // namespace

absl::Status CollectWrites(const rpc::PageBatch& batch, VolumeWrites* writes) {
  const absl::Status status = ForEachPage(
      batch,
      [writes](PageIndex page, absl::string_view encoded) {
        if (absl::Status verified = VerifyPage(page, encoded); !verified.ok()) return verified;
        if (IsEncodedZeroPage(encoded)) {
          writes->trims.push_back(PageRange::Single(page));
        } else {
          writes->pages.push_back({page, encoded});
        }
        return absl::OkStatus();
      },
      [writes](PageRange zero) {
        writes->trims.push_back(zero);
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  const auto by_page = [](const auto& a, const auto& b) { return a.page < b.page; };
  const auto by_first = [](const PageRange& a, const PageRange& b) { return a.first < b.first; };
  std::sort(writes->pages.begin(), writes->pages.end(), by_page);
  std::sort(writes->trims.begin(), writes->trims.end(), by_first);
  return CheckDisjoint(*writes);
}

}  // namespace faultline
