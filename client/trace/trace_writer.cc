// SPDX-License-Identifier: Apache-2.0
#include "client/trace/trace_writer.h"

#include <absl/strings/str_cat.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <utility>

#include "client/unique_fd.h"

namespace faultline {
namespace {

constexpr uint64_t kMaxLap = kTraceSlotBusy - 1;

uint64_t Clock(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// Removes an older trace. Anything else stays, and is an error.
absl::Status MakeRoom(const std::string& path) {
  // Without waiting for the other end, should it be a pipe.
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!fd && errno == ENOENT) return absl::OkStatus();
  char magic[sizeof(kTraceMagic)];
  struct stat status;
  if (fd && fstat(fd.get(), &status) == 0 && S_ISREG(status.st_mode) &&
      pread(fd.get(), magic, sizeof(magic), 0) == sizeof(magic) &&
      memcmp(magic, kTraceMagic, sizeof(magic)) == 0) {
    if (unlink(path.c_str()) == 0) return absl::OkStatus();
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot replace the trace ", path));
  }
  return absl::AlreadyExistsError(
      absl::StrCat(path, " exists and is no trace, so it is not replaced; give another path"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<TraceWriter>> TraceWriter::Create(const std::string& path,
                                                                 const TraceOptions& options) {
  if (options.capacity_bytes < kTraceHeaderBytes + kTraceSlotBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a trace of ", options.capacity_bytes, " bytes has no room for a record; it needs ",
        kTraceHeaderBytes, " bytes and ", kTraceSlotBytes, " for each"));
  }
  const uint64_t capacity = (options.capacity_bytes - kTraceHeaderBytes) / kTraceSlotBytes;
  if (absl::Status status = MakeRoom(path); !status.ok()) return status;
  absl::StatusOr<SharedFile> file =
      SharedFile::Create(path, kTraceHeaderBytes + capacity * kTraceSlotBytes);
  if (!file.ok()) return file.status();

  TraceHeader header = {};
  memcpy(header.magic, kTraceMagic, sizeof(header.magic));
  header.version = kTraceVersion;
  header.slot_bytes = kTraceSlotBytes;
  header.capacity = capacity;
  header.volume_pages = options.volume.raw();
  header.when_full = static_cast<uint32_t>(options.when_full);
  header.start_unix_ns = static_cast<int64_t>(Clock(CLOCK_REALTIME));
  memcpy(file->bytes().data(), &header, sizeof(header));
  // Not make_unique: the constructor is private.
  return std::unique_ptr<TraceWriter>(
      new TraceWriter(*std::move(file), options.when_full, capacity));
}

TraceWriter::TraceWriter(SharedFile file, WhenTraceIsFull when_full, uint64_t capacity)
    : file_(std::move(file)),
      when_full_(when_full),
      capacity_(capacity),
      start_monotonic_ns_(Clock(CLOCK_MONOTONIC)) {}

uint64_t TraceWriter::Now() const { return At(Clock(CLOCK_MONOTONIC)); }

void TraceWriter::Append(const TraceRecord& record) {
  std::atomic_ref<uint64_t> begun(header()->begun);
  // Looked at first, so that it does not count on for ever.
  if (when_full_ == WhenTraceIsFull::kStop && begun.load(std::memory_order_relaxed) >= capacity_) {
    return Drop();
  }
  const uint64_t n = begun.fetch_add(1, std::memory_order_relaxed);
  const uint64_t lap = n / capacity_ + 1;
  if (lap > kMaxLap || (when_full_ == WhenTraceIsFull::kStop && n >= capacity_)) return Drop();
  TraceSlot* const to = slot(n);
  std::atomic_ref<uint32_t> at(to->lap);
  // Who has the slot is still writing to it, or came a lap later and was faster: one of the two
  // records is lost, and neither is mixed with the other.
  uint32_t before = at.load(std::memory_order_acquire);
  if (before >= lap ||
      !at.compare_exchange_strong(before, static_cast<uint32_t>(lap) | kTraceSlotBusy,
                                  std::memory_order_acq_rel)) {
    return Drop();
  }
  EncodeTraceRecord(record, to);
  at.store(static_cast<uint32_t>(lap), std::memory_order_release);
}

void TraceWriter::Drop() {
  std::atomic_ref(header()->dropped).fetch_add(1, std::memory_order_relaxed);
}

uint64_t TraceWriter::dropped() const {
  return std::atomic_ref(header()->dropped).load(std::memory_order_relaxed);
}

TraceHeader* TraceWriter::header() const {
  return reinterpret_cast<TraceHeader*>(file_.bytes().data());
}

TraceSlot* TraceWriter::slot(uint64_t record) const {
  return reinterpret_cast<TraceSlot*>(file_.bytes().data() + kTraceHeaderBytes) +
         record % capacity_;
}

}  // namespace faultline
