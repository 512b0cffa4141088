// SPDX-License-Identifier: Apache-2.0
//
// Uffd on the real kernel: what the comments of uffd.h claim.
#include "client/uffd/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <thread>

#include "client/uffd/test_memory.h"

namespace faultline {
namespace {

using testing::HasSubstr;

class UffdTest : public testing::TestWithParam<MemoryKind> {
 protected:
  void SetUp() override { FAULTLINE_REQUIRE_UFFD(); }
};

std::span<const std::byte> Bytes(const std::string& bytes) {
  return {reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()};
}

TEST_P(UffdTest, CopiedAndZeroedPagesHaveTheirBytes) {
  TestMemory memory(GetParam(), PageCount(4));
  auto uffd = AdoptUffd(OpenRegistered({&memory}));
  ASSERT_TRUE(uffd.ok()) << uffd.status();
  const std::string page(kPageSize, 'x');
  EXPECT_EQ((*uffd)->Copy(memory.address() + kPageSize, Bytes(page)).error, 0);
  EXPECT_EQ((*uffd)->Zero({memory.address(), kPageSize}).error, 0);
  EXPECT_EQ(memory.Read(0, 2 * kPageSize), std::string(kPageSize, '\0') + page);
}

TEST_P(UffdTest, AFaultIsReadOnceAndEndsWithItsFill) {
  TestMemory memory(GetParam(), PageCount(2));
  auto uffd = AdoptUffd(OpenRegistered({&memory}));
  ASSERT_TRUE(uffd.ok()) << uffd.status();
  std::string seen;
  std::thread toucher([&] { seen = memory.Read(kPageSize, kPageSize); });
  pollfd readable{(*uffd)->fd(), POLLIN, 0};
  ASSERT_EQ(poll(&readable, 1, 10000), 1);
  std::vector<UffdEvent> events;
  ASSERT_EQ(*(*uffd)->Read(&events), 1u);
  const auto* fault = std::get_if<FaultEvent>(&events[0]);
  ASSERT_NE(fault, nullptr);
  EXPECT_EQ(fault->address, memory.address() + kPageSize);
  EXPECT_EQ(*(*uffd)->Read(&events), 0u);
  const std::string page(kPageSize, 'y');
  EXPECT_EQ((*uffd)->Copy(fault->address, Bytes(page)).error, 0);
  toucher.join();
  EXPECT_EQ(seen, page);
}

TEST_P(UffdTest, ABatchThatMeetsAPresentPageReportsItsProgress) {
  TestMemory memory(GetParam(), PageCount(4));
  auto uffd = AdoptUffd(OpenRegistered({&memory}));
  ASSERT_TRUE(uffd.ok()) << uffd.status();
  const std::string pages(4 * kPageSize, 'z');
  ASSERT_EQ((*uffd)->Copy(memory.address() + 2 * kPageSize, Bytes(pages).first(kPageSize)).error,
            0);
  const FillResult first = (*uffd)->Copy(memory.address(), Bytes(pages));
  EXPECT_EQ(first.error, EAGAIN);
  EXPECT_EQ(first.bytes_done, 2 * kPageSize);
  const FillResult second =
      (*uffd)->Copy(memory.address() + 2 * kPageSize, Bytes(pages).first(2 * kPageSize));
  EXPECT_EQ(second.error, EEXIST);
  EXPECT_EQ(second.bytes_done, 0u);
}

TEST_P(UffdTest, APoisonedPageGetsSigbusAndACopyHealsIt) {
  TestMemory memory(GetParam(), PageCount(2));
  auto uffd = AdoptUffd(OpenRegistered({&memory}));
  ASSERT_TRUE(uffd.ok()) << uffd.status();
  const FillResult result = (*uffd)->Poison({memory.address(), kPageSize});
  if (result.error == EINVAL) GTEST_SKIP() << "UFFDIO_POISON needs Linux 6.6";
  ASSERT_EQ(result.error, 0);
  EXPECT_TRUE(ReadGetsSigbus(memory.address()));
  const std::string page(kPageSize, 'h');
  EXPECT_EQ((*uffd)->Copy(memory.address(), Bytes(page)).error, 0);
  EXPECT_EQ(memory.Read(0, kPageSize), page);
}

TEST_P(UffdTest, UnregisteredMemoryGivesEnoent) {
  TestMemory memory(GetParam(), PageCount(2));
  TestMemory other(GetParam(), PageCount(2));
  auto uffd = AdoptUffd(OpenRegistered({&memory}));
  ASSERT_TRUE(uffd.ok()) << uffd.status();
  EXPECT_EQ((*uffd)->Zero(other.range()).error, ENOENT);
}

TEST_P(UffdTest, AFreshDescriptorIsRegisteredByItsReceiver) {
  TestMemory memory(GetParam(), PageCount(2));
  auto uffd = AdoptFreshUffd(*OpenUffd(), uapi::kFeatureEventRemap | uapi::kFeatureEventUnmap);
  ASSERT_TRUE(uffd.ok()) << uffd.status();
  EXPECT_EQ((*uffd)->features(), uapi::kFeatureEventRemap | uapi::kFeatureEventUnmap);
  ASSERT_TRUE((*uffd)->Register(memory.range()).ok());
  EXPECT_EQ((*uffd)->Zero(memory.range()).error, 0);
  EXPECT_TRUE((*uffd)->Unregister(memory.range()).ok());
}

INSTANTIATE_TEST_SUITE_P(Kinds, UffdTest,
                         testing::Values(MemoryKind::kAnonymous, MemoryKind::kShmem,
                                         MemoryKind::kMemfd),
                         [](const auto& param) { return MemoryKindName(param.param); });

class UffdAdoptTest : public testing::Test {
 protected:
  void SetUp() override { FAULTLINE_REQUIRE_UFFD(); }
};

TEST_F(UffdAdoptTest, FeaturesAreLearntFromTheDescriptor) {
  auto uffd = AdoptUffd(OpenRegistered({}, uapi::kFeatureEventRemove));
  ASSERT_TRUE(uffd.ok()) << uffd.status();
  EXPECT_EQ((*uffd)->features(), uapi::kFeatureEventRemove);
}

TEST_F(UffdAdoptTest, ADescriptorThatIsNoUserfaultfdIsRefused) {
  const auto uffd = AdoptUffd(UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC)));
  EXPECT_THAT(std::string(uffd.status().message()), HasSubstr("no userfaultfd but \"/dev/null\""));
}

TEST_F(UffdAdoptTest, ADescriptorBeforeUffdioApiIsRefused) {
  const auto uffd = AdoptUffd(*OpenUffd());
  EXPECT_THAT(std::string(uffd.status().message()), HasSubstr("before UFFDIO_API"));
}

TEST_F(UffdAdoptTest, ADescriptorPastUffdioApiIsNotFresh) {
  const auto uffd = AdoptFreshUffd(OpenRegistered({}), 0);
  EXPECT_THAT(std::string(uffd.status().message()), HasSubstr("already called"));
}

TEST_F(UffdAdoptTest, MemoryOfAFileIsRefusedWithTheReason) {
  auto uffd = AdoptFreshUffd(*OpenUffd(), 0);
  ASSERT_TRUE(uffd.ok()) << uffd.status();
  const UniqueFd self(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  void* at = mmap(nullptr, kPageSize, PROT_READ, MAP_PRIVATE, self.get(), 0);
  ASSERT_NE(at, MAP_FAILED);
  const absl::Status status = (*uffd)->Register({reinterpret_cast<uint64_t>(at), kPageSize});
  EXPECT_THAT(std::string(status.message()), HasSubstr("neither private anonymous nor shared"));
  munmap(at, kPageSize);
}

}  // namespace
}  // namespace faultline
