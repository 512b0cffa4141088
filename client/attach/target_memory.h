// SPDX-License-Identifier: Apache-2.0
//
// Finds the memory of a running process that is to be attached, and tells whether it can be: by
// what the kernel says of the process in /proc.
#ifndef FAULTLINE_CLIENT_ATTACH_TARGET_MEMORY_H_
#define FAULTLINE_CLIENT_ATTACH_TARGET_MEMORY_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <variant>

#include "client/uffd/uffd.h"
#include "client/unique_fd.h"

namespace faultline {

// Which memory of a process is meant.
struct MemoryOfFile {
  std::string path;  // as /proc/PID/maps has it, or one that leads there; "/memfd:NAME" for a memfd
};
struct AnonymousMemory {
  uint64_t size_bytes = 0;  // exactly
};
using MemoryChoice = std::variant<MemoryOfFile, AnonymousMemory, AddressRange>;

// Parses "START-END" in hexadecimal, as /proc/PID/maps has it.
absl::StatusOr<AddressRange> ParseAddressRange(absl::string_view text);

struct TargetMemory {
  AddressRange range;
  bool shared = false;  // MAP_SHARED
  UniqueFd file;        // on tmpfs, or a memfd; none for private anonymous memory
  uint64_t file_offset = 0;
};

// Finds the one mapping of process `pid` that `choice` means. Neighbouring areas of the same file
// count as one. NOT_FOUND where there is none, FAILED_PRECONDITION where there are several, both
// naming what there is instead; PERMISSION_DENIED where this process may not know;
// FAILED_PRECONDITION for memory that userfaultfd does not serve, or only as huge pages.
absl::StatusOr<TargetMemory> FindTargetMemory(pid_t pid, const MemoryChoice& choice);

// FAILED_PRECONDITION, saying how much and what to do, where pages of `memory` are there already,
// in the process or in its file: they would keep their content, whatever the volume has.
absl::Status CheckNothingIsResident(pid_t pid, const TargetMemory& memory);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACH_TARGET_MEMORY_H_
