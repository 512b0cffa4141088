// SPDX-License-Identifier: Apache-2.0
//
// Memory of each kind that userfaultfd serves, for tests on the real kernel.
#ifndef FAULTLINE_CLIENT_UFFD_TEST_MEMORY_H_
#define FAULTLINE_CLIENT_UFFD_TEST_MEMORY_H_

#include <gtest/gtest.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>

#include "client/uffd/uffd.h"
#include "client/unique_fd.h"
#include "proto/page.h"

namespace faultline {

// Tests on the real kernel call this first: skipped, saying why, where userfaultfd is not to be
// had.
#define FAULTLINE_REQUIRE_UFFD()                                                 \
  do {                                                                           \
    if (auto opened = OpenUffd(); !opened.ok()) GTEST_SKIP() << opened.status(); \
  } while (false)

enum class MemoryKind { kAnonymous, kShmem, kMemfd };

inline std::string MemoryKindName(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::kAnonymous:
      return "anonymous";
    case MemoryKind::kShmem:
      return "shmem";
    case MemoryKind::kMemfd:
      return "memfd";
  }
  return "?";
}

// A fresh mapping. Unmapped at the end.
class TestMemory {
 public:
  TestMemory(MemoryKind kind, PageCount pages) : size_(pages.in_bytes()) {
    int flags = MAP_SHARED;
    if (kind == MemoryKind::kAnonymous) flags = MAP_PRIVATE | MAP_ANONYMOUS;
    if (kind == MemoryKind::kShmem) flags = MAP_SHARED | MAP_ANONYMOUS;
    if (kind == MemoryKind::kMemfd) {
      memfd_ = UniqueFd(memfd_create("faultline-test", MFD_CLOEXEC));
      EXPECT_EQ(ftruncate(memfd_.get(), static_cast<off_t>(size_)), 0);
    }
    void* at = mmap(nullptr, size_, PROT_READ | PROT_WRITE, flags, memfd_.get(), 0);
    EXPECT_NE(at, MAP_FAILED);
    base_ = static_cast<volatile char*>(at);
  }
  ~TestMemory() { munmap(const_cast<char*>(base_), size_); }
  TestMemory(const TestMemory&) = delete;
  TestMemory& operator=(const TestMemory&) = delete;

  uint64_t address() const { return reinterpret_cast<uint64_t>(base_); }
  uint64_t size() const { return size_; }
  AddressRange range() const { return {address(), size_}; }
  // Reads by the faulting instruction itself, not inside the kernel.
  std::string Read(uint64_t offset, uint64_t length) const {
    std::string bytes(length, '\0');
    for (uint64_t i = 0; i < length; ++i) bytes[i] = base_[offset + i];
    return bytes;
  }
  void Write(uint64_t offset, char byte) { base_[offset] = byte; }

 private:
  uint64_t size_;
  UniqueFd memfd_;
  volatile char* base_;
};

// Whether reading the byte at `address` ends in SIGBUS. One caller at a time in the process.
inline bool ReadGetsSigbus(uint64_t address) {
  static thread_local sigjmp_buf jump;
  static thread_local struct sigaction old;  // as `jump`, outlives the jump
  struct sigaction action = {};
  action.sa_handler = [](int) { siglongjmp(jump, 1); };
  sigaction(SIGBUS, &action, &old);
  if (sigsetjmp(jump, 1) != 0) {
    sigaction(SIGBUS, &old, nullptr);
    return true;
  }
  static_cast<void>(*reinterpret_cast<volatile char*>(address));
  sigaction(SIGBUS, &old, nullptr);
  return false;
}

// A userfaultfd of this process, past UFFDIO_API, with `memory` registered.
inline UniqueFd OpenRegistered(std::initializer_list<const TestMemory*> memories,
                               uint64_t features = 0) {
  UniqueFd fd = *OpenUffd();
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = features;
  EXPECT_EQ(ioctl(fd.get(), UFFDIO_API, &api), 0);
  for (const TestMemory* memory : memories) {
    uffdio_register request{};
    request.range = {memory->address(), memory->size()};
    request.mode = UFFDIO_REGISTER_MODE_MISSING;
    EXPECT_EQ(ioctl(fd.get(), UFFDIO_REGISTER, &request), 0);
  }
  return fd;
}

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_UFFD_TEST_MEMORY_H_
