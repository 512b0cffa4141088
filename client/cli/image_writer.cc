// SPDX-License-Identifier: Apache-2.0
#include "client/cli/image_writer.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "client/cli/file_error.h"
#include "proto/page_batch.h"

namespace faultline {
namespace {

constexpr PageCount kBufferPages{256};

// The file that a signal must not leave behind. Read by the handler, so a plain array; empty: none.
char unlink_at_signal[4096];

void UnlinkAndDie(int number) {
  if (unlink_at_signal[0] != '\0') unlink(unlink_at_signal);
  signal(number, SIG_DFL);
  raise(number);
}

void UnlinkAtSignal(const std::string& path) {
  snprintf(unlink_at_signal, sizeof unlink_at_signal, "%s", path.c_str());
  signal(SIGINT, path.empty() ? SIG_DFL : UnlinkAndDie);
  signal(SIGTERM, path.empty() ? SIG_DFL : UnlinkAndDie);
}

absl::Status CheckTarget(const std::string& path, Overwrite overwrite) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) {
    return errno == ENOENT ? absl::OkStatus() : FileError(errno, "examine", path);
  }
  if (!S_ISREG(status.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, S_ISDIR(status.st_mode) ? " is a directory" : " is not a regular file",
                     "; name a file to export to, or \"-\" for the standard output"));
  }
  if (overwrite == Overwrite::kNo) {
    return absl::AlreadyExistsError(
        absl::StrCat(path, " is there already; add --force to overwrite it"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ImageWriter>> ImageWriter::Open(const std::string& path,
                                                               Overwrite overwrite) {
  if (path == "-") {
    if (isatty(STDOUT_FILENO)) {
      return absl::FailedPreconditionError(
          "an image is not written to a terminal; redirect the standard output");
    }
    UniqueFd out(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0));
    if (!out) return FileError(errno, "write to", "the standard output");
    return std::unique_ptr<ImageWriter>(new ImageWriter("the standard output", "", std::move(out)));
  }
  if (absl::Status status = CheckTarget(path, overwrite); !status.ok()) return status;
  std::string part = absl::StrCat(path, ".part-XXXXXX");
  UniqueFd fd(mkostemp(part.data(), O_CLOEXEC));
  if (!fd) return FileError(errno, "create", absl::StrCat(path, ".part"));
  UnlinkAtSignal(part);
  const mode_t mask = umask(0);
  umask(mask);
  auto writer = std::unique_ptr<ImageWriter>(new ImageWriter(path, part, std::move(fd)));
  if (fchmod(writer->fd_.get(), 0666 & ~mask) != 0) {
    return FileError(errno, "set the permissions of", part);
  }
  return writer;
}

ImageWriter::ImageWriter(std::string path, std::string part, UniqueFd fd)
    : path_(std::move(path)),
      part_(std::move(part)),
      fd_(std::move(fd)),
      buffer_(new std::byte[kBufferPages.in_bytes()]) {}

ImageWriter::~ImageWriter() {
  if (part_.empty()) return;
  if (!committed_) unlink(part_.c_str());
  UnlinkAtSignal("");
}

absl::Status ImageWriter::Append(uint64_t size_bytes, const rpc::PageBatch& batch) {
  if (size_bytes_.has_value() && *size_bytes_ != size_bytes) {
    return absl::InternalError(absl::StrCat("the volume's size changed from ", *size_bytes_, " to ",
                                            size_bytes, " bytes while it was exported"));
  }
  size_bytes_ = size_bytes;
  const PageCount size = PageCount::CoveringBytes(size_bytes);
  if (auto count = CountPages(batch.runs(), size, size); !count.ok()) return count.status();
  return ForEachPage(
      batch, [&](PageIndex page, absl::string_view encoded) { return AppendData(page, encoded); },
      [&](PageRange range) { return AppendZero(range); });
}

absl::Status ImageWriter::AppendData(PageIndex page, absl::string_view encoded) {
  if (page != next_) {
    return absl::InternalError(
        absl::StrCat("page ", page.raw(), " came where page ", next_.raw(), " was next"));
  }
  if (buffered_ == kBufferPages) {
    if (absl::Status status = Flush(); !status.ok()) return status;
  }
  std::byte* const slot = &buffer_[buffered_.in_bytes()];
  const absl::StatusOr<PageBytes> bytes =
      DecodePage(page, encoded, MutablePageBytes(slot, kPageSize));
  if (!bytes.ok()) return bytes.status();
  if (bytes->data() != slot) memcpy(slot, bytes->data(), kPageSize);
  buffered_ += PageCount(1);
  ++next_;
  return absl::OkStatus();
}

absl::Status ImageWriter::AppendZero(PageRange range) {
  if (range.first != next_) {
    return absl::InternalError(
        absl::StrCat("page ", range.first.raw(), " came where page ", next_.raw(), " was next"));
  }
  if (absl::Status status = Flush(); !status.ok()) return status;
  if (!part_.empty()) {
    next_ = range.end();  // a hole
    return absl::OkStatus();
  }
  memset(buffer_.get(), 0, kBufferPages.in_bytes());
  while (next_ < range.end()) {
    buffered_ = std::min(kBufferPages, range.end() - next_);
    next_ += buffered_;
    if (absl::Status status = Flush(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status ImageWriter::Flush() {
  const uint64_t end = std::min(next_.byte_offset(), *size_bytes_);
  const uint64_t offset = next_.byte_offset() - buffered_.in_bytes();
  buffered_ = PageCount(0);
  if (offset >= end) return absl::OkStatus();
  data_bytes_ += end - offset;
  if (absl::Status status = WriteAll(buffer_.get(), end - offset, offset); !status.ok()) {
    return status;
  }
  // The disk begins at once, so that Commit() has little to wait for. A hint: may fail.
  if (!part_.empty()) {
    sync_file_range(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(end - offset),
                    SYNC_FILE_RANGE_WRITE);
  }
  return absl::OkStatus();
}

absl::Status ImageWriter::WriteAll(const std::byte* bytes, size_t count, uint64_t offset) {
  while (count > 0) {
    const ssize_t n = part_.empty() ? write(fd_.get(), bytes, count)
                                    : pwrite(fd_.get(), bytes, count, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return FileError(errno, "write to", path_);
    bytes += n;
    count -= static_cast<size_t>(n);
    offset += static_cast<uint64_t>(n);
  }
  return absl::OkStatus();
}

absl::Status ImageWriter::Commit() {
  if (!size_bytes_.has_value() || position_bytes() < *size_bytes_) {
    return absl::DataLossError(absl::StrCat("the export ended at byte ", position_bytes(), " of ",
                                            size_bytes_.value_or(0), ", before all pages came"));
  }
  if (absl::Status status = Flush(); !status.ok()) return status;
  if (!part_.empty()) {
    if (ftruncate(fd_.get(), static_cast<off_t>(*size_bytes_)) != 0) {
      return FileError(errno, "set the size of", part_);
    }
    // Else a crash soon after could leave a file of the right name with wrong bytes.
    if (fdatasync(fd_.get()) != 0) return FileError(errno, "write to the disk of", path_);
    if (rename(part_.c_str(), path_.c_str()) != 0) return FileError(errno, "rename to", path_);
  }
  committed_ = true;
  return absl::OkStatus();
}

}  // namespace faultline
