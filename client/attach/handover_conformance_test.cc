// SPDX-License-Identifier: Apache-2.0
//
// The handovers of every Firecracker version, byte for byte, against the real server and pager on
// the real kernel: whatever a version sends, leaves out or does with its connection, and wherever
// its one message is cut, every byte of its memory is right.
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "client/attach/handover_server.h"
#include "client/attach/test_peer.h"
#include "client/pager.h"
#include "client/source/memory_page_source.h"
#include "client/uffd/test_memory.h"

namespace faultline {
namespace {

constexpr uint64_t kPages = 6;  // of the volume

std::string Content() {
  std::string content(kPages * kPageSize, '\0');
  for (uint64_t i = 0; i < content.size(); ++i) {
    if (i / kPageSize != 2)
      content[i] = static_cast<char>(i / kPageSize * 131 + i * 3 + i / 64 + 1);
  }
  return content;
}

enum class AfterSending { kCloses, kStays };

struct Version {
  std::string name;
  // One region, as its JSON text has it; $A, $S and $O stand for its address, size and offset.
  std::string region;
  std::vector<uint64_t> region_pages;  // in the order of their offsets
  AfterSending after = AfterSending::kCloses;
  size_t further_descriptors = 0;
  uint64_t features = 0;
  uint64_t modes = UFFDIO_REGISTER_MODE_MISSING;
  int open_flags = 0;  // beside O_CLOEXEC | O_NONBLOCK
};

// For GoogleTest's messages.
[[maybe_unused]] void PrintTo(const Version& version, std::ostream* out) { *out << version.name; }

constexpr char kOldest[] = R"({"base_host_virt_addr":$A,"size":$S,"offset":$O})";
constexpr char kWithKib[] =
    R"({"base_host_virt_addr":$A,"size":$S,"offset":$O,"page_size_kib":4096})";
constexpr char kWithBoth[] =
    R"({"base_host_virt_addr":$A,"size":$S,"offset":$O,"page_size":4096,"page_size_kib":4096})";
constexpr char kNewest[] = R"({"base_host_virt_addr":$A,"size":$S,"offset":$O,"page_size":4096})";
constexpr char kSecretHiding[] =
    R"({"base_host_virt_addr":$A,"size":$S,"offset":$O,"page_size":4096,"page_size_kib":4096,)"
    R"("gpa_start":$O,"is_guest_memfd":false})";

constexpr int kUserModeOnly = 1;  // UFFD_USER_MODE_ONLY
constexpr uint64_t kRemove = UFFD_FEATURE_EVENT_REMOVE;
constexpr uint64_t kWriteProtect = UFFD_FEATURE_PAGEFAULT_FLAG_WP | kRemove;
constexpr uint64_t kMissingAndWp = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP;

std::vector<Version> Versions() {
  return {
      {.name = "v1_1_to_v1_4", .region = kOldest, .region_pages = {6}, .open_flags = kUserModeOnly},
      {.name = "v1_1_to_v1_4_with_a_balloon",
       .region = kOldest,
       .region_pages = {6},
       .features = kRemove,
       .open_flags = kUserModeOnly},
      {.name = "v1_5_and_v1_6", .region = kOldest, .region_pages = {2, 4}, .features = kRemove},
      {.name = "v1_7_to_v1_11", .region = kWithKib, .region_pages = {6}},
      {.name = "v1_7_to_v1_11_of_three_regions",
       .region = kWithKib,
       .region_pages = {3, 1, 2},
       .features = kRemove},
      {.name = "v1_12_to_v1_16",
       .region = kWithBoth,
       .region_pages = {6},
       .after = AfterSending::kStays,
       .features = kRemove},
      {.name = "v1_12_to_v1_16_of_three_regions",
       .region = kWithBoth,
       .region_pages = {1, 2, 3},
       .after = AfterSending::kStays,
       .features = kRemove},
      {.name = "v2_0",
       .region = kNewest,
       .region_pages = {4, 2},
       .after = AfterSending::kStays,
       .features = kRemove},
      {.name = "e2b_with_a_memfd",
       .region = kWithBoth,
       .region_pages = {6},
       .after = AfterSending::kStays,
       .further_descriptors = 1,
       .features = kWriteProtect,
       .modes = kMissingAndWp},
      {.name = "secret_hiding",
       .region = kSecretHiding,
       .region_pages = {4, 2},
       .after = AfterSending::kStays,
       .further_descriptors = 2,
       .features = kRemove},
  };
}

// Memory that is registered as a version does it.
class Guest {
 public:
  explicit Guest(const Version& version)
      : uffd_(static_cast<int>(
            syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | version.open_flags))) {
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = version.features;
    EXPECT_EQ(ioctl(uffd_.get(), UFFDIO_API, &api), 0) << strerror(errno);
    uint64_t offset = 0;
    for (const uint64_t pages : version.region_pages) {
      const TestMemory& memory = *regions_.emplace_back(
          std::make_unique<TestMemory>(MemoryKind::kAnonymous, PageCount(pages)));
      uffdio_register request{};
      request.range = {memory.address(), memory.size()};
      request.mode = version.modes;
      EXPECT_EQ(ioctl(uffd_.get(), UFFDIO_REGISTER, &request), 0) << strerror(errno);
      absl::StrAppend(&text_, text_.empty() ? "[" : ",",
                      absl::StrReplaceAll(version.region, {{"$A", absl::StrCat(memory.address())},
                                                           {"$S", absl::StrCat(memory.size())},
                                                           {"$O", absl::StrCat(offset)}}));
      offset += memory.size();
    }
    text_ += "]";
  }

  const std::string& text() const { return text_; }
  int uffd() const { return uffd_.get(); }
  const TestMemory& region(size_t i) const { return *regions_[i]; }
  // All regions, one after the other, as the volume has them.
  std::string Read() const {
    std::string all;
    for (const auto& memory : regions_) all += memory->Read(0, memory->size());
    return all;
  }

 private:
  UniqueFd uffd_;
  std::vector<std::unique_ptr<TestMemory>> regions_;
  std::string text_;
};

class FirecrackerTest : public testing::TestWithParam<Version> {
 protected:
  void SetUp() override {
    FAULTLINE_REQUIRE_UFFD();
    std::string name = absl::StrCat(testing::TempDir(), "/conformanceXXXXXX");
    folder_ = mkdtemp(name.data());
    pager_ = *Pager::Create({.readers = 1});
    HandoverServerOptions options;
    options.socket_path = absl::StrCat(folder_, "/s");
    options.handover_timeout = absl::Minutes(10);
    options.workers.volume = "vm";
    options.workers.end_peer = [](const PeerProcess&) -> absl::Status {
      // A failure, and without an agent this test would wait for its memory for ever.
      fprintf(stderr, "a handover was refused, and its peer, this test, was to be killed\n");
      abort();
    };
    auto server = HandoverServer::Start(
        options, pager_.get(),
        [this](absl::string_view, absl::Time) -> absl::StatusOr<std::shared_ptr<PageSource>> {
          return source_;
        });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  void TearDown() override {
    server_.reset();
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  // Sends the guest's text in the parts given, the descriptors with the one that `with` counts.
  TestPeer HandOver(const Guest& guest, const std::vector<std::string>& parts, size_t with = 0) {
    const UniqueFd further(static_cast<int>(syscall(SYS_memfd_create, "further", 1)));
    std::vector<int> descriptors = {guest.uffd()};
    descriptors.resize(1 + GetParam().further_descriptors, further.get());
    TestPeer peer(folder_ + "/s");
    for (size_t i = 0; i < parts.size(); ++i) {
      peer.Send(parts[i], i == with ? descriptors : std::vector<int>());
    }
    if (GetParam().after == AfterSending::kCloses) peer.Close();
    return peer;
  }

  void ExpectEveryByte(const Guest& guest) {
    // Not EXPECT_EQ, which would print both.
    EXPECT_TRUE(guest.Read() == content_);
    // Before its memory goes: other attachments of this process have nothing to do with it.
    std::vector<AttachmentStats> attachments;
    while ((attachments = pager_->Attachments()).size() != 1) std::this_thread::yield();
    EXPECT_EQ(attachments[0].pid, getpid());
    EXPECT_EQ(attachments[0].regions, GetParam().region_pages.size());
    EXPECT_EQ(attachments[0].tracked_pages, kPages);
    EXPECT_TRUE(pager_->Detach(attachments[0].id).ok());
  }

  const std::string content_ = Content();
  const std::shared_ptr<PageSource> source_ = std::make_shared<MemoryPageSource>(content_);
  std::string folder_;
  std::unique_ptr<Pager> pager_;
  std::unique_ptr<HandoverServer> server_;
};

TEST_P(FirecrackerTest, EveryByteIsRightWhereverTheMessageIsCut) {
  const size_t length = Guest(GetParam()).text().size();
  for (size_t cut = 1; cut < length; ++cut) {
    const Guest guest(GetParam());
    // Addresses of another length are possible, if not likely.
    if (cut >= guest.text().size()) break;
    const TestPeer peer = HandOver(guest, {guest.text().substr(0, cut), guest.text().substr(cut)});
    ExpectEveryByte(guest);
    ASSERT_FALSE(HasFailure()) << "cut at " << cut << " of " << guest.text();
  }
}

// No version does so, but a descriptor that comes late must not be missed either.
TEST_P(FirecrackerTest, DescriptorsMayComeWithAnyPart) {
  for (size_t with = 0; with < 3; ++with) {
    const Guest guest(GetParam());
    const size_t third = guest.text().size() / 3;
    const TestPeer peer =
        HandOver(guest,
                 {guest.text().substr(0, third), guest.text().substr(third, third),
                  guest.text().substr(2 * third)},
                 with);
    ExpectEveryByte(guest);
  }
}

TEST_P(FirecrackerTest, OneByteAtATimeIsAHandover) {
  const Guest guest(GetParam());
  std::vector<std::string> parts;
  for (const char byte : guest.text()) parts.emplace_back(1, byte);
  const TestPeer peer = HandOver(guest, parts);
  ExpectEveryByte(guest);
}

// The vCPUs run before the agent has so much as read the message.
TEST_P(FirecrackerTest, FaultsBeforeTheHandoverAreServed) {
  const Guest guest(GetParam());
  std::string read;
  std::thread vcpu([&] { read = guest.Read(); });
  const TestPeer peer = HandOver(guest, {guest.text()});
  vcpu.join();
  EXPECT_TRUE(read == content_);
  ExpectEveryByte(guest);
}

// Of the versions that have a balloon.
using FirecrackerBalloonTest = FirecrackerTest;

// A balloon: by madvise, of which those hear who have asked for the event.
TEST_P(FirecrackerBalloonTest, WhatItTakesReadsAsZeros) {
  const Guest guest(GetParam());
  const TestPeer peer = HandOver(guest, {guest.text()});
  while (pager_->Attachments().empty()) std::this_thread::yield();
  // The volume's first page, which was filled, and its last, which was not.
  const TestMemory& last = guest.region(GetParam().region_pages.size() - 1);
  EXPECT_EQ(guest.region(0).Read(0, 1), content_.substr(0, 1));
  for (const uint64_t page :
       {guest.region(0).address(), last.address() + last.size() - kPageSize}) {
    ASSERT_EQ(madvise(reinterpret_cast<void*>(page), kPageSize, MADV_DONTNEED), 0);
  }
  const std::string zeros(kPageSize, '\0');
  EXPECT_TRUE(guest.Read() == zeros + content_.substr(kPageSize, (kPages - 2) * kPageSize) + zeros);
}

// And the balloon before 1.11: by mmap over the memory, of which nobody hears.
TEST_P(FirecrackerTest, MemoryThatIsMappedOverReadsAsZeros) {
  const Guest guest(GetParam());
  const TestPeer peer = HandOver(guest, {guest.text()});
  while (pager_->Attachments().empty()) std::this_thread::yield();
  const TestMemory& memory = guest.region(0);
  void* const page = reinterpret_cast<void*>(memory.address());
  ASSERT_EQ(
      mmap(page, kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
      page);
  EXPECT_TRUE(memory.Read(0, kPageSize) == std::string(kPageSize, '\0'));
  EXPECT_TRUE(guest.Read().substr(kPageSize) == content_.substr(kPageSize));
}

std::string NameOfVersion(const testing::TestParamInfo<Version>& version) {
  return version.param.name;
}

std::vector<Version> VersionsWithBalloon() {
  std::vector<Version> versions = Versions();
  std::erase_if(versions, [](const Version& one) { return (one.features & kRemove) == 0; });
  return versions;
}

INSTANTIATE_TEST_SUITE_P(Versions, FirecrackerTest, testing::ValuesIn(Versions()), NameOfVersion);
INSTANTIATE_TEST_SUITE_P(Versions, FirecrackerBalloonTest, testing::ValuesIn(VersionsWithBalloon()),
                         NameOfVersion);

}  // namespace
}  // namespace faultline
