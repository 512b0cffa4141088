// SPDX-License-Identifier: Apache-2.0
//
// Takes descriptors from the process whose memory they serve, which keeps copies.
#ifndef FAULTLINE_CLIENT_UFFD_TARGET_UFFD_H_
#define FAULTLINE_CLIENT_UFFD_TARGET_UFFD_H_

#include <absl/status/statusor.h>
#include <sys/types.h>

#include <cstdint>
#include <string>

#include "client/unique_fd.h"

namespace faultline {

// Names a process for as long as the machine runs: numbers alone come to mean another one.
struct ProcessIdentity {
  pid_t pid = 0;
  uint64_t start_time = 0;  // field 22 of /proc/PID/stat: clock ticks since the machine started
  std::string boot_id;      // of /proc/sys/kernel/random

  friend bool operator==(const ProcessIdentity&, const ProcessIdentity&) = default;
};

// NOT_FOUND where there is no process `pid`.
absl::StatusOr<ProcessIdentity> IdentityOf(pid_t pid);

// A pidfd of that very process. NOT_FOUND where it has ended.
absl::StatusOr<UniqueFd> OpenProcess(const ProcessIdentity& process);

// A number that all copies of a userfaultfd have in common, and no other has: since Linux 5.12 each
// has an inode of its own.
uint64_t UffdInode(int uffd);

// Takes a copy of the userfaultfd with that inode out of a process (pidfd_getfd, Linux 5.6), or out
// of its eviction helper, a thread that has descriptors of its own (Linux 6.9). Needs what ptrace
// needs. NOT_FOUND where the process has none, as one that has closed its copy; PERMISSION_DENIED.
absl::StatusOr<UniqueFd> TakeUffd(int pidfd, pid_t pid, uint64_t inode);

// Names a file that is open or mapped somewhere, whatever its name is, if it has one.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;

  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};
FileIdentity FileIdentityOf(int fd);

// Opens a file, for reading and writing, that a process or its eviction helper has open, or has
// mapped (which only root may look for). Errors as of TakeUffd().
absl::StatusOr<UniqueFd> OpenFileOf(pid_t pid, const FileIdentity& file);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_UFFD_TARGET_UFFD_H_
