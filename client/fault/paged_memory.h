// SPDX-License-Identifier: Apache-2.0
//
// PagedMemory: one target's memory as the fault pipeline sees it. It only holds together what all
// units of the pipeline work on; the work itself is theirs.
#ifndef FAULTLINE_CLIENT_FAULT_PAGED_MEMORY_H_
#define FAULTLINE_CLIENT_FAULT_PAGED_MEMORY_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "client/address_space.h"
#include "client/evict/local_memory.h"
#include "client/fault/fault_queue.h"
#include "client/journal/attachment_journal.h"
#include "client/page_table.h"
#include "client/shared_files.h"
#include "client/source/page_source.h"
#include "client/trace/trace_writer.h"
#include "client/uffd/uffd.h"
#include "proto/latency_histogram.h"

namespace faultline {

struct FaultCounters {
  using Counter = std::atomic<uint64_t>;
  Counter faults = 0;
  Counter joined_faults = 0;
  Counter zero_faults = 0;   // that were filled with zeros of here
  Counter stray_faults = 0;  // at addresses of no region
  Counter fork_events = 0;
  Counter remap_events = 0;
  Counter remove_events = 0;
  Counter unmap_events = 0;
  Counter fetches = 0;
  Counter fetch_retries = 0;
  Counter fetch_failures = 0;
  Counter fetched_pages = 0;  // that have come with content
  Counter copied_pages = 0;
  Counter zeroed_pages = 0;
  Counter drained_pages = 0;
  Counter prefetched_pages = 0;
  Counter prefetch_hits = 0;
  Counter prefetch_waste = 0;
  Counter eagain = 0;
  Counter partial = 0;
  Counter eexist = 0;
  Counter enoent = 0;
  Counter efault = 0;
  Counter nomem = 0;
  Counter esrch = 0;
  Counter other_errors = 0;
  Counter parks = 0;
  Counter parked_ns = 0;
  Counter wakes = 0;
  void NoteFilled(FaultClass fault, SteadyClock::time_point read, SteadyClock::time_point filled) {
    const auto nanoseconds = [](SteadyClock::time_point time) {
      return static_cast<uint64_t>(std::chrono::nanoseconds(time.time_since_epoch()).count());
    };
    fault_latency[static_cast<size_t>(fault)].Record(filled - read);
    if (fault == FaultClass::kZero) zero_faults.fetch_add(1, std::memory_order_relaxed);
    read_ns_sum.fetch_add(nanoseconds(read), std::memory_order_relaxed);
    filled_ns_sum.fetch_add(nanoseconds(filled), std::memory_order_relaxed);
  }

  // From the message being read to the page being filled, by class.
  std::array<LatencyHistogram, kFaultClasses> fault_latency;
  // Of the same faults: when that was, nanoseconds of the monotonic clock, added up (modulo 2^64).
  Counter read_ns_sum = 0;
  Counter filled_ns_sum = 0;
  LatencyHistogram map_stage;  // until the page is known, for a batch of messages
  // For faults that were fetched: until the source was asked, from there until its answer was
  // there, and until the page was filled.
  LatencyHistogram resolve_stage, answer_stage, fill_stage;
};

inline void Count(FaultCounters::Counter& counter, uint64_t n = 1) {
  counter.fetch_add(n, std::memory_order_relaxed);
}

// Thread-safe, each part by its own contract.
struct PagedMemory {
  PagedMemory(std::unique_ptr<Uffd> uffd_in, const std::vector<Mapping>& mappings,
              std::unique_ptr<PageTable> table_in,
              std::unique_ptr<AttachmentJournal> journal_in = nullptr,
              std::unique_ptr<LocalMemory> local_in = nullptr)
      : journal(std::move(journal_in)),
        local(std::move(local_in)),
        uffd(std::move(uffd_in)),
        space(mappings),
        table(std::move(table_in)) {}

  // That of a forked child, as its parent is at this moment.
  PagedMemory(std::unique_ptr<Uffd> uffd_in, const PagedMemory& parent,
              std::unique_ptr<PageTable> table_in)
      ABSL_SHARED_LOCKS_REQUIRED(parent.space.map_changing_lock())
      : local(parent.local != nullptr ? parent.local->Fork() : nullptr),
        uffd(std::move(uffd_in)),
        space(AddressSpace::ForkOf::kParent, parent.space),
        files(parent.files),
        table(std::move(table_in)) {}

  // May be null: then nothing outlives this process. Used with the map-changing lock held
  // exclusively.
  const std::unique_ptr<AttachmentJournal> journal;
  // Null where pages that are there stay. Outlives whatever holds one of its tokens.
  const std::unique_ptr<LocalMemory> local;
  const std::unique_ptr<Uffd> uffd;  // reads into the journal
  AddressSpace space;
  // Of shared memory, where that is known. Set before anybody else has the memory.
  std::vector<FilePages> files;
  const std::unique_ptr<PageTable> table;
  FaultQueue queue;
  FaultCounters counters;
  // The page that some thread of the target has waited for last.
  std::atomic<uint64_t> last_fault = 0;

  // Of a forked child whose parent has far memory: what it fetches from, instead of its parent's.
  std::shared_ptr<PageSource> forked_source;

  // Null where nothing is traced. Set before anybody else has the memory.
  std::unique_ptr<TraceWriter> trace;

  void Trace(TraceKind kind, TraceOutcome outcome, PageRange pages, pid_t thread = 0,
             SteadyClock::duration transfer = {}) {
    if (trace == nullptr || pages.empty()) return;
    TraceRecord record;
    record.time_ns = trace->Now();
    record.kind = kind;
    record.outcome = outcome;
    record.thread = static_cast<uint32_t>(thread);
    record.page = pages.first;
    record.count = static_cast<uint32_t>(pages.count.raw());
    record.transfer_ns =
        TraceStage(static_cast<uint64_t>(std::chrono::nanoseconds(transfer).count()));
    trace->Append(record);
  }

  // To be held by what carries bytes of the source, from before it is asked.
  FetchGrace::Token HoldGrace() {
    return local != nullptr ? local->grace().Hold() : FetchGrace::Token();
  }
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAULT_PAGED_MEMORY_H_
