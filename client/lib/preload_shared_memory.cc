// SPDX-License-Identifier: Apache-2.0
#include "client/lib/preload_shared_memory.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "client/lib/page_bytes.h"

namespace faultline {
namespace {

constexpr int kMadvPopulateRead = 22;  // Linux 5.14, newer than the headers of some build hosts

class Held {
 public:
  enum class How { kShared, kExclusive };
  Held(pthread_rwlock_t* lock, How how) : lock_(lock) {
    if (how == How::kShared) pthread_rwlock_rdlock(lock_);
    if (how == How::kExclusive) pthread_rwlock_wrlock(lock_);
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  ~Held() { pthread_rwlock_unlock(lock_); }

 private:
  pthread_rwlock_t* const lock_;
};

int Advise(uintptr_t start, uintptr_t end, int advice) {
  return start == end ? 0 : static_cast<int>(syscall(SYS_madvise, start, end - start, advice));
}

int Allocate(int fd, int mode, uint64_t begin, uint64_t end) {
  return begin == end ? 0 : static_cast<int>(syscall(SYS_fallocate, fd, mode, begin, end - begin));
}

}  // namespace

void SharedMemory::Set(void* address, size_t length, int fd, off_t offset) {
  struct stat info = {};
  fstat(fd, &info);
  device_ = info.st_dev;
  inode_ = info.st_ino;
  address_ = reinterpret_cast<uintptr_t>(address);
  length_ = length;
  file_offset_ = static_cast<uint64_t>(offset);
  pieces_[0] = {address_, address_ + length_};
  count_ = 1;
  set_.store(true, std::memory_order_release);
}

bool SharedMemory::OverlapsLocked(uintptr_t start, uintptr_t end) const {
  return std::any_of(pieces_, pieces_ + count_,
                     [=](const Piece& piece) { return piece.start < end && start < piece.end; });
}

bool SharedMemory::CutLocked(uintptr_t start, uintptr_t end) {
  Piece left[kMaxPieces];
  size_t count = 0;
  for (const Piece* piece = pieces_; piece != pieces_ + count_; ++piece) {
    const Piece parts[] = {{piece->start, std::min(piece->end, start)},
                           {std::max(piece->start, end), piece->end}};
    for (const Piece& part : parts) {
      if (part.start >= part.end) continue;
      if (count == kMaxPieces) return false;
      left[count++] = part;
    }
  }
  std::copy(left, left + count, pieces_);
  count_ = count;
  return true;
}

bool SharedMemory::Overlaps(const void* address, size_t length) {
  if (!set_.load(std::memory_order_acquire)) return false;
  const Held held(&lock_, Held::How::kShared);
  const auto start = reinterpret_cast<uintptr_t>(address);
  return OverlapsLocked(start, start + length);
}

bool SharedMemory::IsOurFile(int fd) const {
  struct stat info;
  return fstat(fd, &info) == 0 && info.st_dev == device_ && info.st_ino == inode_;
}

// A page of which a part becomes zero must be filled first: the rest of it is the volume's.
int SharedMemory::ZeroEdge(int fd, int mode, uint64_t begin, uint64_t end) {
  if (begin == end) return 0;
  const uintptr_t page = address_ + (RoundDown(begin) - file_offset_);
  if (OverlapsLocked(page, page + kPageBytes) &&
      Advise(page, page + kPageBytes, kMadvPopulateRead) != 0) {
    return -1;
  }
  return Allocate(fd, mode, begin, end);
}

// All of `begin` to `end` is in the part of the file that the memory is made of.
int SharedMemory::Punch(int fd, int mode, uint64_t begin, uint64_t end) {
  const uint64_t first = RoundUp(begin);
  const uint64_t last = RoundDown(end);
  if (first > last) return ZeroEdge(fd, mode, begin, end);  // within one page
  if (ZeroEdge(fd, mode, begin, first) != 0 || ZeroEdge(fd, mode, last, end) != 0) return -1;
  const uintptr_t start = address_ + (first - file_offset_);
  const uintptr_t stop = start + (last - first);
  for (const Piece* piece = pieces_; piece != pieces_ + count_; ++piece) {
    const uintptr_t from = std::max(piece->start, start);
    const uintptr_t to = std::min(piece->end, stop);
    if (from >= to) continue;
    // Where it is not there in a child (MADV_DONTFORK), or read-only for some kernels, the agent
    // cannot be told: a hole that it does not know of would be filled again.
    if (Advise(from, to, MADV_REMOVE) != 0) return -1;
  }
  // What is of the file but not mapped any more. It finds nothing where MADV_REMOVE has been.
  return count_ == 1 && pieces_[0].start <= start && stop <= pieces_[0].end
             ? 0
             : Allocate(fd, mode, first, last);
}

std::optional<int> SharedMemory::Fallocate(int fd, int mode, off_t offset, off_t length) {
  if (!set_.load(std::memory_order_acquire)) return std::nullopt;
  if (offset < 0 || length <= 0 || !IsOurFile(fd)) return std::nullopt;
  const auto begin = static_cast<uint64_t>(offset);
  const uint64_t end = begin + static_cast<uint64_t>(length);
  const uint64_t from = std::max(begin, file_offset_);
  const uint64_t to = std::min(end, file_offset_ + length_);
  if (from >= to) return std::nullopt;
  const Held held(&lock_, Held::How::kShared);
  if (count_ == 0) return std::nullopt;
  if (mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)) {
    errno = EOPNOTSUPP;
    return -1;
  }
  if (Allocate(fd, mode, begin, from) != 0 || Punch(fd, mode, from, to) != 0) return -1;
  return Allocate(fd, mode, to, end);
}

std::optional<int> SharedMemory::Madvise(void* address, size_t length, int advice) {
  if (advice != MADV_DONTNEED || !set_.load(std::memory_order_acquire)) return std::nullopt;
  auto at = reinterpret_cast<uintptr_t>(address);
  const uintptr_t end = at + RoundUp(length);
  if (at % kPageBytes != 0 || end <= at) return std::nullopt;
  const Held held(&lock_, Held::How::kShared);
  if (!OverlapsLocked(at, end)) return std::nullopt;
  // Ours are left out; what lies between them is not ours. The pieces are in order of address.
  for (const Piece* piece = pieces_; piece != pieces_ + count_; ++piece) {
    if (piece->end <= at || end <= piece->start) continue;
    if (at < piece->start && Advise(at, piece->start, advice) != 0) return -1;
    at = piece->end;
  }
  return at < end ? Advise(at, end, advice) : 0;
}

std::optional<int> SharedMemory::Munmap(void* address, size_t length) {
  if (!Overlaps(address, RoundUp(length))) return std::nullopt;
  const Held held(&lock_, Held::How::kExclusive);
  const auto start = reinterpret_cast<uintptr_t>(address);
  Piece before[kMaxPieces];
  const size_t count = count_;
  std::copy(pieces_, pieces_ + count, before);
  if (!CutLocked(start, start + RoundUp(length))) {
    errno = ENOMEM;
    return -1;
  }
  const int result = static_cast<int>(syscall(SYS_munmap, address, length));
  if (result != 0) {
    std::copy(before, before + count, pieces_);
    count_ = count;
  }
  return result;
}

std::optional<void*> SharedMemory::MapOver(void* address, size_t length, int protection, int flags,
                                           int fd, off_t offset) {
  if (!Overlaps(address, RoundUp(length))) return std::nullopt;
  const Held held(&lock_, Held::How::kExclusive);
  const auto start = reinterpret_cast<uintptr_t>(address);
  Piece before[kMaxPieces];
  const size_t count = count_;
  std::copy(pieces_, pieces_ + count, before);
  if (!CutLocked(start, start + RoundUp(length))) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  void* result =
      reinterpret_cast<void*>(syscall(SYS_mmap, address, length, protection, flags, fd, offset));
  if (result == MAP_FAILED) {
    std::copy(before, before + count, pieces_);
    count_ = count;
  }
  return result;
}

}  // namespace faultline
