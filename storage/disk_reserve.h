// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_STORAGE_DISK_RESERVE_H_
#define FAULTLINE_STORAGE_DISK_RESERVE_H_

#include <cstdint>
#include <string>

#include "proto/mutex.h"

namespace faultline {

// Bytes free to an ordinary process on the file system of `path`; 0 where that cannot be told.
uint64_t FreeBytes(const std::string& path);
// What that file system has in all; 0 where that cannot be told.
uint64_t CapacityBytes(const std::string& path);

// A file that takes up space until it is needed. Thread-safe.
class DiskReserve {
 public:
  // Takes the space at once, unless that would leave less than three times as much free.
  DiskReserve(std::string path, uint64_t bytes);
  // Deletes the file: only a running store needs it.
  ~DiskReserve();
  DiskReserve(const DiskReserve&) = delete;
  DiskReserve& operator=(const DiskReserve&) = delete;

  // Frees the space. False if there was none to free.
  bool GiveUp();
  // Takes the space again, if it was given up and there is room.
  void Restore();
  // Whether it was given up and not taken again yet: only what frees space may use it now.
  bool given_up() const;

 private:
  bool Take() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::string path_;
  const uint64_t bytes_;
  mutable Mutex mu_;
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  bool given_up_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace faultline

#endif  // FAULTLINE_STORAGE_DISK_RESERVE_H_
