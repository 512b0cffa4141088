// SPDX-License-Identifier: Apache-2.0
#include "client/memory_map.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>

#include "client/fault/paged_memory.h"
#include "proto/page_testing.h"

namespace faultline {
namespace {

constexpr uint64_t kAddress = 0x7f0000000000;

Mapping MappingOf(uint64_t address_page, uint64_t pages, uint64_t volume_page) {
  return {.address = kAddress + address_page * kPageSize,
          .size = pages * kPageSize,
          .offset = volume_page * kPageSize};
}

// Memory that nothing serves: a map and a table.
std::unique_ptr<PagedMemory> NewMemory(const std::vector<Mapping>& mappings, PageRange table) {
  return std::make_unique<PagedMemory>(nullptr, mappings, *PageTable::Create(table, {}));
}

uint64_t Of(const MemoryMap::Cell& cell, MapState state) {
  return cell[static_cast<size_t>(state)];
}
uint64_t Total(const MemoryMap::Cell& cell) {
  return std::accumulate(cell.begin(), cell.end(), uint64_t{0});
}
// Of all cells.
uint64_t Of(const MemoryMap& map, MapState state) {
  uint64_t sum = 0;
  for (const MemoryMap::Cell& cell : map.cells) sum += Of(cell, state);
  return sum;
}
void ExpectWhole(const MemoryMap& map) {
  uint64_t pages = 0;
  for (const MemoryMap::Cell& cell : map.cells) {
    EXPECT_EQ(Total(cell), std::min(map.cell_pages, map.count - pages));
    pages += Total(cell);
  }
  EXPECT_EQ(pages, map.count);
}

TEST(MemoryMap, ShowsSinglePages) {
  const auto memory = NewMemory({MappingOf(0, 10, 0)}, Pages(0, 10));
  memory->table->Set(PageIndex(1), PageState::kPresent);
  memory->table->Set(PageIndex(2), PageState::kZero);
  memory->table->Set(PageIndex(3), PageState::kPoisoned);
  const MemoryMap map = DrawMap(*memory, {}, {{Pages(5, 2)}, {PageIndex(8)}});
  EXPECT_EQ(map.total, 10u);
  EXPECT_EQ(map.cell_pages, 1u);
  ASSERT_EQ(map.cells.size(), 10u);
  constexpr MapState kExpected[] = {MapState::kAbsent,   MapState::kResident, MapState::kZero,
                                    MapState::kPoisoned, MapState::kAbsent,   MapState::kInFlight,
                                    MapState::kInFlight, MapState::kAbsent,   MapState::kStaged,
                                    MapState::kAbsent};
  for (size_t i = 0; i < map.cells.size(); ++i) EXPECT_EQ(Of(map.cells[i], kExpected[i]), 1u) << i;
  ExpectWhole(map);
}

// Two regions whose order by address is not that in the volume.
TEST(MemoryMap, FollowsTheAddressSpace) {
  const auto memory = NewMemory({MappingOf(1000, 4, 0), MappingOf(0, 6, 50)}, Pages(0, 56));
  memory->table->SetAll(Pages(0, 4), PageState::kPresent);
  MapOverlay overlay;
  overlay.in_flight = {Pages(52, 1), Pages(20, 5)};  // the other is not mapped
  MemoryMap map = DrawMap(*memory, {}, overlay);
  ASSERT_EQ(map.cells.size(), 10u);
  EXPECT_EQ(Of(map.cells[2], MapState::kInFlight), 1u);
  EXPECT_EQ(Of(map, MapState::kInFlight), 1u);
  for (size_t i = 6; i < 10; ++i) EXPECT_EQ(Of(map.cells[i], MapState::kResident), 1u);
  ASSERT_EQ(map.regions.size(), 2u);
  EXPECT_EQ(map.regions[0].volume_page, PageIndex(50));
  EXPECT_EQ(map.regions[1].first, 6u);

  map = DrawMap(*memory, {.first = 5, .count = 3}, overlay);
  ASSERT_EQ(map.cells.size(), 3u);
  EXPECT_EQ(Of(map.cells[0], MapState::kAbsent), 1u);
  EXPECT_EQ(Of(map.cells[2], MapState::kResident), 1u);
  EXPECT_EQ(map.regions.size(), 2u);
  EXPECT_EQ(DrawMap(*memory, {.first = 7, .count = 3}, overlay).regions.size(), 1u);
}

TEST(MemoryMap, CellsAddUp) {
  const auto memory = NewMemory({MappingOf(0, 100'000, 0)}, Pages(0, 100'000));
  memory->table->SetAll(Pages(10, 60'000), PageState::kPresent);
  for (uint64_t i = 70'000; i < 80'000; i += 3) {
    memory->table->Set(PageIndex(i), PageState::kZero);
  }
  for (uint64_t cells : {1u, 7u, 1000u, 4096u, 1'000'000u}) {
    const MemoryMap map = DrawMap(*memory, {.cells = cells}, {});
    ExpectWhole(map);
    EXPECT_LE(map.cells.size(), std::min(cells, MemoryMap::kMostCells));
    EXPECT_EQ(map.stride, 1u);
    EXPECT_EQ(Of(map, MapState::kResident), 60'000u);
    EXPECT_EQ(Of(map, MapState::kZero), 3334u);
  }
}

TEST(MemoryMap, BeyondTheEndThereIsNothing) {
  const auto memory = NewMemory({MappingOf(0, 10, 0)}, Pages(0, 10));
  const MemoryMap map = DrawMap(*memory, {.first = 10}, {});
  EXPECT_EQ(map.count, 0u);
  EXPECT_TRUE(map.cells.empty());
  EXPECT_EQ(DrawMap(*memory, {.first = UINT64_MAX, .count = UINT64_MAX}, {}).count, 0u);
  const auto empty = NewMemory({}, Pages(0, 10));
  EXPECT_EQ(DrawMap(*empty, {}, {}).total, 0u);
}

// More regions than pieces that one cell may have.
TEST(MemoryMap, ManyRegionsAreSampled) {
  std::vector<Mapping> mappings;
  constexpr uint64_t kRegions = 100'000;
  for (uint64_t i = 0; i < kRegions; ++i) mappings.push_back(MappingOf(i * 3, 2, i * 2));
  const auto memory = NewMemory(mappings, Pages(0, kRegions * 2));
  memory->table->SetAll(Pages(0, kRegions), PageState::kPresent);
  const MemoryMap map = DrawMap(*memory, {.cells = 64}, {});
  ExpectWhole(map);
  EXPECT_EQ(map.regions_total, kRegions);
  EXPECT_EQ(map.regions.size(), MemoryMap::kMostRegions);
  EXPECT_EQ(Of(map.cells[10], MapState::kResident), map.cell_pages);
  EXPECT_EQ(Of(map.cells[50], MapState::kAbsent), map.cell_pages);
}

// A tebibyte of which every page differs from its neighbours, in the chunks that there are.
TEST(MemoryMap, ATebibyteIsDrawnInShortTime) {
  constexpr uint64_t kPages = uint64_t{1} << 28;
  const auto memory = NewMemory({MappingOf(0, kPages, 0)}, Pages(0, kPages));
  constexpr uint64_t kMixed = uint64_t{1} << 24;  // 16 MiB of states
  for (uint64_t i = 0; i < kMixed; i += 2) memory->table->Set(PageIndex(i), PageState::kPresent);
  const auto begun = std::chrono::steady_clock::now();
  const MemoryMap map = DrawMap(*memory, {.cells = 4096}, {});
  const auto took = std::chrono::steady_clock::now() - begun;
  ExpectWhole(map);
  EXPECT_GT(map.stride, 1u);
  EXPECT_EQ(Of(map, MapState::kResident), kMixed / 2);
  // Measured: 3 ms.
  EXPECT_LT(took, std::chrono::milliseconds(500));
  RecordProperty(
      "microseconds",
      static_cast<int>(std::chrono::duration_cast<std::chrono::microseconds>(took).count()));
}

}  // namespace
}  // namespace faultline
