// SPDX-License-Identifier: Apache-2.0
#include "client/pager.h"

#include <absl/strings/str_cat.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "client/descriptor_reserve.h"
#include "client/disposal.h"
#include "client/event_loop.h"
#include "client/evict/far_memory.h"
#include "client/evict/local_memory.h"
#include "client/evict/takeover.h"
#include "client/fault/paged_memory.h"
#include "client/live_attachment.h"
#include "client/process_maps.h"
#include "client/timers.h"
#include "client/uffd/kernel_probe.h"
#include "client/uffd/target_uffd.h"
#include "client/uffd/uffd.h"
#include "proto/log.h"
#include "proto/mutex.h"

namespace faultline {
namespace {

// Attachments that have ended, and whose descriptors wait to be closed, before another may begin.
constexpr size_t kMaxUndisposed = 32;
constexpr SteadyClock::duration kDisposalPatience = std::chrono::seconds(5);
// How long there has been no attachment before malloc's free memory is given back: those that
// follow each other closely use it again.
constexpr SteadyClock::duration kIdleBeforeTrim = std::chrono::milliseconds(500);

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

bool IsWholeProcess(const AttachRequest& request) {
  return request.far != nullptr && request.far->least_area > 0;
}

absl::StatusOr<std::unique_ptr<PageTable>> MakeTable(const std::vector<Mapping>& mappings,
                                                     std::shared_ptr<TakenPages> taken) {
  std::vector<PageRange> shared;
  for (const Mapping& mapping : mappings) {
    if (!mapping.shared) continue;
    shared.push_back({PageIndex::Containing(mapping.offset), PageCount(mapping.size / kPageSize)});
  }
  std::sort(shared.begin(), shared.end(),
            [](const PageRange& a, const PageRange& b) { return a.first < b.first; });
  return PageTable::Create(PagesOf(mappings), std::move(shared), std::move(taken));
}

// Null where the attachment is not to survive this process, or cannot.
std::unique_ptr<AttachmentJournal> MakeJournal(const AttachRequest& request, AttachmentId id,
                                               const Journal* journal) {
  if (journal == nullptr || (request.far != nullptr && !request.far->record)) return nullptr;
  const absl::StatusOr<ProcessIdentity> process = IdentityOf(request.pid);
  absl::Status status = process.status();
  if (process.ok()) {
    const uint64_t inode = UffdInode(request.uffd.get());
    const absl::Status kept = TakeUffd(request.pidfd.get(), request.pid, inode).status();
    if (!kept.ok()) {
      LogWarning(
          absl::StrCat("attachment ", id, ": ", kept.message(),
                       ": if this agent is killed, memory that is not filled turns to zeros"));
    }
    absl::StatusOr<std::unique_ptr<AttachmentJournal>> made =
        journal->Create({.id = id,
                         .process = *process,
                         .uffd_inode = inode,
                         .target_keeps_uffd = kept.ok(),
                         .volume = request.volume,
                         .options = request.options,
                         .mappings = request.mappings,
                         .far = request.far != nullptr ? request.far->record : std::nullopt});
    if (made.ok()) return *std::move(made);
    status = made.status();
  }
  LogWarning(absl::StrCat("attachment ", id, " (pid ", request.pid,
                          ") will not survive the death of this agent: ", status.message()));
  return nullptr;
}

absl::StatusOr<std::shared_ptr<PagedMemory>> PrepareMemory(
    AttachRequest* request, const std::vector<AddressRange>& undeclared,
    std::unique_ptr<AttachmentJournal> journal) {
  uint64_t features = uapi::kFeatureEventFork | uapi::kFeatureEventRemap |
                      uapi::kFeatureEventRemove | uapi::kFeatureEventUnmap | uapi::kFeatureThreadId;
  FarMemory* const far = request->far.get();
  std::unique_ptr<LocalMemory> local;
  if (far != nullptr) {
    if (far->protection == Uffd::Protection::kWriteToo) {
      features |= uapi::kFeaturePagefaultFlagWp | uapi::kFeatureWpHugetlbfsShmem;
    }
    local = std::make_unique<LocalMemory>(far->limit, std::move(far->policy),
                                          journal != nullptr ? journal->far() : nullptr);
  }
  uffd_msg* const buffer = journal != nullptr ? journal->messages() : nullptr;
  absl::StatusOr<std::unique_ptr<Uffd>> uffd =
      request->register_ranges ? AdoptFreshUffd(std::move(request->uffd), features, buffer)
                               : AdoptUffd(std::move(request->uffd), buffer);
  if (!uffd.ok()) return uffd.status();
  if (IsWholeProcess(*request) && ((*uffd)->features() & uapi::kFeatureEventFork) == 0) {
    return absl::FailedPreconditionError(
        "the agent may not ask for fork events (it needs CAP_SYS_PTRACE): children of the process "
        "would read zeros");
  }
  absl::StatusOr<std::unique_ptr<PageTable>> table =
      IsWholeProcess(*request)
          ? PageTable::Create({PageIndex(0), request->source->size()}, {})
          : MakeTable(request->mappings, journal != nullptr ? journal->taken() : nullptr);
  if (!table.ok()) return table.status();
  auto memory = std::make_shared<PagedMemory>(
      *std::move(uffd), request->mappings, *std::move(table), std::move(journal), std::move(local));
  if (std::any_of(request->mappings.begin(), request->mappings.end(),
                  [](const Mapping& mapping) { return mapping.shared; })) {
    // What is on the move meanwhile would be taken for something else.
    std::vector<FilePages> files = FilesOf(request->mappings, ReadMaps(request->pid));
    if (memory->uffd->Probe() == SpaceState::kSettled) memory->files = std::move(files);
  }
  ExclusiveLock lock(memory->space.map_changing_lock());
  if (far != nullptr && far->fresh) memory->table->SetAll(memory->table->range(), PageState::kZero);
  if (memory->journal != nullptr && far != nullptr) memory->table->KeepIn(memory->journal->far());
  // Of what the Pager registers itself, it knows that it is all declared.
  if (!request->register_ranges) memory->space.SetUndeclared(undeclared);
  if (memory->journal != nullptr) {
    absl::Status status = memory->journal->Commit(memory->space.Encode());
    if (!status.ok()) return status;
  }
  return memory;
}

// What an agent that was killed has left of `request`.
absl::StatusOr<std::shared_ptr<PagedMemory>> RestoreMemory(AdoptRequest* request) {
  const AttachmentRecord& record = request->journal->record();
  const bool whole_process = record.far && record.far->is_whole_process();
  if (record.far.has_value() != (request->far != nullptr)) {
    return absl::InternalError("memory is far, or is not");
  }
  if (!whole_process) {
    absl::Status status = CheckMappings(record.mappings, request->source->size());
    if (!status.ok()) return status;
  }
  absl::StatusOr<UniqueFd> fd =
      TakeUffd(request->pidfd.get(), record.process.pid, record.uffd_inode);
  if (absl::IsNotFound(fd.status())) request->journal->Remove();
  if (!fd.ok()) return fd.status();
  absl::StatusOr<std::unique_ptr<Uffd>> uffd =
      AdoptUffd(*std::move(fd), request->journal->messages());
  if (!uffd.ok()) return uffd.status();
  absl::StatusOr<std::unique_ptr<PageTable>> table =
      whole_process ? PageTable::Create(PagesOf(record), {})
                    : MakeTable(record.mappings, request->journal->taken());
  if (!table.ok()) return table.status();
  std::unique_ptr<LocalMemory> local;
  if (record.far) {
    local = std::make_unique<LocalMemory>(request->far->limit, std::move(request->far->policy),
                                          request->journal->far());
  }
  auto memory = std::make_shared<PagedMemory>(*std::move(uffd), record.mappings, *std::move(table),
                                              std::move(request->journal), std::move(local));
  ExclusiveLock lock(memory->space.map_changing_lock());
  if (!memory->space.Decode(memory->journal->map())) {
    return absl::DataLossError(absl::StrCat("the map of attachment ", record.id, " is damaged"));
  }
  return memory;
}

// What takes pages out of `memory`, and what another agent had taken by it.
absl::StatusOr<std::unique_ptr<PageExtractor>> RestoreExtractor(FarMemory* far,
                                                                PagedMemory* memory) {
  absl::StatusOr<std::unique_ptr<PageExtractor>> extractor =
      far->new_extractor(memory->uffd.get(), &memory->space);
  if (!extractor.ok()) return extractor.status();
  ExclusiveLock lock(memory->space.map_changing_lock());
  if (absl::Status status = RestorePages(memory, extractor->get()); !status.ok()) return status;
  return extractor;
}

// Kills the forked children of `process`: their userfaultfds have ended with the agent that had
// them, so that what was not filled reads as zeros in them.
void KillForkedDescendants(const AttachmentRecord& record) {
  for (pid_t pid : ForkedDescendants(record.process.pid)) {
    LogError(absl::StrCat("process ", pid, ", a forked child of process ", record.process.pid,
                          ", is killed: its userfaultfd has ended with the last agent, and what is "
                          "not there of its memory reads as zeros"));
    if (kill(pid, SIGKILL) != 0 && errno != ESRCH) {
      LogError(absl::StrCat("process ", pid, " cannot be killed: ", strerror(errno)));
    }
  }
}

// Notes the pages that the kernel has: the last fills of the agent before may not have been noted.
void NotePresent(pid_t pid, PagedMemory* memory) {
  SharedLock lock(memory->space.map_changing_lock());
  for (AddressRange range : memory->space.Ranges()) {
    for (AddressRange present : PresentPages(pid, range)) {
      memory->space.ForEachPart(present, [&](const AddressSpace::Part& part) {
        memory->table->SetAll(part.pages(), PageState::kPresent);
      });
    }
  }
}

absl::Status RegisterAll(const std::vector<Mapping>& mappings, Uffd::Protection protection,
                         Uffd* uffd) {
  for (size_t i = 0; i < mappings.size(); ++i) {
    absl::Status status = uffd->Register({mappings[i].address, mappings[i].size}, protection);
    if (status.ok()) continue;
    for (size_t j = 0; j < i; ++j) {
      uffd->Unregister({mappings[j].address, mappings[j].size}).IgnoreError();
    }
    return status;
  }
  return absl::OkStatus();
}

// `request.far` may have been moved from, but for its plain values.
absl::Status RegisterRequested(const AttachRequest& request, Uffd* uffd) {
  if (request.far == nullptr) {
    return RegisterAll(request.mappings, Uffd::Protection::kNone, uffd);
  }
  if (request.far->staging.length > 0) {
    absl::Status status = uffd->Register(request.far->staging);
    if (!status.ok()) return status;
  }
  return RegisterAll(request.mappings, request.far->protection, uffd);
}

class PagerOnThreads final : public Pager {
 public:
  PagerOnThreads(const PagerOptions& options, std::vector<std::unique_ptr<EventLoop>> loops)
      : serial_(options.fill_mode == FillMode::kSerial),
        journal_(options.journal),
        trace_directory_(options.trace_directory),
        next_id_(journal_ != nullptr ? journal_->next_id() : 1),
        loops_(std::move(loops)),
        timers_(std::max(options.retry_threads, 1)) {}
  ~PagerOnThreads() override { Stop(); }

  absl::StatusOr<AttachmentId> Attach(AttachRequest request) override {
    if (absl::Status checked = Check(&request); !checked.ok()) return checked;
    disposal_.WaitForRoom(kMaxUndisposed, SteadyClock::now() + kDisposalPatience);
    const std::vector<AddressRange> undeclared = AskForAreas(request.pid, &request.mappings);
    const AttachmentId id = NewId();
    std::unique_ptr<AttachmentJournal> journal = MakeJournal(request, id, journal_);
    absl::StatusOr<std::shared_ptr<PagedMemory>> memory =
        PrepareMemory(&request, undeclared, std::move(journal));
    if (!memory.ok()) {
      if (journal_ != nullptr) journal_->Remove(id);
      return memory.status();
    }

    if (absl::Status traced = StartTrace(id, **memory); !traced.ok()) return traced;
    std::unique_ptr<PageExtractor> extractor;
    if (request.far != nullptr) {
      absl::StatusOr<std::unique_ptr<PageExtractor>> made =
          request.far->new_extractor((*memory)->uffd.get(), &(*memory)->space);
      if (!made.ok()) return made.status();
      extractor = *std::move(made);
    }

    AttachedProcess process;
    process.id = id;
    process.pid = request.pid;
    process.pidfd = std::move(request.pidfd);
    process.volume = std::move(request.volume);
    process.same_pids = SharesPidNamespace(request.pid);
    std::shared_ptr<LiveAttachment> attachment;
    absl::Status status;
    {
      MutexLock lock(mu_);
      if (stopped_) {
        if (journal_ != nullptr) journal_->Remove(id);
        return absl::UnavailableError("the agent is stopping");
      }
      attachment =
          Add(std::move(process), request.options, request.source, *memory, request.recorder);
      if (request.far != nullptr) {
        attachment->PrepareEvicting(std::move(extractor), std::move(*request.far));
        attachment->StartEvicting();
      }
      status = attachment->Start();
    }
    if (status.ok() && request.register_ranges) {
      status = RegisterRequested(request, (*memory)->uffd.get());
    }
    if (!status.ok()) {
      CloseUnstarted(*attachment);
      return status;
    }
    if (request.replay != nullptr) {
      attachment->StartReplay(*request.replay, request.on_replayed);
    } else {
      attachment->StartDrain();
    }
    LogBegin(*attachment, request, **memory);
    return attachment->id();
  }

  absl::StatusOr<AttachmentId> Adopt(AdoptRequest request) override {
    const AttachmentRecord record = request.journal->record();
    if (record.far && record.far->files.empty()) KillForkedDescendants(record);
    absl::StatusOr<std::shared_ptr<PagedMemory>> memory = RestoreMemory(&request);
    if (!memory.ok()) return memory.status();
    std::unique_ptr<PageExtractor> extractor;
    if (request.far != nullptr) {
      absl::StatusOr<std::unique_ptr<PageExtractor>> made =
          RestoreExtractor(request.far.get(), memory->get());
      if (!made.ok()) return made.status();
      extractor = *std::move(made);
    }

    AttachedProcess process;
    process.id = record.id;
    process.pid = record.process.pid;
    process.pidfd = std::move(request.pidfd);
    process.volume = record.volume;
    process.same_pids = SharesPidNamespace(record.process.pid);
    std::shared_ptr<LiveAttachment> attachment;
    absl::Status status;
    {
      MutexLock lock(mu_);
      if (stopped_) return absl::UnavailableError("the agent is stopping");
      attachment = Add(std::move(process), record.options, std::move(request.source), *memory,
                       std::move(request.recorder));
      if (extractor != nullptr) {
        attachment->PrepareEvicting(std::move(extractor), std::move(*request.far));
      }
      attachment->Recover();
      if (!record.far) NotePresent(record.process.pid, memory->get());
      status = attachment->Start();
    }
    if (!status.ok()) {
      CloseUnstarted(*attachment);
      return status;
    }
    if (record.far) {
      attachment->ResumeEvicting();
    } else {
      attachment->StartDrain();
    }
    const AttachmentStats stats = attachment->Stats();
    LogInfo(absl::StrCat(attachment->Name(), ": adopted, ", stats.tracked_pages, " pages, ",
                         stats.present_pages, " of them there"));
    return attachment->id();
  }

  absl::Status Detach(AttachmentId id) override {
    const std::shared_ptr<LiveAttachment> attachment = Forget(id);
    if (attachment == nullptr) return NoSuch(id);
    EndWithMemory(*attachment, "detached");
    return absl::OkStatus();
  }

  void Perform(AttachmentId id, FarCommand command, FarDone done) override {
    const absl::StatusOr<std::shared_ptr<LiveAttachment>> attachment = Find(id);
    if (attachment.ok()) {
      (*attachment)->Perform(std::move(command), std::move(done));
    } else {
      std::move(done)(attachment.status());
    }
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

  PagerMetrics Metrics() const override {
    PagerMetrics metrics;
    std::map<AttachmentId, std::shared_ptr<LiveAttachment>> attachments;
    {
      MutexLock lock(mu_);
      metrics.attachments_total = attachments_total_;
      metrics.ended = ended_metrics_;
      attachments = attachments_;
      attachments.insert(ending_.begin(), ending_.end());
    }
    for (const auto& [id, attachment] : attachments) metrics.live.push_back(attachment->Metrics());
    return metrics;
  }

  absl::StatusOr<MemoryMap> Map(AttachmentId id, const MapView& view) const override {
    const absl::StatusOr<std::shared_ptr<LiveAttachment>> attachment = Find(id);
    if (!attachment.ok()) return attachment.status();
    return (*attachment)->Map(view);
  }

  absl::StatusOr<std::vector<MemoryEvent>> Events(AttachmentId id,
                                                  uint64_t sequence) const override {
    const absl::StatusOr<std::shared_ptr<LiveAttachment>> attachment = Find(id);
    if (!attachment.ok()) return attachment.status();
    return (*attachment)->events().After(sequence);
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
        while (!ending_.empty()) ended_.Wait(mu_);
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

  void LogBegin(const LiveAttachment& attachment, const AttachRequest& request,
                const PagedMemory& memory) const {
    LogInfo(absl::StrCat(attachment.Name(), ": began, ", request.mappings.size(), " mappings, ",
                         attachment.Stats().tracked_pages, " pages",
                         serial_ ? ", one thread" : ""));
    if ((memory.uffd->features() & uapi::kFeatureEventFork) == 0) {
      LogDebug(absl::StrCat(attachment.Name(),
                            ": its userfaultfd does not tell of forks: memory that a child "
                            "inherits is not served"));
    }
  }

  absl::Status StartTrace(AttachmentId id, PagedMemory& memory) const {
    if (trace_directory_.empty()) return absl::OkStatus();
    TraceOptions options;
    options.volume = memory.table->range().end() - PageIndex(0);
    absl::StatusOr<std::unique_ptr<TraceWriter>> trace =
        TraceWriter::Create(absl::StrCat(trace_directory_, "/", id, ".trace"), options);
    if (!trace.ok()) return trace.status();
    memory.trace = *std::move(trace);
    return absl::OkStatus();
  }

  // What can be known of a request before anything is done. Opens the pidfd, where there is none.
  absl::Status Check(AttachRequest* request) const {
    if (!request->pidfd) {
      request->pidfd = UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, request->pid, 0)));
      if (!request->pidfd) {
        return absl::ErrnoToStatus(errno, absl::StrCat("pidfd_open of pid ", request->pid));
      }
    }
    if (absl::Status status = CheckFar(*request); !status.ok()) return status;
    if (IsWholeProcess(*request)) return absl::OkStatus();
    return CheckMappings(request->mappings, request->source->size());
  }

  absl::Status CheckFar(const AttachRequest& request) const {
    const FarMemory* const far = request.far.get();
    if (far == nullptr) return absl::OkStatus();
    if (serial_) {
      return absl::FailedPreconditionError(
          "far memory needs a kernel whose fills exclude events (Linux 6.9), and an agent that is "
          "not told to fill from one thread (--fill-mode)");
    }
    if (!request.register_ranges) {
      return absl::InvalidArgumentError("far memory has to be registered by the agent");
    }
    if (request.options.drain) {
      return absl::InvalidArgumentError(
          "far memory cannot be drained: there is no room for all of it");
    }
    if (far->limit.percent == 0 && far->limit.bytes < LocalMemory::kMinBudget.in_bytes()) {
      return absl::InvalidArgumentError(
          absl::StrCat("a budget of ", far->limit.bytes, " bytes is too little; at least ",
                       LocalMemory::kMinBudget.in_bytes(), " are needed"));
    }
    return absl::OkStatus();
  }

  AttachmentId NewId() {
    MutexLock lock(mu_);
    return next_id_++;
  }

  // Ends one that could not be started.
  void CloseUnstarted(LiveAttachment& attachment) {
    const auto forgotten = Forget(attachment.id());
    attachment.Close();
    if (forgotten != nullptr) NoteEnded(attachment);
  }

  std::shared_ptr<LiveAttachment> Add(AttachedProcess process, const AttachmentOptions& options,
                                      std::shared_ptr<PageSource> source,
                                      std::shared_ptr<PagedMemory> memory,
                                      std::shared_ptr<WorkingSetRecorder> recorder)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
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
    ++attachments_total_;
    // A fetch that is under way may be the last that has the memory.
    return attachments_[id] = std::make_shared<LiveAttachment>(
               std::move(process), options, std::move(source), disposal_.Later(std::move(memory)),
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
      process.id = next_id_++;
      std::shared_ptr<PageSource> source = memory->forked_source;
      if (source == nullptr) source = parent.source();
      child = Add(std::move(process), parent.options(), std::move(source), std::move(memory),
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
    NoteEnded(attachment);
  }

  void OnGone(AttachmentId id) {
    if (const std::shared_ptr<LiveAttachment> attachment = Forget(id)) {
      attachment->Close();
      LogEnd(*attachment, "the process has ended");
      NoteEnded(*attachment);
    }
  }

  void LogEnd(const LiveAttachment& attachment, absl::string_view why) {
    const AttachmentStats stats = attachment.Stats();
    Log(stats.parent == 0 ? LogLevel::kInfo : LogLevel::kDebug,
        absl::StrCat(attachment.Name(), ": ended, ", why, "; ", stats.faults_total, " faults, ",
                     stats.copied_pages_total + stats.zeroed_pages_total, " pages filled, ",
                     stats.poisoned_pages, " poisoned"));
  }

  static absl::Status NoSuch(AttachmentId id) {
    return absl::NotFoundError(absl::StrCat("there is no attachment ", id));
  }
  absl::StatusOr<std::shared_ptr<LiveAttachment>> Find(AttachmentId id) const {
    MutexLock lock(mu_);
    const auto found = attachments_.find(id);
    if (found == attachments_.end()) return NoSuch(id);
    return found->second;
  }

  // NoteEnded() has to follow, once it is closed.
  std::shared_ptr<LiveAttachment> Forget(AttachmentId id) {
    MutexLock lock(mu_);
    auto node = attachments_.extract(id);
    if (node.empty()) return nullptr;
    return ending_[id] = std::move(node.mapped());
  }
  void NoteEnded(const LiveAttachment& attachment) {
    const AttachmentMetrics metrics = attachment.Metrics();
    MutexLock lock(mu_);
    ended_metrics_.AddTotals(metrics);
    ending_.erase(attachment.id());
    ended_.SignalAll();
    if (IsIdle() && !trim_due_) {
      trim_due_ = true;
      timers_.After(kIdleBeforeTrim, [this] { TrimMemory(); });
    }
  }

  bool IsIdle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return attachments_.empty() && ending_.empty();
  }
  // What attachments had is free in between what stays, where malloc keeps it however much it is:
  // the agent would stay as large as it was with the most of them. Only when there are none, as all
  // who allocate have to wait.
  void TrimMemory() {
    {
      MutexLock lock(mu_);
      trim_due_ = false;
      if (!IsIdle()) return;
    }
    malloc_trim(0);
  }

  const bool serial_;
  Journal* const journal_;  // may be null
  const std::string trace_directory_;
  DescriptorReserve reserve_;
  Disposal disposal_;
  mutable Mutex mu_;
  std::map<AttachmentId, std::shared_ptr<LiveAttachment>> attachments_ ABSL_GUARDED_BY(mu_);
  AttachmentId next_id_ ABSL_GUARDED_BY(mu_);
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t attachments_total_ ABSL_GUARDED_BY(mu_) = 0;
  // Attachments that were forgotten, but that are not closed yet.
  std::map<AttachmentId, std::shared_ptr<LiveAttachment>> ending_ ABSL_GUARDED_BY(mu_);
  AttachmentMetrics ended_metrics_ ABSL_GUARDED_BY(mu_);
  CondVar ended_;
  bool trim_due_ ABSL_GUARDED_BY(mu_) = false;
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
