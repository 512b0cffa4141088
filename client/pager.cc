// SPDX-License-Identifier: Apache-2.0
#include "client/pager.h"

#include <absl/strings/str_cat.h>
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "client/descriptor_reserve.h"
#include "client/event_loop.h"
#include "client/fault/paged_memory.h"
#include "client/live_attachment.h"
#include "client/process_maps.h"
#include "client/timers.h"
#include "client/uffd/kernel_probe.h"
#include "client/uffd/uffd.h"
#include "proto/log.h"
#include "proto/mutex.h"

namespace faultline {
namespace {

// Marks the mappings that the kernel knows to be shared, and returns what their memory areas hold
// beyond all mappings. What the kernel does not let us read stays as the peer has said.
std::vector<AddressRange> AskForAreas(pid_t pid, std::vector<Mapping>* mappings) {
  std::vector<AddressRange> undeclared;
  for (const VmArea& area : ReadMaps(pid)) {
    std::vector<AddressRange> declared;
    for (Mapping& mapping : *mappings) {
      const AddressRange range{mapping.address, mapping.size};
      if (!range.Overlaps(area.range)) continue;
      mapping.shared = mapping.shared || area.shared;
      declared.push_back(range);
    }
    if (declared.empty()) continue;
    std::sort(declared.begin(), declared.end(),
              [](AddressRange a, AddressRange b) { return a.start < b.start; });
    uint64_t at = area.range.start;
    for (AddressRange range : declared) {
      if (at < range.start) undeclared.push_back({at, range.start - at});
      at = std::max(at, range.end());
    }
    if (at < area.range.end()) undeclared.push_back({at, area.range.end() - at});
  }
  return undeclared;
}

absl::StatusOr<std::unique_ptr<PageTable>> MakeTable(const std::vector<Mapping>& mappings) {
  PageIndex first(kMaxVolumePages), end(0);
  std::vector<PageRange> shared;
  for (const Mapping& mapping : mappings) {
    const PageRange pages{PageIndex::Containing(mapping.offset),
                          PageCount(mapping.size / kPageSize)};
    first = std::min(first, pages.first);
    end = std::max(end, pages.end());
    if (mapping.shared) shared.push_back(pages);
  }
  std::sort(shared.begin(), shared.end(),
            [](const PageRange& a, const PageRange& b) { return a.first < b.first; });
  return PageTable::Create(PageRange::Between(first, end), std::move(shared));
}

absl::StatusOr<std::shared_ptr<PagedMemory>> PrepareMemory(AttachRequest* request) {
  if (absl::Status status = CheckMappings(request->mappings, request->source->size());
      !status.ok()) {
    return status;
  }
  constexpr uint64_t kFeatures = uapi::kFeatureEventFork | uapi::kFeatureEventRemap |
                                 uapi::kFeatureEventRemove | uapi::kFeatureEventUnmap |
                                 uapi::kFeatureThreadId;
  absl::StatusOr<std::unique_ptr<Uffd>> uffd =
      request->register_ranges ? AdoptFreshUffd(std::move(request->uffd), kFeatures)
                               : AdoptUffd(std::move(request->uffd));
  if (!uffd.ok()) return uffd.status();
  std::vector<AddressRange> undeclared = AskForAreas(request->pid, &request->mappings);
  absl::StatusOr<std::unique_ptr<PageTable>> table = MakeTable(request->mappings);
  if (!table.ok()) return table.status();
  auto memory =
      std::make_shared<PagedMemory>(*std::move(uffd), request->mappings, *std::move(table));
  if (!request->register_ranges) {
    // Of what the Pager registers itself, it knows that it is all declared.
    ExclusiveLock lock(memory->space.map_changing_lock());
    memory->space.SetUndeclared(std::move(undeclared));
  }
  return memory;
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
  PagerOnThreads(const PagerOptions& options, std::vector<std::unique_ptr<EventLoop>> loops)
      : serial_(options.fill_mode == FillMode::kSerial),
        loops_(std::move(loops)),
        timers_(std::max(options.retry_threads, 1)) {}
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

    AttachedProcess process;
    process.pid = request.pid;
    process.pidfd = std::move(request.pidfd);
    process.volume = std::move(request.volume);
    process.same_pids = SharesPidNamespace(request.pid);
    std::shared_ptr<LiveAttachment> attachment;
    absl::Status status;
    {
      MutexLock lock(mu_);
      if (stopped_) return absl::UnavailableError("the agent is stopping");
      attachment =
          Add(std::move(process), request.options, request.source, *memory, request.recorder);
      status = attachment->Start();
    }
    if (status.ok() && request.register_ranges) {
      status = RegisterAll(request.mappings, (*memory)->uffd.get());
    }
    if (!status.ok()) {
      const auto forgotten = Forget(attachment->id());
      attachment->Close();
      if (forgotten != nullptr) NoteEnded();
      return status;
    }
    if (request.replay != nullptr) {
      attachment->StartReplay(request.replay, request.on_replayed);
    } else {
      attachment->StartDrain();
    }
    LogInfo(absl::StrCat(attachment->Name(), ": began, ", request.mappings.size(), " mappings, ",
                         attachment->Stats().tracked_pages, " pages",
                         serial_ ? ", one thread" : ""));
    if (((*memory)->uffd->features() & uapi::kFeatureEventFork) == 0) {
      LogDebug(absl::StrCat(attachment->Name(),
                            ": its userfaultfd does not tell of forks: memory that a child "
                            "inherits is not served"));
    }
    return attachment->id();
  }

  absl::Status Detach(AttachmentId id) override {
    const std::shared_ptr<LiveAttachment> attachment = Forget(id);
    if (attachment == nullptr) {
      return absl::NotFoundError(absl::StrCat("there is no attachment ", id));
    }
    EndWithMemory(*attachment, "detached");
    return absl::OkStatus();
  }

  std::vector<AttachmentStats> Attachments() const override {
    std::vector<std::shared_ptr<LiveAttachment>> attachments;
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
    // Again until no reader is left that may have had a forked child in its hands.
    do {
      {
        MutexLock lock(mu_);
        while (ending_ > 0) ended_.Wait(mu_);
      }
      for (const auto& loop : loops_) loop->Flush();
    } while (EndAll());
  }

 private:
  // Also the attachments of children that are forked meanwhile. False if there was none.
  bool EndAll() {
    bool any = false;
    for (;;) {
      AttachmentId id;
      {
        MutexLock lock(mu_);
        if (attachments_.empty()) return any;
        id = attachments_.begin()->first;
      }
      any = true;
      if (const auto attachment = Forget(id)) EndWithMemory(*attachment, "the agent stops");
    }
  }

  std::shared_ptr<LiveAttachment> Add(AttachedProcess process, const AttachmentOptions& options,
                                      std::shared_ptr<PageSource> source,
                                      std::shared_ptr<PagedMemory> memory,
                                      std::shared_ptr<WorkingSetRecorder> recorder)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    process.id = next_id_++;
    LiveAttachment::Environment environment;
    environment.timers = &timers_;
    environment.loop = loops_[process.id % loops_.size()].get();
    environment.reserve = &reserve_;
    environment.serial = serial_;
    environment.on_gone = [this](AttachmentId id) {
      // Not here: it may be a fetch of this very attachment that has noticed.
      timers_.After(SteadyClock::duration(0), [this, id] { OnGone(id); });
    };
    environment.on_fork = [this](LiveAttachment& parent, std::shared_ptr<PagedMemory> child) {
      OnFork(parent, std::move(child));
    };
    const AttachmentId id = process.id;
    return attachments_[id] = std::make_shared<LiveAttachment>(std::move(process), options,
                                                               std::move(source), std::move(memory),
                                                               std::move(recorder), environment);
  }

  void OnFork(LiveAttachment& parent, std::shared_ptr<PagedMemory> memory) {
    AttachedProcess process;
    process.parent = parent.id();
    process.volume = parent.volume();
    process.same_pids = parent.same_pids();
    std::shared_ptr<LiveAttachment> child;
    {
      MutexLock lock(mu_);
      child = Add(std::move(process), parent.options(), parent.source(), std::move(memory),
                  parent.recorder());
    }
    child->StartForked();
    LogDebug(absl::StrCat(child->Name(), ": began"));
  }

  // Of one that was forgotten. The process goes on; its memory must not turn into zeros.
  void EndWithMemory(LiveAttachment& attachment, absl::string_view why) {
    attachment.SecureAbsentPages();
    attachment.Unregister();
    attachment.Close();
    LogEnd(attachment, why);
    NoteEnded();
  }

  void OnGone(AttachmentId id) {
    if (const std::shared_ptr<LiveAttachment> attachment = Forget(id)) {
      attachment->Close();
      LogEnd(*attachment, "the process has ended");
      NoteEnded();
    }
  }

  void LogEnd(const LiveAttachment& attachment, absl::string_view why) {
    const AttachmentStats stats = attachment.Stats();
    Log(stats.parent == 0 ? LogLevel::kInfo : LogLevel::kDebug,
        absl::StrCat(attachment.Name(), ": ended, ", why, "; ", stats.faults_total, " faults, ",
                     stats.copied_pages_total + stats.zeroed_pages_total, " pages filled, ",
                     stats.poisoned_pages, " poisoned"));
  }

  // NoteEnded() has to follow, once it is closed.
  std::shared_ptr<LiveAttachment> Forget(AttachmentId id) {
    MutexLock lock(mu_);
    auto node = attachments_.extract(id);
    if (node.empty()) return nullptr;
    ++ending_;
    return std::move(node.mapped());
  }
  void NoteEnded() {
    MutexLock lock(mu_);
    --ending_;
    ended_.SignalAll();
  }

  const bool serial_;
  DescriptorReserve reserve_;
  mutable Mutex mu_;
  std::map<AttachmentId, std::shared_ptr<LiveAttachment>> attachments_ ABSL_GUARDED_BY(mu_);
  AttachmentId next_id_ ABSL_GUARDED_BY(mu_) = 1;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  // Attachments that were forgotten, but that are not closed yet.
  int ending_ ABSL_GUARDED_BY(mu_) = 0;
  CondVar ended_;
  // Destroyed in this order: first the timers, whose tasks end attachments, which use the loops.
  const std::vector<std::unique_ptr<EventLoop>> loops_;
  ThreadTimers timers_;
};

}  // namespace

absl::StatusOr<FillMode> ParseFillMode(absl::string_view name) {
  if (name == "auto") return FillMode::kAuto;
  if (name == "parallel") return FillMode::kParallel;
  if (name == "serial") return FillMode::kSerial;
  return absl::InvalidArgumentError(
      absl::StrCat("unknown fill mode \"", name, "\"; known are auto, parallel and serial"));
}

absl::StatusOr<std::unique_ptr<Pager>> Pager::Create(PagerOptions options) {
  if (options.fill_mode == FillMode::kAuto) {
    const KernelProbe probe = ProbeKernel();
    options.fill_mode = probe.fills_exclude_events ? FillMode::kParallel : FillMode::kSerial;
    LogInfo(absl::StrCat("fill mode ",
                         options.fill_mode == FillMode::kParallel ? "parallel" : "serial", ": ",
                         probe.evidence));
  }
  const EventLoopOptions waiting{absl::ToChronoNanoseconds(options.spin), options.pollable};
  std::vector<std::unique_ptr<EventLoop>> loops;
  for (int i = 0; i < std::max(options.readers, 1); ++i) {
    absl::StatusOr<std::unique_ptr<EventLoop>> loop =
        EventLoop::Create(absl::StrCat("fault-reader-", i), waiting);
    if (!loop.ok()) return loop.status();
    loops.push_back(*std::move(loop));
  }
  return std::make_unique<PagerOnThreads>(options, std::move(loops));
}

}  // namespace faultline
