// SPDX-License-Identifier: Apache-2.0
//
// What it takes to attach a process, and what is told of an attachment: plain values, shared by the
// Pager and by everything through which memory reaches it.
#ifndef FAULTLINE_CLIENT_ATTACHMENT_H_
#define FAULTLINE_CLIENT_ATTACHMENT_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/time/time.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/evict/local_memory_stats.h"
#include "client/prefetch/prefetcher.h"
#include "client/source/page_source.h"
#include "client/source/working_sets.h"
#include "client/unique_fd.h"

namespace faultline {

struct FarMemory;  // evict/far_memory.h

using AttachmentId = uint64_t;

// A range of the target's addresses and the part of the volume behind it, all in bytes.
struct Mapping {
  uint64_t address = 0;
  uint64_t size = 0;
  uint64_t offset = 0;
  // Shared memory (shmem, memfd), not private anonymous memory. The Pager asks the kernel, too.
  bool shared = false;
};

// INVALID_ARGUMENT, naming the mapping and what is wrong with it, unless there is at least one, all
// are page aligned, not empty, do not overflow, and overlap neither in addresses nor in the volume;
// OUT_OF_RANGE unless all lie within a volume of `volume_size`.
absl::Status CheckMappings(const std::vector<Mapping>& mappings, PageCount volume_size);

// The one end of a fault that cannot be served: its pages are damaged or its volume is gone, or
// nobody answered until the deadline.
enum class FaultPolicy {
  kWait,    // try again for ever
  kPoison,  // the access gets SIGBUS (UFFDIO_POISON, Linux 6.6; before that the target is killed)
  kKill,    // the target gets SIGKILL
};

// Parses "wait", "poison" or "kill".
absl::StatusOr<FaultPolicy> ParseFaultPolicy(absl::string_view name);
absl::string_view FaultPolicyName(FaultPolicy policy);

// What becomes of a page of shared memory that the target discards before it was ever filled. The
// kernel's event is the same for MADV_DONTNEED, which keeps the content of shared memory, and for
// MADV_REMOVE, which punches a hole.
enum class SharedDiscard {
  kKeep,  // it is still at the source
  kZero,  // it reads as zero
};

// Parses "keep" or "zero".
absl::StatusOr<SharedDiscard> ParseSharedDiscard(absl::string_view name);
absl::string_view SharedDiscardName(SharedDiscard discard);

struct AttachmentOptions {
  FaultPolicy policy = FaultPolicy::kPoison;
  // How long a fault may wait for a source that does not answer before `policy` decides.
  absl::Duration fault_deadline = absl::Seconds(60);
  SharedDiscard shared_discard = SharedDiscard::kKeep;
  // Fetch everything that is left, behind the faults, until all of the memory is there.
  bool drain = false;
  // Once a drain has brought all pages, give the memory back to the kernel (UFFDIO_UNREGISTER): it
  // is ordinary from then on, and neither its faults nor its discards cost more than elsewhere.
  bool unregister = false;
  PrefetchPolicy prefetch = PrefetchPolicy::kNone;
  WorkingSetUse working_set = WorkingSetUse::kNone;
};

struct AttachRequest {
  AttachRequest();
  AttachRequest(AttachRequest&&) noexcept;
  ~AttachRequest();

  UniqueFd uffd;  // from the target
  // Who calls UFFDIO_API and UFFDIO_REGISTER: the peer has done so, or the Pager is to.
  bool register_ranges = false;
  std::vector<Mapping> mappings;
  pid_t pid = 0;
  UniqueFd pidfd;  // of `pid`; its end is the attachment's
  std::string volume;
  std::shared_ptr<PageSource> source;
  AttachmentOptions options;
  std::shared_ptr<WorkingSetRecorder> recorder;  // null: nothing is recorded
  std::shared_ptr<const WorkingSet> replay;      // to be fetched first of all; null: nothing
  // Called once what `replay` has was fetched, on any thread. Not where the attachment ends before.
  std::function<void()> on_replayed;
  // Null: pages that are there stay. Otherwise `register_ranges` has to be true, and `drain` false.
  std::unique_ptr<FarMemory> far;
};

// What a fault has waited for.
enum class FaultClass : uint8_t {
  kDemand,    // its page was fetched, for it or for a guess
  kStaged,    // nothing: its page was here, fetched ahead or taken out of the memory lately
  kZero,      // nothing: its page has no content
  kDeferred,  // room in the local memory, whatever came then
};
inline constexpr size_t kFaultClasses = 4;

// Counters since the attachment began, and its state now.
struct AttachmentStats {
  AttachmentId id = 0;
  AttachmentId parent = 0;  // whose process has forked this one's; 0: it was handed over
  pid_t pid = 0;            // 0: a forked child that has not faulted yet (the event has no pid)
  std::string volume;
  uint64_t regions = 0;
  uint64_t tracked_pages = 0;  // that the regions have together
  uint64_t present_pages = 0;  // of those, filled
  uint64_t poisoned_pages = 0;
  uint64_t zero_pages = 0;  // discarded, or known to be a hole: not filled before they are touched
  LocalMemoryStats local;   // of far memory; all 0 elsewhere
  bool drained = false;     // everything that was left when the drain began was fetched
  uint64_t waiting_faults = 0;       // pages that some thread of the target waits for now
  double oldest_wait_seconds = 0;    // how long the oldest of those waits
  uint64_t faults_total = 0;         // messages read from the kernel
  uint64_t joined_faults_total = 0;  // of those, for a page that was under way already
  uint64_t zero_faults_total = 0;    // of those, for memory that is known to be zeros
  uint64_t stray_faults_total = 0;  // of those, at addresses of no region: growth, moved-out memory
  uint64_t fetches_total = 0;
  uint64_t fetch_retries_total = 0;
  uint64_t fetch_failures_total = 0;  // ended by the fault policy
  uint64_t fetched_pages_total = 0;   // that have come with content
  uint64_t copied_pages_total = 0;
  uint64_t zeroed_pages_total = 0;
  uint64_t drained_pages_total = 0;  // of the two, not waited for by a fault
  // Guesses: pages fetched for them; faults that found their page staged or on its way; and pages
  // that were dropped, staged and never touched. What is mapped ahead counts in neither of those.
  uint64_t prefetched_pages_total = 0;
  uint64_t prefetch_hits_total = 0;
  uint64_t prefetch_waste_total = 0;
  // Fill ioctls by the error they returned.
  uint64_t fill_eagain_total = 0;
  uint64_t fill_partial_total = 0;  // EAGAIN after some progress
  uint64_t fill_eexist_total = 0;
  uint64_t fill_enoent_total = 0;
  uint64_t fill_efault_total = 0;
  uint64_t fill_nomem_total = 0;  // ENOMEM, ENOSPC
  uint64_t fill_esrch_total = 0;
  uint64_t fill_other_total = 0;
  // Fills that met a changing address space wait, parked, for its events to be read.
  uint64_t parked_fills = 0;  // now
  uint64_t parks_total = 0;   // every retry parks again
  double parked_us_total = 0;
  uint64_t wakes_total = 0;
  uint64_t fork_events_total = 0;
  uint64_t remap_events_total = 0;
  uint64_t remove_events_total = 0;
  uint64_t unmap_events_total = 0;
  // Unmap events that were about what had been at their addresses before something else was moved
  // there, and changes of the address space whose order the events did not tell.
  uint64_t late_unmaps_total = 0;
  uint64_t ambiguous_events_total = 0;
  // From the fault's message being read to its page being filled, in microseconds.
  double fault_p50_us = 0;
  double fault_p90_us = 0;
  double fault_p99_us = 0;
  double fault_max_us = 0;
  // When that was, in nanoseconds of the monotonic clock, added up over all faults, modulo 2^64:
  // against the same of what the target saw, how long faults wait to be read, and threads to run.
  uint64_t read_ns_sum = 0;
  uint64_t filled_ns_sum = 0;
  // Of that, for faults that were fetched: until the page was known, until the source was asked,
  // from there until its answer was there, and until the page was filled.
  double map_p50_us = 0, map_p99_us = 0;
  double resolve_p50_us = 0, resolve_p99_us = 0;
  double answer_p50_us = 0, answer_p99_us = 0;
  double fill_p50_us = 0, fill_p99_us = 0;
  // Of the answer's time, where the source can tell: on the way to the server and back, in the
  // server, and of that in its store.
  double wire_p50_us = 0, wire_p99_us = 0;
  double server_p50_us = 0, server_p99_us = 0;
  double store_p50_us = 0, store_p99_us = 0;
};

// Those of VisitFields() that are of far memory.
template <typename Stats, typename Visit>
void VisitLocalFields(Stats& local, Visit& visit) {
  visit("budget_pages", local.budget_pages);
  visit("resident_pages", local.resident_pages);
  visit("staged_pages", local.staged_pages);
  visit("pinned_pages", local.pinned_pages);
  visit("unwritten_pages", local.unwritten_pages);
  visit("evicted_pages_total", local.evicted_pages_total);
  visit("returned_pages_total", local.returned_pages_total);
  visit("written_pages_total", local.written_pages_total);
  visit("rewritten_pages_total", local.rewritten_pages_total);
  visit("clean_pages_total", local.clean_pages_total);
  visit("evicted_zero_pages_total", local.zero_pages_total);
  visit("deferred_faults_total", local.deferred_faults_total);
}

// Calls `visit` with the name and the value of each field, in their order.
template <typename Stats, typename Visit>
void VisitFields(Stats& stats, Visit visit) {
  visit("id", stats.id);
  visit("parent", stats.parent);
  visit("pid", stats.pid);
  visit("volume", stats.volume);
  visit("regions", stats.regions);
  visit("tracked_pages", stats.tracked_pages);
  visit("present_pages", stats.present_pages);
  visit("poisoned_pages", stats.poisoned_pages);
  visit("zero_pages", stats.zero_pages);
  VisitLocalFields(stats.local, visit);
  visit("drained", stats.drained);
  visit("waiting_faults", stats.waiting_faults);
  visit("oldest_wait_seconds", stats.oldest_wait_seconds);
  visit("faults_total", stats.faults_total);
  visit("joined_faults_total", stats.joined_faults_total);
  visit("zero_faults_total", stats.zero_faults_total);
  visit("stray_faults_total", stats.stray_faults_total);
  visit("fetches_total", stats.fetches_total);
  visit("fetch_retries_total", stats.fetch_retries_total);
  visit("fetch_failures_total", stats.fetch_failures_total);
  visit("fetched_pages_total", stats.fetched_pages_total);
  visit("copied_pages_total", stats.copied_pages_total);
  visit("zeroed_pages_total", stats.zeroed_pages_total);
  visit("drained_pages_total", stats.drained_pages_total);
  visit("prefetched_pages_total", stats.prefetched_pages_total);
  visit("prefetch_hits_total", stats.prefetch_hits_total);
  visit("prefetch_waste_total", stats.prefetch_waste_total);
  visit("fill_eagain_total", stats.fill_eagain_total);
  visit("fill_partial_total", stats.fill_partial_total);
  visit("fill_eexist_total", stats.fill_eexist_total);
  visit("fill_enoent_total", stats.fill_enoent_total);
  visit("fill_efault_total", stats.fill_efault_total);
  visit("fill_nomem_total", stats.fill_nomem_total);
  visit("fill_esrch_total", stats.fill_esrch_total);
  visit("fill_other_total", stats.fill_other_total);
  visit("parked_fills", stats.parked_fills);
  visit("parks_total", stats.parks_total);
  visit("parked_us_total", stats.parked_us_total);
  visit("wakes_total", stats.wakes_total);
  visit("fork_events_total", stats.fork_events_total);
  visit("remap_events_total", stats.remap_events_total);
  visit("remove_events_total", stats.remove_events_total);
  visit("unmap_events_total", stats.unmap_events_total);
  visit("late_unmaps_total", stats.late_unmaps_total);
  visit("ambiguous_events_total", stats.ambiguous_events_total);
  visit("fault_p50_us", stats.fault_p50_us);
  visit("fault_p90_us", stats.fault_p90_us);
  visit("fault_p99_us", stats.fault_p99_us);
  visit("fault_max_us", stats.fault_max_us);
  visit("read_ns_sum", stats.read_ns_sum);
  visit("filled_ns_sum", stats.filled_ns_sum);
  visit("map_p50_us", stats.map_p50_us);
  visit("map_p99_us", stats.map_p99_us);
  visit("resolve_p50_us", stats.resolve_p50_us);
  visit("resolve_p99_us", stats.resolve_p99_us);
  visit("answer_p50_us", stats.answer_p50_us);
  visit("answer_p99_us", stats.answer_p99_us);
  visit("fill_p50_us", stats.fill_p50_us);
  visit("fill_p99_us", stats.fill_p99_us);
  visit("wire_p50_us", stats.wire_p50_us);
  visit("wire_p99_us", stats.wire_p99_us);
  visit("server_p50_us", stats.server_p50_us);
  visit("server_p99_us", stats.server_p99_us);
  visit("store_p50_us", stats.store_p50_us);
  visit("store_p99_us", stats.store_p99_us);
}

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_ATTACHMENT_H_
