// SPDX-License-Identifier: Apache-2.0
#include "client/fault/fault_reader.h"

#include <absl/strings/str_cat.h>
#include <absl/time/time.h>
#include <errno.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>
#include <variant>

#include "proto/log.h"

namespace faultline {
namespace {

// Faults are resolved at the latest when so many are collected, or when so many batches were read
// behind the first of them, although more may be waiting: otherwise a target with very many
// threads, or with threads that never stop changing memory, could keep them waiting. Those that an
// unread event then moves are woken once it is read.
constexpr size_t kMaxFaultsPerDrain = 4096;
constexpr int kMaxBatchesPerDrain = 16;

// A thread has moved memory to where other pages still seem to be: the thread that has moved those
// away has not got to queueing its event. What the first thread does next must not be read before
// that event, or the two cannot be told apart (model/README.md, "hurried_moves"). It waits for the
// second of its own two events to be read; so the other thread, which was preempted at that point,
// is given time to catch up.
constexpr auto kCatchUpStep = std::chrono::microseconds(500);
constexpr int kCatchUpSteps = 40;

}  // namespace

FaultReader::FaultReader(PagedMemory* memory, std::shared_ptr<Fetcher> fetcher, Observers observers,
                         Target* target, ReaderHost* host, SharedDiscard shared_discard)
    : memory_(memory),
      fetcher_(std::move(fetcher)),
      observers_(std::move(observers)),
      target_(target),
      host_(host),
      shared_discard_(shared_discard) {}

absl::Status FaultReader::Drain() {
  absl::StatusOr<size_t> read;
  int batches = 0;
  do {
    read = ReadBatch();
    ++batches;
    // Faults that were read are resolved whatever came after them: the kernel sends none twice.
    if (faults_.size() >= kMaxFaultsPerDrain || batches >= kMaxBatchesPerDrain) {
      Resolve();
      batches = 0;
    }
  } while (read.ok() && *read > 0);
  Resolve();
  return read.status();
}

absl::StatusOr<size_t> FaultReader::ReadBatch() {
  events_.clear();
  absl::StatusOr<size_t> read;
  bool changed = false;
  std::vector<std::shared_ptr<PagedMemory>> settled_children;
  {
    const SharedFillLocks::All fills(memory_->table->fill_locks());
    ExclusiveLock lock(memory_->space.map_changing_lock());
    if (memory_->space.Settle()) {
      settled_children.swap(children_);
      Commit();
    }
    read = memory_->uffd->Read(&events_);
    for (UffdEvent& event : events_) {
      if (const auto* fault = std::get_if<FaultEvent>(&event)) {
        (fault->write_protected ? held_writes_ : faults_).push_back(fault->address);
        last_thread_ = fault->thread;
      } else {
        Apply(event);
        changed = true;
      }
    }
    if (changed) Commit();
  }
  for (AddressRange range : woken_) WakeAll(range);
  woken_.clear();
  for (std::shared_ptr<PagedMemory>& child : settled_children) Release(std::move(child), true);
  if (changed) fetcher_->Kick();
  if (std::exchange(displaced_, false)) {
    for (int i = 0; i < kCatchUpSteps && host_->IsRunning(); ++i) {
      std::this_thread::sleep_for(kCatchUpStep);
    }
  }
  return read;
}

void FaultReader::Commit() {
  if (memory_->journal == nullptr) return;
  const absl::Status status = memory_->journal->Commit(memory_->space.Encode());
  if (status.ok() || std::exchange(commit_failed_, true)) return;
  LogError(absl::StrCat(target_->Name(),
                        ": it will not survive the death of this agent: ", status.message()));
}

int FaultReader::Recover() {
  int forks = 0;
  {
    ExclusiveLock lock(memory_->space.map_changing_lock());
    for (UffdEvent& event : memory_->journal->Unapplied(&forks)) Apply(event);
    Commit();
  }
  displaced_ = false;
  // What was read of faults has died with its reader. All at once, and then what may lie beyond.
  {
    SharedLock lock(memory_->space.map_changing_lock());
    woken_ = memory_->space.Ranges();
  }
  woken_.push_back({kUnmappedAddress, kAddressesEnd - kUnmappedAddress});
  for (AddressRange range : woken_) WakeAll(range);
  woken_.clear();
  return forks;
}

void FaultReader::Apply(UffdEvent& event) {
  FaultCounters& counters = memory_->counters;
  if (auto* fork = std::get_if<ForkEvent>(&event)) {
    Count(counters.fork_events);
    NoteEvent(MemoryEventKind::kFork, {});
    Apply(*fork);
  } else if (const auto* remap = std::get_if<RemapEvent>(&event)) {
    Count(counters.remap_events);
    NoteEvent(MemoryEventKind::kRemap, {remap->from, remap->length});
    Apply(*remap);
  } else if (const auto* remove = std::get_if<RemoveEvent>(&event)) {
    Count(counters.remove_events);
    NoteEvent(MemoryEventKind::kRemove, remove->range);
    Apply(*remove);
  } else if (const auto* unmap = std::get_if<UnmapEvent>(&event)) {
    Count(counters.unmap_events);
    NoteEvent(MemoryEventKind::kUnmap, unmap->range);
    Apply(*unmap);
  }
}

// In the same exclusive section as the read ("clone_under_lock"): a fill that came before the fork
// is in both memories, and none comes between the fork and this copy.
void FaultReader::Apply(ForkEvent& event) {
  absl::StatusOr<std::unique_ptr<PageTable>> table = memory_->table->Clone();
  absl::StatusOr<std::unique_ptr<Uffd>> uffd =
      AdoptForkedUffd(std::move(event.uffd), memory_->uffd->features());
  absl::StatusOr<std::shared_ptr<PageSource>> source = host_->ForkSource();
  if (!table.ok() || !uffd.ok() || !source.ok()) {
    // Its pages would turn into zeros as soon as its uffd is closed.
    const absl::Status& why = !table.ok()  ? table.status()
                              : !uffd.ok() ? uffd.status()
                                           : source.status();
    target_->Kill(
        absl::StrCat(target_->Name(), ": a forked child cannot be served: ", why.ToString()));
    if (uffd.ok()) static_cast<void>(uffd->release());  // left open: it waits, and reads no zeros
    return;
  }
  auto child = std::make_shared<PagedMemory>(*std::move(uffd), *memory_, *std::move(table));
  child->forked_source = *std::move(source);
  if (child->local != nullptr) {
    // What was about to be taken out of the parent's memory is in the child's.
    PageTable& pages = *child->table;
    for (PageRange rest = pages.range(); !rest.empty();) {
      const PageRange run{rest.first, pages.RunOfSameState(rest)};
      if (pages.Get(run.first) == PageState::kEvicting) pages.SetAll(run, PageState::kPresent);
      rest = PageRange::Between(run.end(), rest.end());
    }
  }
  {
    ExclusiveLock lock(child->space.map_changing_lock());
    child->space.MatchFork([&](AddressRange range) { return child->uffd->IsRegistered(range); });
  }
  // It is served once all events are read of what may have happened before the fork.
  memory_->space.AwaitSettling();
  children_.push_back(std::move(child));
}

void FaultReader::ReleaseChildren() {
  for (std::shared_ptr<PagedMemory>& child : std::exchange(children_, {})) {
    Release(std::move(child), false);
  }
}

void FaultReader::Release(std::shared_ptr<PagedMemory> child, bool all_told) {
  {
    ExclusiveLock lock(child->space.map_changing_lock());
    child->space.EndFork(all_told);
  }
  host_->OnFork(std::move(child));
}

void FaultReader::Apply(const RemapEvent& event) {
  displaced_ = memory_->space.Remap(event.from, event.to, event.length) || displaced_;
  for (const std::shared_ptr<PagedMemory>& child : children_) {
    ExclusiveLock lock(child->space.map_changing_lock());
    child->space.FollowParent(event.from, event.to, event.length,
                              [&](AddressRange range) { return child->uffd->IsRegistered(range); });
  }
  // Who waits at the old addresses has to look again (SIGSEGV, or the page at its new place), and
  // so has who waits at the new ones for what was there before ("wake_vacated").
  woken_.push_back({event.from, event.length});
  woken_.push_back({event.to, event.length});
}

void FaultReader::Apply(const RemoveEvent& event) {
  const auto discard = [this](const AddressSpace::Part& part) ABSL_EXCLUSIVE_LOCKS_REQUIRED(
                           memory_->space.map_changing_lock()) { Discard(part); };
  memory_->space.ForEachPart(event.range, discard);
  for (const AddressSpace::Part& alias : memory_->space.aliases()) {
    if (alias.range.Overlaps(event.range)) Discard(AddressSpace::Cut(alias, event.range));
  }
}

void FaultReader::Discard(const AddressSpace::Part& part) {
  memory_->Trace(TraceKind::kDiscard, TraceOutcome::kNone, part.pages(), last_thread_);
  PageTable& table = *memory_->table;
  if (!part.shared || shared_discard_ == SharedDiscard::kZero) {
    PageCount absent(0);
    for (PageRange rest = part.pages(); memory_->local != nullptr && !rest.empty();) {
      const PageRange run{rest.first, table.RunOfSameState(rest)};
      if (table.Get(run.first) == PageState::kAbsent) absent += run.count;
      rest = PageRange::Between(run.end(), rest.end());
    }
    table.SetAll(part.pages(), PageState::kZero);
    if (memory_->local != nullptr) memory_->local->OnDiscarded(part.pages(), absent);
    return;
  }
  // What was evicted is missing without having been punched.
  if (memory_->local != nullptr) return;
  // The event does not tell MADV_DONTNEED, after which shared memory keeps its pages, from
  // MADV_REMOVE, which punches a hole. A shared page that was filled and is missing afterwards was
  // punched, so it is zero; one that never was filled is still at the source.
  for (PageRange rest = part.pages(); !rest.empty();) {
    const PageRange run{rest.first, table.RunOfSameState(rest)};
    if (table.Get(run.first) != PageState::kAbsent) table.SetAll(run, PageState::kZero);
    rest = PageRange::Between(run.end(), rest.end());
  }
}

void FaultReader::Apply(const UnmapEvent& event) {
  memory_->space.Unmap(event.range,
                       [this](AddressRange range) { return host_->MappedParts(range); });
  woken_.push_back(event.range);
}

// Before it changes the map.
void FaultReader::NoteEvent(MemoryEventKind kind, AddressRange range) {
  MemoryEvent event;
  event.kind = kind;
  event.start = range.start;
  event.length = range.length;
  if (const std::optional<PageIndex> page = memory_->space.PageAt(range.start)) {
    event.page = page->raw();
  }
  event.when = std::chrono::system_clock::now();
  noted_.Add(event);
}

void FaultReader::WakeAll(AddressRange range) {
  if (range.length == 0) return;
  Count(memory_->counters.wakes);
  memory_->uffd->Wake(range);
}

// A write that met the protection of a page that is being evicted: who waits is served as if the
// page was missing, which it is by now or will be; or looks again where it has stayed.
void FaultReader::ResolveHeldWrites() {
  SharedLock lock(memory_->space.map_changing_lock());
  for (uint64_t address : held_writes_) {
    const std::optional<PageIndex> page = memory_->space.PageAt(address);
    if (page && memory_->table->Get(*page) != PageState::kPresent) {
      faults_.push_back(address);
    } else if (page && memory_->local != nullptr) {
      memory_->local->HoldWriter(*page);
    } else {
      woken_.push_back({address, kPageSize});
    }
  }
  held_writes_.clear();
}

void FaultReader::Resolve() {
  if (!held_writes_.empty()) {
    ResolveHeldWrites();
    for (AddressRange range : woken_) WakeAll(range);
    woken_.clear();
  }
  if (faults_.empty()) return;
  if (last_thread_ != 0 && !host_->KnowsProcess(last_thread_)) return;  // they are kept
  FaultCounters& counters = memory_->counters;
  counters.faults.fetch_add(faults_.size(), std::memory_order_relaxed);
  const SteadyClock::time_point now = SteadyClock::now();
  demanded_.clear();
  std::vector<uint64_t> strays, refused;
  {
    SharedLock lock(memory_->space.map_changing_lock());
    for (uint64_t address : faults_) {
      const std::optional<PageIndex> page = memory_->space.PageAt(address);
      if (!page) {
        (memory_->space.IsUndeclared(address) ? refused : strays).push_back(address);
      } else if (memory_->queue.Join(*page, now)) {
        demanded_.push_back(*page);
      } else {
        Count(counters.joined_faults);
        memory_->Trace(TraceKind::kFault, TraceOutcome::kJoined, PageRange::Single(*page));
      }
    }
  }
  faults_.clear();
  if (!demanded_.empty()) {
    memory_->last_fault.store(demanded_.back().raw(), std::memory_order_relaxed);
    counters.map_stage.Record(SteadyClock::now() - now);
  }
  for (uint64_t address : strays) {
    Count(counters.stray_faults);
    fetcher_->Stray(address);
  }
  for (uint64_t address : refused) Refuse(address);
  Demand();
}

void FaultReader::TraceDemanded() {
  for (PageIndex page : demanded_) {
    const PageState state = memory_->table->Get(page);
    TraceOutcome outcome = TraceOutcome::kZero;
    if (IsFetched(state)) outcome = TraceOutcome::kDemand;
    if (state == PageState::kStaged || state == PageState::kEvicting) {
      outcome = TraceOutcome::kVictim;
    }
    memory_->Trace(TraceKind::kFault, outcome, PageRange::Single(page), last_thread_);
  }
}

void FaultReader::Demand() {
  // No lock is needed: pages change and tables are cloned on this thread only, but for fills.
  const auto is_fetched = [this](PageIndex page) { return IsFetched(memory_->table->Get(page)); };
  if (observers_.recorder != nullptr) {
    for (PageIndex page : demanded_) {
      if (is_fetched(page)) observers_.recorder->Record(page);
    }
  }
  if (memory_->trace != nullptr) TraceDemanded();
  if (LocalMemory* const local = memory_->local.get(); local != nullptr) {
    std::erase_if(demanded_, [&](PageIndex page) {
      const PageState state = memory_->table->Get(page);
      if (state == PageState::kStaged || state == PageState::kEvicting || local->Admit(page)) {
        return false;
      }
      memory_->queue.Defer(page);
      return true;
    });
  }
  ReadAhead* const ahead = observers_.ahead.get();
  if (ahead != nullptr) {  // in the order of the faults, which it learns from
    std::erase_if(demanded_, [&](PageIndex page) {
      if (!is_fetched(page) || !ahead->Serve(page)) return false;
      memory_->Trace(TraceKind::kFault, TraceOutcome::kStaged, PageRange::Single(page));
      return true;
    });
  }
  std::sort(demanded_.begin(), demanded_.end());
  for (size_t i = 0; i < demanded_.size();) {
    // Neighbours that are filled from the same place travel together.
    const bool fetched = is_fetched(demanded_[i]);
    PageRange run = PageRange::Single(demanded_[i]);
    for (++i;
         i < demanded_.size() && demanded_[i] == run.end() && is_fetched(demanded_[i]) == fetched;
         ++i) {
      run.count += PageCount(1);
    }
    fetched ? fetcher_->Demand(run) : fetcher_->FillLocal(run);
  }
  if (ahead != nullptr) ahead->FetchAhead();
}

void FaultReader::Refuse(uint64_t address) {
  LogError(absl::StrCat(target_->Name(), ": fault at 0x", absl::Hex(address),
                        ", which is in none of the mappings that were handed over; access to it "
                        "gets SIGBUS"));
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
