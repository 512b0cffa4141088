// SPDX-License-Identifier: Apache-2.0
//
// What a churn does to its memory, and how often.
#ifndef FAULTLINE_CLIENT_CHURN_OPERATION_H_
#define FAULTLINE_CLIENT_CHURN_OPERATION_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "client/churn/random.h"

namespace faultline::churn {

enum class MemoryKind { kAnon, kShmem, kMemfd };

enum class Operation : uint8_t {
  kRead,
  kWrite,
  kDontNeed,     // MADV_DONTNEED
  kFree,         // MADV_FREE; private memory only
  kRemove,       // MADV_REMOVE, and of a memfd also fallocate(FALLOC_FL_PUNCH_HOLE)
  kMove,         // mremap to where nothing was, at an address that the kernel chose
  kMoveVacated,  // mremap to an address that another thread is vacating at this moment
  kMoveOver,     // mremap over memory that is registered, too
  kGrow,         // mremap, in place or moving
  kShrink,       // mremap, in place
  kDontUnmap,    // mremap with MREMAP_DONTUNMAP
  kUnmap,        // munmap, of the whole or a part
  kMapOver,      // mmap with MAP_FIXED over a part, as a balloon does
  kProtect,      // mprotect of a part, and back some time later
  kForkAdvice,   // MADV_WIPEONFORK (private memory only), MADV_DONTFORK, and back
  kFork,         // while the other threads go on; the child checks what this thread has
  kForkAll,      // while no other thread does anything; the child checks what all threads have
};
inline constexpr size_t kOperations = 17;

// The names are those of the flag --operations.
std::string_view OperationName(Operation operation);
std::string OperationNames();  // all of them, with commas between

// Which operations, and in what shares. A plain value.
class OperationMix {
 public:
  // All that `memory` can have.
  explicit OperationMix(MemoryKind memory);

  // Only those of `list`, names with commas between. False, with an explanation in `*error`, where
  // one is unknown or none is left.
  bool Restrict(std::string_view list, std::string* error);
  void Drop(Operation operation);

  bool Has(Operation operation) const { return weights_[static_cast<size_t>(operation)] > 0; }
  Operation Choose(Random* random) const;

 private:
  std::array<uint32_t, kOperations> weights_;
};

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_OPERATION_H_
