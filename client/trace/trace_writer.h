// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_TRACE_TRACE_WRITER_H_
#define FAULTLINE_CLIENT_TRACE_TRACE_WRITER_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "client/journal/shared_file.h"
#include "client/trace/trace_record.h"

namespace faultline {

struct TraceOptions {
  uint64_t capacity_bytes = uint64_t{256} << 20;  // of the file; 26,214 records to the MiB
  WhenTraceIsFull when_full = WhenTraceIsFull::kDropOldest;
  PageCount volume;  // its size; 0: not known
};

// Writes a trace to a file that is mapped, all of whose space is allocated at the start. What was
// appended is in the file at whatever instruction this process ends. Best on a tmpfs: on a disk a
// store now and then waits for the file system.
//
// Append() and Now() are thread-safe, take no lock, do not allocate and make no system call but
// clock_gettime.
class TraceWriter {
 public:
  // Makes the file. An older trace at `path` is replaced. ALREADY_EXISTS where something else is
  // there; RESOURCE_EXHAUSTED without the space; INVALID_ARGUMENT for a capacity of no record.
  static absl::StatusOr<std::unique_ptr<TraceWriter>> Create(const std::string& path,
                                                             const TraceOptions& options);

  // For TraceRecord::time_ns.
  uint64_t Now() const;
  // The same of another time of CLOCK_MONOTONIC; 0 for one from before the trace.
  uint64_t At(uint64_t monotonic_ns) const {
    return monotonic_ns < start_monotonic_ns_ ? 0 : monotonic_ns - start_monotonic_ns_;
  }

  // A record that finds no slot, or that finds another thread still writing where it would be, a
  // whole ring later, is counted as dropped.
  void Append(const TraceRecord& record);

  uint64_t dropped() const;

 private:
  TraceWriter(SharedFile file, WhenTraceIsFull when_full, uint64_t capacity);

  TraceHeader* header() const;
  TraceSlot* slot(uint64_t record) const;
  void Drop();

  const SharedFile file_;
  const WhenTraceIsFull when_full_;
  const uint64_t capacity_;
  const uint64_t start_monotonic_ns_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_TRACE_TRACE_WRITER_H_
