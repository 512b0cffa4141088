// SPDX-License-Identifier: Apache-2.0
#include "client/trace/trace_reader.h"

#include <absl/strings/str_cat.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace faultline {
namespace {

constexpr uint64_t kSlotsAtOnce = 4096;

// The bytes that were read: fewer than asked for only at the end of the file.
absl::StatusOr<size_t> ReadAt(int fd, void* to, size_t bytes, uint64_t offset) {
  size_t done = 0;
  while (done < bytes) {
    const ssize_t n =
        pread(fd, static_cast<char*>(to) + done, bytes - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return absl::ErrnoToStatus(errno, "cannot read it");
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

absl::Status Invalid(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, " ", what));
}

absl::Status CheckHeader(const std::string& path, const TraceHeader& header) {
  if (memcmp(header.magic, kTraceMagic, sizeof(kTraceMagic)) != 0) {
    return Invalid(path, "is no trace");
  }
  if (header.version != kTraceVersion) {
    return absl::UnimplementedError(absl::StrCat(path, " is a trace of version ", header.version,
                                                 "; this program reads version ", kTraceVersion));
  }
  // So that the offset of a slot stays far below 2^63.
  if (header.slot_bytes != kTraceSlotBytes || header.capacity == 0 ||
      header.capacity > uint64_t{1} << 56 || header.volume_pages > kMaxVolumePages ||
      header.when_full > static_cast<uint32_t>(WhenTraceIsFull::kStop)) {
    return Invalid(path, "is a trace with a damaged header");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TraceReader> TraceReader::Open(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  struct stat status;
  if (!fd || fstat(fd.get(), &status) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot open the trace ", path));
  }
  if (!S_ISREG(status.st_mode)) return Invalid(path, "is no trace: it is no file");
  TraceHeader header;
  const absl::StatusOr<size_t> read = ReadAt(fd.get(), &header, sizeof(header), 0);
  if (!read.ok()) {
    return absl::Status(read.status().code(), absl::StrCat(path, ": ", read.status().message()));
  }
  if (*read < sizeof(header)) return Invalid(path, "is no trace: it is too short");
  if (absl::Status checked = CheckHeader(path, header); !checked.ok()) return checked;
  const auto size = static_cast<uint64_t>(status.st_size);
  return TraceReader(path, std::move(fd), header,
                     size < kTraceHeaderBytes ? 0 : (size - kTraceHeaderBytes) / kTraceSlotBytes);
}

TraceReader::TraceReader(std::string path, UniqueFd fd, const TraceHeader& header,
                         uint64_t slots_in_file)
    : path_(std::move(path)),
      fd_(std::move(fd)),
      header_(header),
      slots_in_file_(std::min(slots_in_file, header.capacity)),
      next_(0),
      end_(header.begun) {
  if (end_ <= header_.capacity) return;
  if (header_.when_full == static_cast<uint32_t>(WhenTraceIsFull::kStop)) {
    end_ = header_.capacity;  // it counts a few more, of threads that came at the same time
  } else {
    next_ = end_ - header_.capacity;
  }
}

absl::StatusOr<std::optional<TraceRecord>> TraceReader::Next() {
  for (;;) {
    if (at_ == slots_.size()) {
      if (absl::Status status = ReadSlots(); !status.ok()) return status;
      if (slots_.empty()) return std::nullopt;
    }
    const uint64_t n = next_ - slots_.size() + at_;
    const TraceSlot& slot = slots_[at_];
    const TraceSlot& again = again_[at_++];
    if (slot.lap == n / header_.capacity + 1 && memcmp(&slot, &again, sizeof(slot)) == 0) {
      if (auto record = DecodeTraceRecord(slot, header_.volume_pages)) return record;
    }
    ++skipped_;
  }
}

absl::Status TraceReader::ReadSlots() {
  slots_.clear();
  at_ = 0;
  while (next_ < end_ && slots_.empty()) {
    // Up to the end of the ring.
    const uint64_t first = next_ % header_.capacity;
    const uint64_t run = std::min(end_ - next_, header_.capacity - first);
    if (first >= slots_in_file_) {
      skipped_ += run;
      next_ += run;
      continue;
    }
    const uint64_t count = std::min({run, slots_in_file_ - first, kSlotsAtOnce});
    slots_.resize(count);
    again_.resize(count);
    // Twice: what is the same both times, and was whole the first time, was not being written.
    for (std::vector<TraceSlot>* to : {&slots_, &again_}) {
      const absl::StatusOr<size_t> read = ReadAt(fd_.get(), to->data(), count * kTraceSlotBytes,
                                                 kTraceHeaderBytes + first * kTraceSlotBytes);
      if (!read.ok()) {
        return absl::Status(read.status().code(),
                            absl::StrCat(path_, ": ", read.status().message()));
      }
      // Where the file has become shorter meanwhile, the rest is no record.
      memset(reinterpret_cast<char*>(to->data()) + *read, 0, count * kTraceSlotBytes - *read);
    }
    next_ += count;
  }
  return absl::OkStatus();
}

}  // namespace faultline
