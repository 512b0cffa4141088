// SPDX-License-Identifier: Apache-2.0
#include "storage/working_set_layer.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "proto/page_codec.h"

namespace faultline {
namespace {

static_assert(std::endian::native == std::endian::little);

// Where the pages of the order lie, and what one of them holds.
constexpr PageIndex kOrder{kMaxPageSetVolume.raw() / PageSet::kChunkPages.raw()};
constexpr size_t kOrderPageEntries = kPageSize / sizeof(uint64_t);
constexpr PageCount kOrderPages{WorkingSet::kMaxFirst / kOrderPageEntries};
using OrderPage = std::array<uint64_t, kOrderPageEntries>;

absl::Status Damaged(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("a working set ", what));
}

}  // namespace

absl::StatusOr<WorkingSet> ReadWorkingSet(PageStore& store, LayerId layer, PageCount volume_size) {
  absl::StatusOr<PageSet> pages = PageSet::Create(volume_size);
  if (!pages.ok()) return pages.status();
  std::vector<PageIndex> first;
  const auto visit = [&](PageIndex page, absl::string_view encoded) -> absl::Status {
    std::array<std::byte, kPageSize> scratch;
    const absl::StatusOr<PageBytes> bytes = DecodePage(page, encoded, scratch);
    if (!bytes.ok()) return bytes.status();
    if (page < kOrder) {
      if (page.raw() >= pages->chunks()) return Damaged("has pages beyond its volume");
      return pages->MergeChunk(page.raw(), *bytes);
    }
    OrderPage entries;
    memcpy(entries.data(), bytes->data(), kPageSize);
    for (const uint64_t entry : entries) {
      if (entry == 0) break;
      first.emplace_back(entry - 1);
    }
    return absl::OkStatus();
  };
  const PageRange all = PageRange::Between(PageIndex(0), kOrder + kOrderPages);
  if (absl::Status status = store.Read(layer, all, visit); !status.ok()) return status;
  WorkingSet set(*std::move(pages));
  const absl::Status status = set.SetFirst(std::move(first));
  if (absl::IsInvalidArgument(status)) return Damaged(status.message());
  if (!status.ok()) return status;
  return set;
}

absl::Status WriteWorkingSet(PageStore& store, LayerId layer, const WorkingSet& set) {
  std::vector<std::string> encoded;  // complete before anything points into it
  PageWrites writes;
  const auto write = [&](PageIndex page, PageBytes bytes) {
    EncodePage(page, bytes, Codec::kZstd, &encoded.emplace_back());
    writes.puts.push_back({page, {}});
  };
  const PageSet& pages = set.pages();
  for (size_t chunk = 0; chunk < pages.chunks(); ++chunk) {
    if (!pages.ChunkIsEmpty(chunk)) write(PageIndex(chunk), pages.Chunk(chunk));
  }
  const std::span<const PageIndex> first = set.first();
  for (size_t at = 0; at < first.size(); at += kOrderPageEntries) {
    OrderPage entries{};
    const size_t count = std::min(first.size() - at, kOrderPageEntries);
    for (size_t i = 0; i < count; ++i) entries[i] = first[at + i].raw() + 1;
    write(kOrder + PageCount(at / kOrderPageEntries),
          PageBytes(reinterpret_cast<const std::byte*>(entries.data()), kPageSize));
  }
  for (size_t i = 0; i < encoded.size(); ++i) writes.puts[i].encoded = encoded[i];
  return store.Write(layer, writes, Durability::kSync);
}

}  // namespace faultline
