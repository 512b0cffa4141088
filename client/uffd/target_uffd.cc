// SPDX-License-Identifier: Apache-2.0
#include "client/uffd/target_uffd.h"

#include <absl/functional/function_ref.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <memory>
#include <utility>
#include <vector>

namespace faultline {
namespace {

constexpr int kSysPidfdGetfd = 438;
constexpr unsigned kPidfdThread = O_EXCL;               // PIDFD_THREAD, Linux 6.9
constexpr absl::string_view kHelperName = "faultline";  // far/eviction_thread.cc
constexpr absl::string_view kUffdLink = "anon_inode:[userfaultfd]";

std::string BootId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  file >> id;
  return id;
}

bool IsUffd(const std::string& link) {
  std::array<char, 64> target{};
  const ssize_t n = readlink(link.c_str(), target.data(), target.size());
  return n > 0 && absl::string_view(target.data(), static_cast<size_t>(n)) == kUffdLink;
}

// Calls `look` with the path and the name of each entry of `directory`, until it returns true.
absl::Status FindIn(const std::string& directory,
                    absl::FunctionRef<bool(const std::string& path, const char* name)> look) {
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(opendir(directory.c_str()), &closedir);
  if (entries == nullptr) {
    const std::string message =
        absl::StrCat("cannot look for descriptors in ", directory, ": ", strerror(errno));
    return errno == EACCES ? absl::PermissionDeniedError(message) : absl::NotFoundError(message);
  }
  while (const dirent* entry = readdir(entries.get())) {
    if (entry->d_name[0] != '.' &&
        look(absl::StrCat(directory, "/", entry->d_name), entry->d_name)) {
      break;
    }
  }
  return absl::OkStatus();
}

// The numbers of the threads that may be the eviction helper of a process, whose directory in /proc
// is `process`.
std::vector<std::string> HelpersOf(const std::string& process) {
  std::vector<std::string> helpers;
  const auto look = [&](const std::string& path, const char* name) {
    std::ifstream file(path + "/comm");
    std::string comm;
    if (std::getline(file, comm) && comm == kHelperName) helpers.emplace_back(name);
    return false;
  };
  FindIn(process + "/task", look).IgnoreError();
  return helpers;
}

}  // namespace

absl::StatusOr<ProcessIdentity> IdentityOf(pid_t pid) {
  std::ifstream file(absl::StrCat("/proc/", pid, "/stat"));
  std::string text;
  std::getline(file, text, '\0');
  // The second field, the name, is in parentheses and may hold anything; the third is the state.
  const size_t name_end = text.rfind(')');
  ProcessIdentity identity{pid, 0, BootId()};
  constexpr int kFieldsBetween = 19;  // from the third to the 22nd
  if (name_end != text.npos) {
    size_t at = name_end + 1;
    for (int i = 0; i < kFieldsBetween && at != text.npos; ++i) at = text.find(' ', at + 1);
    if (at != text.npos &&
        absl::SimpleAtoi(absl::string_view(text).substr(at + 1, text.find(' ', at + 1) - at - 1),
                         &identity.start_time)) {
      return identity;
    }
  }
  return absl::NotFoundError(absl::StrCat("there is no process ", pid));
}

absl::StatusOr<UniqueFd> OpenProcess(const ProcessIdentity& process) {
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, process.pid, 0)));
  if (!pidfd && errno != ESRCH) {
    return absl::ErrnoToStatus(errno, absl::StrCat("pidfd_open of process ", process.pid));
  }
  // In this order: while it has not ended, its number means no other process.
  const absl::StatusOr<ProcessIdentity> identity = IdentityOf(process.pid);
  pollfd ended{pidfd.get(), POLLIN, 0};
  if (!pidfd || !identity.ok() || *identity != process || poll(&ended, 1, 0) != 0) {
    return absl::NotFoundError(absl::StrCat("process ", process.pid, " has ended"));
  }
  return pidfd;
}

uint64_t UffdInode(int uffd) {
  struct stat status;
  return fstat(uffd, &status) == 0 ? status.st_ino : 0;
}

absl::StatusOr<UniqueFd> TakeUffd(int pidfd, pid_t pid, uint64_t inode) {
  bool denied = false;
  UniqueFd found;
  const auto look = [&](int owner) {
    return [&, owner](const std::string& link, const char* name) {
      int number;
      struct stat status;
      if (!absl::SimpleAtoi(name, &number) || !IsUffd(link) || stat(link.c_str(), &status) != 0 ||
          status.st_ino != inode) {
        return false;
      }
      UniqueFd fd(static_cast<int>(syscall(kSysPidfdGetfd, owner, number, 0)));
      denied = denied || (!fd && errno == EPERM);
      if (!fd || UffdInode(fd.get()) != inode) return false;
      found = std::move(fd);
      return true;
    };
  };
  const std::string process = absl::StrCat("/proc/", pid);
  if (absl::Status status = FindIn(process + "/fd", look(pidfd)); !status.ok()) return status;
  for (const std::string& thread : HelpersOf(process)) {
    if (found) break;
    int number;
    if (!absl::SimpleAtoi(thread, &number)) continue;
    const UniqueFd of_thread(static_cast<int>(syscall(SYS_pidfd_open, number, kPidfdThread)));
    if (!of_thread) continue;
    FindIn(absl::StrCat(process, "/task/", thread, "/fd"), look(of_thread.get())).IgnoreError();
  }
  if (found) return found;
  if (denied) {
    return absl::PermissionDeniedError(
        absl::StrCat("may not take the userfaultfd of process ", pid,
                     "; it needs what a debugger needs: root, CAP_SYS_PTRACE or the same user"));
  }
  return absl::NotFoundError(
      absl::StrCat("process ", pid, " has no copy of the userfaultfd that serves its memory"));
}

FileIdentity FileIdentityOf(int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0) return {};
  return {status.st_dev, status.st_ino};
}

absl::StatusOr<UniqueFd> OpenFileOf(pid_t pid, const FileIdentity& file) {
  UniqueFd found;
  const auto look = [&](const std::string& link, const char*) {
    struct stat status;
    if (stat(link.c_str(), &status) != 0 || FileIdentity{status.st_dev, status.st_ino} != file) {
      return false;
    }
    UniqueFd fd(open(link.c_str(), O_RDWR | O_CLOEXEC));
    if (!fd || FileIdentityOf(fd.get()) != file) return false;
    found = std::move(fd);
    return true;
  };
  const std::string process = absl::StrCat("/proc/", pid);
  if (absl::Status status = FindIn(process + "/fd", look); !status.ok()) return status;
  for (const std::string& thread : HelpersOf(process)) {
    if (found) break;
    FindIn(absl::StrCat(process, "/task/", thread, "/fd"), look).IgnoreError();
  }
  if (!found) FindIn(process + "/map_files", look).IgnoreError();
  if (found) return found;
  return absl::NotFoundError(
      absl::StrCat("process ", pid,
                   " has a file of its far memory neither open nor, as far as may "
                   "be looked for, mapped"));
}

}  // namespace faultline
