// SPDX-License-Identifier: Apache-2.0
#include "storage/rados_extent.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>
#include <cstring>

#include "proto/page_codec.h"

namespace faultline {
namespace {

constexpr uint64_t kSlotBytes = 16;
constexpr uint64_t kSizeBytes = 2;  // of a slot; the rest holds the page's header
constexpr uint64_t kPayloads = 4096;
static_assert(kSizeBytes + kEncodedHeaderBytes <= kSlotBytes);
static_assert(kExtentPages * kSlotBytes <= kPayloads);

uint64_t SlotOffset(PageIndex page) { return page.raw() % kExtentPages * kSlotBytes; }
uint64_t PayloadOffset(PageIndex page) { return kPayloads + page.raw() % kExtentPages * kPageSize; }

uint64_t SlotSize(const char* slot) {
  return uint64_t{static_cast<unsigned char>(slot[0])} |
         uint64_t{static_cast<unsigned char>(slot[1])} << 8;
}

void AppendSlot(absl::string_view encoded, librados::bufferlist* out) {
  char slot[kSlotBytes] = {};
  slot[0] = static_cast<char>(encoded.size() & 0xff);
  slot[1] = static_cast<char>(encoded.size() >> 8);
  memcpy(slot + kSizeBytes, encoded.data(), std::min(encoded.size(), kEncodedHeaderBytes));
  out->append(slot, sizeof slot);
}

absl::string_view Payload(absl::string_view encoded) {
  return encoded.substr(std::min(encoded.size(), kEncodedHeaderBytes));
}

}  // namespace

std::string ExtentObject(LayerId layer, ExtentIndex extent) {
  return absl::StrFormat("d.%x.%08x", layer.raw(), extent);
}

absl::Status CheckEncodedSize(PageIndex page, absl::string_view encoded) {
  if (!encoded.empty() && encoded.size() <= kMaxEncodedPageBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("page ", page.raw(), " takes ", encoded.size(),
                                                 " bytes, which no encoded page does"));
}

void ClearPages(PageRange pages, librados::ObjectWriteOperation* op) {
  librados::bufferlist slots;
  slots.append_zero(static_cast<unsigned>(pages.count.raw() * kSlotBytes));
  op->write(SlotOffset(pages.first), slots);
  // Gives their room back.
  op->zero(PayloadOffset(pages.first), pages.size_bytes());
}

void PutPages(const std::vector<const PageWrites::Put*>& puts, librados::ObjectWriteOperation* op) {
  // A run of neighbours is one piece of slots, and of payloads as long as those are full pages.
  for (size_t first = 0; first < puts.size();) {
    size_t end = first + 1;
    while (end < puts.size() && puts[end]->page == puts[end - 1]->page + PageCount(1)) ++end;
    librados::bufferlist slots;
    for (size_t i = first; i < end; ++i) AppendSlot(puts[i]->encoded, &slots);
    op->write(SlotOffset(puts[first]->page), slots);
    for (size_t i = first; i < end;) {
      librados::bufferlist payloads;
      const PageIndex at = puts[i]->page;
      absl::string_view payload;
      do {
        payload = Payload(puts[i]->encoded);
        payloads.append(payload.data(), static_cast<unsigned>(payload.size()));
        ++i;
      } while (i < end && payload.size() == kPageSize);
      if (payloads.length() > 0) op->write(PayloadOffset(at), payloads);
    }
    first = end;
  }
}

void ExtentRead::Add(librados::ObjectReadOperation* op) {
  op->read(SlotOffset(pages_.first), pages_.count.raw() * kSlotBytes, &slots_, &slots_result_);
  op->read(PayloadOffset(pages_.first), pages_.size_bytes(), &payloads_, &payloads_result_);
}

absl::Status ExtentRead::Visit(PageStore::Visitor visit) {
  const char* const slots = slots_.c_str();
  const char* const payloads = payloads_.c_str();
  char encoded[kMaxEncodedPageBytes];
  for (uint64_t i = 0; i < pages_.count.raw(); ++i) {
    if ((i + 1) * kSlotBytes > slots_.length()) break;  // the object ends before
    const char* const slot = slots + i * kSlotBytes;
    const uint64_t size = SlotSize(slot);
    if (size == 0) continue;
    const PageIndex page = pages_.first + PageCount(i);
    const uint64_t header = std::min<uint64_t>(size, kEncodedHeaderBytes);
    const uint64_t payload = size - header;
    if (payload > kPageSize || (payload > 0 && i * kPageSize + payload > payloads_.length())) {
      return absl::DataLossError(absl::StrCat("page ", page.raw(), " is said to take ", size,
                                              " bytes, which its extent does not hold"));
    }
    memcpy(encoded, slot + kSizeBytes, header);
    memcpy(encoded + header, payloads + i * kPageSize, payload);
    if (absl::Status status = visit(page, {encoded, size}); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void ExtentSize::Add(librados::ObjectReadOperation* op) {
  op->read(0, kExtentPages * kSlotBytes, &slots_, &result_);
}

uint64_t ExtentSize::bytes() {
  uint64_t total = 0;
  const char* const slots = slots_.c_str();
  for (uint64_t at = 0; at + kSlotBytes <= slots_.length(); at += kSlotBytes) {
    const uint64_t size = SlotSize(slots + at);
    total += size == 0 ? 0 : size + kSlotBytes;
  }
  return total;
}

}  // namespace faultline
