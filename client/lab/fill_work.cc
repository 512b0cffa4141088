// SPDX-License-Identifier: Apache-2.0
#include "client/lab/fill_work.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "proto/page.h"

namespace faultline {

FillWork::FillWork(const FillWorkOptions& options, LabUffd uffd)
    : options_(options),
      shares_(options.threads),
      bytes_(options.chunk_bytes, std::byte{0x5a}),
      uffd_(std::move(uffd)) {
  const uint64_t share =
      std::max<uint64_t>(options.memory_bytes / options.threads / options.chunk_bytes, 1) *
      options.chunk_bytes;
  for (Share& s : shares_) {
    s.begin = s.next = fill_bytes_;
    s.end = fill_bytes_ += share;
  }
}

absl::StatusOr<std::unique_ptr<FillWork>> FillWork::Create(const FillWorkOptions& options) {
  absl::StatusOr<LabUffd> uffd = LabUffd::Open(FeaturesOf(options.op) | options.features);
  if (!uffd.ok()) return uffd.status();
  auto work = std::unique_ptr<FillWork>(new FillWork(options, *std::move(uffd)));
  if (absl::Status status = work->MapAndRegister(); !status.ok()) return status;
  return work;
}

absl::Status FillWork::MapAndRegister() {
  const uint64_t bytes = fill_bytes_ + options_.tail_bytes;
  uint64_t mode = UFFDIO_REGISTER_MODE_MISSING;
  if (options_.op == FillOp::kContinue) {
    mode = UFFDIO_REGISTER_MODE_MINOR;
    memfd_ = UniqueFd(memfd_create("faultline-lab", MFD_CLOEXEC));
    if (!memfd_ ||
        // The churn maps twice its tail for a moment.
        ftruncate(memfd_.get(), static_cast<off_t>(bytes + options_.tail_bytes)) != 0) {
      return absl::ErrnoToStatus(errno, "memfd of the memory to fill");
    }
    const absl::StatusOr<Mapping> alias = Mapping::Create(fill_bytes_, kPageSize, memfd_.get());
    if (!alias.ok()) return alias.status();
    Populate(alias->range());
  }
  // Nothing can be mapped right behind it: the tail has to move in order to grow.
  absl::StatusOr<Mapping> target = Mapping::Create(bytes, bytes, memfd_.get());
  if (!target.ok()) return target.status();
  target_ = *std::move(target);
  // As long as a private VMA has had no page, it has no anon_vma: fills of it go through mmap_lock,
  // and a moving mremap of its tail may land right below it and be merged with all of it, which
  // then, where REMAP is not asked for, is no longer registered (seen on 6.18).
  Populate({target_.address(), kPageSize});
  if (madvise(reinterpret_cast<void*>(target_.address()), kPageSize, MADV_DONTNEED) != 0) {
    return absl::ErrnoToStatus(errno, "madvise of the memory to fill");
  }
  if (options_.op == FillOp::kMove) {
    absl::StatusOr<Mapping> other = Mapping::Create(fill_bytes_, kPageSize, -1);
    if (!other.ok()) return other.status();
    other_ = *std::move(other);
    Populate(other_.range());
    // Pages go there and back.
    if (absl::Status status = uffd_.Register(other_.range(), mode); !status.ok()) return status;
  }
  if (options_.op == FillOp::kWriteprotect) {
    mode = UFFDIO_REGISTER_MODE_WP;
    Populate({target_.address(), fill_bytes_});
  }
  return uffd_.Register(target_.range(), mode);
}

absl::Status FillWork::Reset() {
  if (options_.op == FillOp::kMove || options_.op == FillOp::kWriteprotect) {
    return absl::OkStatus();
  }
  for (Share& share : shares_) share.next = share.begin;
  if (madvise(reinterpret_cast<void*>(target_.address()), fill_bytes_, MADV_DONTNEED) != 0) {
    return absl::ErrnoToStatus(errno, "madvise of the memory to fill");
  }
  return absl::OkStatus();
}

bool FillWork::IsExhausted(size_t thread) const {
  const Share& share = shares_[thread];
  return share.next == share.end && options_.op != FillOp::kMove &&
         options_.op != FillOp::kWriteprotect;
}

FillResult FillWork::FillNext(size_t thread) {
  Share& share = shares_[thread];
  if (share.next == share.end) {
    share.next = share.begin;
    share.back = !share.back;
  }
  const AddressRange range = {target_.address() + share.next,
                              options_.chunk_bytes - share.next % options_.chunk_bytes};
  FillResult result;
  switch (options_.op) {
    case FillOp::kCopy:
      result = uffd_.Copy(range.start, bytes_.data(), range.length);
      break;
    case FillOp::kZeropage:
      result = uffd_.Zeropage(range);
      break;
    case FillOp::kContinue:
      result = uffd_.Continue(range);
      break;
    case FillOp::kMove: {
      const uint64_t other = other_.address() + share.next;
      result = share.back ? uffd_.Move(other, range.start, range.length)
                          : uffd_.Move(range.start, other, range.length);
      // Once in some million calls Linux 6.18 moves a page and still says this (seen: it is at its
      // destination, and no longer at its source). Nobody else fills here.
      if (result.error == EEXIST && result.bytes_done == 0) result.bytes_done = kPageSize;
      break;
    }
    case FillOp::kPoison:
      result = uffd_.Poison(range);
      break;
    case FillOp::kWriteprotect:
      result = uffd_.Writeprotect(
          range, share.back ? LabUffd::Protection::kOff : LabUffd::Protection::kOn);
      break;
  }
  share.next += result.bytes_done;
  return result;
}

}  // namespace faultline
