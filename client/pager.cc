// SPDX-License-Identifier: Apache-2.0
#include "client/pager.h"

#include <absl/strings/str_cat.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <utility>

#include "client/event_loop.h"
#include "client/fault/fault_reader.h"
#include "client/fault/fetcher.h"
#include "client/fault/paged_memory.h"
#include "client/timers.h"
#include "client/uffd/uffd.h"
#include "proto/log.h"
#include "proto/mutex.h"

namespace faultline {
namespace {

// How long the end of an attachment waits, without getting anywhere, for an address space that
// keeps changing before it kills the target rather than leaving it with pages that would read as
// zeros.
constexpr auto kPoisonPatience = std::chrono::seconds(5);

// One attached process: the units of its fault pipeline, wired. Thread-safe.
class Attachment final : public Target {
 public:
  Attachment(AttachmentId id, AttachRequest request, std::shared_ptr<PagedMemory> memory,
             Timers* timers, EventLoop* loop, std::function<void()> on_gone)
      : id_(id),
        pid_(request.pid),
        pidfd_(std::move(request.pidfd)),
        volume_(std::move(request.volume)),
        options_(request.options),
        memory_(std::move(memory)),
        loop_(loop),
        on_gone_(std::move(on_gone)),
        fetcher_(std::make_shared<Fetcher>(memory_, std::move(request.source), timers, this,
                                           options_, FetchLimits())),
        reader_(memory_.get(), fetcher_, this) {}

  std::string Name() const override {
    return absl::StrCat("attachment ", id_, " (pid ", pid_, ", volume ", volume_, ")");
  }

  void Kill(const std::string& reason) override {
    if (killed_.exchange(true)) return;
    LogError(absl::StrCat(reason, "; the process is killed"));
    if (syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0) != 0 && errno != ESRCH) {
      LogError(absl::StrCat(Name(), ": kill failed: ", strerror(errno)));
    }
  }

  void Gone() override {
    if (!gone_.exchange(true)) on_gone_();
  }

  // Starts serving. `self` keeps this alive while the loop may call it.
  absl::Status Start(const std::shared_ptr<Attachment>& self) {
    absl::Status status = loop_->Add(pidfd_.get(), [self] { self->Gone(); });
    if (status.ok()) status = loop_->Add(memory_->uffd->fd(), [self] { self->OnReadable(); });
    return status;
  }

  // Ends it, without a look at pages that are not filled. Safe to call twice.
  void Close() {
    loop_->Remove(memory_->uffd->fd());
    loop_->Remove(pidfd_.get());
    fetcher_->Stop();
  }

  // Sees to it that no page that is still at the source can turn into zeros once the uffd closes.
  void SecureAbsentPages() {
    Filler filler(memory_.get());
    for (PageRange pages : AbsentPages()) {
      if (options_.policy == FaultPolicy::kKill) {
        Kill(absl::StrCat(Name(), ": ended with pages that were not fetched"));
        return;
      }
      auto patience_ends = SteadyClock::now() + kPoisonPatience;
      while (!pages.empty()) {
        const FillReport report = filler.Poison(pages);
        pages = PageRange::Between(pages.first + report.done, pages.end());
        if (report.done > PageCount(0)) patience_ends = SteadyClock::now() + kPoisonPatience;
        if (report.end == FillEnd::kTargetGone) return;
        if (report.end == FillEnd::kFailed || SteadyClock::now() > patience_ends) {
          Kill(absl::StrCat(Name(),
                            ": ended with pages that were not fetched, and they cannot be "
                            "poisoned (",
                            strerror(report.error), ")"));
          return;
        }
        // The event loop goes on reading events meanwhile.
        if (report.end == FillEnd::kTryAgain) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
      }
    }
  }

  // Gives the memory back to the kernel: it is ordinary from here on, and nobody waits.
  void Unregister() {
    std::vector<AddressRange> ranges;
    {
      SharedLock lock(memory_->space.map_changing_lock());
      ranges = memory_->space.Ranges();
    }
    for (AddressRange range : ranges) {
      // Fails where the range was unmapped or the process is gone: nothing to give back then.
      memory_->uffd->Unregister(range).IgnoreError();
      memory_->uffd->Wake(range);
    }
  }

  AttachmentStats Stats() const {
    const FaultCounters& counters = memory_->counters;
    AttachmentStats stats;
    stats.id = id_;
    stats.pid = pid_;
    stats.volume = volume_;
    {
      SharedLock lock(memory_->space.map_changing_lock());
      stats.regions = memory_->space.region_count();
      for (AddressRange range : memory_->space.Ranges()) {
        stats.tracked_pages += range.length / kPageSize;
      }
    }
    stats.present_pages = memory_->table->CountOf(PageState::kPresent).raw();
    stats.poisoned_pages = memory_->table->CountOf(PageState::kPoisoned).raw();
    stats.waiting_faults = memory_->queue.size();
    stats.faults_total = counters.faults;
    stats.joined_faults_total = counters.joined_faults;
    stats.fetches_total = counters.fetches;
    stats.fetch_retries_total = counters.fetch_retries;
    stats.fetch_failures_total = counters.fetch_failures;
    stats.copied_pages_total = counters.copied_pages;
    stats.zeroed_pages_total = counters.zeroed_pages;
    stats.fill_eagain_total = counters.eagain;
    stats.fill_eexist_total = counters.eexist;
    stats.fill_enoent_total = counters.enoent;
    stats.wakes_total = counters.wakes;
    stats.events_total = counters.events;
    stats.fault_p50_us = counters.fault_latency.QuantileMicros(0.5);
    stats.fault_p90_us = counters.fault_latency.QuantileMicros(0.9);
    stats.fault_p99_us = counters.fault_latency.QuantileMicros(0.99);
    stats.fault_max_us = counters.fault_latency.MaxMicros();
    return stats;
  }

 private:
  void OnReadable() {
    if (gone_) return;
    if (absl::Status status = reader_.Drain(); !status.ok()) {
      // Nobody would see its faults any more.
      Kill(absl::StrCat(Name(), ": ", status.ToString()));
      Gone();
    }
  }

  std::vector<PageRange> AbsentPages() const {
    std::vector<PageRange> absent;
    SharedLock lock(memory_->space.map_changing_lock());
    for (AddressRange range : memory_->space.Ranges()) {
      memory_->space.ForEachPart(range, [&](const AddressSpace::Part& part) {
        PageRange rest = part.pages();
        while (!rest.empty()) {
          const PageCount run = memory_->table->RunOfSameState(rest);
          if (memory_->table->Get(rest.first) == PageState::kAbsent) {
            absent.push_back({rest.first, run});
          }
          rest = PageRange::Between(rest.first + run, rest.end());
        }
      });
    }
    return absent;
  }

  const AttachmentId id_;
  const pid_t pid_;
  const UniqueFd pidfd_;
  const std::string volume_;
  const AttachmentOptions options_;
  const std::shared_ptr<PagedMemory> memory_;
  EventLoop* const loop_;
  const std::function<void()> on_gone_;
  const std::shared_ptr<Fetcher> fetcher_;
  FaultReader reader_;
  std::atomic<bool> killed_ = false;
  std::atomic<bool> gone_ = false;
};

// Marks the mappings that the kernel knows to be shared. What it does not let us read stays as the
// peer has said.
void AskForShared(pid_t pid, std::vector<Mapping>* mappings) {
  std::ifstream maps(absl::StrCat("/proc/", pid, "/maps"));
  for (std::string line; std::getline(maps, line);) {
    unsigned long start, end;
    char permissions[5];
    if (sscanf(line.c_str(), "%lx-%lx %4s", &start, &end, permissions) != 3) continue;
    if (permissions[3] != 's') continue;
    for (Mapping& mapping : *mappings) {
      if (mapping.address < end && start < mapping.address + mapping.size) mapping.shared = true;
    }
  }
}

absl::StatusOr<std::shared_ptr<PagedMemory>> PrepareMemory(AttachRequest* request) {
  if (absl::Status status = CheckMappings(request->mappings, request->source->size());
      !status.ok()) {
    return status;
  }
  AskForShared(request->pid, &request->mappings);
  constexpr uint64_t kFeatures =
      uapi::kFeatureEventRemap | uapi::kFeatureEventRemove | uapi::kFeatureEventUnmap;
  absl::StatusOr<std::unique_ptr<Uffd>> uffd =
      request->register_ranges ? AdoptFreshUffd(std::move(request->uffd), kFeatures)
                               : AdoptUffd(std::move(request->uffd));
  if (!uffd.ok()) return uffd.status();
  if (((*uffd)->features() & uapi::kFeatureEventFork) != 0) {
    return absl::FailedPreconditionError(
        "the userfaultfd asks for fork events, which this agent does not serve; leave out "
        "UFFD_FEATURE_EVENT_FORK");
  }
  PageIndex first(kMaxVolumePages), end(0);
  for (const Mapping& mapping : request->mappings) {
    first = std::min(first, PageIndex::Containing(mapping.offset));
    end = std::max(end, PageIndex::Containing(mapping.offset + mapping.size));
  }
  absl::StatusOr<std::unique_ptr<PageTable>> table =
      PageTable::Create(PageRange::Between(first, end));
  if (!table.ok()) return table.status();
  return std::make_shared<PagedMemory>(*std::move(uffd), request->mappings, *std::move(table));
}

absl::Status RegisterAll(const std::vector<Mapping>& mappings, Uffd* uffd) {
  for (size_t i = 0; i < mappings.size(); ++i) {
    absl::Status status = uffd->Register({mappings[i].address, mappings[i].size});
    if (status.ok()) continue;
    for (size_t j = 0; j < i; ++j) {
      uffd->Unregister({mappings[j].address, mappings[j].size}).IgnoreError();
    }
    return status;
  }
  return absl::OkStatus();
}

class PagerOnThreads final : public Pager {
 public:
  explicit PagerOnThreads(std::vector<std::unique_ptr<EventLoop>> loops)
      : loops_(std::move(loops)) {}
  ~PagerOnThreads() override { Stop(); }

  absl::StatusOr<AttachmentId> Attach(AttachRequest request) override {
    if (!request.pidfd) {
      request.pidfd = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, request.pid, 0)));
      if (!request.pidfd) {
        return absl::ErrnoToStatus(errno, absl::StrCat("pidfd_open of pid ", request.pid));
      }
    }
    absl::StatusOr<std::shared_ptr<PagedMemory>> memory = PrepareMemory(&request);
    if (!memory.ok()) return memory.status();
    const std::vector<Mapping> mappings = request.mappings;
    const bool register_ranges = request.register_ranges;

    std::shared_ptr<Attachment> attachment;
    AttachmentId id;
    absl::Status status;
    {
      MutexLock lock(mu_);
      if (stopped_) return absl::UnavailableError("the agent is stopping");
      id = next_id_++;
      EventLoop* loop = loops_[id % loops_.size()].get();
      attachment =
          std::make_shared<Attachment>(id, std::move(request), *memory, &timers_, loop, [this, id] {
            // Not here: it may be a fetch of this very attachment that has noticed.
            timers_.After(SteadyClock::duration(0), [this, id] { OnGone(id); });
          });
      attachments_[id] = attachment;
      status = attachment->Start(attachment);
    }
    if (status.ok() && register_ranges) status = RegisterAll(mappings, (*memory)->uffd.get());
    if (!status.ok()) {
      Forget(id);
      attachment->Close();
      return status;
    }
    LogInfo(absl::StrCat(attachment->Name(), ": began, ", mappings.size(), " mappings, ",
                         attachment->Stats().tracked_pages, " pages"));
    return id;
  }

  absl::Status Detach(AttachmentId id) override {
    const std::shared_ptr<Attachment> attachment = Forget(id);
    if (attachment == nullptr) {
      return absl::NotFoundError(absl::StrCat("there is no attachment ", id));
    }
    EndWithMemory(*attachment, "detached");
    return absl::OkStatus();
  }

  std::vector<AttachmentStats> Attachments() const override {
    std::vector<std::shared_ptr<Attachment>> attachments;
    {
      MutexLock lock(mu_);
      for (const auto& [id, attachment] : attachments_) attachments.push_back(attachment);
    }
    std::vector<AttachmentStats> stats;
    for (const auto& attachment : attachments) stats.push_back(attachment->Stats());
    return stats;
  }

  void Stop() override {
    {
      MutexLock lock(mu_);
      stopped_ = true;
    }
    for (;;) {
      AttachmentId id;
      {
        MutexLock lock(mu_);
        if (attachments_.empty()) return;
        id = attachments_.begin()->first;
      }
      if (const auto attachment = Forget(id)) EndWithMemory(*attachment, "the agent stops");
    }
  }

 private:
  // The process goes on; its memory must not turn into zeros.
  void EndWithMemory(Attachment& attachment, absl::string_view why) {
    attachment.SecureAbsentPages();
    attachment.Unregister();
    attachment.Close();
    LogEnd(attachment, why);
  }

  void OnGone(AttachmentId id) {
    if (const std::shared_ptr<Attachment> attachment = Forget(id)) {
      attachment->Close();
      LogEnd(*attachment, "the process has ended");
    }
  }

  void LogEnd(const Attachment& attachment, absl::string_view why) {
    const AttachmentStats stats = attachment.Stats();
    LogInfo(absl::StrCat(attachment.Name(), ": ended, ", why, "; ", stats.faults_total, " faults, ",
                         stats.copied_pages_total + stats.zeroed_pages_total, " pages filled, ",
                         stats.poisoned_pages, " poisoned"));
  }

  std::shared_ptr<Attachment> Forget(AttachmentId id) {
    MutexLock lock(mu_);
    auto node = attachments_.extract(id);
    return node.empty() ? nullptr : std::move(node.mapped());
  }

  mutable Mutex mu_;
  std::map<AttachmentId, std::shared_ptr<Attachment>> attachments_ ABSL_GUARDED_BY(mu_);
  AttachmentId next_id_ ABSL_GUARDED_BY(mu_) = 1;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  // Destroyed in this order: first the timers, whose tasks end attachments, which use the loops.
  const std::vector<std::unique_ptr<EventLoop>> loops_;
  ThreadTimers timers_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Pager>> Pager::Create(const PagerOptions& options) {
  std::vector<std::unique_ptr<EventLoop>> loops;
  for (int i = 0; i < std::max(options.readers, 1); ++i) {
    absl::StatusOr<std::unique_ptr<EventLoop>> loop =
        EventLoop::Create(absl::StrCat("fault-reader-", i));
    if (!loop.ok()) return loop.status();
    loops.push_back(*std::move(loop));
  }
  return std::make_unique<PagerOnThreads>(std::move(loops));
}

}  // namespace faultline
