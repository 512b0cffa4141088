// SPDX-License-Identifier: Apache-2.0
#include "storage/rocksdb_crc32c.h"

#if defined(__x86_64__)

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <string>

// What the program calls by that name, and with it the library.
namespace rocksdb::crc32c {
uint32_t Extend(uint32_t crc, const char* data, size_t size);
}  // namespace rocksdb::crc32c

namespace faultline {
namespace {

using rocksdb::crc32c::Extend;

TEST(RocksDbCrc32c, TheLibraryCallsOurs) {
  if (!__builtin_cpu_supports("sse4.2")) GTEST_SKIP() << "the processor has no SSE 4.2";
  EXPECT_EQ(LogChecksums(), "SSE 4.2");
}

// From RFC 3720, B.4.
TEST(RocksDbCrc32c, HasTheKnownValues) {
  EXPECT_EQ(Extend(0, "123456789", 9), 0xe3069283U);
  EXPECT_EQ(Extend(0, std::string(32, '\0').data(), 32), 0x8a9136aaU);
  EXPECT_EQ(Extend(0, std::string(32, '\xff').data(), 32), 0x62a8ab43U);
  EXPECT_EQ(Extend(0, "", 0), 0u);
}

TEST(RocksDbCrc32c, IsThatOfTheLibraryAtAnyPlaceAndLengthAndInPieces) {
  void* const found = dlsym(RTLD_NEXT, "_ZN7rocksdb6crc32c6ExtendEjPKcm");
  ASSERT_NE(found, nullptr);
  auto* const of_the_library = reinterpret_cast<decltype(&Extend)>(found);
  ASSERT_NE(of_the_library, &Extend);
  std::mt19937_64 random(1);
  std::string bytes(5000, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random());
  for (size_t i = 0; i < 3000; ++i) {
    const size_t at = random() % 40, size = i < 100 ? i : random() % 4900;
    const auto before = static_cast<uint32_t>(random());
    const uint32_t expected = of_the_library(before, &bytes[at], size);
    ASSERT_EQ(Extend(before, &bytes[at], size), expected) << at << "+" << size;
    const size_t piece = size == 0 ? 0 : random() % size;
    ASSERT_EQ(Extend(Extend(before, &bytes[at], piece), &bytes[at + piece], size - piece),
              expected);
  }
}

}  // namespace
}  // namespace faultline

#endif
