// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_JOURNAL_FAR_RECORD_H_
#define FAULTLINE_CLIENT_JOURNAL_FAR_RECORD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/evict/local_memory_limit.h"
#include "client/uffd/target_uffd.h"
#include "client/uffd/uffd.h"

namespace faultline {

// What another agent needs to know of far memory to go on with it, and what does not change.
struct FarRecord {
  LocalMemoryLimit limit;
  std::string policy;         // its name
  bool fresh = false;         // as in FarMemory
  bool owns_volume = false;   // it was made for this memory, and is deleted in the end
  uint64_t volume_pages = 0;  // that there are

  // Of the anonymous memory of a process: as in FarMemory, and the eviction helper's commands.
  uint64_t least_area = 0;
  AddressRange excluded, staging;
  FileIdentity command;

  // Of files in memory: as in MemoryFile.
  struct File {
    FileIdentity file;
    uint64_t volume_offset = 0, file_offset = 0, size = 0;
  };
  std::vector<File> files;

  bool is_whole_process() const { return least_area > 0; }
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_JOURNAL_FAR_RECORD_H_
