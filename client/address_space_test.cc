// SPDX-License-Identifier: Apache-2.0
#include "client/address_space.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace faultline {
namespace {

constexpr uint64_t P = kPageSize;

class AddressSpaceTest : public testing::Test {
 protected:
  // Two regions with a hole between them: pages 10 to 13 at 0x10000, pages 20 and 21 at 0x20000.
  AddressSpace space_{{{0x10000, 4 * P, 10 * P}, {0x20000, 2 * P, 20 * P}}};

  std::optional<PageIndex> PageAt(uint64_t address) {
    SharedLock lock(space_.map_changing_lock());
    return space_.PageAt(address);
  }
  std::optional<AddressSpace::Located> Locate(uint64_t first, uint64_t count) {
    SharedLock lock(space_.map_changing_lock());
    return space_.Locate({PageIndex(first), PageCount(count)});
  }
  void Remap(uint64_t from, uint64_t to, uint64_t length) {
    ExclusiveLock lock(space_.map_changing_lock());
    space_.Remap(from, to, length);
  }
  void Unmap(uint64_t start, uint64_t length) {
    ExclusiveLock lock(space_.map_changing_lock());
    space_.Unmap({start, length});
  }
};

TEST_F(AddressSpaceTest, AddressesInsideRegionsHavePagesAndOthersHaveNone) {
  EXPECT_EQ(PageAt(0x10000), PageIndex(10));
  EXPECT_EQ(PageAt(0x13fff), PageIndex(13));
  EXPECT_EQ(PageAt(0x14000), std::nullopt);
  EXPECT_EQ(PageAt(0xffff), std::nullopt);
  EXPECT_EQ(PageAt(0x21000), PageIndex(21));
  EXPECT_EQ(PageAt(~uint64_t{0}), std::nullopt);
}

TEST_F(AddressSpaceTest, LocateReturnsTheLongestRunInOnePiece) {
  auto located = Locate(11, 100);
  ASSERT_TRUE(located);
  EXPECT_EQ(located->address, 0x11000u);
  EXPECT_EQ(located->count, PageCount(3));
  EXPECT_FALSE(Locate(14, 6));
  EXPECT_FALSE(Locate(9, 6));
}

TEST_F(AddressSpaceTest, UnmapInTheMiddleLeavesBothEnds) {
  Unmap(0x11000, 2 * P);
  EXPECT_EQ(PageAt(0x10000), PageIndex(10));
  EXPECT_EQ(PageAt(0x11000), std::nullopt);
  EXPECT_EQ(PageAt(0x12000), std::nullopt);
  EXPECT_EQ(PageAt(0x13000), PageIndex(13));
  EXPECT_FALSE(Locate(11, 1));
  EXPECT_EQ(Locate(13, 1)->address, 0x13000u);
}

TEST_F(AddressSpaceTest, RemapMovesPagesToTheirNewAddress) {
  Remap(0x11000, 0x50000, 2 * P);
  EXPECT_EQ(PageAt(0x11000), std::nullopt);
  EXPECT_EQ(PageAt(0x50000), PageIndex(11));
  EXPECT_EQ(PageAt(0x51000), PageIndex(12));
  EXPECT_EQ(Locate(12, 1)->address, 0x51000u);
  EXPECT_EQ(PageAt(0x13000), PageIndex(13));
}

TEST_F(AddressSpaceTest, RemapOntoARegionReplacesIt) {
  Remap(0x10000, 0x20000, 2 * P);
  EXPECT_EQ(PageAt(0x20000), PageIndex(10));
  EXPECT_EQ(PageAt(0x21000), PageIndex(11));
  EXPECT_FALSE(Locate(20, 2));
}

TEST_F(AddressSpaceTest, RangesBeyondTwoGiBAreHandledExactly) {
  constexpr uint64_t kBig = uint64_t{3} << 30;
  AddressSpace space({{uint64_t{1} << 40, kBig, 0}});
  ExclusiveLock lock(space.map_changing_lock());
  space.Remap(uint64_t{1} << 40, uint64_t{2} << 40, kBig);
  EXPECT_EQ(space.PageAt((uint64_t{2} << 40) + kBig - 1), PageIndex(kBig / P - 1));
  space.Unmap({uint64_t{2} << 40, kBig - P});
  EXPECT_EQ(space.Locate({PageIndex(kBig / P - 1), PageCount(1)})->address,
            (uint64_t{2} << 40) + kBig - P);
  EXPECT_FALSE(space.Locate({PageIndex(0), PageCount(1)}));
}

// Against a plain map from page address to page index.
TEST(AddressSpaceModel, RandomRemapsAndUnmapsAgreeWithAFlatMap) {
  const uint32_t seed = testing::UnitTest::GetInstance()->random_seed() != 0
                            ? static_cast<uint32_t>(testing::UnitTest::GetInstance()->random_seed())
                            : 7u;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  AddressSpace space({{0x100000, 32 * P, 0}, {0x200000, 32 * P, 64 * P}});
  std::map<uint64_t, uint64_t> model;
  for (uint64_t i = 0; i < 32; ++i) model[0x100000 + i * P] = i, model[0x200000 + i * P] = 64 + i;

  for (int step = 0; step < 2000; ++step) {
    const uint64_t from = 0x100000 + random() % 400 * P;
    const uint64_t to = 0x100000 + random() % 400 * P;
    const uint64_t pages = 1 + random() % 40;
    ExclusiveLock lock(space.map_changing_lock());
    if (random() % 4 == 0 && model.size() > 16) {
      space.Unmap({from, (pages % 3 + 1) * P});
      for (uint64_t i = 0; i < pages % 3 + 1; ++i) model.erase(from + i * P);
    } else {
      if (from < to + pages * P && to < from + pages * P) continue;  // mremap refuses overlap
      space.Remap(from, to, pages * P);
      for (uint64_t i = 0; i < pages; ++i) {
        model.erase(to + i * P);
        if (auto node = model.extract(from + i * P)) {
          node.key() = to + i * P;
          model.insert(std::move(node));
        }
      }
    }
    for (uint64_t i = 0; i < 500; ++i) {
      const uint64_t address = 0x100000 + i * P;
      const auto expected = model.find(address);
      const auto actual = space.PageAt(address);
      ASSERT_EQ(actual.has_value(), expected != model.end()) << "step " << step;
      if (!actual) continue;
      ASSERT_EQ(actual->raw(), expected->second) << "step " << step;
      ASSERT_EQ(space.Locate(PageRange::Single(*actual))->address, address) << "step " << step;
    }
  }
}

}  // namespace
}  // namespace faultline
