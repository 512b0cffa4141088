// SPDX-License-Identifier: Apache-2.0
#include "client/shared_files.h"

#include <algorithm>

namespace faultline {

std::vector<FilePages> FilesOf(const std::vector<Mapping>& mappings,
                               const std::vector<VmArea>& areas) {
  std::vector<FilePages> files;
  PageCount wanted(0), found(0);
  for (const Mapping& mapping : mappings) {
    if (mapping.shared) wanted += PageCount(mapping.size / kPageSize);
    for (const VmArea& area : areas) {
      const uint64_t start = std::max(mapping.address, area.range.start);
      const uint64_t end = std::min(mapping.address + mapping.size, area.range.end());
      if (!mapping.shared || !area.shared || area.inode == 0 || start >= end) continue;
      files.push_back({area.device,
                       area.inode,
                       area.offset + (start - area.range.start),
                       {PageIndex::Containing(mapping.offset) +
                            PageCount((start - mapping.address) / kPageSize),
                        PageCount((end - start) / kPageSize)}});
    }
  }
  for (const FilePages& file : files) found += file.pages.count;
  if (found != wanted) files.clear();
  return files;
}

std::vector<AddressSpace::Part> RegisteredParts(const std::vector<FilePages>& files,
                                                const std::vector<VmArea>& areas) {
  std::vector<AddressSpace::Part> parts;
  for (const VmArea& area : areas) {
    if (!area.shared || !area.registered) continue;
    for (const FilePages& file : files) {
      if (file.device != area.device || file.inode != area.inode) continue;
      const uint64_t first = std::max(file.offset, area.offset);
      const uint64_t end =
          std::min(file.offset + file.pages.size_bytes(), area.offset + area.range.length);
      if (first >= end) continue;
      parts.push_back({{area.range.start + (first - area.offset), end - first},
                       file.pages.first + PageCount((first - file.offset) / kPageSize),
                       /*shared=*/true});
    }
  }
  return parts;
}

}  // namespace faultline
