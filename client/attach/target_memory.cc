// SPDX-License-Identifier: Apache-2.0
#include "client/attach/target_memory.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/strip.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "proto/page.h"
#include "proto/units.h"

namespace faultline {
namespace {

// Of what there is instead, named in a message.
constexpr size_t kMaxNamed = 5;
constexpr size_t kPagemapEntries = size_t{64} << 10;  // read at once
constexpr uint64_t kStatBlockBytes = 512;

// A line of /proc/PID/maps, or neighbouring ones of the same file.
struct Area {
  AddressRange range;
  AddressRange first;       // the line's, before neighbours were added or a part was chosen
  std::string permissions;  // "rw-p"
  uint64_t offset = 0;
  dev_t device = 0;
  ino_t inode = 0;  // 0: of no file
  std::string name;

  bool shared() const { return permissions[3] == 's'; }
  bool usable() const { return permissions[0] == 'r' && permissions[1] == 'w'; }
  bool anonymous() const { return inode == 0 && !shared() && (name.empty() || name[0] == '['); }
};

std::string Describe(const Area& area) {
  char range[64];
  snprintf(range, sizeof range, "%lx-%lx", area.range.start, area.range.end());
  return absl::StrCat(range, " (", FormatBytes(area.range.length), ", ", area.permissions,
                      area.name.empty() ? "" : " ", area.name, ")");
}

std::string DescribeAll(const std::vector<Area>& areas) {
  const size_t count = std::min(areas.size(), kMaxNamed);
  return absl::StrCat(
      absl::StrJoin(areas.begin(), areas.begin() + static_cast<ptrdiff_t>(count), ", ",
                    [](std::string* out, const Area& area) { out->append(Describe(area)); }),
      areas.size() > count ? ", ..." : "");
}

bool Continues(const Area& before, const Area& area) {
  return before.inode != 0 && before.inode == area.inode && before.device == area.device &&
         before.permissions == area.permissions && before.range.end() == area.range.start &&
         before.offset + before.range.length == area.offset;
}

absl::StatusOr<std::vector<Area>> ReadAreas(pid_t pid) {
  std::vector<Area> areas;
  errno = 0;
  std::ifstream file(absl::StrCat("/proc/", pid, "/maps"));
  if (!file) {
    if (errno == ENOENT) return absl::NotFoundError(absl::StrCat("there is no process ", pid));
    return absl::PermissionDeniedError(
        absl::StrCat("may not look at the memory of process ", pid,
                     "; do it as root, or as the user that it runs as"));
  }
  for (std::string line; std::getline(file, line);) {
    Area area;
    uint64_t start, end;
    unsigned major, minor;
    char permissions[5];
    int name = 0;
    if (sscanf(line.c_str(), "%lx-%lx %4s %lx %x:%x %lu %n", &start, &end, permissions,
               &area.offset, &major, &minor, &area.inode, &name) < 7) {
      continue;
    }
    area.range = area.first = {start, end - start};
    area.permissions = permissions;
    area.device = makedev(major, minor);
    area.name = line.substr(std::min<size_t>(static_cast<size_t>(name), line.size()));
    if (!areas.empty() && Continues(areas.back(), area)) {
      areas.back().range.length += area.range.length;
    } else {
      areas.push_back(std::move(area));
    }
  }
  return areas;
}

bool IsNamed(const Area& area, const std::string& path) {
  absl::string_view name = area.name;
  name = absl::StripSuffix(name, " (deleted)");
  if (name == path || (absl::StartsWith(path, "memfd:") && name == "/" + path)) return true;
  const std::unique_ptr<char, decltype(&free)> real(realpath(path.c_str(), nullptr), &free);
  return real != nullptr && name == real.get();
}

// The areas that are meant, and the ones to name where there is not exactly one of these.
struct Search {
  std::vector<Area> found, instead;
  std::string what;
};

Search Look(std::vector<Area> areas, const MemoryOfFile& choice) {
  Search search;
  search.what = absl::StrCat("writable mapping of ", choice.path);
  for (Area& area : areas) {
    if (area.usable() && IsNamed(area, choice.path)) {
      search.found.push_back(std::move(area));
    } else if (area.usable() && area.inode != 0) {
      search.instead.push_back(std::move(area));
    }
  }
  return search;
}

Search Look(std::vector<Area> areas, const AnonymousMemory& choice) {
  Search search;
  search.what =
      absl::StrCat("private anonymous mapping of exactly ", FormatBytes(choice.size_bytes));
  for (Area& area : areas) {
    if (!area.usable() || !area.anonymous()) continue;
    const bool fits = area.range.length == choice.size_bytes;
    (fits ? search.found : search.instead).push_back(std::move(area));
  }
  return search;
}

// The part of one area.
Search Look(std::vector<Area> areas, const AddressRange& choice) {
  Search search;
  search.what = "one mapping, writable and anonymous or of one file, that holds this range";
  for (Area& area : areas) {
    const bool holds = area.range.Contains(choice.start) && choice.end() <= area.range.end();
    if (holds && area.usable() && (area.anonymous() || area.inode != 0)) {
      area.offset += choice.start - area.range.start;
      area.range = choice;
      search.found.push_back(std::move(area));
    } else if (area.range.Overlaps(choice)) {
      search.instead.push_back(std::move(area));
    }
  }
  return search;
}

absl::StatusOr<Area> FindArea(pid_t pid, const MemoryChoice& choice) {
  absl::StatusOr<std::vector<Area>> areas = ReadAreas(pid);
  if (!areas.ok()) return areas.status();
  Search search =
      std::visit([&](const auto& which) { return Look(*std::move(areas), which); }, choice);
  if (search.found.size() == 1) return std::move(search.found.front());
  if (!search.found.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("process ", pid, " has ", search.found.size(), " times a ", search.what, ": ",
                     DescribeAll(search.found), "; choose one with --range=START-END"));
  }
  std::stable_sort(search.instead.begin(), search.instead.end(),
                   [](const Area& a, const Area& b) { return a.range.length > b.range.length; });
  return absl::NotFoundError(absl::StrCat(
      "process ", pid, " has no ", search.what,
      search.instead.empty() ? "" : absl::StrCat("; it has ", DescribeAll(search.instead))));
}

// Opens the file of `area` by whatever leads to it and may be opened: it may have been deleted, and
// closed by the process, and its path may be of another mount namespace.
absl::StatusOr<UniqueFd> OpenFileOf(pid_t pid, const Area& area) {
  char link[96];
  snprintf(link, sizeof link, "/proc/%d/map_files/%lx-%lx", pid, area.first.start,
           area.first.end());
  std::vector<std::string> ways = {link, area.name};
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(absl::StrCat("/proc/", pid, "/fd"), error)) {
    ways.push_back(entry.path());
  }
  for (const std::string& way : ways) {
    struct stat info;
    if (stat(way.c_str(), &info) != 0 || info.st_ino != area.inode || info.st_dev != area.device) {
      continue;
    }
    if (UniqueFd file(open(way.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)); file) return file;
  }
  return absl::PermissionDeniedError(absl::StrCat("cannot open the file of ", Describe(area),
                                                  " of process ", pid,
                                                  " to see whether it is empty; do it as root"));
}

absl::Status CheckFileSystem(const Area& area, int file) {
  struct statfs info;
  if (fstatfs(file, &info) != 0) return absl::ErrnoToStatus(errno, "fstatfs");
  if (info.f_type == TMPFS_MAGIC) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(Describe(area),
                   info.f_type == HUGETLBFS_MAGIC ? " consists of huge pages"
                                                  : " is of a file that is not on tmpfs",
                   "; private anonymous memory, memfds and files on tmpfs (/dev/shm) can be "
                   "attached, in pages of 4096 bytes"));
}

// How many pages of `range` process `pid` has, in memory or swapped out.
absl::StatusOr<uint64_t> CountPages(pid_t pid, AddressRange range) {
  // Documentation/admin-guide/mm/pagemap.rst: one entry for each page.
  constexpr uint64_t kThere = uint64_t{3} << 62;  // present, swapped
  const UniqueFd file(open(absl::StrCat("/proc/", pid, "/pagemap").c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return absl::ErrnoToStatus(errno, absl::StrCat("pagemap of process ", pid));
  std::vector<uint64_t> entries(kPagemapEntries);
  uint64_t count = 0;
  for (uint64_t page = range.start / kPageSize; page < range.end() / kPageSize;) {
    const size_t wanted = std::min<uint64_t>(entries.size(), range.end() / kPageSize - page);
    const ssize_t n = pread(file.get(), entries.data(), wanted * sizeof(uint64_t),
                            static_cast<off_t>(page * sizeof(uint64_t)));
    if (n < static_cast<ssize_t>(sizeof(uint64_t))) {
      return absl::NotFoundError(absl::StrCat("process ", pid, " has ended"));
    }
    const size_t got = static_cast<size_t>(n) / sizeof(uint64_t);
    count += static_cast<uint64_t>(
        std::count_if(entries.begin(), entries.begin() + static_cast<ptrdiff_t>(got),
                      [](uint64_t entry) { return (entry & kThere) != 0; }));
    page += got;
  }
  return count;
}

// How many bytes of `memory`'s file are there within the mapping. Space that was allocated but not
// written (fallocate) is no data to SEEK_DATA, yet userfaultfd does not see it as missing either:
// as the kernel tells its amount only, any of it counts.
absl::StatusOr<uint64_t> CountFileBytes(const TargetMemory& memory) {
  struct stat info;
  if (fstat(memory.file.get(), &info) != 0) return absl::ErrnoToStatus(errno, "fstat");
  const uint64_t begin = memory.file_offset, end = begin + memory.range.length;
  uint64_t all = 0, within = 0;
  for (off_t at = 0; (at = lseek(memory.file.get(), at, SEEK_DATA)) >= 0;) {
    const off_t hole = lseek(memory.file.get(), at, SEEK_HOLE);
    if (hole < 0) return absl::ErrnoToStatus(errno, "SEEK_HOLE");
    const auto from = static_cast<uint64_t>(at), to = static_cast<uint64_t>(hole);
    all += to - from;
    if (from < end && begin < to) within += std::min(to, end) - std::max(from, begin);
    at = hole;
  }
  if (errno != ENXIO) return absl::ErrnoToStatus(errno, "SEEK_DATA");
  const uint64_t allocated = static_cast<uint64_t>(info.st_blocks) * kStatBlockBytes;
  return within != 0 || allocated <= all ? within : allocated - all;
}

}  // namespace

absl::StatusOr<AddressRange> ParseAddressRange(absl::string_view text) {
  uint64_t start = 0, end = 0;
  int length = 0;
  const std::string copy(text);
  if (sscanf(copy.c_str(), "%lx-%lx%n", &start, &end, &length) != 2 ||
      static_cast<size_t>(length) != copy.size() || start >= end || !IsPageAligned(start) ||
      !IsPageAligned(end)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text,
                     "\" is no range of whole pages; write it as /proc/PID/maps does, "
                     "7f0000000000-7f0040000000"));
  }
  return AddressRange{start, end - start};
}

absl::StatusOr<TargetMemory> FindTargetMemory(pid_t pid, const MemoryChoice& choice) {
  absl::StatusOr<Area> area = FindArea(pid, choice);
  if (!area.ok()) return area.status();
  TargetMemory memory;
  memory.range = area->range;
  memory.shared = area->shared();
  if (area->inode == 0) return memory;
  memory.file_offset = area->offset;
  absl::StatusOr<UniqueFd> file = OpenFileOf(pid, *area);
  if (!file.ok()) return file.status();
  memory.file = *std::move(file);
  if (absl::Status status = CheckFileSystem(*area, memory.file.get()); !status.ok()) return status;
  return memory;
}

absl::Status CheckNothingIsResident(pid_t pid, const TargetMemory& memory) {
  absl::StatusOr<uint64_t> pages = CountPages(pid, memory.range);
  if (!pages.ok()) return pages.status();
  uint64_t bytes = *pages * kPageSize;
  if (memory.file) {
    absl::StatusOr<uint64_t> of_file = CountFileBytes(memory);
    if (!of_file.ok()) return of_file.status();
    bytes = std::max(bytes, *of_file);
  }
  if (bytes == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      FormatBytes(bytes), " of that memory of process ", pid,
      " are there already, and would not be filled from the volume. Attach it before it is "
      "touched: "
      "a virtual machine at \"-incoming defer\", without prealloc=on or mem-lock=on, and with a "
      "memory file that is new"));
}

}  // namespace faultline
