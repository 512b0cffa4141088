// SPDX-License-Identifier: Apache-2.0
//
// What a trace consists of, in memory and in its file. The file is a header of one page, and then
// slots of kTraceSlotBytes, each for one record; record n of the trace is in slot n % capacity, so
// that a ring keeps the newest. All numbers are little-endian.
#ifndef FAULTLINE_CLIENT_TRACE_TRACE_RECORD_H_
#define FAULTLINE_CLIENT_TRACE_TRACE_RECORD_H_

#include <absl/strings/string_view.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "proto/page.h"

namespace faultline {

enum class TraceKind : uint8_t {
  kAccess = 1,     // of a program to its memory, whether it faulted or not
  kFault = 2,      // that a thread waited for
  kFill = 3,       // pages put into a program's memory
  kEvict = 4,      // pages taken out of it
  kWriteback = 5,  // pages written to the source
  kDiscard = 6,    // pages that the program has given up: they read as zeros
};

// How it went, or of which sort it was.
enum class TraceOutcome : uint8_t {
  kNone = 0,
  kRead = 1,       // access
  kWrite = 2,      // access
  kDemand = 3,     // fault: fetched from the source; fill: for a fault
  kAhead = 4,      // fill: of a guess
  kStaged = 5,     // fault: a guess had fetched it
  kVictim = 6,     // fault: taken back from the victim stage
  kJoined = 7,     // fault: was on its way already
  kZero = 8,       // fault or fill: known to be zeros, so nothing was fetched
  kProtected = 9,  // fault: the first write since the fill
  kDeferred = 10,  // fill: met a changing address space, and is tried again
  kClean = 11,     // evict: nothing to be written
  kDirty = 12,     // evict: goes to the source
  kBusy = 13,      // evict: stays where it is
  kDone = 14,      // writeback: acknowledged
  kRetried = 15,   // writeback: not acknowledged, and sent again
  kFailed = 16,    // anything: for good
};

absl::string_view TraceKindName(TraceKind kind);           // "access"
absl::string_view TraceOutcomeName(TraceOutcome outcome);  // "demand"; "" for kNone

struct TraceRecord {
  uint64_t time_ns = 0;  // since the trace began: of the start of what is recorded
  TraceKind kind = TraceKind::kAccess;
  TraceOutcome outcome = TraceOutcome::kNone;
  uint32_t thread = 0;  // the kernel's number of the thread that it happened for; 0: of none
  PageIndex page;       // the first of `count`
  uint32_t count = 1;   // at least 1

  // Where the time went, in nanoseconds; 4.29 s stands for anything longer.
  uint32_t queue_ns = 0;     // until work on it began
  uint32_t transfer_ns = 0;  // between asking the source and its answer
  uint32_t memory_ns = 0;    // in the kernel, on the program's memory

  friend bool operator==(const TraceRecord&, const TraceRecord&) = default;
};

// As a stage of a TraceRecord.
constexpr uint32_t TraceStage(uint64_t nanoseconds) {
  return nanoseconds < UINT32_MAX ? static_cast<uint32_t>(nanoseconds) : UINT32_MAX;
}

// What a writer does when all slots are used.
enum class WhenTraceIsFull : uint32_t {
  kDropOldest = 0,
  kStop = 1,
};

// ---- In the file. ----

static_assert(std::endian::native == std::endian::little);

inline constexpr char kTraceMagic[8] = {'F', 'L', 'T', 'R', 'A', 'C', 'E', '\n'};
inline constexpr uint32_t kTraceVersion = 1;

struct TraceHeader {
  char magic[8];
  uint32_t version;
  uint32_t slot_bytes;
  uint64_t capacity;      // in slots
  uint64_t volume_pages;  // 0: not known
  uint32_t when_full;     // WhenTraceIsFull
  uint32_t reserved;
  int64_t start_unix_ns;  // when time_ns was 0
  uint64_t dropped;       // records that found no slot, or one that was being written (atomic)
  uint64_t begun;         // records that were given a slot (atomic)
};

struct TraceSlot {
  // n / capacity + 1 for record n; with kTraceSlotBusy, while it is being written (atomic).
  uint32_t lap;
  uint32_t thread;
  uint64_t time_ns;
  uint64_t what;  // page | kind << 40 | outcome << 48
  uint32_t count;
  uint32_t queue_ns, transfer_ns, memory_ns;
};

inline constexpr uint64_t kTraceHeaderBytes = 4096;
inline constexpr uint64_t kTraceSlotBytes = sizeof(TraceSlot);
inline constexpr uint32_t kTraceSlotBusy = uint32_t{1} << 31;
static_assert(sizeof(TraceHeader) <= kTraceHeaderBytes);
static_assert(kTraceSlotBytes == 40);
static_assert(kMaxVolumePages == uint64_t{1} << 40);

// All but the lap.
void EncodeTraceRecord(const TraceRecord& record, TraceSlot* slot);
// Nothing where that is no record of a volume of `volume_pages` pages (0: of any).
std::optional<TraceRecord> DecodeTraceRecord(const TraceSlot& slot, uint64_t volume_pages);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_TRACE_TRACE_RECORD_H_
