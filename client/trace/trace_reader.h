// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_TRACE_TRACE_READER_H_
#define FAULTLINE_CLIENT_TRACE_TRACE_READER_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/trace/trace_record.h"
#include "client/unique_fd.h"

namespace faultline {

// Reads a trace, also one that is being written, that was cut off, or that is damaged: what is
// whole is returned, the rest counted. Not thread-safe.
class TraceReader {
 public:
  // INVALID_ARGUMENT where `path` is no trace or has a header that makes no sense; UNIMPLEMENTED
  // for another version's; otherwise the errno of opening it.
  static absl::StatusOr<TraceReader> Open(const std::string& path);

  // As it was when it was opened.
  const TraceHeader& header() const { return header_; }

  // The next record, in the order in which they were begun (their times may be in another, by as
  // long as what is recorded took); nothing at the end. An error where the file cannot be read.
  absl::StatusOr<std::optional<TraceRecord>> Next();

  // So far: records that the trace ought to have and that are not whole, because they were being
  // written, or lie behind the end of the file, or make no sense.
  uint64_t skipped() const { return skipped_; }

 private:
  TraceReader(std::string path, UniqueFd fd, const TraceHeader& header, uint64_t slots_in_file);

  // Reads the next slots into `slots_`; none at the end.
  absl::Status ReadSlots();

  std::string path_;
  UniqueFd fd_;
  TraceHeader header_;
  uint64_t slots_in_file_;
  uint64_t next_, end_;           // of the records that are still to be read
  std::vector<TraceSlot> slots_;  // read, from record `next_` - slots_.size() on
  size_t at_ = 0;                 // of the next one in there
  std::vector<TraceSlot> again_;
  uint64_t skipped_ = 0;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_TRACE_TRACE_READER_H_
