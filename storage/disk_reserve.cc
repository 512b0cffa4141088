// SPDX-License-Identifier: Apache-2.0
#include "storage/disk_reserve.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <utility>

namespace faultline {

uint64_t FreeBytes(const std::string& path) {
  struct statvfs stats {};
  if (statvfs(path.c_str(), &stats) != 0) return 0;
  return uint64_t{stats.f_bavail} * stats.f_frsize;
}

uint64_t CapacityBytes(const std::string& path) {
  struct statvfs stats {};
  if (statvfs(path.c_str(), &stats) != 0) return 0;
  return uint64_t{stats.f_blocks} * stats.f_frsize;
}

DiskReserve::DiskReserve(std::string path, uint64_t bytes) : path_(std::move(path)), bytes_(bytes) {
  MutexLock lock(mu_);
  unlink(path_.c_str());  // a crash may have left one, of another size
  const std::string folder = path_.substr(0, path_.rfind('/'));
  held_ = FreeBytes(folder) / 4 >= bytes_ && Take();
}

DiskReserve::~DiskReserve() { unlink(path_.c_str()); }

bool DiskReserve::Take() {
  if (FreeBytes(path_.substr(0, path_.rfind('/'))) < bytes_) return false;
  const int fd = open(path_.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  const bool taken = posix_fallocate(fd, 0, static_cast<off_t>(bytes_)) == 0;
  close(fd);
  if (!taken) unlink(path_.c_str());
  return taken;
}

bool DiskReserve::GiveUp() {
  MutexLock lock(mu_);
  if (!held_) return false;
  unlink(path_.c_str());
  held_ = false;
  given_up_ = true;
  return true;
}

void DiskReserve::Restore() {
  MutexLock lock(mu_);
  if (!given_up_ || !Take()) return;
  held_ = true;
  given_up_ = false;
}

bool DiskReserve::given_up() const {
  MutexLock lock(mu_);
  return given_up_;
}

}  // namespace faultline
