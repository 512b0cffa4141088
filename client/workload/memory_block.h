// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_WORKLOAD_MEMORY_BLOCK_H_
#define FAULTLINE_CLIENT_WORKLOAD_MEMORY_BLOCK_H_

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "client/lib/failure.h"

namespace faultline::workload {

// One private anonymous mapping, as any program makes for much memory.
class MemoryBlock {
 public:
  static Failure Map(uint64_t bytes, MemoryBlock* block) {
    void* address =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) {
      return SystemFailure("cannot map " + std::to_string(bytes) +
                           " bytes of memory; give a smaller --size");
    }
    block->bytes_ = {static_cast<std::byte*>(address), bytes};
    return Success();
  }

  MemoryBlock() = default;
  MemoryBlock(MemoryBlock&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MemoryBlock& operator=(MemoryBlock&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MemoryBlock() {
    if (!bytes_.empty()) munmap(bytes_.data(), bytes_.size());
  }

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

}  // namespace faultline::workload

#endif  // FAULTLINE_CLIENT_WORKLOAD_MEMORY_BLOCK_H_
