// SPDX-License-Identifier: Apache-2.0
#include "client/vm/guest_ram.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <sys/stat.h>

#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <system_error>

#include "proto/units.h"

namespace faultline {
namespace {

// How much of each file process `pid` has mapped, shared and writable, by inode.
std::map<uint64_t, uint64_t> SharedFileBytes(pid_t pid) {
  std::map<uint64_t, uint64_t> bytes;
  std::ifstream maps(absl::StrCat("/proc/", pid, "/maps"));
  for (std::string line; std::getline(maps, line);) {
    uint64_t start, end, inode;
    char permissions[5];
    if (sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %4s %*x %*x:%*x %" SCNu64, &start, &end,
               permissions, &inode) == 4 &&
        permissions[1] == 'w' && permissions[3] == 's' && inode != 0) {
      bytes[inode] += end - start;
    }
  }
  return bytes;
}

}  // namespace

absl::StatusOr<std::string> FindSharedMemoryFile(pid_t pid, uint64_t size_bytes) {
  const std::map<uint64_t, uint64_t> mapped = SharedFileBytes(pid);
  std::error_code error;
  std::map<uint64_t, std::string> found;  // by inode: several descriptors may be of one file
  std::filesystem::directory_iterator entries(absl::StrCat("/proc/", pid, "/fd"), error);
  if (error || mapped.empty()) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot look at the memory of process ", pid, " (",
                     error ? error.message() : "its maps cannot be read, or have nothing shared",
                     "); run this as root, or as the user that QEMU runs as"));
  }
  for (const auto& entry : entries) {
    struct stat status {};
    if (stat(entry.path().c_str(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
    const auto it = mapped.find(status.st_ino);
    if (it == mapped.end() || it->second != size_bytes) continue;
    if (static_cast<uint64_t>(status.st_size) != size_bytes) continue;
    found.emplace(status.st_ino, entry.path().string());
  }
  if (found.size() == 1) return found.begin()->second;
  return absl::NotFoundError(absl::StrCat(
      "process ", pid, " has ", found.empty() ? "no" : "more than one", " file of ",
      FormatBytes(size_bytes), " mapped shared; its RAM must be a memory backend with share=on"));
}

}  // namespace faultline
