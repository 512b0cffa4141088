// SPDX-License-Identifier: Apache-2.0
#include "client/experiment/swap_limit.h"

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <absl/strings/strip.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <thread>
#include <utility>

#include "client/unique_fd.h"
#include "proto/page.h"
#include "proto/units.h"

namespace faultline::experiment {
namespace {

constexpr auto kPatience = std::chrono::seconds(5);

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  const UniqueFd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (file.get() >= 0 && write(file.get(), text.data(), text.size()) >= 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot write \"", text, "\" to ", path));
}

absl::Status Impossible(absl::string_view why, absl::string_view what_to_do) {
  return absl::FailedPreconditionError(
      absl::StrCat("the baseline of kernel swap cannot be had: ", why, "; ", what_to_do,
                   ", or leave it out: baselines.swap = false"));
}

// The form that mkswap(8) writes, of which the kernel reads these fields.
struct SwapHeader {
  char boot_bits[1024];
  uint32_t version;
  uint32_t last_page;
  uint32_t bad_pages;
  char unused[kPageSize - 1024 - 3 * sizeof(uint32_t) - 10];
  char magic[10];
};
static_assert(sizeof(SwapHeader) == kPageSize);

absl::Status WriteSwapFile(const std::string& path, uint64_t bytes) {
  const UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (file.get() < 0) {
    return Impossible(absl::StrCat("cannot make ", path, ": ", strerror(errno)),
                      "name another folder: baselines.swap-directory");
  }
  // Without holes: the kernel wants to know where on the disk each page is.
  if (const int error = posix_fallocate(file.get(), 0, static_cast<off_t>(bytes)); error != 0) {
    return Impossible(
        absl::StrCat("no room for ", FormatBytes(bytes), " in ", path, ": ", strerror(error)),
        "make room, or name another folder: baselines.swap-directory");
  }
  SwapHeader header = {};
  header.version = 1;
  header.last_page = static_cast<uint32_t>(bytes / kPageSize - 1);
  memcpy(header.magic, "SWAPSPACE2", sizeof header.magic);
  if (pwrite(file.get(), &header, sizeof header, 0) == sizeof header && fsync(file.get()) == 0) {
    return absl::OkStatus();
  }
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
}

// With the highest priority: of several swap areas, this is the one that is measured.
absl::Status TurnOn(const std::string& path) {
  if (swapon(path.c_str(), SWAP_FLAG_PREFER | SWAP_FLAG_PRIO_MASK) == 0) return absl::OkStatus();
  if (errno == EPERM) return Impossible("swapon needs root", "run the experiment as root");
  return Impossible(absl::StrCat("swapon of ", path, ": ", strerror(errno)),
                    "name a folder on a file system that can have swap files, such as ext4 (not "
                    "tmpfs, overlay or "
                    "NFS): baselines.swap-directory");
}

absl::Status MakeGroup(const MemoryGroups& groups, uint64_t limit_bytes, const std::string& path) {
  if (groups.unified) {
    // Where it is on already this changes nothing.
    static_cast<void>(WriteFile(groups.directory + "/cgroup.subtree_control", "+memory"));
  }
  if (mkdir(path.c_str(), 0755) != 0) {
    return Impossible(absl::StrCat("cannot make the control group ", path, ": ", strerror(errno)),
                      "run the experiment as root, where /sys/fs/cgroup can be written");
  }
  const absl::Status limited =
      WriteFile(absl::StrCat(path, "/", groups.limit), absl::StrCat(limit_bytes));
  if (limited.ok()) return absl::OkStatus();
  return Impossible(limited.message(),
                    groups.unified
                        ? "let the group above have the memory controller in its "
                          "cgroup.subtree_control, for which it must have no processes of its own"
                        : "run the experiment where the memory controller works");
}

// Programs of it may still be on their way out.
void RemoveGroup(const std::string& path) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (rmdir(path.c_str()) != 0 && errno == EBUSY && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

// Of an experiment that was killed.
void RemoveLeftSwapFile(const std::string& path) {
  swapoff(path.c_str());
  unlink(path.c_str());
}

struct Mount {
  std::string root, point, type;
  bool has_memory = false;
};

// Of one line of /proc/self/mountinfo: see proc(5).
Mount ParseMount(absl::string_view line) {
  const std::pair<absl::string_view, absl::string_view> halves =
      absl::StrSplit(line, absl::MaxSplits(" - ", 1));
  const std::vector<absl::string_view> before = absl::StrSplit(halves.first, ' ');
  const std::vector<absl::string_view> after = absl::StrSplit(halves.second, ' ');
  if (before.size() < 5 || after.size() < 3) return {};
  const std::vector<absl::string_view> options = absl::StrSplit(after[2], ',');
  return {std::string(before[3]), std::string(before[4]), std::string(after[0]),
          std::find(options.begin(), options.end(), "memory") != options.end()};
}

}  // namespace

absl::StatusOr<MemoryGroups> FindMemoryGroups(absl::string_view own_groups,
                                              absl::string_view mounts) {
  std::string legacy, unified;  // of this process, in each kind of hierarchy
  bool has_legacy = false;
  for (const absl::string_view line : absl::StrSplit(own_groups, '\n')) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() < 3) continue;
    const std::vector<absl::string_view> controllers = absl::StrSplit(fields[1], ',');
    if (std::find(controllers.begin(), controllers.end(), "memory") != controllers.end()) {
      has_legacy = true;
      legacy = std::string(fields[2]);
    } else if (fields[0] == "0" && fields[1].empty()) {
      unified = std::string(fields[2]);
    }
  }
  for (const absl::string_view line : absl::StrSplit(mounts, '\n')) {
    const Mount mount = ParseMount(line);
    if (has_legacy && mount.type == "cgroup" && mount.has_memory) {
      absl::string_view below = legacy;
      if (mount.root != "/") absl::ConsumePrefix(&below, mount.root);
      return MemoryGroups{absl::StrCat(mount.point, below == "/" ? "" : below),
                          "memory.limit_in_bytes", false};
    }
    // A group that has processes of its own may have none below it with a controller; the root may.
    if (!has_legacy && mount.type == "cgroup2")
      return MemoryGroups{mount.point, "memory.max", true};
  }
  return absl::NotFoundError("no control groups of memory are mounted");
}

absl::StatusOr<SwapLimit> SwapLimit::Create(const std::string& directory, uint64_t swap_bytes,
                                            uint64_t limit_bytes) {
  const absl::StatusOr<MemoryGroups> groups =
      FindMemoryGroups(ReadFile("/proc/self/cgroup"), ReadFile("/proc/self/mountinfo"));
  if (!groups.ok()) {
    return Impossible(groups.status().message(), "mount the cgroup file system");
  }
  SwapLimit limit;
  const std::string file = directory + "/experiment.swap";
  RemoveLeftSwapFile(file);
  const uint64_t bytes = PageCount::CoveringBytes(swap_bytes).in_bytes() + kPageSize;
  limit.swap_file_ = file;
  if (absl::Status status = WriteSwapFile(file, bytes); !status.ok()) return status;
  if (absl::Status status = TurnOn(file); !status.ok()) return status;
  const std::string group = absl::StrCat(groups->directory, "/faultline-experiment.", getpid());
  if (absl::Status status = MakeGroup(*groups, limit_bytes, group); !status.ok()) {
    rmdir(group.c_str());
    return status;
  }
  limit.group_ = group;
  return limit;
}

SwapLimit::SwapLimit(SwapLimit&& other) noexcept
    : swap_file_(std::exchange(other.swap_file_, "")), group_(std::exchange(other.group_, "")) {}

SwapLimit::~SwapLimit() {
  if (!group_.empty()) RemoveGroup(group_);
  if (!swap_file_.empty()) RemoveLeftSwapFile(swap_file_);
}

std::vector<std::string> SwapLimit::Wrap(const std::vector<std::string>& argv) const {
  std::vector<std::string> wrapped = {"/bin/sh", "-c", "echo $$ >\"$0\" && exec \"$@\"",
                                      group_ + "/cgroup.procs"};
  wrapped.insert(wrapped.end(), argv.begin(), argv.end());
  return wrapped;
}

SwapTraffic ReadSwapTraffic() {
  SwapTraffic traffic;
  for (const absl::string_view line : absl::StrSplit(ReadFile("/proc/vmstat"), '\n')) {
    const std::pair<absl::string_view, absl::string_view> fields =
        absl::StrSplit(line, absl::MaxSplits(' ', 1));
    uint64_t pages = 0;
    if (!absl::SimpleAtoi(fields.second, &pages)) continue;
    if (fields.first == "pswpin") traffic.read_pages = pages;
    if (fields.first == "pswpout") traffic.written_pages = pages;
  }
  return traffic;
}

}  // namespace faultline::experiment
