// SPDX-License-Identifier: Apache-2.0
//
// Feeds arbitrary bytes to what reads encoded pages and batches, and checks what must always hold:
// nothing is read outside the input, a page that verifies decodes or is DATA_LOSS, what decodes can
// be encoded again to the same bytes of a page, and a batch hands out the pages that it names.
#include <stdlib.h>
#include <string.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "proto/page_batch.h"
#include "proto/page_codec.h"

namespace faultline {
namespace {

using Page = std::array<std::byte, kPageSize>;

void Check(bool holds) {
  if (!holds) abort();
}

void CheckRoundTrip(PageIndex index, PageBytes page) {
  for (const Codec codec : {Codec::kRaw, Codec::kLz4, Codec::kZstd}) {
    std::string encoded;
    EncodePage(index, page, codec, &encoded);
    Check(encoded.size() <= kMaxEncodedPageBytes);
    Page scratch;
    const absl::StatusOr<PageBytes> decoded = DecodePage(index, encoded, scratch);
    Check(decoded.ok());
    Check(memcmp(decoded->data(), page.data(), kPageSize) == 0);
    Check(IsEncodedZeroPage(encoded) == IsZeroPage(page));
  }
}

void ReadPages(PageIndex index, absl::string_view input) {
  while (true) {
    const absl::string_view before = input;
    const absl::StatusOr<absl::string_view> encoded = TakeEncodedPage(&input);
    if (!encoded.ok()) {
      Check(input.data() == before.data() && input.size() == before.size());
      Check(!VerifyPage(index, before).ok());
      return;
    }
    Check(encoded->size() + input.size() == before.size());
    Page scratch;
    const absl::StatusOr<PageBytes> page = DecodePage(index, *encoded, scratch);
    if (page.ok()) {
      Check(VerifyPage(index, *encoded).ok());
      CheckRoundTrip(index, *page);
    } else {
      Check(absl::IsDataLoss(page.status()));
    }
  }
}

void ReadBatch(absl::string_view input) {
  rpc::PageBatch batch;
  if (!batch.ParseFromArray(input.data(), static_cast<int>(input.size()))) return;
  constexpr PageCount kLimit(4096);
  const absl::StatusOr<PageCount> count =
      CountPages(batch.runs(), PageCount(kMaxVolumePages), kLimit);
  if (!count.ok()) return;
  Check(*count <= kLimit);
  PageCount seen;
  rpc::PageBatch copy;
  PageBatchBuilder builder(&copy);
  const absl::Status status = ForEachPage(
      batch,
      [&](PageIndex page, absl::string_view encoded) {
        Check(page.raw() < kMaxVolumePages);
        Check(encoded.data() >= batch.pages().data() &&
              encoded.data() + encoded.size() <= batch.pages().data() + batch.pages().size());
        seen += PageCount(1);
        builder.Add(page, encoded);
        return absl::OkStatus();
      },
      [&](PageRange zero) {
        Check(!zero.empty());
        seen += zero.count;
        builder.AddZero(zero);
        return absl::OkStatus();
      });
  if (!status.ok()) {
    Check(absl::IsDataLoss(status));
    return;
  }
  Check(seen == *count);
  Check(builder.page_count() == *count);
  Check(copy.runs_size() <= batch.runs_size() + static_cast<int>(count->raw()));
  const absl::StatusOr<PageCount> again =
      CountPages(copy.runs(), PageCount(kMaxVolumePages), kLimit);
  Check(again.ok() && *again == *count);
}

// Gives the structure a chance: the payload of the input gets a right checksum.
void ReadPatchedPage(PageIndex index, absl::string_view input) {
  if (input.size() < kPageSize) return;
  Page page;
  memcpy(page.data(), input.data(), kPageSize);
  CheckRoundTrip(index, page);
}

}  // namespace
}  // namespace faultline

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  uint64_t index = 0;
  if (size < 1 + sizeof index) return 0;
  memcpy(&index, data + 1, sizeof index);
  const faultline::PageIndex page(index % faultline::kMaxVolumePages);
  const absl::string_view input(reinterpret_cast<const char*>(data) + 1 + sizeof index,
                                size - 1 - sizeof index);
  switch (data[0] % 3) {
    case 0:
      faultline::ReadPages(page, input);
      break;
    case 1:
      faultline::ReadBatch(input);
      break;
    default:
      faultline::ReadPatchedPage(page, input);
      break;
  }
  return 0;
}
