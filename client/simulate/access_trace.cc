// SPDX-License-Identifier: Apache-2.0
#include "client/simulate/access_trace.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "client/trace/trace_reader.h"
#include "client/trace/trace_writer.h"

namespace faultline {
namespace {

// What a record is to a simulation; nothing where it is nothing.
std::optional<AccessKind> KindOf(const TraceRecord& record, bool of_faults) {
  if (record.kind == TraceKind::kDiscard) return AccessKind::kDiscard;
  if (record.kind != (of_faults ? TraceKind::kFault : TraceKind::kAccess)) return std::nullopt;
  const bool write =
      record.outcome == TraceOutcome::kWrite || record.outcome == TraceOutcome::kProtected;
  return write ? AccessKind::kWrite : AccessKind::kRead;
}

absl::StatusOr<LoadedAccesses> Load(const std::string& path, bool of_faults) {
  absl::StatusOr<TraceReader> trace = TraceReader::Open(path);
  if (!trace.ok()) return trace.status();
  LoadedAccesses loaded;
  loaded.is_of_faults = of_faults;
  std::vector<Access>& accesses = loaded.sequence.accesses;
  PageIndex end;
  bool any = false;
  for (;;) {
    const absl::StatusOr<std::optional<TraceRecord>> next = trace->Next();
    if (!next.ok()) return next.status();
    if (!*next) break;
    const TraceRecord& record = **next;
    const std::optional<AccessKind> kind = KindOf(record, of_faults);
    if (!kind) continue;
    if (record.count > kMaxAccesses - accesses.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, " has more than ", kMaxAccesses, " accesses; take a shorter trace"));
    }
    any = any || *kind != AccessKind::kDiscard;
    for (uint64_t i = 0; i < record.count; ++i) {
      accesses.emplace_back(record.page + PageCount(i), *kind);
    }
    end = std::max(end, record.page + PageCount(record.count));
  }
  if (!any) accesses.clear();
  const uint64_t volume = trace->header().volume_pages;
  loaded.sequence.volume = PageCount(volume == 0 ? end.raw() : volume);
  loaded.dropped = trace->header().dropped;
  loaded.not_whole = trace->skipped();
  return loaded;
}

}  // namespace

absl::StatusOr<LoadedAccesses> LoadAccesses(const std::string& path) {
  absl::StatusOr<LoadedAccesses> loaded = Load(path, /*of_faults=*/false);
  if (!loaded.ok() || !loaded->sequence.accesses.empty()) return loaded;
  loaded = Load(path, /*of_faults=*/true);
  if (!loaded.ok() || !loaded->sequence.accesses.empty()) return loaded;
  return absl::InvalidArgumentError(
      absl::StrCat(path, " has neither accesses nor faults to simulate"));
}

absl::Status SaveAccesses(const AccessSequence& sequence, const std::string& path) {
  TraceOptions options;
  options.capacity_bytes =
      kTraceHeaderBytes + std::max<uint64_t>(1, sequence.accesses.size()) * kTraceSlotBytes;
  options.when_full = WhenTraceIsFull::kStop;
  options.volume = sequence.volume;
  const absl::StatusOr<std::unique_ptr<TraceWriter>> trace = TraceWriter::Create(path, options);
  if (!trace.ok()) return trace.status();
  TraceRecord record;
  for (const Access& access : sequence.accesses) {
    record.kind = access.kind() == AccessKind::kDiscard ? TraceKind::kDiscard : TraceKind::kAccess;
    record.outcome = access.kind() == AccessKind::kDiscard ? TraceOutcome::kNone
                     : access.kind() == AccessKind::kWrite ? TraceOutcome::kWrite
                                                           : TraceOutcome::kRead;
    record.page = access.page();
    (*trace)->Append(record);
    ++record.time_ns;
  }
  return absl::OkStatus();
}

}  // namespace faultline
