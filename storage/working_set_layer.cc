// SPDX-License-Identifier: Apache-2.0
#include "storage/working_set_layer.h"

#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "proto/page_codec.h"

namespace faultline {

absl::StatusOr<PageSet> ReadWorkingSet(PageStore& store, LayerId layer, PageCount volume_size) {
  absl::StatusOr<PageSet> set = PageSet::Create(volume_size);
  if (!set.ok()) return set;
  const absl::Status status =
      store.Read(layer, {PageIndex(0), PageCount(set->chunks())},
                 [&set](PageIndex chunk, absl::string_view encoded) -> absl::Status {
                   std::array<std::byte, kPageSize> scratch;
                   const absl::StatusOr<PageBytes> bits = DecodePage(chunk, encoded, scratch);
                   if (!bits.ok()) return bits.status();
                   return set->MergeChunk(chunk.raw(), *bits);
                 });
  if (!status.ok()) return status;
  return set;
}

absl::Status WriteWorkingSet(PageStore& store, LayerId layer, const PageSet& set) {
  std::vector<std::string> encoded;  // complete before anything points into it
  PageWrites writes;
  for (size_t chunk = 0; chunk < set.chunks(); ++chunk) {
    if (set.ChunkIsEmpty(chunk)) continue;
    EncodePage(PageIndex(chunk), set.Chunk(chunk), Codec::kZstd, &encoded.emplace_back());
    writes.puts.push_back({PageIndex(chunk), {}});
  }
  for (size_t i = 0; i < encoded.size(); ++i) writes.puts[i].encoded = encoded[i];
  return store.Write(layer, writes, Durability::kSync);
}

}  // namespace faultline
