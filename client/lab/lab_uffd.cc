// SPDX-License-Identifier: Apache-2.0
#include "client/lab/lab_uffd.h"

#include <absl/strings/str_cat.h>
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "client/uffd/uapi.h"
#include "proto/page.h"

namespace faultline {
namespace {

constexpr uint64_t kFeatureMinorShmem = 1u << 10;  // 5.14

uffdio_range ToKernel(AddressRange range) { return {range.start, range.length}; }

// Decodes the progress field of a fill ioctl: above 0 bytes; otherwise nothing was done (-EAGAIN
// since 6.15, before that the 0 that we have set).
FillResult Result(int returned, int64_t field, uint64_t length) {
  if (returned == 0) return {0, length};
  return {errno, field > 0 ? static_cast<uint64_t>(field) : 0};
}

}  // namespace

const char* FillOpName(FillOp op) {
  switch (op) {
    case FillOp::kCopy:
      return "COPY";
    case FillOp::kZeropage:
      return "ZEROPAGE";
    case FillOp::kContinue:
      return "CONTINUE";
    case FillOp::kMove:
      return "MOVE";
    case FillOp::kPoison:
      return "POISON";
    case FillOp::kWriteprotect:
      return "WRITEPROTECT";
  }
  return "?";
}

uint64_t FeaturesOf(FillOp op) {
  switch (op) {
    case FillOp::kContinue:
      return uapi::kFeatureMissingShmem | kFeatureMinorShmem;
    case FillOp::kMove:
      return uapi::kFeatureMove;
    case FillOp::kPoison:
      return uapi::kFeaturePoison;
    case FillOp::kWriteprotect:
      return uapi::kFeaturePagefaultFlagWp;
    default:
      return 0;
  }
}

absl::StatusOr<uint64_t> LabUffd::KernelFeatures() {
  const absl::StatusOr<UniqueFd> fd = OpenUffd();
  if (!fd.ok()) return fd.status();
  uffdio_api api{};
  api.api = UFFD_API;
  if (ioctl(fd->get(), UFFDIO_API, &api) != 0) return absl::ErrnoToStatus(errno, "UFFDIO_API");
  return api.features;
}

absl::StatusOr<LabUffd> LabUffd::Open(uint64_t features) {
  absl::StatusOr<UniqueFd> fd = OpenUffd();
  if (!fd.ok()) return fd.status();
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = features;
  if (ioctl(fd->get(), UFFDIO_API, &api) != 0) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("UFFDIO_API with the features 0x", absl::Hex(features)));
  }
  return LabUffd(*std::move(fd));
}

absl::Status LabUffd::Register(AddressRange range, uint64_t mode) {
  uffdio_register request{};
  request.range = ToKernel(range);
  request.mode = mode;
  if (ioctl(fd_.get(), UFFDIO_REGISTER, &request) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(
      errno, absl::StrCat("UFFDIO_REGISTER of ", range.length, " bytes with the mode ", mode));
}

FillResult LabUffd::Copy(uint64_t to, const void* from, uint64_t length) {
  uffdio_copy copy{};
  copy.dst = to;
  copy.src = reinterpret_cast<uint64_t>(from);
  copy.len = length;
  const int returned = ioctl(fd_.get(), UFFDIO_COPY, &copy);
  return Result(returned, copy.copy, length);
}

FillResult LabUffd::Zeropage(AddressRange range) {
  uffdio_zeropage zero{};
  zero.range = ToKernel(range);
  const int returned = ioctl(fd_.get(), UFFDIO_ZEROPAGE, &zero);
  return Result(returned, zero.zeropage, range.length);
}

FillResult LabUffd::Continue(AddressRange range) {
  uffdio_continue request{};
  request.range = ToKernel(range);
  const int returned = ioctl(fd_.get(), UFFDIO_CONTINUE, &request);
  return Result(returned, request.mapped, range.length);
}

FillResult LabUffd::Move(uint64_t to, uint64_t from, uint64_t length) {
  uapi::Move move{};
  move.dst = to;
  move.src = from;
  move.len = length;
  const int returned = ioctl(fd_.get(), uapi::kIoctlMove, &move);
  return Result(returned, move.move, length);
}

FillResult LabUffd::Poison(AddressRange range) {
  uapi::Poison poison{};
  poison.range = ToKernel(range);
  const int returned = ioctl(fd_.get(), uapi::kIoctlPoison, &poison);
  return Result(returned, poison.updated, range.length);
}

FillResult LabUffd::Writeprotect(AddressRange range, Protection protection) {
  uffdio_writeprotect request{};
  request.range = ToKernel(range);
  request.mode = static_cast<uint64_t>(protection);
  const int returned = ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &request);
  return Result(returned, 0, range.length);  // it tells no progress
}

absl::StatusOr<Mapping> Mapping::Create(uint64_t bytes, uint64_t reserved, int fd) {
  void* at = mmap(nullptr, bytes + reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                  -1, 0);
  if (at == MAP_FAILED) {
    return absl::ErrnoToStatus(errno, absl::StrCat("mmap of ", bytes + reserved, " bytes"));
  }
  Mapping mapping;
  mapping.range_ = {reinterpret_cast<uint64_t>(at), bytes};
  mapping.reserved_ = reserved;
  const int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  if (mmap(at, bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED | MAP_NORESERVE, fd, 0) ==
      MAP_FAILED) {
    return absl::ErrnoToStatus(errno, absl::StrCat("mmap of ", bytes, " bytes"));
  }
  // A kernel that knows no huge pages answers EINVAL, and has none to avoid.
  static_cast<void>(madvise(at, bytes, MADV_NOHUGEPAGE));
  return mapping;
}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(range_, other.range_);
  std::swap(reserved_, other.reserved_);
  return *this;
}

Mapping::~Mapping() {
  if (range_.length != 0) {
    munmap(reinterpret_cast<void*>(range_.start), range_.length + reserved_);
  }
}

void Populate(AddressRange range) {
  for (uint64_t at = range.start; at < range.end(); at += kPageSize) {
    *reinterpret_cast<volatile char*>(at) = 1;
  }
}

}  // namespace faultline
