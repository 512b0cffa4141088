// SPDX-License-Identifier: Apache-2.0
#include "client/vm/guest_ram.h"

#include <absl/status/status.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <fstream>
#include <string>

#include "client/unique_fd.h"

namespace faultline {
namespace {

// Sizes that nothing else of this process has.
constexpr size_t kBytes = 37 * 4096;

class MappedMemfd {
 public:
  MappedMemfd(size_t bytes, int flags) : bytes_(bytes), fd_(memfd_create("ram", MFD_CLOEXEC)) {
    EXPECT_EQ(ftruncate(fd_.get(), static_cast<off_t>(bytes)), 0);
    address_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd_.get(), 0);
    EXPECT_NE(address_, MAP_FAILED);
  }
  ~MappedMemfd() { munmap(address_, bytes_); }
  char* data() { return static_cast<char*>(address_); }

 private:
  const size_t bytes_;
  UniqueFd fd_;
  void* address_;
};

TEST(FindSharedMemoryFile, FindsAMemfdAndItsContent) {
  MappedMemfd memory(kBytes, MAP_SHARED);
  strcpy(memory.data(), "content");
  const auto path = FindSharedMemoryFile(getpid(), kBytes);
  ASSERT_TRUE(path.ok()) << path.status();
  std::string content(7, '\0');
  std::ifstream(*path).read(content.data(), 7);
  EXPECT_EQ(content, "content");
}

TEST(FindSharedMemoryFile, DoesNotTakePrivateMemoryOrAnotherSize) {
  MappedMemfd memory(kBytes, MAP_PRIVATE);
  MappedMemfd other(2 * kBytes, MAP_SHARED);
  const absl::Status status = FindSharedMemoryFile(getpid(), kBytes).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_NE(status.message().find("share=on"), absl::string_view::npos) << status;
}

TEST(FindSharedMemoryFile, DoesNotGuessBetweenTwo) {
  MappedMemfd one(kBytes, MAP_SHARED);
  MappedMemfd two(kBytes, MAP_SHARED);
  EXPECT_EQ(FindSharedMemoryFile(getpid(), kBytes).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace faultline
