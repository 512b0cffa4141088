// SPDX-License-Identifier: Apache-2.0
#include "client/address_space.h"

#include <algorithm>
#include <iterator>

namespace faultline {

AddressSpace::AddressSpace(const std::vector<Mapping>& mappings) {
  ExclusiveLock lock(lock_);
  for (const Mapping& mapping : mappings) {
    Insert(
        {{mapping.address, mapping.size}, PageIndex::Containing(mapping.offset), mapping.shared});
  }
}

void AddressSpace::Insert(const Region& region) {
  by_address_[region.range.start] = region;
  by_page_[region.first] = region;
}

std::optional<PageIndex> AddressSpace::PageAt(uint64_t address) const {
  auto next = by_address_.upper_bound(address);
  if (next == by_address_.begin()) return std::nullopt;
  const Region& region = std::prev(next)->second;
  if (!region.range.Contains(address)) return std::nullopt;
  return region.first + PageCount((address - region.range.start) / kPageSize);
}

std::optional<AddressSpace::Located> AddressSpace::Locate(PageRange pages) const {
  auto next = by_page_.upper_bound(pages.first);
  if (next == by_page_.begin()) return std::nullopt;
  const Region& region = std::prev(next)->second;
  const PageRange part = region.pages().Intersect(pages);
  if (part.empty() || part.first != pages.first) return std::nullopt;
  return Located{region.range.start + (part.first - region.first).in_bytes(), part.count};
}

AddressSpace::Region AddressSpace::Cut(const Region& region, uint64_t start, uint64_t end) {
  return {{start, end - start},
          region.first + PageCount((start - region.range.start) / kPageSize),
          region.shared};
}

void AddressSpace::ForEachPart(AddressRange range,
                               absl::FunctionRef<void(const Part&)> visit) const {
  auto it = by_address_.upper_bound(range.start);
  if (it != by_address_.begin()) --it;
  for (; it != by_address_.end() && it->first < range.end(); ++it) {
    const Region& region = it->second;
    const uint64_t start = std::max(range.start, region.range.start);
    const uint64_t end = std::min(range.end(), region.range.end());
    if (start < end) visit(Cut(region, start, end));
  }
}

std::vector<AddressSpace::Region> AddressSpace::Extract(AddressRange range) {
  std::vector<Region> touched;
  auto it = by_address_.upper_bound(range.start);
  if (it != by_address_.begin()) --it;
  while (it != by_address_.end() && it->first < range.end()) {
    if (!it->second.range.Overlaps(range)) {
      ++it;
      continue;
    }
    touched.push_back(it->second);
    by_page_.erase(it->second.first);
    it = by_address_.erase(it);
  }
  std::vector<Region> inside;
  for (const Region& region : touched) {
    const uint64_t start = std::max(range.start, region.range.start);
    const uint64_t end = std::min(range.end(), region.range.end());
    if (region.range.start < start) Insert(Cut(region, region.range.start, start));
    if (end < region.range.end()) Insert(Cut(region, end, region.range.end()));
    inside.push_back(Cut(region, start, end));
  }
  return inside;
}

void AddressSpace::Unmap(AddressRange range) { Extract(range); }

void AddressSpace::Remap(uint64_t from, uint64_t to, uint64_t length) {
  std::vector<Region> moved = Extract({from, length});
  Extract({to, length});
  for (Region& region : moved) {
    region.range.start = region.range.start - from + to;
    Insert(region);
  }
}

std::vector<AddressRange> AddressSpace::Ranges() const {
  std::vector<AddressRange> ranges;
  for (const auto& [start, region] : by_address_) ranges.push_back(region.range);
  return ranges;
}

}  // namespace faultline
