// SPDX-License-Identifier: Apache-2.0
//
// What an attachment's memory looks like now: the picture that is made of it for people.
#ifndef FAULTLINE_CLIENT_MEMORY_MAP_H_
#define FAULTLINE_CLIENT_MEMORY_MAP_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "proto/page.h"

namespace faultline {

struct PagedMemory;  // fault/paged_memory.h

// Of a page, as people want to know it: more than the PageState of page_table.h.
enum class MapState : uint8_t {
  kAbsent,    // its content is at the server, and was never here
  kInFlight,  // asked for, by a fault or ahead of one; or just being taken out
  kStaged,    // in the agent: fetched ahead, or taken out and written
  kDirty,     // in the agent: taken out, and the server has not acknowledged it yet
  kResident,  // in the memory of the process
  kZero,      // no content: filled with zeros once it is touched
  kEvicted,   // of far memory: at the server only
  kPoisoned,  // could not be had: access gets SIGBUS
};
inline constexpr size_t kMapStates = 8;

// Pages are numbered here by their place in the address space, gaps left out: the page at the
// lowest address is 0.
struct MapView {
  uint64_t first = 0;
  uint64_t count = UINT64_MAX;  // what is beyond the end is left out
  uint64_t cells = 1024;        // at most, from 1 to kMostCells
};

struct MemoryMap {
  static constexpr uint64_t kMostCells = 4096;
  static constexpr size_t kMostRegions = 256;

  // How many pages are in each state.
  using Cell = std::array<uint64_t, kMapStates>;
  struct Region {
    uint64_t first, count;
    PageIndex volume_page;
    bool shared;
  };

  uint64_t total = 0;             // pages of all regions
  uint64_t first = 0, count = 0;  // of them, that are shown
  uint64_t cell_pages = 1;        // of each cell but the last, which may have less
  // Of eight pages each, that are next to each other and differ: every how many was looked at.
  uint64_t stride = 1;
  std::vector<Cell> cells;
  uint64_t regions_total = 0;
  std::vector<Region> regions;  // the first of those that are shown, in part at least
};

// What is not in the page table.
struct MapOverlay {
  std::vector<PageRange> in_flight;
  std::vector<PageIndex> staged;  // fetched ahead
};

// Looks at no more than some 100,000 things, whatever `view` asks for: some 10 ms at worst. Holds
// the map-changing lock shared, each time for some 20 us at most; what changes meanwhile is in the
// picture, or not. Shared memory that is mapped twice is shown once.
MemoryMap DrawMap(const PagedMemory& memory, const MapView& view, const MapOverlay& overlay);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_MEMORY_MAP_H_
