// SPDX-License-Identifier: Apache-2.0
#include "client/memory_map.h"

#include <algorithm>

#include "client/fault/paged_memory.h"

namespace faultline {
namespace {

// Looked at while the map-changing lock is held once: who changes the map waits for that, and the
// thread that looks has little claim on the processor.
constexpr size_t kRegionsAtATime = 128;
constexpr uint64_t kPiecesAtATime = 8;
// A piece is what is looked at in one step: pages that follow each other in the volume.
constexpr uint64_t kMostPiecePages = 4096;
constexpr uint64_t kMostPieces = 65536;
// Groups of eight pages that are looked at one by one.
constexpr uint64_t kMostGroups = uint64_t{1} << 19;
// Of each cell that has staged pages: how many are looked for, in how many runs.
constexpr size_t kStagedSample = 4;
constexpr int kStagedRuns = 64;

using Part = AddressSpace::Part;

size_t At(MapState state) { return static_cast<size_t>(state); }

class Drawing {
 public:
  Drawing(const PagedMemory& memory, const MapView& view) : memory_(memory) {
    CopyRegions();
    map_.first = std::min(view.first, map_.total);
    map_.count = std::min(view.count, map_.total - map_.first);
    const uint64_t cells = std::clamp<uint64_t>(view.cells, 1, MemoryMap::kMostCells);
    map_.cell_pages = std::max<uint64_t>(1, (map_.count + cells - 1) / cells);
    map_.cells.resize((map_.count + map_.cell_pages - 1) / map_.cell_pages);
    map_.stride = std::max<uint64_t>(1, map_.count / 8 / kMostGroups);
    map_.regions_total = regions_.size();
    for (size_t i = RegionAt(map_.first); i < regions_.size(); ++i) {
      if (starts_[i] >= map_.first + map_.count) break;
      if (map_.regions.size() == MemoryMap::kMostRegions) break;
      const PageRange pages = regions_[i].pages();
      map_.regions.push_back({starts_[i], pages.count.raw(), pages.first, regions_[i].shared});
    }
  }

  void Draw() {
    for (size_t i = 0; i < map_.cells.size(); ++i) DrawCell(i);
  }

  void Lay(const MapOverlay& overlay) {
    by_page_.resize(regions_.size());
    for (size_t i = 0; i < by_page_.size(); ++i) by_page_[i] = i;
    std::sort(by_page_.begin(), by_page_.end(),
              [this](size_t a, size_t b) { return regions_[a].first < regions_[b].first; });
    for (PageIndex page : overlay.staged) Move(PageRange::Single(page), MapState::kStaged);
    for (PageRange pages : overlay.in_flight) Move(pages, MapState::kInFlight);
    if (memory_.local != nullptr) {
      for (size_t i = 0; i < map_.cells.size(); ++i) SplitStaged(i);
    }
  }

  MemoryMap Take() { return std::move(map_); }

 private:
  void CopyRegions() {
    uint64_t from = 0;
    for (;;) {
      const size_t before = regions_.size();
      {
        SharedLock lock(memory_.space.map_changing_lock());
        memory_.space.AppendRegions(from, kRegionsAtATime, &regions_);
      }
      if (regions_.size() == before) break;
      from = regions_.back().range.start + 1;
    }
    for (const Part& region : regions_) {
      starts_.push_back(map_.total);
      map_.total += region.range.length / kPageSize;
    }
  }

  // The region that has page `place` of the address space.
  size_t RegionAt(uint64_t place) const {
    const auto behind = std::upper_bound(starts_.begin(), starts_.end(), place);
    return behind == starts_.begin() ? 0 : static_cast<size_t>(behind - starts_.begin()) - 1;
  }

  PageRange CellAt(size_t i) const {  // places, not volume pages
    const uint64_t first = map_.first + i * map_.cell_pages;
    return {PageIndex(first),
            PageCount(std::min(map_.cell_pages, map_.first + map_.count - first))};
  }

  // The volume pages from `place` on that are one piece, `most` at most.
  PageRange PieceAt(uint64_t place, uint64_t most) const {
    const size_t region = RegionAt(place);
    const PageRange pages = regions_[region].pages();
    const PageIndex first = pages.first + PageCount(place - starts_[region]);
    const uint64_t chunk_left = kMostPiecePages - first.raw() % kMostPiecePages;
    return {first, PageCount(std::min({most, chunk_left, (pages.end() - first).raw()}))};
  }

  // Where there would be too many pieces, one in every few is looked at, for all.
  void DrawCell(size_t index) {
    const PageRange cell = CellAt(index);
    const uint64_t end = cell.end().raw();
    const uint64_t most_pieces = std::max<uint64_t>(1, kMostPieces / map_.cells.size());
    const uint64_t step = cell.count.raw() / most_pieces;
    PageStateCounts counts = {};
    uint64_t seen = 0;
    for (uint64_t place = cell.first.raw(), pieces = 0; place < end;) {
      SharedLock lock(memory_.space.map_changing_lock());
      for (uint64_t n = 0; n < kPiecesAtATime && place < end; ++n, ++pieces) {
        const PageRange piece = PieceAt(place, end - place);
        memory_.table->AddStates(piece, map_.stride, &counts);
        seen += piece.count.raw();
        place = std::max(place + piece.count.raw(), cell.first.raw() + (pieces + 1) * step);
      }
    }
    ToCell(counts, seen, cell.count.raw(), &map_.cells[index]);
  }

  // Of `seen` pages that were looked at, for `all`.
  void ToCell(const PageStateCounts& counts, uint64_t seen, uint64_t all,
              MemoryMap::Cell* cell) const {
    const bool far = memory_.local != nullptr;
    uint64_t left = all;
    size_t most = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      constexpr MapState kStates[kPageStates] = {MapState::kAbsent,   MapState::kResident,
                                                 MapState::kZero,     MapState::kPoisoned,
                                                 MapState::kInFlight, MapState::kStaged};
      const size_t state = At(i == 0 && far ? MapState::kEvicted : kStates[i]);
      const uint64_t share =
          seen == all ? counts[i]
                      : static_cast<uint64_t>(static_cast<double>(counts[i]) /
                                              static_cast<double>(seen) * static_cast<double>(all));
      (*cell)[state] = std::min(share, left);
      left -= (*cell)[state];
      if ((*cell)[state] > (*cell)[most]) most = state;
    }
    (*cell)[most] += left;
  }

  // `pages` of the volume, which are absent as far as the page table goes, are in state `to`.
  void Move(PageRange pages, MapState to) {
    auto at =
        std::upper_bound(by_page_.begin(), by_page_.end(), pages.first,
                         [this](PageIndex page, size_t i) { return page < regions_[i].first; });
    if (at != by_page_.begin()) --at;
    for (; at != by_page_.end() && regions_[*at].first < pages.end(); ++at) {
      const PageRange both = pages.Intersect(regions_[*at].pages());
      if (both.empty()) continue;
      uint64_t place = starts_[*at] + (both.first - regions_[*at].first).raw();
      const uint64_t end = std::min(place + both.count.raw(), map_.first + map_.count);
      place = std::max(place, map_.first);
      while (place < end) {
        const size_t i = (place - map_.first) / map_.cell_pages;
        const uint64_t cell_end = std::min(end, CellAt(i).end().raw());
        MoveIn(&map_.cells[i], cell_end - place, to);
        place = cell_end;
      }
    }
  }

  static void MoveIn(MemoryMap::Cell* cell, uint64_t count, MapState to) {
    for (MapState from : {MapState::kAbsent, MapState::kEvicted, MapState::kStaged}) {
      if (from == to) continue;
      const uint64_t moved = std::min(count, (*cell)[At(from)]);
      (*cell)[At(from)] -= moved;
      (*cell)[At(to)] += moved;
      count -= moved;
    }
  }

  // Tells the dirty ones among a cell's staged pages, by a sample where there are many.
  void SplitStaged(size_t index) {
    uint64_t& staged = map_.cells[index][At(MapState::kStaged)];
    if (staged == 0) return;
    const PageRange cell = CellAt(index);
    std::array<PageIndex, kStagedSample> sample;
    size_t found = 0;
    {
      SharedLock lock(memory_.space.map_changing_lock());
      uint64_t place = cell.first.raw();
      for (int runs = 0; runs < kStagedRuns && place < cell.end().raw(); ++runs) {
        const PageRange piece = PieceAt(place, cell.end().raw() - place);
        const PageCount run = memory_.table->RunOfSameState(piece);
        if (memory_.table->Get(piece.first) == PageState::kStaged) {
          for (uint64_t i = 0; i < run.raw() && found < sample.size(); ++i) {
            sample[found++] = piece.first + PageCount(i);
          }
        }
        if (found == sample.size()) break;
        place += run.raw();
      }
    }
    if (found == 0) return;
    const uint64_t dirty = staged * memory_.local->CountUnwritten({sample.data(), found}) / found;
    staged -= dirty;
    map_.cells[index][At(MapState::kDirty)] += dirty;
  }

  const PagedMemory& memory_;
  MemoryMap map_;
  std::vector<Part> regions_;     // as they were when it began
  std::vector<uint64_t> starts_;  // the place of each one's first page
  std::vector<size_t> by_page_;   // regions_ by their place in the volume
};

}  // namespace

MemoryMap DrawMap(const PagedMemory& memory, const MapView& view, const MapOverlay& overlay) {
  Drawing drawing(memory, view);
  drawing.Draw();
  drawing.Lay(overlay);
  return drawing.Take();
}

}  // namespace faultline
