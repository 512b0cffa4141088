// SPDX-License-Identifier: Apache-2.0
#include "client/journal/shared_file.h"

#include <absl/strings/str_cat.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

namespace faultline {
namespace {

absl::Status Failed(const std::string& path, const char* what, int error) {
  const std::string message = absl::StrCat(path, ": cannot ", what, ": ", strerror(error));
  if (error == ENOSPC || error == EDQUOT || error == ENOMEM || error == EMFILE) {
    return absl::ResourceExhaustedError(message);
  }
  return absl::FailedPreconditionError(message);
}

}  // namespace

absl::StatusOr<SharedFile> SharedFile::CreateSparse(const std::string& path, size_t size) {
  SharedFile file;
  file.path_ = path;
  file.fd_.reset(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file.fd_) return Failed(path, "create it", errno);
  if (ftruncate(file.fd_.get(), static_cast<off_t>(size)) != 0) {
    return Failed(path, "make it so long", errno);
  }
  if (absl::Status status = file.Map(size); !status.ok()) return status;
  return file;
}

absl::StatusOr<SharedFile> SharedFile::Create(const std::string& path, size_t size) {
  absl::StatusOr<SharedFile> file = CreateSparse(path, size);
  if (!file.ok()) return file;
  if (absl::Status status = file->Allocate(0, size); !status.ok()) return status;
  return file;
}

absl::StatusOr<SharedFile> SharedFile::Open(const std::string& path) {
  SharedFile file;
  file.path_ = path;
  file.fd_.reset(open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!file.fd_) return Failed(path, "open it", errno);
  struct stat status;
  if (fstat(file.fd_.get(), &status) != 0) return Failed(path, "look at it", errno);
  if (status.st_size == 0) return absl::DataLossError(absl::StrCat(path, " is empty"));
  if (absl::Status mapped = file.Map(static_cast<size_t>(status.st_size)); !mapped.ok()) {
    return mapped;
  }
  return file;
}

SharedFile& SharedFile::operator=(SharedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

SharedFile::~SharedFile() {
  if (!bytes_.empty()) munmap(bytes_.data(), bytes_.size());
}

absl::Status SharedFile::Grow(size_t size) {
  if (absl::Status status = Allocate(0, size); !status.ok()) return status;
  return Map(size);
}

absl::Status SharedFile::Allocate(size_t offset, size_t size) const {
  // posix_fallocate returns its error.
  const int error =
      posix_fallocate(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(size));
  return error == 0 ? absl::OkStatus() : Failed(path_, "allocate its space", error);
}

absl::Status SharedFile::Map(size_t size) {
  void* const at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (at == MAP_FAILED) return Failed(path_, "map it", errno);
  if (!bytes_.empty()) munmap(bytes_.data(), bytes_.size());
  bytes_ = {static_cast<std::byte*>(at), size};
  return absl::OkStatus();
}

}  // namespace faultline
