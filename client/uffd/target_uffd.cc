// SPDX-License-Identifier: Apache-2.0
#include "client/uffd/target_uffd.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <memory>

namespace faultline {
namespace {

constexpr int kSysPidfdGetfd = 438;
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
  const std::string path = absl::StrCat("/proc/", pid, "/fd");
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), &closedir);
  if (directory == nullptr) {
    const std::string message =
        absl::StrCat("cannot look for the userfaultfd of process ", pid, ": ", strerror(errno));
    return errno == EACCES ? absl::PermissionDeniedError(message) : absl::NotFoundError(message);
  }
  while (const dirent* entry = readdir(directory.get())) {
    const std::string link = absl::StrCat(path, "/", entry->d_name);
    int number;
    struct stat status;
    if (!absl::SimpleAtoi(entry->d_name, &number) || !IsUffd(link) ||
        stat(link.c_str(), &status) != 0 || status.st_ino != inode) {
      continue;
    }
    UniqueFd fd(static_cast<int>(syscall(kSysPidfdGetfd, pidfd, number, 0)));
    if (fd && UffdInode(fd.get()) == inode) return fd;
    if (!fd && errno == EPERM) {
      return absl::PermissionDeniedError(
          absl::StrCat("may not take the userfaultfd of process ", pid,
                       "; it needs what a debugger needs: root, CAP_SYS_PTRACE or the same user"));
    }
  }
  return absl::NotFoundError(
      absl::StrCat("process ", pid, " has no copy of the userfaultfd that serves its memory"));
}

}  // namespace faultline
