// SPDX-License-Identifier: Apache-2.0
#include "client/address_space.h"

#include <string.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace faultline {
namespace {

AddressRange Intersection(AddressRange a, AddressRange b) {
  const uint64_t start = std::max(a.start, b.start);
  const uint64_t end = std::min(a.end(), b.end());
  return {start, start < end ? end - start : 0};
}

// Removes `range` from each of `ranges`.
void Subtract(AddressRange range, std::vector<AddressRange>* ranges) {
  std::vector<AddressRange> left;
  for (AddressRange piece : *ranges) {
    if (!piece.Overlaps(range)) {
      left.push_back(piece);
      continue;
    }
    if (piece.start < range.start) left.push_back({piece.start, range.start - piece.start});
    if (range.end() < piece.end()) left.push_back({range.end(), piece.end() - range.end()});
  }
  *ranges = std::move(left);
}

// Adds to `missing` the parts of `range` that `is_there` denies, which is asked about ranges that
// may be there in part.
void FindMissing(AddressRange range, absl::FunctionRef<bool(AddressRange)> is_there,
                 std::vector<AddressRange>* missing) {
  if (is_there(range)) return;
  const auto page_is_there = [&](uint64_t address) { return is_there({address, kPageSize}); };
  const uint64_t half = range.length / kPageSize / 2 * kPageSize;
  // Its ends and its middle stand for a range that is missing: or each page would have to be asked
  // for.
  if (!page_is_there(range.start) && !page_is_there(range.start + half) &&
      !page_is_there(range.end() - kPageSize)) {
    missing->push_back(range);
  } else {
    FindMissing({range.start, half}, is_there, missing);
    FindMissing({range.start + half, range.length - half}, is_there, missing);
  }
}

// Values as 64-bit words, one behind the other.
class WordWriter {
 public:
  void Write(uint64_t word) { bytes_.append(reinterpret_cast<const char*>(&word), sizeof word); }
  void Write(AddressRange range) {
    Write(range.start);
    Write(range.length);
  }
  void Write(const AddressSpace::Part& part) {
    Write(part.range);
    Write(part.first.raw());
    Write(part.shared);
  }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class WordReader {
 public:
  explicit WordReader(absl::string_view bytes) : bytes_(bytes) {}

  // 0 behind the end, which is not ok().
  uint64_t Read() {
    uint64_t word = 0;
    if (bytes_.size() < sizeof word) {
      ok_ = false;
      return 0;
    }
    memcpy(&word, bytes_.data(), sizeof word);
    bytes_.remove_prefix(sizeof word);
    return word;
  }
  AddressRange ReadRange() {
    const uint64_t start = Read();
    const uint64_t length = Read();
    if (length > UINT64_MAX - start || (start | length) % kPageSize != 0) ok_ = false;
    return {start, length};
  }
  AddressSpace::Part ReadPart() {
    const AddressRange range = ReadRange();
    const PageIndex first(Read());
    if (!IsWithin(first.raw(), range.length / kPageSize, PageCount(kMaxVolumePages))) ok_ = false;
    return {range, first, Read() != 0};
  }
  // Whether all that was read was there, and can be.
  bool ok() const { return ok_; }
  bool empty() const { return bytes_.empty(); }

 private:
  absl::string_view bytes_;
  bool ok_ = true;
};

// Whether these are ascending by address, not empty, and none is behind the begin of the next.
bool AreRegions(const std::vector<AddressSpace::Part>& parts) {
  uint64_t end = 0;
  for (const AddressSpace::Part& part : parts) {
    if (part.range.length == 0 || part.range.start < end) return false;
    end = part.range.end();
  }
  return true;
}

}  // namespace

AddressSpace::AddressSpace(const std::vector<Mapping>& mappings) {
  ExclusiveLock lock(lock_);
  for (const Mapping& mapping : mappings) {
    Insert(
        {{mapping.address, mapping.size}, PageIndex::Containing(mapping.offset), mapping.shared});
  }
}

AddressSpace::AddressSpace(ForkOf, const AddressSpace& parent) {
  ExclusiveLock lock(lock_);
  by_address_ = parent.by_address_;
  by_page_ = parent.by_page_;
  for (const Older& older : parent.older_) {
    if (older.region) older_.push_back(older);  // its leaving is yet to be told
  }
  recent_ = parent.recent_;
  departed_ = parent.departed_;
  empty_ = parent.empty_;
  aliases_ = parent.aliases_;
  undeclared_ = parent.undeclared_;
  aliased_ = parent.aliased_;
}

void AddressSpace::Insert(const Region& region) {
  by_address_[region.range.start] = region;
  by_page_[region.first] = region;
}

void AddressSpace::Add(AddressRange range, PageIndex first) {
  TakeEmpty(range);
  Insert({range, first, /*shared=*/false});
}

std::optional<PageIndex> AddressSpace::PageAt(uint64_t address) const {
  auto next = by_address_.upper_bound(address);
  const auto page_in = [address](const Region& region) {
    return region.first + PageCount((address - region.range.start) / kPageSize);
  };
  if (next != by_address_.begin() && std::prev(next)->second.range.Contains(address)) {
    return page_in(std::prev(next)->second);
  }
  for (const Region& alias : aliases_) {
    if (alias.range.Contains(address)) return page_in(alias);
  }
  return std::nullopt;
}

std::optional<AddressSpace::Located> AddressSpace::Locate(PageRange pages) const {
  auto next = by_page_.upper_bound(pages.first);
  const auto locate_in = [pages](const Region& region) -> std::optional<Located> {
    const PageRange part = region.pages().Intersect(pages);
    if (part.empty() || part.first != pages.first) return std::nullopt;
    return Located{region.range.start + (part.first - region.first).in_bytes(), part.count};
  };
  if (next != by_page_.begin()) {
    if (const auto located = locate_in(std::prev(next)->second)) return located;
  }
  for (const Region& alias : aliases_) {
    if (const auto located = locate_in(alias)) return located;
  }
  return std::nullopt;
}

AddressSpace::Region AddressSpace::Cut(const Region& region, uint64_t start, uint64_t end) {
  return {{start, end - start},
          region.first + PageCount((start - region.range.start) / kPageSize),
          region.shared};
}

AddressSpace::Older AddressSpace::Cut(const Older& older, AddressRange range) {
  Older cut = older;
  cut.range = range;
  if (older.region) cut.region = Cut(*older.region, range.start, range.end());
  return cut;
}

std::optional<PageRange> AddressSpace::NextPages(PageIndex page) const {
  auto next = by_page_.upper_bound(page);
  if (next != by_page_.begin()) {
    const PageRange before = std::prev(next)->second.pages();
    if (before.Contains(page)) return PageRange::Between(page, before.end());
  }
  if (next == by_page_.end()) return std::nullopt;
  return next->second.pages();
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

void AddressSpace::AppendRegions(uint64_t address, size_t most, std::vector<Part>* regions) const {
  for (auto it = by_address_.lower_bound(address); it != by_address_.end() && most > 0;
       ++it, --most) {
    regions->push_back(it->second);
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

bool AddressSpace::HasPageIn(PageRange pages) const {
  const std::optional<PageRange> next = NextPages(pages.first);
  return next && next->first < pages.end();
}

void AddressSpace::SetUndeclared(std::vector<AddressRange> ranges) {
  undeclared_ = std::move(ranges);
}

bool AddressSpace::IsUndeclared(uint64_t address) const {
  return aliased_ || std::any_of(undeclared_.begin(), undeclared_.end(),
                                 [&](AddressRange range) { return range.Contains(address); });
}

bool AddressSpace::HasRegionIn(AddressRange range) const {
  bool found = false;
  ForEachPart(range, [&](const Part&) { found = true; });
  return found;
}

std::vector<AddressRange> AddressSpace::TakeOlder(AddressRange range,
                                                  absl::FunctionRef<bool(const Older&)> wanted,
                                                  absl::FunctionRef<void(const Older&)> taken) {
  std::vector<AddressRange> rest = {range};
  std::vector<Older> kept;
  for (const Older& older : older_) {
    if (!wanted(older)) {
      kept.push_back(older);
      continue;
    }
    // What of this one is within the rest of the range, and what is not.
    std::vector<AddressRange> outside = {older.range};
    for (AddressRange piece : rest) {
      const AddressRange common = Intersection(piece, older.range);
      if (common.length == 0) continue;
      taken(Cut(older, common));
      Subtract(common, &outside);
    }
    Subtract(older.range, &rest);
    for (AddressRange piece : outside) kept.push_back(Cut(older, piece));
  }
  older_ = std::move(kept);
  return rest;
}

void AddressSpace::Unmap(AddressRange range, MappedParts mapped_parts) {
  Subtract(range, &undeclared_);
  Subtract(range, &kept_);
  DropAliases(range);
  bool late = false, ambiguous = false;
  const std::vector<AddressRange> rest = TakeOlder(
      range, [](const Older&) { return true; },
      [&](const Older& older) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_) {
        if (!HasRegionIn(older.range)) return;
        late = true;
        // A munmap of the older, or of what is there now while the older has been moved away?
        ambiguous = ambiguous || older.region.has_value();
      });
  if (late) late_unmaps_.fetch_add(1, std::memory_order_relaxed);
  if (ambiguous) ambiguous_.fetch_add(1, std::memory_order_relaxed);
  for (AddressRange piece : rest) {
    Subtract(piece, &empty_);
    // What was moved here moments ago is in doubt, the rest is not.
    std::vector<AddressRange> sure = {piece}, doubtful;
    for (const Move& recent : recent_) {
      for (AddressRange part : sure) {
        const AddressRange moved = Intersection(part, recent.to);
        if (moved.length > 0 && HasRegionIn(moved)) doubtful.push_back(moved);
      }
      Subtract(recent.to, &sure);
    }
    for (AddressRange part : doubtful) {
      std::vector<AddressRange> gone = {part};
      for (AddressRange mapped : mapped_parts(part)) {
        Subtract(mapped, &gone);
        kept_.push_back(mapped);
      }
      // It was unmapped, or has moved on: then a REMAP is to come for it.
      for (AddressRange gone_part : gone) SetAside(gone_part, /*doubted=*/true);
    }
    for (AddressRange part : sure) {
      for (const Region& region : Extract(part)) departed_.push_back(region);
    }
  }
}

AddressSpace::Part AddressSpace::Cut(const Part& part, AddressRange range) {
  const AddressRange common = Intersection(part.range, range);
  return Cut(part, common.start, common.end());
}

void AddressSpace::DropAliases(AddressRange range) {
  std::vector<Region> left;
  for (const Region& alias : aliases_) {
    std::vector<AddressRange> pieces = {alias.range};
    Subtract(range, &pieces);
    for (AddressRange piece : pieces) left.push_back(Cut(alias, piece.start, piece.end()));
  }
  aliases_ = std::move(left);
}

void AddressSpace::MoveAliases(AddressRange from, uint64_t to) {
  std::vector<Region> moved;
  for (const Region& alias : aliases_) {
    const AddressRange part = Intersection(alias.range, from);
    if (part.length == 0 || HasRegionIn(part)) continue;
    moved.push_back(Cut(alias, part.start, part.end()));
    moved.back().range.start = part.start - from.start + to;
  }
  aliases_.insert(aliases_.end(), moved.begin(), moved.end());
}

std::vector<AddressRange> AddressSpace::TakeEmpty(AddressRange range) {
  std::vector<AddressRange> taken;
  for (AddressRange piece : empty_) {
    const AddressRange common = Intersection(piece, range);
    if (common.length > 0) taken.push_back(common);
  }
  Subtract(range, &empty_);
  return taken;
}

bool AddressSpace::SetAside(AddressRange range, bool doubted) {
  const std::vector<Region> regions = Extract(range);
  for (const Region& region : regions) older_.push_back({region.range, region, doubted});
  bool any = !regions.empty();
  for (AddressRange piece : TakeEmpty(range)) {
    older_.push_back({piece, std::nullopt, doubted, /*empty=*/true});
    any = true;
  }
  return any;
}

bool AddressSpace::Remap(uint64_t from, uint64_t to, uint64_t length) {
  if (length == 0) {
    aliased_ = true;
    return false;
  }
  Subtract({from, length}, &undeclared_);
  Subtract({to, length}, &undeclared_);
  DropAliases({to, length});
  MoveAliases({from, length}, to);
  std::vector<Region> moved;
  std::vector<AddressRange> moved_empty;
  // Memory that something else was moved upon was there first, so it has left first.
  bool ambiguous = false;
  const std::vector<AddressRange> rest = TakeOlder(
      {from, length}, [](const Older& older) { return older.IsMemory(); },
      [&](const Older& older) ABSL_EXCLUSIVE_LOCKS_REQUIRED(lock_) {
        if (older.region) moved.push_back(*older.region);
        if (older.empty) moved_empty.push_back(older.range);
        ambiguous = ambiguous || HasRegionIn(older.range);
      });
  if (ambiguous) ambiguous_.fetch_add(1, std::memory_order_relaxed);
  for (AddressRange piece : rest) {
    for (const Region& region : Extract(piece)) moved.push_back(region);
    for (AddressRange part : TakeEmpty(piece)) moved_empty.push_back(part);
  }
  // The addresses it has left wait for their UNMAP, which must not hit what is moved there next.
  older_.push_back({{from, length}, std::nullopt});
  // What was kept against an UNMAP from here was what that was about, after all.
  for (AddressRange kept : kept_) {
    if (const AddressRange part = Intersection(kept, {to, length}); part.length > 0) Extract(part);
  }
  Subtract({from, length}, &kept_);
  Subtract({to, length}, &kept_);
  TakeOlder(
      {to, length}, [](const Older& older) { return older.doubted; }, [](const Older&) {});
  const bool displaced = SetAside({to, length});
  for (Region& region : moved) {
    if (region.shared) aliases_.push_back(region);
    region.range.start = region.range.start - from + to;
    Insert(region);
  }
  for (AddressRange part : moved_empty) {
    empty_.push_back({part.start - from + to, part.length});
  }
  recent_.push_back({from, {to, length}});
  return displaced;
}

void AddressSpace::Forget(AddressRange range) {
  Extract(range);
  TakeOlder(
      range, [](const Older&) { return true; }, [](const Older&) {});
}

void AddressSpace::NoteSettled() const {
  if (unsettled()) settled_.store(true, std::memory_order_relaxed);
}

bool AddressSpace::Settle() {
  // Guarded by the lock in effect: it is set under the shared side, and read here.
  if (!settled_.exchange(false, std::memory_order_relaxed)) return false;
  DropOutstanding();
  return true;
}

void AddressSpace::DropOutstanding() {
  // What has moved away and was not unmapped is left behind.
  for (const Older& older : older_) {
    if (older.IsMemory()) continue;
    std::vector<AddressRange> left = {older.range};
    for (AddressRange known : empty_) Subtract(known, &left);
    ForEachPart(older.range, [&](const Part& part) { Subtract(part.range, &left); });
    empty_.insert(empty_.end(), left.begin(), left.end());
  }
  older_.clear();
  recent_.clear();
  departed_.clear();
  kept_.clear();
  awaited_ = false;
}

void AddressSpace::EndFork(bool all_told) {
  for (const Older& older : older_) aliased_ = aliased_ || (!all_told && older.region.has_value());
  DropOutstanding();
}

void AddressSpace::SetShared(const std::vector<Part>& parts) {
  const bool awaited = awaited_;  // by children of its own
  DropOutstanding();
  awaited_ = awaited;
  std::vector<AddressRange> known;
  for (const auto& [start, region] : by_address_) {
    if (region.shared) known.push_back(region.range);
  }
  for (AddressRange range : known) Extract(range);
  aliases_.clear();
  for (const Part& part : parts) {
    if (HasRegionIn(part.range)) continue;  // of private memory, so that something is wrong here
    TakeEmpty(part.range);
    // A page that is mapped twice is an alias the second time.
    for (PageRange rest = part.pages(); !rest.empty();) {
      const std::optional<PageRange> taken = NextPages(rest.first);
      const bool free = !taken || taken->first > rest.first;
      const PageIndex end =
          !taken ? rest.end() : std::min(rest.end(), free ? taken->first : taken->end());
      const uint64_t at = part.range.start + (rest.first - part.first).in_bytes();
      const Region region = Cut(part, at, at + (end - rest.first).in_bytes());
      if (free) {
        Insert(region);
      } else {
        aliases_.push_back(region);
      }
      rest = PageRange::Between(end, rest.end());
    }
  }
}

void AddressSpace::Restore(const std::vector<Region>& regions) {
  for (const Region& region : regions) {
    if (!HasRegionIn(region.range) && !HasPageIn(region.pages())) {
      Insert(region);
    }
  }
}

void AddressSpace::MatchFork(IsRegistered is_registered) {
  const auto has_memory = [&](AddressRange range) { return is_registered(range).value_or(true); };
  std::vector<AddressRange> ranges, missing;
  for (const auto& [start, region] : by_address_) ranges.push_back(region.range);
  for (AddressRange range : ranges) FindMissing(range, has_memory, &missing);
  for (AddressRange range : missing) SetAside(range);
  // Moved after the fork: it still is where it was.
  for (auto move = recent_.rbegin(); move != recent_.rend(); ++move) {
    if (!has_memory({move->from, move->to.length})) continue;
    std::vector<Region> back;
    TakeOlder(
        move->to, [](const Older& older) { return older.region.has_value(); },
        [&](const Older& older) { back.push_back(*older.region); });
    for (Region& region : back) {
      region.range.start = region.range.start - move->to.start + move->from;
    }
    Restore(back);
  }
  // Unmapped after the fork.
  std::vector<Region> still_there;
  for (const Region& region : departed_) {
    if (has_memory(region.range)) still_there.push_back(region);
  }
  Restore(still_there);
  recent_.clear();
  departed_.clear();
}

void AddressSpace::FollowParent(uint64_t from, uint64_t to, uint64_t length,
                                IsRegistered is_registered) {
  std::vector<Region> moved;
  TakeOlder(
      {from, length}, [](const Older& older) { return older.region.has_value(); },
      [&](const Older& older) { moved.push_back(*older.region); });
  if (!moved.empty()) {
    // It was here before the fork, so what was at these addresses before it has left by then, too,
    // whether its parent's event for that is yet to come or was read already.
    SetAside({to, length});
    for (Region& region : moved) region.range.start = region.range.start - from + to;
    Restore(moved);
    for (const Move& left : std::exchange(recent_, {})) {
      if (left.from < to + length && to < left.from + left.to.length) {
        FollowParent(left.from, left.to.start, left.to.length, is_registered);
      } else {
        recent_.push_back(left);
      }
    }
  } else if (length > 0 && !HasRegionIn({to, length}) && is_registered({to, length}) == true) {
    // Moved before the fork, and something else is there now, or it was MREMAP_DONTUNMAP.
    moved = Extract({from, length});
    for (Region& region : moved) region.range.start = region.range.start - from + to;
    Restore(moved);
  } else {
    recent_.push_back({from, {to, length}});
  }
}

std::string AddressSpace::Encode() const {
  WordWriter words;
  const auto write_regions = [&words](const std::vector<Region>& regions) {
    words.Write(regions.size());
    for (const Region& region : regions) words.Write(region);
  };
  const auto write_ranges = [&words](const std::vector<AddressRange>& ranges) {
    words.Write(ranges.size());
    for (AddressRange range : ranges) words.Write(range);
  };
  words.Write(by_address_.size());
  for (const auto& [start, region] : by_address_) words.Write(region);
  words.Write(older_.size());
  for (const Older& older : older_) {
    words.Write(older.range);
    words.Write(older.region.has_value());
    words.Write(older.region.value_or(Region()));
    words.Write(older.doubted);
    words.Write(older.empty);
  }
  words.Write(recent_.size());
  for (const Move& move : recent_) {
    words.Write(move.from);
    words.Write(move.to);
  }
  write_regions(departed_);
  write_ranges(kept_);
  write_ranges(empty_);
  write_regions(aliases_);
  write_ranges(undeclared_);
  words.Write(awaited_);
  words.Write(aliased_);
  return words.Take();
}

bool AddressSpace::Decode(absl::string_view bytes) {
  WordReader words(bytes);
  // Counts are not trusted: what is read behind the end is 0, and ends the loop.
  const auto read_all = [&words](auto read_one) {
    std::vector<decltype(read_one())> all;
    for (uint64_t left = words.Read(); left > 0 && words.ok(); --left) all.push_back(read_one());
    return all;
  };
  const auto read_regions = [&] { return read_all([&words] { return words.ReadPart(); }); };
  const auto read_ranges = [&] { return read_all([&words] { return words.ReadRange(); }); };
  const std::vector<Region> regions = read_regions();
  std::vector<Older> older = read_all([&words] {
    Older one;
    one.range = words.ReadRange();
    const bool has_region = words.Read() != 0;
    if (const Region region = words.ReadPart(); has_region) one.region = region;
    one.doubted = words.Read() != 0;
    one.empty = words.Read() != 0;
    return one;
  });
  std::vector<Move> recent = read_all([&words] {
    const uint64_t from = words.Read();
    return Move{from, words.ReadRange()};
  });
  std::vector<Region> departed = read_regions();
  std::vector<AddressRange> kept = read_ranges(), empty = read_ranges();
  std::vector<Region> aliases = read_regions();
  std::vector<AddressRange> undeclared = read_ranges();
  const bool awaited = words.Read() != 0;
  const bool aliased = words.Read() != 0;
  if (!words.ok() || !words.empty() || !AreRegions(regions)) return false;
  by_address_.clear();
  by_page_.clear();
  for (const Region& region : regions) Insert(region);
  older_ = std::move(older);
  recent_ = std::move(recent);
  departed_ = std::move(departed);
  kept_ = std::move(kept);
  empty_ = std::move(empty);
  aliases_ = std::move(aliases);
  undeclared_ = std::move(undeclared);
  awaited_ = awaited;
  aliased_ = aliased;
  return true;
}

std::vector<AddressRange> AddressSpace::Ranges() const {
  std::vector<AddressRange> ranges;
  for (const auto& [start, region] : by_address_) ranges.push_back(region.range);
  for (const Region& alias : aliases_) ranges.push_back(alias.range);
  return ranges;
}

}  // namespace faultline
