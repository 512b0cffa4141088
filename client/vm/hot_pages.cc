// SPDX-License-Identifier: Apache-2.0
#include "client/vm/hot_pages.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/strip.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "client/attach/process_attach.h"
#include "client/attach/syscall_injection.h"
#include "client/attach/target_memory.h"
#include "client/process_maps.h"
#include "client/uffd/uapi.h"

namespace faultline {
namespace {

// What runs all the time in a guest does so more often, with its timer.
constexpr auto kLookInterval = std::chrono::milliseconds(20);
constexpr unsigned kLeastLooks = 5, kMostLooks = 15;
// For the main thread to stop. A machine that is busy with something is not worth more.
constexpr absl::Duration kPatience = absl::Seconds(1);
// With one injected call at most so much of the page tables, so that its stop is a short one.
constexpr uint64_t kUnmapBytes = uint64_t{1} << 30;

// A userfaultfd of the process, with `range` registered for write-protection; or none.
UniqueFd RegisterForProtection(pid_t pid, int pidfd, AddressRange range) {
  absl::StatusOr<UniqueFd> uffd = BorrowUffd(pid, pidfd, {.patience = kPatience});
  if (!uffd.ok()) return UniqueFd();
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = uapi::kFeaturePagefaultFlagWp | uapi::kFeatureWpHugetlbfsShmem;
  if (ioctl(uffd->get(), UFFDIO_API, &api) != 0) return UniqueFd();
  uffdio_register request{};
  request.range = {range.start, range.length};
  request.mode = UFFDIO_REGISTER_MODE_WP;
  if (ioctl(uffd->get(), UFFDIO_REGISTER, &request) != 0) return UniqueFd();
  return *std::move(uffd);
}

bool IsRegistered(pid_t pid, AddressRange range) {
  const std::vector<VmArea> areas = ReadSmaps(pid);
  return std::any_of(areas.begin(), areas.end(), [&](const VmArea& area) {
    return area.registered && area.range.Overlaps(range);
  });
}

}  // namespace

std::vector<bool> ChooseHotPages(const std::vector<uint8_t>& touched, unsigned looks,
                                 PageCount most) {
  std::array<uint64_t, 256> pages_touched{};  // how many pages were touched so often
  for (const uint8_t times : touched) ++pages_touched[times];
  const unsigned least = std::max(2u, (looks + 1) / 2);
  uint64_t room = most.raw();
  unsigned bar = 256;  // those that were touched so often, or more, all have room
  while (bar > least && pages_touched[bar - 1] <= room) room -= pages_touched[--bar];
  std::vector<bool> hot(touched.size());
  for (size_t i = 0; i < touched.size(); ++i) {
    if (touched[i] >= bar) {
      hot[i] = true;
    } else if (bar > least && touched[i] + 1u == bar && room > 0) {
      hot[i] = true;
      --room;
    }
  }
  return hot;
}

absl::StatusOr<std::unique_ptr<HotPageSampler>> HotPageSampler::Start(pid_t pid,
                                                                      const std::string& file) {
  std::error_code error;
  std::string path = std::filesystem::read_symlink(file, error).string();
  if (error) path = file;
  const absl::StatusOr<TargetMemory> memory =
      FindTargetMemory(pid, MemoryOfFile{std::string(absl::StripSuffix(path, " (deleted)"))});
  if (!memory.ok()) return memory.status();
  if (!memory->shared) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is not mapped shared"));
  }
  if (IsRegistered(pid, memory->range)) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is served by a userfaultfd"));
  }
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) return absl::ErrnoToStatus(errno, absl::StrCat("pidfd_open of process ", pid));
  std::unique_ptr<HotPageSampler> sampler(new HotPageSampler(
      pid, std::move(pidfd), memory->range, PageIndex::Containing(memory->file_offset)));
  sampler->touched_.resize(memory->range.length / kPageSize);
  sampler->uffd_ = RegisterForProtection(pid, sampler->pidfd_.get(), memory->range);
  if (absl::Status status = sampler->Unmap(); !status.ok()) return status;
  sampler->thread_ = std::thread([&sampler = *sampler] { sampler.Run(); });
  return sampler;
}

HotPageSampler::~HotPageSampler() {
  if (thread_.joinable()) Finish().IgnoreError();
}

absl::Status HotPageSampler::Unmap() {
  for (uint64_t at = range_.start; at < range_.end(); at += kUnmapBytes) {
    const uint64_t length = std::min(kUnmapBytes, range_.end() - at);
    const absl::StatusOr<InjectionTimes> times =
        InjectSyscalls(pid_, kPatience, [&](StoppedThread& thread) -> absl::Status {
          const absl::StatusOr<int64_t> done =
              thread.Call(SYS_madvise, {at, length, MADV_DONTNEED});
          if (!done.ok()) return done.status();
          if (*done == 0) return absl::OkStatus();
          return absl::ErrnoToStatus(static_cast<int>(-*done), "madvise of QEMU's RAM");
        });
    if (!times.ok()) return times.status();
  }
  return absl::OkStatus();
}

absl::Status HotPageSampler::Look() {
  for (const AddressRange& present : PresentPages(pid_, range_)) {
    const uint64_t first = (present.start - range_.start) / kPageSize;
    for (uint64_t i = 0; i < present.length / kPageSize; ++i) ++touched_[first + i];
  }
  ++looks_;
  return Unmap();
}

bool HotPageSampler::WaitForNextLook() {
  // Not cut short by the end: a look at less time sees less.
  std::this_thread::sleep_for(kLookInterval);
  MutexLock lock(mu_);
  return looks_ < kMostLooks && (!finish_ || looks_ < kLeastLooks);
}

void HotPageSampler::Run() {
  while (WaitForNextLook()) {
    if (status_ = Look(); !status_.ok()) break;
  }
}

absl::StatusOr<PageSet> HotPageSampler::Finish() {
  {
    MutexLock lock(mu_);
    finish_ = true;
  }
  thread_.join();
  uffd_.reset();
  if (!status_.ok()) return status_;
  absl::StatusOr<PageSet> pages =
      PageSet::Create(first_ + PageCount(touched_.size()) - PageIndex(0));
  if (!pages.ok()) return pages;
  const std::vector<bool> hot = ChooseHotPages(touched_, looks_, kMostHotPages);
  for (size_t i = 0; i < hot.size(); ++i) {
    if (hot[i]) pages->Insert(first_ + PageCount(i));
  }
  return pages;
}

}  // namespace faultline
