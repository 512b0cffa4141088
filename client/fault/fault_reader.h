// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_FAULT_FAULT_READER_H_
#define FAULTLINE_CLIENT_FAULT_FAULT_READER_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <memory>
#include <string>
#include <vector>

#include "client/event_ring.h"
#include "client/fault/fetcher.h"
#include "client/fault/paged_memory.h"
#include "client/fault/read_ahead.h"
#include "client/source/page_source.h"
#include "client/source/working_sets.h"
#include "proto/mutex.h"

namespace faultline {

// What a FaultReader needs to know and cannot find out, and what it hands on. Called on the
// reader's thread; none of them may wait for a page or for the source.
class ReaderHost {
 public:
  virtual ~ReaderHost() = default;
  // A child was forked, and all that happened to its memory by then is known; `memory` is its own
  // from here on. Not called with any lock held.
  virtual void OnFork(std::shared_ptr<PagedMemory> memory) = 0;
  // What the memory of a child that has forked just now is fetched from, where its parent's is
  // written to; null where the parent's is never. FAILED_PRECONDITION where it cannot be had.
  // Called with the map-changing lock held.
  virtual absl::StatusOr<std::shared_ptr<PageSource>> ForkSource() = 0;
  // The target's thread `thread` has faulted. False where faults have to wait until the process
  // that it belongs to was looked at: then Drain() is to be called again.
  virtual bool KnowsProcess(pid_t thread) = 0;
  // Whether some thread of the target is running or ready to, as far as can be told.
  virtual bool IsRunning() = 0;
  // The parts of `range` at which the target has registered memory now; all of it where that cannot
  // be told.
  // Called with the map-changing lock held.
  virtual std::vector<AddressRange> MappedParts(AddressRange range) = 0;
};

// Drains one uffd: applies events to the address space while it holds the map-changing lock
// exclusively across read() ("lock_across_read"), collects faults, and when nothing more is there
// resolves those against the map as it is then, since the kernel returns faults before the events
// that explain them ("resolve_after_drain"), and has their pages fetched.
//
// Never waits for a page or for the source; for another thread's event at most 20 ms, in the rare
// case that one is known to be on its way. Drain() is for one thread at a time; the rest is
// thread-safe.
class FaultReader {
 public:
  // What learns of faults; each may be null.
  struct Observers {
    std::shared_ptr<ReadAhead> ahead;
    std::shared_ptr<WorkingSetRecorder> recorder;
  };

  // `memory`, `target` and `host` are borrowed.
  FaultReader(PagedMemory* memory, std::shared_ptr<Fetcher> fetcher, Observers observers,
              Target* target, ReaderHost* host, SharedDiscard shared_discard);

  // To be called when the uffd is readable. RESOURCE_EXHAUSTED where a fork event has to wait for a
  // free descriptor: to be called again. Any other error is final: it cannot be read any more.
  absl::Status Drain();

  // To be called before the first Drain() of memory that another process has served: applies what
  // that one had read of events and not applied. Takes no descriptor for a forked child: how many
  // of them are lost is returned.
  int Recover();

  // Hands on the children whose parent's events are still outstanding, because no more will be
  // read. On the thread of Drain().
  void ReleaseChildren();

  // Those that were read; for any thread.
  const EventRing& events() const { return noted_; }

 private:
  // Reads and applies one batch under the exclusive lock; returns how many messages it had.
  absl::StatusOr<size_t> ReadBatch();
  void Apply(UffdEvent& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(memory_->space.map_changing_lock());
  void Apply(ForkEvent& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(memory_->space.map_changing_lock());
  void Apply(const RemapEvent& event)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(memory_->space.map_changing_lock());
  void Apply(const RemoveEvent& event)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(memory_->space.map_changing_lock());
  void Apply(const UnmapEvent& event)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(memory_->space.map_changing_lock());
  void Discard(const AddressSpace::Part& part)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(memory_->space.map_changing_lock());
  void Release(std::shared_ptr<PagedMemory> child, bool all_told);
  // Makes the map as it is now the one that outlives this process.
  void Commit() ABSL_EXCLUSIVE_LOCKS_REQUIRED(memory_->space.map_changing_lock());
  void NoteEvent(MemoryEventKind kind, AddressRange range)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(memory_->space.map_changing_lock());
  void WakeAll(AddressRange range);
  void Resolve();
  void ResolveHeldWrites();
  void TraceDemanded();
  // Has what the faults in demanded_ wait for fetched or filled.
  void Demand();
  // A fault that was handed over with the uffd but with no mapping: there is no page for it.
  void Refuse(uint64_t address);

  PagedMemory* const memory_;
  const std::shared_ptr<Fetcher> fetcher_;
  const Observers observers_;
  Target* const target_;
  ReaderHost* const host_;
  const SharedDiscard shared_discard_;
  // Kept between calls, so that a fault costs no allocation.
  std::vector<UffdEvent> events_;
  std::vector<uint64_t> faults_;       // addresses, in the order they were read
  std::vector<uint64_t> held_writes_;  // addresses of write-protection faults
  std::vector<AddressRange> woken_;    // whose waiters have to look again
  std::vector<PageIndex> demanded_;
  // Forked since the address space was last settled.
  std::vector<std::shared_ptr<PagedMemory>> children_;
  pid_t last_thread_ = 0;
  bool commit_failed_ = false;
  bool displaced_ = false;  // by an event of the batch: pages of which no event has told yet

  EventRing noted_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_FAULT_READER_H_
