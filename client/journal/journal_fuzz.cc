// SPDX-License-Identifier: Apache-2.0
//
// What an agent finds in the journal of one that was killed: the record of an attachment and the
// map of its address space, of any bytes. Each is refused as damaged, or it stays what it is when
// it is written down again; and a map that was taken goes on through whatever events come.
//
// An input is a byte that tells which, and the record's text; or the number of events, 1 byte,
// those events, 4 bytes each, and the map.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "client/address_space.h"
#include "client/journal/attachment_record.h"

namespace faultline {
namespace {

constexpr size_t kMaxEvents = 15, kEventBytes = 4;

void Check(bool holds) {
  if (!holds) abort();
}

void ReadOneRecord(absl::string_view text) {
  const absl::StatusOr<AttachmentRecord> record = DecodeRecord(text);
  if (!record.ok()) {
    Check(absl::IsDataLoss(record.status()));
    return;
  }
  const std::string written = EncodeRecord(*record);
  const absl::StatusOr<AttachmentRecord> again = DecodeRecord(written);
  Check(again.ok() && EncodeRecord(*again) == written);
}

void CheckRegions(const AddressSpace& space) ABSL_SHARED_LOCKS_REQUIRED(space.map_changing_lock()) {
  std::vector<AddressSpace::Part> regions;
  space.AppendRegions(0, SIZE_MAX, &regions);
  Check(regions.size() == space.region_count());
  uint64_t end = 0;
  for (const AddressSpace::Part& region : regions) {
    Check(region.range.length > 0 && region.range.start >= end);
    end = region.range.end();
    Check(space.PageAt(region.range.start).has_value());
  }
}

void ReadMap(absl::string_view events, absl::string_view map) {
  AddressSpace space{std::vector<Mapping>()};
  const ExclusiveLock lock(space.map_changing_lock());
  if (!space.Decode(map)) {
    Check(space.region_count() == 0);
    return;
  }
  const std::string written = space.Encode();
  AddressSpace again{std::vector<Mapping>()};
  const ExclusiveLock lock_again(again.map_changing_lock());
  Check(again.Decode(written) && again.Encode() == written);
  CheckRegions(space);
  for (; events.size() >= kEventBytes; events.remove_prefix(kEventBytes)) {
    const auto place = [&events](size_t i) {
      return uint64_t{static_cast<unsigned char>(events[i])} * kPageSize;
    };
    const AddressRange range{place(1), place(2) + kPageSize};
    switch (events[0] % 4) {
      case 0:
        space.Unmap(range, [](AddressRange) { return std::vector<AddressRange>(); });
        break;
      case 1:
        space.Remap(range.start, place(3), range.length);
        break;
      case 2:
        space.Forget(range);
        break;
      default:
        space.NoteSettled();
        space.Settle();
    }
    CheckRegions(space);
  }
}

}  // namespace
}  // namespace faultline

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const absl::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] >= 128) {
    faultline::ReadOneRecord(input);
    return 0;
  }
  const size_t events = data[0] % (faultline::kMaxEvents + 1) * faultline::kEventBytes;
  if (input.size() < events) return 0;
  faultline::ReadMap(input.substr(0, events), input.substr(events));
  return 0;
}
