// SPDX-License-Identifier: Apache-2.0
//
// Where the pages of a volume lie in the files that shared memory consists of (a memfd, or what the
// kernel makes for MAP_SHARED | MAP_ANONYMOUS). That never changes, wherever the memory is moved
// to, and the kernel shows for each area of a process which part of which file it is
// (Documentation/filesystems/proc.rst, /proc/PID/maps). So of shared memory it can be asked what
// the order in which events were read does not tell.
#ifndef FAULTLINE_CLIENT_SHARED_FILES_H_
#define FAULTLINE_CLIENT_SHARED_FILES_H_

#include <cstdint>
#include <vector>

#include "client/address_space.h"
#include "client/attachment.h"
#include "client/process_maps.h"
#include "proto/page.h"

namespace faultline {

struct FilePages {
  uint64_t device, inode;
  uint64_t offset;  // in bytes, of the first page
  PageRange pages;
};

// Where the pages of shared `mappings` lie, if `areas` are those of the process that has them; none
// where that does not show of all: what is not known would be taken for memory of nothing.
std::vector<FilePages> FilesOf(const std::vector<Mapping>& mappings,
                               const std::vector<VmArea>& areas);

// What of `files` a process with `areas` has registered, and where; from ReadSmaps().
std::vector<AddressSpace::Part> RegisteredParts(const std::vector<FilePages>& files,
                                                const std::vector<VmArea>& areas);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SHARED_FILES_H_
