// SPDX-License-Identifier: Apache-2.0
#include "client/process_maps.h"

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "client/unique_fd.h"
#include "proto/page.h"

namespace faultline {
namespace {

std::vector<VmArea> Read(const std::string& file_name) {
  std::vector<VmArea> areas;
  std::ifstream file(file_name);
  for (std::string line; std::getline(file, line);) {
    unsigned long start, end, offset;
    unsigned long inode = 0;
    unsigned int major, minor;
    int name = 0;
    char permissions[5];
    if (sscanf(line.c_str(), "%lx-%lx %4s %lx %x:%x %lu %n", &start, &end, permissions, &offset,
               &major, &minor, &inode, &name) == 7) {
      const absl::string_view path = absl::string_view(line).substr(static_cast<size_t>(name));
      const bool named = !path.empty() && path != "[heap]" && !absl::StartsWith(path, "[anon:");
      areas.push_back({.range = {start, end - start},
                       .shared = permissions[3] == 's',
                       .anonymous = inode == 0 && !named,
                       .device = uint64_t{major} << 32 | minor,
                       .inode = inode,
                       .offset = offset});
    } else if (!areas.empty() && absl::StartsWith(line, "VmFlags:")) {
      areas.back().wipe_on_fork = absl::StrContains(line, " wf");
      areas.back().registered = absl::StrContains(line, " um");
    }
  }
  return areas;
}

// Fields of /proc/PID/stat: the parent, and where the program that it executes has its code and the
// top of its stack, which a fork copies, and exec draws anew.
struct Origin {
  pid_t parent = 0;
  uint64_t code_start = 0, code_end = 0, stack_top = 0;

  bool IsSameProgram(const Origin& other) const {
    return code_start == other.code_start && code_end == other.code_end &&
           stack_top == other.stack_top;
  }
};

std::optional<Origin> OriginOf(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string stat;
  std::getline(file, stat, '\0');
  const size_t name_end = stat.rfind(')');
  if (name_end == stat.npos) return std::nullopt;
  Origin origin;
  // Fields 4, and 26 to 28.
  const int n = sscanf(stat.c_str() + name_end + 1,
                       " %*c %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                       "%*s %*s %*s %*s %*s %lu %lu %lu",
                       &origin.parent, &origin.code_start, &origin.code_end, &origin.stack_top);
  if (n != 4 || origin.stack_top == 0) return std::nullopt;
  return origin;
}

// As the child of a vfork has it.
bool HasSameMemory(pid_t one, pid_t other) {
  return syscall(SYS_kcmp, one, other, KCMP_VM, 0, 0) == 0;
}

}  // namespace

std::vector<VmArea> ReadMaps(pid_t pid) { return Read(absl::StrCat("/proc/", pid, "/maps")); }
std::vector<VmArea> ReadSmaps(pid_t pid) { return Read(absl::StrCat("/proc/", pid, "/smaps")); }

std::vector<AddressRange> PresentPages(pid_t pid, AddressRange range) {
  // Documentation/admin-guide/mm/pagemap.rst: one entry for each page.
  constexpr uint64_t kPresent = uint64_t{1} << 63, kSwapped = uint64_t{1} << 62;
  constexpr uint64_t kEntriesPerRead = 16384;
  std::vector<AddressRange> present;
  const UniqueFd file(open(absl::StrCat("/proc/", pid, "/pagemap").c_str(), O_RDONLY | O_CLOEXEC));
  std::vector<uint64_t> entries(std::min(kEntriesPerRead, range.length / kPageSize));
  for (uint64_t at = range.start; file && at < range.end();) {
    const uint64_t wanted = std::min<uint64_t>(entries.size(), (range.end() - at) / kPageSize);
    const ssize_t n = pread(file.get(), entries.data(), wanted * sizeof(uint64_t),
                            static_cast<off_t>(at / kPageSize * sizeof(uint64_t)));
    const size_t count = n > 0 ? static_cast<size_t>(n) / sizeof(uint64_t) : 0;
    if (count == 0) break;
    for (size_t i = 0; i < count; ++i, at += kPageSize) {
      if ((entries[i] & (kPresent | kSwapped)) == 0) continue;
      if (!present.empty() && present.back().end() == at) {
        present.back().length += kPageSize;
      } else {
        present.push_back({at, kPageSize});
      }
    }
  }
  return present;
}

pid_t ProcessOfThread(pid_t thread) {
  std::ifstream file(absl::StrCat("/proc/", thread, "/status"));
  for (std::string line; std::getline(file, line);) {
    int process;
    if (sscanf(line.c_str(), "Tgid: %d", &process) == 1) return process;
  }
  return 0;
}

std::vector<pid_t> ForkedDescendants(pid_t pid) {
  const std::optional<Origin> origin = OriginOf(pid);
  std::vector<std::pair<pid_t, Origin>> others;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    pid_t other;
    if (!absl::SimpleAtoi(entry.path().filename().string(), &other) || other == pid) continue;
    const std::optional<Origin> its = OriginOf(other);
    if (its && origin && its->IsSameProgram(*origin)) others.emplace_back(other, *its);
  }
  std::vector<pid_t> found = {pid};
  for (size_t i = 0; i < found.size(); ++i) {
    for (const auto& [other, its] : others) {
      if (its.parent == found[i] && !HasSameMemory(other, pid)) found.push_back(other);
    }
  }
  found.erase(found.begin());
  return found;
}

bool HasOneThread(pid_t pid) {
  std::error_code error;
  const std::filesystem::directory_iterator threads(absl::StrCat("/proc/", pid, "/task"), error);
  return std::distance(begin(threads), end(threads)) == 1;
}

bool HasRunningThread(pid_t pid) {
  const std::string self = absl::StrCat(gettid());
  std::error_code error;
  const std::filesystem::directory_iterator threads(absl::StrCat("/proc/", pid, "/task"), error);
  for (const auto& thread : threads) {
    if (thread.path().filename() == self) continue;
    std::ifstream file(thread.path() / "stat");
    std::string stat;
    std::getline(file, stat);
    // PID (COMMAND) STATE ...: the command may hold anything.
    const size_t end = stat.rfind(')');
    if (end != stat.npos && stat.compare(end, 3, ") R") == 0) return true;
  }
  return false;
}

bool SharesPidNamespace(pid_t pid) {
  struct stat own = {}, other = {};
  return stat("/proc/self/ns/pid", &own) == 0 &&
         stat(absl::StrCat("/proc/", pid, "/ns/pid").c_str(), &other) == 0 &&
         own.st_ino == other.st_ino && own.st_dev == other.st_dev;
}

}  // namespace faultline
