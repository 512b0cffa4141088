// SPDX-License-Identifier: Apache-2.0
//
// The kernel as the lab sees it: a userfaultfd of this process with every ioctl that fills memory,
// also those that the pager has no use for, and mappings to fill.
#ifndef FAULTLINE_CLIENT_LAB_LAB_UFFD_H_
#define FAULTLINE_CLIENT_LAB_LAB_UFFD_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <utility>

#include "client/uffd/uffd.h"
#include "client/unique_fd.h"

namespace faultline {

// An operation that is measured, and the lock of the address space that it takes since Linux 6.9
// (commit 867a43a34ff8); before, all of them take mmap_lock, shared.
enum class FillOp {
  kCopy,          // per-VMA lock
  kZeropage,      // per-VMA lock
  kContinue,      // per-VMA lock; shared memory, its pages are in the page cache
  kMove,          // per-VMA lock of both sides; since 6.8
  kPoison,        // per-VMA lock; since 6.6
  kWriteprotect,  // mmap_lock, shared: it goes over several VMAs
};
const char* FillOpName(FillOp op);
// The features of UFFDIO_API that `op` asks for.
uint64_t FeaturesOf(FillOp op);

// Thread-safe: the kernel serialises what it must.
class LabUffd {
 public:
  // The features that the running kernel offers. PERMISSION_DENIED as OpenUffd.
  static absl::StatusOr<uint64_t> KernelFeatures();
  // Past UFFDIO_API with `features`, not blocking.
  static absl::StatusOr<LabUffd> Open(uint64_t features);

  int fd() const { return fd_.get(); }
  // `mode` is UFFDIO_REGISTER_MODE_...
  absl::Status Register(AddressRange range, uint64_t mode);

  FillResult Copy(uint64_t to, const void* from, uint64_t length);
  FillResult Zeropage(AddressRange range);
  FillResult Continue(AddressRange range);
  FillResult Move(uint64_t to, uint64_t from, uint64_t length);
  FillResult Poison(AddressRange range);
  enum class Protection : uint64_t { kOff = 0, kOn = UFFDIO_WRITEPROTECT_MODE_WP };
  FillResult Writeprotect(AddressRange range, Protection protection);

 private:
  explicit LabUffd(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

// A mapping of this process, never of huge pages; unmapped at the end.
class Mapping {
 public:
  Mapping() = default;
  // Private anonymous memory, or where `fd` is given, the front of that file, shared. Behind it lie
  // `reserved` bytes where nothing else can be mapped, so that it cannot grow in place beyond
  // itself.
  static absl::StatusOr<Mapping> Create(uint64_t bytes, uint64_t reserved, int fd = -1);
  Mapping(Mapping&& other) noexcept { *this = std::move(other); }
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();

  uint64_t address() const { return range_.start; }
  AddressRange range() const { return range_; }

 private:
  AddressRange range_;
  uint64_t reserved_ = 0;
};

// Writes to every page of `range`, so that it is there.
void Populate(AddressRange range);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_LAB_LAB_UFFD_H_
