// SPDX-License-Identifier: Apache-2.0
#include "client/fault/fault_reader.h"

#include <absl/strings/str_cat.h>
#include <errno.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "proto/log.h"

namespace faultline {
namespace {

// Faults are resolved at the latest when so many are collected, although more may be waiting:
// otherwise a target with very many threads could keep all of them waiting.
constexpr size_t kMaxFaultsPerDrain = 4096;

}  // namespace

FaultReader::FaultReader(PagedMemory* memory, std::shared_ptr<Fetcher> fetcher, Target* target)
    : memory_(memory), fetcher_(std::move(fetcher)), target_(target) {}

absl::Status FaultReader::Drain() {
  absl::StatusOr<size_t> read;
  do {
    read = ReadBatch();
    // Faults that were read are resolved whatever came after them: the kernel sends none twice.
    if (faults_.size() >= kMaxFaultsPerDrain) Resolve();
  } while (read.ok() && *read > 0);
  Resolve();
  return read.status();
}

absl::StatusOr<size_t> FaultReader::ReadBatch() {
  events_.clear();
  absl::StatusOr<size_t> read;
  {
    ExclusiveLock lock(memory_->space.map_changing_lock());
    read = memory_->uffd->Read(&events_);
    for (UffdEvent& event : events_) {
      if (const auto* fault = std::get_if<FaultEvent>(&event)) {
        faults_.push_back(fault->address);
        continue;
      }
      memory_->counters.events.fetch_add(1, std::memory_order_relaxed);
      if (const auto* remap = std::get_if<RemapEvent>(&event)) Apply(*remap);
      if (const auto* remove = std::get_if<RemoveEvent>(&event)) Apply(*remove);
      if (const auto* unmap = std::get_if<UnmapEvent>(&event)) Apply(*unmap);
      if (std::holds_alternative<ForkEvent>(event)) {
        // Fork events are never asked for, and a uffd that has them is refused at attach.
        target_->Kill(absl::StrCat(target_->Name(), ": unexpected fork event"));
      }
    }
  }
  for (AddressRange range : woken_) WakeAll(range);
  woken_.clear();
  return read;
}

void FaultReader::Apply(const RemapEvent& event) {
  memory_->space.Remap(event.from, event.to, event.length);
  // Who waits at the old addresses has to look again (SIGSEGV, or the page at its new place).
  woken_.push_back({event.from, event.length});
}

void FaultReader::Apply(const RemoveEvent& event) {
  PageTable& table = *memory_->table;
  memory_->space.ForEachPart(event.range, [&](const AddressSpace::Part& part) {
    for (PageIndex page = part.first; page < part.pages().end(); ++page) {
      // The event does not tell MADV_DONTNEED, after which shared memory keeps its pages, from
      // MADV_REMOVE, which punches a hole. A shared page that was filled and is missing afterwards
      // was punched, so it is zero; one that never was filled is still at the source.
      if (part.shared && table.Get(page) == PageState::kAbsent) continue;
      table.Set(page, PageState::kZero);
    }
  });
}

void FaultReader::Apply(const UnmapEvent& event) {
  memory_->space.Unmap(event.range);
  woken_.push_back(event.range);
}

void FaultReader::WakeAll(AddressRange range) {
  memory_->counters.wakes.fetch_add(1, std::memory_order_relaxed);
  memory_->uffd->Wake(range);
}

void FaultReader::Resolve() {
  if (faults_.empty()) return;
  FaultCounters& counters = memory_->counters;
  counters.faults.fetch_add(faults_.size(), std::memory_order_relaxed);
  const SteadyClock::time_point now = SteadyClock::now();
  demanded_.clear();
  std::vector<uint64_t> unknown;
  {
    SharedLock lock(memory_->space.map_changing_lock());
    for (uint64_t address : faults_) {
      const std::optional<PageIndex> page = memory_->space.PageAt(address);
      if (!page) {
        unknown.push_back(address);
      } else if (memory_->queue.Join(*page, now)) {
        demanded_.push_back(*page);
      } else {
        counters.joined_faults.fetch_add(1, std::memory_order_relaxed);
      }
    }
  }
  faults_.clear();
  for (uint64_t address : unknown) Refuse(address);

  std::sort(demanded_.begin(), demanded_.end());
  for (size_t i = 0; i < demanded_.size();) {
    // Neighbours that are filled from the same place travel together.
    const bool zero = memory_->table->Get(demanded_[i]) == PageState::kZero;
    PageRange run = PageRange::Single(demanded_[i]);
    for (++i; i < demanded_.size() && demanded_[i] == run.end() &&
              (memory_->table->Get(demanded_[i]) == PageState::kZero) == zero;
         ++i) {
      run.count += PageCount(1);
    }
    zero ? fetcher_->Zero(run) : fetcher_->Demand(run);
  }
}

void FaultReader::Refuse(uint64_t address) {
  FaultCounters& counters = memory_->counters;
  if (counters.unknown_faults.fetch_add(1, std::memory_order_relaxed) == 0) {
    LogError(absl::StrCat(target_->Name(), ": fault at 0x", absl::Hex(address),
                          ", which is in none of the mappings that were handed over; access to it "
                          "gets SIGBUS (further ones are counted, not logged)"));
  }
  const AddressRange range{address, kPageSize};
  const FillResult result = memory_->uffd->Poison(range);
  if (result.error == 0 || result.error == ESRCH) return;
  if (result.error == EINVAL) {
    target_->Kill(absl::StrCat(target_->Name(), ": fault at 0x", absl::Hex(address),
                               " outside of all mappings, and this kernel cannot poison it"));
    return;
  }
  // Unmapped since, present after all, or changing: the thread looks again and, if it must, faults
  // again.
  WakeAll(range);
}

}  // namespace faultline
