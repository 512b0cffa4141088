// SPDX-License-Identifier: Apache-2.0
#include "client/shared_files.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace faultline {
namespace {

VmArea Area(uint64_t start, uint64_t pages, uint64_t inode, uint64_t first,
            bool registered = true) {
  return {.range = {start, pages * kPageSize},
          .shared = true,
          .device = 1,
          .inode = inode,
          .offset = first * kPageSize,
          .registered = registered};
}

TEST(SharedFiles, TellWhereThePagesOfSharedMappingsLie) {
  const std::vector<Mapping> mappings = {{0x100000, 4 * kPageSize, 10 * kPageSize, true},
                                         {0x200000, kPageSize, 0, false}};
  // In two areas, of which the second begins before the mapping's next page.
  const auto files = FilesOf(
      mappings, {Area(0xff000, 3, 7, 20), Area(0x102000, 9, 8, 0), Area(0x200000, 1, 9, 0)});
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[0].inode, 7u);
  EXPECT_EQ(files[0].offset, 21 * kPageSize);
  EXPECT_EQ(files[0].pages, (PageRange{PageIndex(10), PageCount(2)}));
  EXPECT_EQ(files[1].inode, 8u);
  EXPECT_EQ(files[1].offset, 0u);
  EXPECT_EQ(files[1].pages, (PageRange{PageIndex(12), PageCount(2)}));
}

TEST(SharedFiles, AreUnknownWhereSomeOfThemAre) {
  const std::vector<Mapping> mappings = {{0x100000, 4 * kPageSize, 0, true},
                                         {0x200000, kPageSize, 4 * kPageSize, true}};
  EXPECT_EQ(FilesOf(mappings, {Area(0x100000, 4, 7, 0), Area(0x200000, 1, 8, 0)}).size(), 2u);
  EXPECT_TRUE(FilesOf(mappings, {Area(0x100000, 4, 7, 0)}).empty());
  EXPECT_TRUE(FilesOf(mappings, {Area(0x100000, 3, 7, 0), Area(0x200000, 1, 8, 0)}).empty());
}

TEST(SharedFiles, ArePartlyRegisteredAnywhereAndSeveralTimes) {
  const std::vector<FilePages> files = {{1, 7, 20 * kPageSize, {PageIndex(100), PageCount(10)}}};
  const auto parts = RegisteredParts(files, {
                                                Area(0x10000, 4, 7, 18),  // half of it before
                                                Area(0x20000, 2, 7, 25), Area(0x30000, 2, 7, 25),
                                                Area(0x40000, 9, 7, 29),  // has grown beyond
                                                Area(0x50000, 4, 7, 20, /*registered=*/false),
                                                Area(0x60000, 4, 6, 20),  // another file
                                            });
  ASSERT_EQ(parts.size(), 4u);
  const AddressSpace::Part expected[] = {{{0x12000, 2 * kPageSize}, PageIndex(100), true},
                                         {{0x20000, 2 * kPageSize}, PageIndex(105), true},
                                         {{0x30000, 2 * kPageSize}, PageIndex(105), true},
                                         {{0x40000, kPageSize}, PageIndex(109), true}};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(parts[i].range, expected[i].range) << i;
    EXPECT_EQ(parts[i].first, expected[i].first) << i;
    EXPECT_TRUE(parts[i].shared) << i;
  }
}

TEST(SharedFiles, AreShownByTheKernelAlsoAfterAMove) {
  // Room for both places.
  void* const room = mmap(nullptr, 64 * kPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(room, MAP_FAILED);
  void* const at =
      mmap(room, 8 * kPageSize, PROT_READ, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  ASSERT_EQ(at, room);
  constexpr uint64_t kAway = 32 * kPageSize;
  const auto address = reinterpret_cast<uint64_t>(at);
  const auto files = FilesOf({{address, 8 * kPageSize, 0, true}}, ReadMaps(getpid()));
  ASSERT_EQ(files.size(), 1u);
  EXPECT_EQ(files[0].pages, (PageRange{PageIndex(0), PageCount(8)}));
  void* const moved =
      mremap(reinterpret_cast<void*>(address + 2 * kPageSize), 3 * kPageSize, 3 * kPageSize,
             MREMAP_MAYMOVE | MREMAP_FIXED, static_cast<char*>(at) + kAway);
  ASSERT_NE(moved, MAP_FAILED);
  std::vector<VmArea> areas = ReadMaps(getpid());
  for (VmArea& area : areas) area.registered = true;
  for (const AddressSpace::Part& part : RegisteredParts(files, areas)) {
    const bool away = part.range.start >= address + kAway;
    const uint64_t was = part.range.start - (away ? kAway - 2 * kPageSize : 0);
    EXPECT_EQ(part.first, PageIndex((was - address) / kPageSize)) << std::hex << part.range.start;
  }
  EXPECT_EQ(RegisteredParts(files, areas).size(), 3u);
  munmap(room, 64 * kPageSize);
}

}  // namespace
}  // namespace faultline
