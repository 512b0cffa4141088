// SPDX-License-Identifier: Apache-2.0
//
// Real processes with memory of each kind, attached by a Pager on the real kernel.
#include "client/attach/process_attach.h"

#include <absl/strings/match.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <filesystem>
#include <thread>

#include "client/attach/test_target.h"
#include "client/pager.h"
#include "client/source/memory_page_source.h"
#include "client/uffd/test_memory.h"

namespace faultline {
namespace {

constexpr uint64_t kPages = 256;
constexpr uint64_t kBytes = kPages * kPageSize;

std::string Content() {
  std::string content(kBytes, '\0');
  for (uint64_t i = 0; i < kBytes; ++i) {
    if (i / kPageSize % 9 != 4)
      content[i] = static_cast<char>(i / kPageSize * 131 + i * 3 + i / 64);
  }
  return content;
}

struct Case {
  std::string memory;  // "anon", "memfd" or "file"
  std::vector<std::string> args;
};

class ProcessAttachTest : public testing::Test {
 protected:
  void SetUp() override {
    FAULTLINE_REQUIRE_UFFD();
    pager_ = *Pager::Create({.readers = 1});
    path_ = absl::StrCat("/dev/shm/faultline-attach-test-", getpid());
    std::filesystem::remove(path_);
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::vector<std::string> Args(const std::string& memory, std::vector<std::string> rest) const {
    rest.insert(rest.begin(),
                absl::StrCat(memory, memory == "file" ? ":" + path_ : "", ":", kBytes));
    return rest;
  }
  MemoryChoice Choice(const std::string& memory) const {
    if (memory == "file") return MemoryOfFile{path_};
    if (memory == "memfd") return MemoryOfFile{"/memfd:attach-target"};
    return AnonymousMemory{kBytes};
  }
  absl::StatusOr<TakenMemory> Take(const TestTarget& target, const MemoryChoice& choice,
                                   const ProcessAttachOptions& options = Patient()) {
    absl::StatusOr<TargetMemory> memory = FindTargetMemory(target.pid(), choice);
    if (!memory.ok()) return memory.status();
    return TakeMemory(target.pid(), target.pidfd(), *memory, options);
  }
  static ProcessAttachOptions Patient() { return {.patience = absl::Minutes(5)}; }
  void Attach(const TestTarget& target, TakenMemory taken) {
    AttachRequest request;
    request.uffd = std::move(taken.uffd);
    request.mappings = {{taken.range.start, taken.range.length, 0}};
    request.pid = target.pid();
    request.pidfd.reset(dup(target.pidfd()));
    request.volume = "test";
    request.source = std::make_shared<MemoryPageSource>(content_);
    const auto id = pager_->Attach(std::move(request));
    ASSERT_TRUE(id.ok()) << id.status();
  }

  const std::string content_ = Content();
  std::string path_;
  std::unique_ptr<Pager> pager_;
};

class EachMemoryTest : public ProcessAttachTest, public testing::WithParamInterface<Case> {};

TEST_P(EachMemoryTest, EveryByteIsTheVolumesAndTheProcessUnharmed) {
  if (getuid() != 0 && GetParam().args.size() > 1) GTEST_SKIP() << "needs root";
  TestTarget target(Args(GetParam().memory, GetParam().args));
  absl::StatusOr<TakenMemory> taken = Take(target, Choice(GetParam().memory));
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(taken->range, (AddressRange{target.address(), kBytes}));
  RecordProperty("stopped_us", absl::FormatDuration(taken->times.stopped));
  RecordProperty("altered_us", absl::FormatDuration(taken->times.altered));
  Attach(target, *std::move(taken));
  EXPECT_EQ(target.Release(), "unharmed");
  // Not EXPECT_EQ, which would print both.
  EXPECT_TRUE(target.ReadMemory() == content_);
}

INSTANTIATE_TEST_SUITE_P(All, EachMemoryTest,
                         testing::Values(Case{"anon", {"ppoll"}}, Case{"memfd", {"ppoll"}},
                                         Case{"file", {"ppoll"}}, Case{"anon", {"nanosleep"}},
                                         Case{"file", {"futex"}}, Case{"memfd", {"busy"}},
                                         Case{"anon", {"busy", "signals", "threads"}},
                                         Case{"file", {"ppoll", "sandbox"}},
                                         Case{"anon", {"futex", "sandbox"}},
                                         Case{"memfd", {"ppoll", "signals", "threads"}}),
                         [](const testing::TestParamInfo<Case>& one) {
                           std::string name = one.param.memory;
                           for (const std::string& word : one.param.args) name += "_" + word;
                           return name;
                         });

// What is refused leaves the target unharmed, and with all of its memory its own.
void ExpectRefused(const absl::Status& status, TestTarget& target, absl::string_view message) {
  EXPECT_TRUE(absl::StrContains(status.message(), message)) << status;
  EXPECT_EQ(target.CountUserfaultfds(), 0);
  EXPECT_EQ(target.StatusField("TracerPid:\t"), "0");
  EXPECT_EQ(target.Release(), "unharmed");
  // The first page is what some of them have touched.
  EXPECT_TRUE(target.ReadMemory().substr(kPageSize) == std::string(kBytes - kPageSize, '\0'));
}

TEST_F(ProcessAttachTest, MemoryThatIsThereAlreadyIsRefused) {
  for (const char* memory : {"anon", "memfd", "file"}) {
    TestTarget target(Args(memory, {"ppoll", "touched"}));
    ExpectRefused(Take(target, Choice(memory)).status(), target, "4KiB of that memory of process");
    std::filesystem::remove(path_);
  }
}

// The file may have pages that this mapping of it has not touched.
TEST_F(ProcessAttachTest, FileThatIsNotEmptyIsRefused) {
  TestTarget target(Args("file", {"ppoll"}));
  const UniqueFd file(open(path_.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(pwrite(file.get(), "x", 1, 0), 1);
  ExpectRefused(Take(target, Choice("file")).status(), target, "are there already");
}

TEST_F(ProcessAttachTest, FileWhoseSpaceIsAllocatedIsRefused) {
  TestTarget target(Args("file", {"ppoll"}));
  const UniqueFd file(open(path_.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(fallocate(file.get(), 0, 0, kBytes), 0);
  ExpectRefused(Take(target, Choice("file")).status(), target, "1MiB of that memory");
}

TEST_F(ProcessAttachTest, MemoryThatIsNotThereIsRefusedNamingWhatIs) {
  TestTarget target(Args("anon", {"ppoll"}));
  const absl::Status other = Take(target, AnonymousMemory{kBytes * 2}).status();
  EXPECT_TRUE(absl::IsNotFound(other));
  EXPECT_TRUE(absl::StrContains(other.message(), "; it has ")) << other;
  EXPECT_TRUE(absl::StrContains(other.message(), "(1MiB, rw-p)")) << other;
  ExpectRefused(Take(target, MemoryOfFile{"/dev/shm/no such file"}).status(), target,
                "no writable mapping of /dev/shm/no such file");
}

TEST_F(ProcessAttachTest, OneOfSeveralMappingsIsChosenByItsRange) {
  TestTarget target(Args("file", {"ppoll", "twice"}));
  EXPECT_TRUE(absl::StrContains(Take(target, Choice("file")).status().message(),
                                "2 times a writable mapping"));
  ExpectRefused(Take(target, AddressRange{target.address() - kPageSize, kBytes}).status(), target,
                "one mapping, writable and anonymous or of one file");
}

TEST_F(ProcessAttachTest, AttachedMemoryIsRefused) {
  TestTarget target(Args("anon", {"ppoll"}));
  absl::StatusOr<TakenMemory> taken = Take(target, Choice("anon"));
  ASSERT_TRUE(taken.ok()) << taken.status();
  const absl::Status again = Take(target, Choice("anon")).status();
  EXPECT_TRUE(absl::StrContains(again.message(), "is registered with a userfaultfd already"))
      << again;
  EXPECT_EQ(target.CountUserfaultfds(), 1);
  ASSERT_TRUE(GiveBack(*std::move(taken)).ok());
  EXPECT_EQ(target.CountUserfaultfds(), 0);
  EXPECT_EQ(target.Release(), "unharmed");
  EXPECT_EQ(target.ReadMemory(), std::string(kBytes, '\0'));
}

// Neither does memory turn into zeros, nor does anybody hang who has not touched it.
TEST_F(ProcessAttachTest, TargetWaitsWhereTheAgentDies) {
  TestTarget target(Args("anon", {"ppoll"}));
  absl::StatusOr<TakenMemory> taken = Take(target, Choice("anon"));
  ASSERT_TRUE(taken.ok()) << taken.status();
  const int number = taken->target_descriptor;
  taken->uffd.reset();
  EXPECT_EQ(target.Release(), "unharmed");
  while (target.State()[0] != 'S') usleep(1000);
  // Another agent takes the copy that the target has.
  TakenMemory again;
  again.uffd.reset(static_cast<int>(syscall(SYS_pidfd_getfd, target.pidfd(), number, 0)));
  ASSERT_TRUE(again.uffd);
  again.range = {target.address(), kBytes};
  Attach(target, std::move(again));
  EXPECT_TRUE(target.ReadMemory() == content_);
}

TEST_F(ProcessAttachTest, ProcessWithoutThePrivilegeOpensADeviceThatItMay) {
  if (getuid() != 0) GTEST_SKIP() << "needs root";
  TestTarget target(Args("anon", {"ppoll", "user:4711"}));
  ProcessAttachOptions options = Patient();
  struct stat info;
  if (stat("/dev/userfaultfd", &info) != 0) GTEST_SKIP() << "needs Linux 6.1";
  const absl::Status refused = Take(target, Choice("anon"), options).status();
  if (refused.ok()) GTEST_SKIP() << "everybody may have a userfaultfd here";
  EXPECT_TRUE(absl::StrContains(refused.message(), "mknod PATH c 10")) << refused;
  options.device = absl::StrCat("/dev/faultline-attach-test-", getpid());
  ASSERT_EQ(mknod(options.device.c_str(), S_IFCHR | 0600, info.st_rdev), 0);
  ASSERT_EQ(chown(options.device.c_str(), 4711, 4711), 0);
  absl::StatusOr<TakenMemory> taken = Take(target, Choice("anon"), options);
  std::filesystem::remove(options.device);
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(target.CountUserfaultfds(), 1);
  Attach(target, *std::move(taken));
  EXPECT_EQ(target.Release(), "unharmed");
  EXPECT_TRUE(target.ReadMemory() == content_);
}

TEST(AddressRangeText, IsReadAsTheKernelWritesIt) {
  EXPECT_EQ(*ParseAddressRange("7f0000000000-7f0000002000"),
            (AddressRange{0x7f0000000000, 0x2000}));
  for (const char* text :
       {"", "7f0000000000", "1000-1000", "2000-1000", "1000-2001", "1000-2000x"}) {
    EXPECT_FALSE(ParseAddressRange(text).ok()) << text;
  }
}

}  // namespace
}  // namespace faultline
