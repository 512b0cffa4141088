// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_SOURCE_MEMORY_VOLUME_H_
#define FAULTLINE_CLIENT_SOURCE_MEMORY_VOLUME_H_

#include <memory>
#include <string>

#include "client/source/page_sink.h"

namespace faultline {

// A volume in memory that is read and written: what paging both ways costs with nothing behind it,
// and what tests write to. Answers before Fetch and Write return. Thread-safe.
class MemoryVolume {
 public:
  // `content` is padded with zeros to whole pages.
  static std::shared_ptr<MemoryVolume> Create(std::string content);
  virtual ~MemoryVolume() = default;

  // What is opened keeps the volume.
  virtual std::shared_ptr<PageSource> OpenSource() = 0;
  // For a new writer: fences every earlier one.
  virtual VolumeIo OpenIo() = 0;

  // From here on each write that is not of zeros only says RESOURCE_EXHAUSTED, and does nothing.
  virtual void SetFull(bool full) = 0;
  // From here on everything says NOT_FOUND.
  virtual void Delete() = 0;

  // A copy of the bytes. REQUIRES: the volume has these pages.
  virtual std::string Bytes(PageRange range) const = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_SOURCE_MEMORY_VOLUME_H_
