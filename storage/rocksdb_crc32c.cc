// SPDX-License-Identifier: Apache-2.0
#include "storage/rocksdb_crc32c.h"

#if defined(__x86_64__)

#include <dlfcn.h>
#include <nmmintrin.h>
#include <stdlib.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace faultline {
namespace {

using ExtendFunction = uint32_t (*)(uint32_t crc, const char* data, size_t size);

constexpr char kExtend[] = "_ZN7rocksdb6crc32c6ExtendEjPKcm";

bool HasInstruction() { return __builtin_cpu_supports("sse4.2"); }

__attribute__((target("sse4.2"))) uint32_t ExtendByInstruction(uint32_t crc, const char* data,
                                                               size_t size) {
  uint64_t state = crc ^ 0xffffffffU;
  for (; size >= sizeof(uint64_t); size -= sizeof(uint64_t), data += sizeof(uint64_t)) {
    uint64_t word;
    memcpy(&word, data, sizeof word);
    state = _mm_crc32_u64(state, word);
  }
  for (; size > 0; --size, ++data) {
    state = _mm_crc32_u8(static_cast<uint32_t>(state), static_cast<uint8_t>(*data));
  }
  return static_cast<uint32_t>(state) ^ 0xffffffffU;
}

ExtendFunction ChooseExtend() {
  if (HasInstruction()) return &ExtendByInstruction;
  void* const of_the_library = dlsym(RTLD_NEXT, kExtend);
  if (of_the_library == nullptr) abort();  // nobody would have called us
  return reinterpret_cast<ExtendFunction>(of_the_library);
}

}  // namespace
}  // namespace faultline

namespace rocksdb::crc32c {

// Declared in RocksDB's util/crc32c.h, which is not installed.
uint32_t Extend(uint32_t crc, const char* data, size_t size);
uint32_t Extend(uint32_t crc, const char* data, size_t size) {
  static const faultline::ExtendFunction extend = faultline::ChooseExtend();
  return extend(crc, data, size);
}

}  // namespace rocksdb::crc32c

namespace faultline {

absl::string_view LogChecksums() {
  const bool called = dlsym(RTLD_DEFAULT, kExtend) == &rocksdb::crc32c::Extend;
  return called && HasInstruction() ? "SSE 4.2" : "tables";
}

}  // namespace faultline

#else

namespace faultline {

absl::string_view LogChecksums() { return "the library's"; }

}  // namespace faultline

#endif
