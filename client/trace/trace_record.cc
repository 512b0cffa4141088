// SPDX-License-Identifier: Apache-2.0
#include "client/trace/trace_record.h"

#include <array>

namespace faultline {
namespace {

constexpr int kKindShift = 40;
constexpr int kOutcomeShift = 48;
constexpr int kUnusedShift = 56;

constexpr std::array<absl::string_view, 7> kKinds = {"",      "access",    "fault",  "fill",
                                                     "evict", "writeback", "discard"};
constexpr std::array<absl::string_view, 17> kOutcomes = {
    "",          "read",     "write", "demand", "ahead", "staged", "victim",  "joined", "zero",
    "protected", "deferred", "clean", "dirty",  "busy",  "done",   "retried", "failed"};

}  // namespace

absl::string_view TraceKindName(TraceKind kind) { return kKinds[static_cast<size_t>(kind)]; }

absl::string_view TraceOutcomeName(TraceOutcome outcome) {
  return kOutcomes[static_cast<size_t>(outcome)];
}

void EncodeTraceRecord(const TraceRecord& record, TraceSlot* slot) {
  slot->thread = record.thread;
  slot->time_ns = record.time_ns;
  slot->what = record.page.raw() | static_cast<uint64_t>(record.kind) << kKindShift |
               static_cast<uint64_t>(record.outcome) << kOutcomeShift;
  slot->count = record.count;
  slot->queue_ns = record.queue_ns;
  slot->transfer_ns = record.transfer_ns;
  slot->memory_ns = record.memory_ns;
}

std::optional<TraceRecord> DecodeTraceRecord(const TraceSlot& slot, uint64_t volume_pages) {
  const uint64_t page = slot.what & (kMaxVolumePages - 1);
  const uint64_t kind = slot.what >> kKindShift & 0xff;
  const uint64_t outcome = slot.what >> kOutcomeShift & 0xff;
  const PageCount volume(volume_pages == 0 ? kMaxVolumePages : volume_pages);
  if (slot.what >> kUnusedShift != 0 || kind == 0 || kind >= kKinds.size() ||
      outcome >= kOutcomes.size() || slot.count == 0 || !IsWithin(page, slot.count, volume)) {
    return std::nullopt;
  }
  TraceRecord record;
  record.time_ns = slot.time_ns;
  record.kind = static_cast<TraceKind>(kind);
  record.outcome = static_cast<TraceOutcome>(outcome);
  record.thread = slot.thread;
  record.page = PageIndex(page);
  record.count = slot.count;
  record.queue_ns = slot.queue_ns;
  record.transfer_ns = slot.transfer_ns;
  record.memory_ns = slot.memory_ns;
  return record;
}

}  // namespace faultline
