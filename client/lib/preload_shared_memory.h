// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_LIB_PRELOAD_SHARED_MEMORY_H_
#define FAULTLINE_CLIENT_LIB_PRELOAD_SHARED_MEMORY_H_

#include <pthread.h>
#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace faultline {

// The shared mapping that an agent serves, and what discards of it become, so that what the agent
// hears of is what has happened to the content. MADV_DONTNEED does nothing to the content of shared
// memory, whichever call came before it: all of them are left out, and there is nothing to remember
// between a hole that is punched and the MADV_DONTNEED that follows.
//
// Thread-safe. Allocates nothing. The calls return what the system calls of their names do, and set
// errno; none of them is made through the C library's functions, which lead here.
class SharedMemory {
 public:
  constexpr SharedMemory() = default;
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // Of the file `fd`, from `offset` on, at `address`. Called once. `length` is of whole pages.
  void Set(void* address, size_t length, int fd, off_t offset);

  // nullopt: this call has nothing to do with the memory.
  std::optional<int> Fallocate(int fd, int mode, off_t offset, off_t length);
  std::optional<int> Madvise(void* address, size_t length, int advice);
  std::optional<int> Munmap(void* address, size_t length);
  // A mapping that replaces what is there (MAP_FIXED).
  std::optional<void*> MapOver(void* address, size_t length, int protection, int flags, int fd,
                               off_t offset);
  bool Overlaps(const void* address, size_t length);

 private:
  // A part of the mapping that is still there.
  struct Piece {
    uintptr_t start = 0;
    uintptr_t end = 0;
  };
  // What has been cut out of the middle so often is not remembered further: munmap then fails with
  // ENOMEM, as it does for a process with too many mappings.
  static constexpr size_t kMaxPieces = 64;

  bool OverlapsLocked(uintptr_t start, uintptr_t end) const;
  bool CutLocked(uintptr_t start, uintptr_t end);
  bool IsOurFile(int fd) const;
  int Punch(int fd, int mode, uint64_t begin, uint64_t end);
  int ZeroEdge(int fd, int mode, uint64_t begin, uint64_t end);

  // Set before `set_`, and not changed again.
  uintptr_t address_ = 0;
  uint64_t length_ = 0;
  uint64_t file_offset_ = 0;
  dev_t device_ = 0;
  ino_t inode_ = 0;
  std::atomic<bool> set_ = false;

  // Held shared from looking at `pieces_` to the end of what is done to them, so that nothing else
  // can be at these addresses by then.
  pthread_rwlock_t lock_ = PTHREAD_RWLOCK_INITIALIZER;
  Piece pieces_[kMaxPieces] = {};
  size_t count_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LIB_PRELOAD_SHARED_MEMORY_H_
