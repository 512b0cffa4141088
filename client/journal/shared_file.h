// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_JOURNAL_SHARED_FILE_H_
#define FAULTLINE_CLIENT_JOURNAL_SHARED_FILE_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstddef>
#include <span>
#include <string>

#include "client/unique_fd.h"

namespace faultline {

// A file that is mapped shared: what is stored to its bytes is there for whoever opens it next, at
// whatever instruction this process ends. (Not where the machine does; nothing is synced.) Its
// space is allocated, so that no store can fail. Not thread-safe, but for the bytes and Allocate().
class SharedFile {
 public:
  // A new file of `size` bytes, all zero. RESOURCE_EXHAUSTED, naming the path, where there is no
  // space for it.
  static absl::StatusOr<SharedFile> Create(const std::string& path, size_t size);
  // The same, but nothing may be stored before that part of it was Allocate()d.
  static absl::StatusOr<SharedFile> CreateSparse(const std::string& path, size_t size);
  // All of an existing one.
  static absl::StatusOr<SharedFile> Open(const std::string& path);

  SharedFile() = default;
  SharedFile(SharedFile&& other) noexcept { *this = std::move(other); }
  SharedFile& operator=(SharedFile&& other) noexcept;
  ~SharedFile();

  std::span<std::byte> bytes() const { return bytes_; }

  // Makes it longer. Its bytes move; on error all is as before.
  absl::Status Grow(size_t size);
  // Sees to it that [offset, offset + size), which is within it, takes stores. RESOURCE_EXHAUSTED
  // where there is no space.
  absl::Status Allocate(size_t offset, size_t size) const;

 private:
  absl::Status Map(size_t size);

  std::string path_;
  UniqueFd fd_;
  std::span<std::byte> bytes_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_JOURNAL_SHARED_FILE_H_
