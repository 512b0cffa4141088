// SPDX-License-Identifier: Apache-2.0
//
// Two modes of userfaultfd that the pager does not register memory for, MINOR and WP: the races of
// them that are in the list, on the kernel itself, so that a kernel that changes them is noticed.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "client/races/race_testing.h"

namespace faultline {
namespace {

class KernelModes : public testing::Test {
 protected:
  void SetUp() override {
    FAULTLINE_REQUIRE_UFFD();
    watchdog_ = std::make_unique<HangWatchdog>();
  }

  // Past UFFDIO_API with `features`, with pages [0, count) of `kind` registered for `mode`. Not
  // valid where the kernel lacks a feature.
  UniqueFd Registered(MemoryKind kind, uint64_t count, uint64_t features, uint64_t mode) {
    UniqueFd fd = *OpenUffd();
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = features;
    if (ioctl(fd.get(), UFFDIO_API, &api) != 0) return UniqueFd();
    EXPECT_TRUE(arena_.Map(kind, 0, count));
    uffdio_register request{};
    request.range = {arena_.Address(0), count * kPageSize};
    request.mode = mode;
    EXPECT_EQ(ioctl(fd.get(), UFFDIO_REGISTER, &request), 0);
    return fd;
  }
  static uffd_msg ReadOne(const UniqueFd& fd) {
    uffd_msg message{};
    pollfd readable{fd.get(), POLLIN, 0};
    EXPECT_EQ(poll(&readable, 1, 30000), 1);
    EXPECT_EQ(read(fd.get(), &message, sizeof(message)), static_cast<ssize_t>(sizeof(message)));
    return message;
  }
  int WriteProtect(const UniqueFd& fd, uint64_t page, uint64_t count, uint64_t mode) {
    uffdio_writeprotect request{};
    request.range = {arena_.Address(page), count * kPageSize};
    request.mode = mode;
    return ioctl(fd.get(), UFFDIO_WRITEPROTECT, &request) == 0 ? 0 : errno;
  }
  int Copy(const UniqueFd& fd, uint64_t page, char byte) {
    const std::string bytes(kPageSize, byte);
    uffdio_copy copy{};
    copy.dst = arena_.Address(page);
    copy.src = reinterpret_cast<uint64_t>(bytes.data());
    copy.len = kPageSize;
    return ioctl(fd.get(), UFFDIO_COPY, &copy) == 0 ? 0 : errno;
  }

  Arena arena_{64};
  std::unique_ptr<HangWatchdog> watchdog_;
};

TEST_F(KernelModes, UffdioApiRefusesAWrongApiUnknownFeaturesAndASecondCall) {
  auto call = [](const UniqueFd& fd, uint64_t version, uint64_t features) {
    uffdio_api api{};
    api.api = version;
    api.features = features;
    return ioctl(fd.get(), UFFDIO_API, &api) == 0 ? 0 : errno;
  };
  const UniqueFd fd = *OpenUffd();
  EXPECT_EQ(call(fd, 64, 0), EINVAL);
  EXPECT_EQ(call(fd, UFFD_API, uint64_t{1} << 63), EINVAL);
  EXPECT_EQ(call(fd, UFFD_API, 0), 0);
  EXPECT_EQ(call(fd, UFFD_API, uapi::kFeatureEventRemap), EINVAL);
}

TEST_F(KernelModes, Race17_AWriteProtectedPageThatIsDiscardedIsAMissingPage) {
  const UniqueFd fd = Registered(MemoryKind::kAnonymous, 8, UFFD_FEATURE_PAGEFAULT_FLAG_WP,
                                 UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
  if (!fd) GTEST_SKIP() << "no write protection by userfaultfd";
  ASSERT_EQ(Copy(fd, 3, 'a'), 0);
  ASSERT_EQ(WriteProtect(fd, 3, 1, UFFDIO_WRITEPROTECT_MODE_WP), 0);
  TargetThread writer([&] { *static_cast<volatile char*>(arena_.At(3)) = 'b'; });
  uffd_msg fault = ReadOne(fd);
  EXPECT_EQ(fault.event, UFFD_EVENT_PAGEFAULT);
  EXPECT_NE(fault.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP, 0u);
  // While its handler is at work, the page goes: the writer faults again, for a missing page.
  ASSERT_TRUE(arena_.Advise(3, 1, MADV_DONTNEED));
  ASSERT_EQ(WriteProtect(fd, 3, 1, 0), 0);
  fault = ReadOne(fd);
  EXPECT_EQ(fault.event, UFFD_EVENT_PAGEFAULT);
  EXPECT_EQ(fault.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP, 0u);
  ASSERT_EQ(Copy(fd, 3, 'c'), 0);
  writer.Join();
  EXPECT_EQ(arena_.At(3)[0], 'b');
  EXPECT_EQ(arena_.At(3)[1], 'c');
}

TEST_F(KernelModes, Race17_WriteProtectionIsHeldOffByAnUnreadEvent) {
  const UniqueFd fd = Registered(MemoryKind::kAnonymous, 8,
                                 UFFD_FEATURE_PAGEFAULT_FLAG_WP | uapi::kFeatureEventRemove,
                                 UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP);
  if (!fd) GTEST_SKIP() << "no write protection by userfaultfd";
  ASSERT_EQ(Copy(fd, 3, 'a'), 0);
  TargetThread discarder([&] { EXPECT_TRUE(arena_.Advise(6, 1, MADV_DONTNEED)); });
  pollfd readable{fd.get(), POLLIN, 0};
  ASSERT_EQ(poll(&readable, 1, 30000), 1);
  EXPECT_EQ(WriteProtect(fd, 3, 1, UFFDIO_WRITEPROTECT_MODE_WP), EAGAIN);
  EXPECT_EQ(ReadOne(fd).event, UFFD_EVENT_REMOVE);
  discarder.Join();
  EXPECT_TRUE(Eventually([&] { return WriteProtect(fd, 3, 1, UFFDIO_WRITEPROTECT_MODE_WP) == 0; }));
  ASSERT_EQ(WriteProtect(fd, 3, 1, 0), 0);
  EXPECT_EQ(arena_.At(3)[0], 'a');
}

TEST_F(KernelModes, Race19_APageThatIsPunchedBeforeItsContinueCanStillBeCopied) {
  const UniqueFd fd = Registered(MemoryKind::kMemfd, 8, UFFD_FEATURE_MINOR_SHMEM,
                                 UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
  if (!fd) GTEST_SKIP() << "no minor faults of shared memory";
  char* alias = arena_.At(20);
  ASSERT_EQ(
      mmap(alias, 8 * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, arena_.memfd(), 0),
      alias);
  alias[3 * kPageSize] = 'a';
  std::atomic<char> seen = 0;
  TargetThread reader([&] { seen = *static_cast<volatile char*>(arena_.At(3)); });
  const uffd_msg fault = ReadOne(fd);
  EXPECT_NE(fault.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR, 0u);
  ASSERT_EQ(fallocate(arena_.memfd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * kPageSize,
                      kPageSize),
            0);
  uffdio_continue request{};
  request.range = {arena_.Address(3), kPageSize};
  EXPECT_EQ(ioctl(fd.get(), UFFDIO_CONTINUE, &request), -1);
  EXPECT_EQ(errno, EFAULT);
  ASSERT_EQ(Copy(fd, 3, 'c'), 0);
  reader.Join();
  EXPECT_EQ(seen, 'c');
}

}  // namespace
}  // namespace faultline
