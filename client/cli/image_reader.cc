// SPDX-License-Identifier: Apache-2.0
#include "client/cli/image_reader.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "client/cli/file_error.h"
#include "proto/page_batch.h"

namespace faultline {
namespace {

constexpr size_t kBufferBytes = 256 * kPageSize;
// Of one message: large enough that its own cost does not count.
constexpr size_t kBatchBytes = 1 << 20;
static_assert(kBufferBytes % kPageSize == 0 && kBatchBytes <= kBufferBytes);

}  // namespace

absl::StatusOr<std::unique_ptr<ImageReader>> ImageReader::Open(const std::string& path,
                                                               Codec codec) {
  // Not to wait for the other end of a FIFO, which is refused below.
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return FileError(errno, "open", path);
  struct stat status;
  if (fstat(fd.get(), &status) != 0) return FileError(errno, "examine", path);
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, S_ISDIR(status.st_mode) ? " is a directory" : " is not a regular file",
                     "; an import needs a raw image"));
  }
  const off_t size = lseek(fd.get(), 0, SEEK_END);
  if (size < 0) return FileError(errno, "find the size of", path);
  if (size == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is empty; a volume needs at least one byte"));
  }
  return std::unique_ptr<ImageReader>(
      new ImageReader(path, codec, std::move(fd), status, static_cast<uint64_t>(size)));
}

ImageReader::ImageReader(std::string path, Codec codec, UniqueFd fd, struct stat opened,
                         uint64_t size_bytes)
    : path_(std::move(path)),
      codec_(codec),
      fd_(std::move(fd)),
      opened_(opened),
      size_bytes_(size_bytes),
      buffer_(new std::byte[kBufferBytes]) {
  posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_SEQUENTIAL);  // a hint: may fail
}

absl::StatusOr<bool> ImageReader::Next(rpc::PageBatch* batch) {
  batch->Clear();
  batch->mutable_pages()->reserve(kBatchBytes + kBufferBytes + kBufferBytes / 256);
  PageBatchBuilder builder(batch);
  while (builder.payload_bytes() < kBatchBytes) {
    if (position_bytes() >= data_end_) {
      if (absl::Status status = FindData(); !status.ok()) return status;
      if (position_bytes() == size_bytes_) break;
    }
    const absl::StatusOr<size_t> bytes = ReadData();
    if (!bytes.ok()) return bytes.status();
    const PageIndex first = PageIndex::Containing(position_bytes());
    for (uint64_t i = 0; i < *bytes / kPageSize; ++i) {
      const PageBytes page(&buffer_[i * kPageSize], kPageSize);
      if (!IsZeroPage(page)) builder.Encode(first + PageCount(i), page, codec_);
    }
    position_ = std::min(position_bytes() + *bytes, size_bytes_);
  }
  if (builder.page_count().raw() > 0) return true;
  if (absl::Status status = CheckUnchanged(); !status.ok()) return status;
  return false;
}

absl::Status ImageReader::FindData() {
  const auto at = static_cast<off_t>(position_bytes());
  const off_t data = lseek(fd_.get(), at, SEEK_DATA);
  if (data < 0 && errno == ENXIO) {  // a hole up to the end
    position_ = size_bytes_;
    return absl::OkStatus();
  }
  if (data < 0) {  // the file system or device knows no holes
    data_end_ = size_bytes_;
    return absl::OkStatus();
  }
  const off_t hole = lseek(fd_.get(), data, SEEK_HOLE);
  const uint64_t end = hole < 0 ? size_bytes_ : static_cast<uint64_t>(hole);
  position_ = std::min(static_cast<uint64_t>(data) / kPageSize * kPageSize, size_bytes_);
  data_end_ = std::min(PageCount::CoveringBytes(end).in_bytes(), size_bytes_);
  return absl::OkStatus();
}

absl::StatusOr<size_t> ImageReader::ReadData() {
  const size_t wanted = std::min<uint64_t>(kBufferBytes, data_end_ - position_bytes());
  size_t have = 0;
  while (have < wanted) {
    const ssize_t n = pread(fd_.get(), &buffer_[have], wanted - have,
                            static_cast<off_t>(position_bytes() + have));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(errno, "read", path_);
    if (n == 0) {
      return absl::AbortedError(
          absl::StrCat(path_, " was cut off at ", position_bytes() + have, " of ", size_bytes_,
                       " bytes while it was read; the volume is as it was, import it again"));
    }
    have += static_cast<size_t>(n);
  }
  const size_t whole = PageCount::CoveringBytes(have).in_bytes();
  memset(&buffer_[have], 0, whole - have);
  return whole;
}

absl::Status ImageReader::CheckUnchanged() const {
  struct stat now;
  if (fstat(fd_.get(), &now) != 0) return FileError(errno, "examine", path_);
  if (now.st_size == opened_.st_size && now.st_mtim.tv_sec == opened_.st_mtim.tv_sec &&
      now.st_mtim.tv_nsec == opened_.st_mtim.tv_nsec) {
    return absl::OkStatus();
  }
  return absl::AbortedError(
      absl::StrCat(path_, " was written to while it was read (it has ", now.st_size,
                   " bytes, and had ", opened_.st_size,
                   "); the volume is as it was, import it again when nobody writes to the file"));
}

}  // namespace faultline
