// SPDX-License-Identifier: Apache-2.0
//
// What a volume catalog reads from its store: metadata of any keys and values, and the layer of a
// working set of any bytes. It is refused as damaged, or it stays what it is when it is written
// down again; never does anything go beyond its bounds.
//
// An input is, for the metadata, entries {size of the key, 1 byte} {key} {size of the value, 1
// byte} {value} behind a byte of 0; for a record alone, its bytes behind a 1; for a working set,
// pages {where, 8 bytes} {size, 2 bytes} {bytes} behind a 2, or a 3 where the bytes are the content
// that is encoded.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "proto/page_codec.h"
#include "storage/catalog_meta.h"
#include "storage/memory_page_store.h"
#include "storage/volume_catalog.h"
#include "storage/working_set_layer.h"

namespace faultline {
namespace {

constexpr LayerId kLayer{7};
constexpr PageCount kVolumePages{uint64_t{1} << 18};

void Check(bool holds) {
  if (!holds) abort();
}

absl::string_view Take(absl::string_view* input, size_t bytes) {
  const absl::string_view taken = input->substr(0, bytes);
  input->remove_prefix(taken.size());
  return taken;
}
// Little endian; missing bytes are 0.
uint64_t TakeNumber(absl::string_view* input, size_t bytes) {
  uint64_t number = 0;
  memcpy(&number, input->data(), std::min(bytes, input->size()));
  Take(input, bytes);
  return number;
}

void ReadOneRecord(absl::string_view bytes) {
  const absl::StatusOr<VolumeInfo> info = ParseRecord("volume", bytes);
  if (!info.ok()) {
    Check(absl::IsDataLoss(info.status()));
    return;
  }
  const MetaChange change = RecordChange(*info);
  Check(change.key == VolumeKey("volume") && change.value.has_value());
  const absl::StatusOr<VolumeInfo> again = ParseRecord("volume", *change.value);
  Check(again.ok() && RecordChange(*again).value == change.value);
  Check(again->layers == info->layers && again->access == info->access);
}

// Whatever the catalog takes for its own, it can go on with.
void UseCatalog(VolumeCatalog& catalog) {
  for (const VolumeInfo& info : catalog.List()) {
    const auto volume = catalog.Find(info.name);
    Check(volume.ok() && (*volume)->info().id == info.id);
    Check(catalog.FindById(info.id).ok());
    const absl::Status read = (*volume)->Read(
        PageRange::Single(PageIndex(0)),
        [](PageIndex, absl::string_view) { return absl::OkStatus(); },
        [](PageRange) { return absl::OkStatus(); });
    Check(read.ok());
    catalog.GetWorkingSet(info.id).IgnoreError();
    catalog.TakeEpoch(info.name).IgnoreError();
  }
  const absl::StatusOr<VolumeInfo> made = catalog.Create("made", kPageSize, Durability::kNone);
  if (made.ok()) {
    Check(catalog.FindById(made->id).ok());
    Check(catalog.Delete("made").ok());
  }
}

void ReadMetadata(absl::string_view input) {
  std::vector<MetaChange> changes;
  while (!input.empty() && changes.size() < 32) {
    const absl::string_view key = Take(&input, TakeNumber(&input, 1));
    const absl::string_view value = Take(&input, TakeNumber(&input, 1));
    changes.push_back({std::string(key), std::string(value)});
  }
  std::unique_ptr<PageStore> store = NewMemoryPageStore();
  Check(store->WriteMeta(changes).ok());
  const auto catalog = VolumeCatalog::Open(std::move(store));
  if (catalog.ok()) {
    UseCatalog(**catalog);
  } else {
    Check(absl::IsDataLoss(catalog.status()));
  }
}

void ReadPagesOfSet(absl::string_view input, bool encode) {
  const std::unique_ptr<PageStore> store = NewMemoryPageStore();
  for (int n = 0; n < 16 && !input.empty(); ++n) {
    const PageIndex page(TakeNumber(&input, 8) % kMaxVolumePages);
    const absl::string_view bytes = Take(&input, TakeNumber(&input, 2));
    std::string encoded(bytes);
    if (encode) {
      std::array<std::byte, kPageSize> content{};
      memcpy(content.data(), bytes.data(), std::min<size_t>(bytes.size(), kPageSize));
      encoded.clear();
      EncodePage(page, content, Codec::kZstd, &encoded);
    }
    PageWrites writes;
    writes.puts.push_back({page, encoded});
    Check(store->Write(kLayer, writes, Durability::kNone).ok());
  }
  const absl::StatusOr<WorkingSet> set = ReadWorkingSet(*store, kLayer, kVolumePages);
  if (!set.ok()) {
    Check(absl::IsDataLoss(set.status()) || absl::IsResourceExhausted(set.status()));
    return;
  }
  constexpr LayerId kOther{8};
  Check(WriteWorkingSet(*store, kOther, *set).ok());
  const absl::StatusOr<WorkingSet> again = ReadWorkingSet(*store, kOther, kVolumePages);
  Check(again.ok() && again->pages().EncodeRuns() == set->pages().EncodeRuns());
  Check(again->EncodeFirst() == set->EncodeFirst());
}

}  // namespace
}  // namespace faultline

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const absl::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      faultline::ReadMetadata(input);
      break;
    case 1:
      faultline::ReadOneRecord(input);
      break;
    case 2:
      faultline::ReadPagesOfSet(input, /*encode=*/false);
      break;
    default:
      faultline::ReadPagesOfSet(input, /*encode=*/true);
  }
  return 0;
}
