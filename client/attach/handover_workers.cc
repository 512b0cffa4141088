// SPDX-License-Identifier: Apache-2.0
#include "client/attach/handover_workers.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

#include <algorithm>
#include <future>
#include <memory>
#include <utility>

#include "client/evict/far_memory.h"
#include "client/evict/memfd_extractor.h"
#include "client/evict/policies.h"
#include "client/far/helper_extractor.h"
#include "client/uffd/target_uffd.h"
#include "proto/log.h"

namespace faultline {
namespace {

using Kind = HandoverRequest::Kind;

// For the sizes of a policy's queues, where the budget is a part of what is not known yet.
constexpr uint64_t kAssumedLocal = uint64_t{64} << 20;

bool IsHandover(Kind kind) { return kind == Kind::kFirecracker || kind == Kind::kAttach; }

// Whose memory waits already, and who is not told of a failure.
bool TakesNoAnswer(const HandoverJob& job) {
  return job.request.kind == Kind::kFirecracker || job.left;
}

// Not worth failing for.
void WarnOfWorkingSet(const std::string& volume, const char* what, const absl::Status& status) {
  LogWarning(
      absl::StrCat("working set of volume ", volume, " is not ", what, ": ", status.message()));
}

}  // namespace

struct HandoverWorkers::LaterAnswers {
  Mutex mu;
  HandoverWorkers* workers ABSL_GUARDED_BY(mu);  // null: gone
};

HandoverWorkers::HandoverWorkers(HandoverWorkersOptions options, Pager* pager,
                                 OpenSource open_source, Done done)
    : options_(std::move(options)),
      pager_(pager),
      open_source_(std::move(open_source)),
      done_(std::move(done)),
      later_(std::make_shared<LaterAnswers>()) {
  {
    MutexLock lock(later_->mu);
    later_->workers = this;
  }
  for (int i = 0; i < options_.threads; ++i) {
    threads_.emplace_back([this] { Run(); });
    pthread_setname_np(threads_.back().native_handle(), absl::StrCat("handover-", i).c_str());
  }
}

HandoverWorkers::~HandoverWorkers() {
  Stop();
  MutexLock lock(later_->mu);
  later_->workers = nullptr;
}

void HandoverWorkers::Submit(HandoverJob job) {
  job.begin = job.due = Clock::now();
  job.backoff = options_.first_backoff;
  Requeue(std::move(job));
}

void HandoverWorkers::Adopt(LeftAttachment left) {
  HandoverJob job;
  job.left = left.journal->record();
  job.peer.pid = job.left->process.pid;
  job.peer.pidfd = std::move(left.pidfd);
  job.request.volume = job.left->volume;
  job.journal = std::move(left.journal);
  Submit(std::move(job));
}

void HandoverWorkers::Requeue(HandoverJob job) {
  {
    MutexLock lock(mu_);
    if (!stopped_) {
      jobs_.push_back(std::move(job));
      changed_.Signal();
      return;
    }
  }
  done_(Abandon(job));
}

void HandoverWorkers::Stop() {
  std::list<HandoverJob> waiting;
  {
    MutexLock lock(mu_);
    stopped_ = true;
    waiting.swap(jobs_);
    changed_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  for (const HandoverJob& job : waiting) {
    done_(Abandon(job));
  }
}

void HandoverWorkers::Run() {
  while (std::optional<HandoverJob> job = Take()) {
    if (job->request.kind == Kind::kFarCommand) {
      Command(*std::move(job));
    } else if (std::optional<HandoverOutcome> outcome = Work(*job)) {
      done_(std::move(*outcome));
    } else {
      Requeue(std::move(*job));
    }
  }
}

std::optional<HandoverJob> HandoverWorkers::Take() {
  MutexLock lock(mu_);
  while (!stopped_) {
    const auto first =
        std::min_element(jobs_.begin(), jobs_.end(),
                         [](const HandoverJob& a, const HandoverJob& b) { return a.due < b.due; });
    if (first == jobs_.end()) {
      changed_.Wait(mu_);
    } else if (first->due > Clock::now()) {
      changed_.WaitUntil(mu_, first->due);
    } else {
      HandoverJob job = std::move(*first);
      jobs_.erase(first);
      return job;
    }
  }
  return std::nullopt;
}

std::optional<HandoverOutcome> HandoverWorkers::Work(HandoverJob& job) {
  HandoverOutcome outcome;
  outcome.connection = job.connection;
  switch (job.request.kind) {
    case Kind::kQueryAttachments:
      outcome.reply = AttachmentsReply(AttachmentsFor(job.peer));
      return outcome;
    case Kind::kDetach: {
      const absl::Status status = Detach(job);
      if (!status.ok()) return Fail(job, status);
      outcome.detached = true;
      outcome.reply = DoneReply();
      return outcome;
    }
    case Kind::kQueryVolume:
    case Kind::kFirecracker:
    case Kind::kAttach:
      return Handover(job);
    case Kind::kFarCommand:
      break;
  }
  return Fail(job, absl::InternalError("unknown kind of request"));
}

std::vector<AttachmentStats> HandoverWorkers::AttachmentsFor(const PeerProcess& peer) const {
  std::vector<AttachmentStats> attachments = pager_->Attachments();
  std::erase_if(attachments, [this, &peer](const AttachmentStats& attachment) {
    return !options_.permissions.Allows(peer, attachment.volume);
  });
  return attachments;
}

absl::Status HandoverWorkers::Detach(const HandoverJob& job) const {
  if (!job.request.attachment) return pager_->Detach(*job.attachment);
  if (absl::Status owner = CheckOwner(job); !owner.ok()) return owner;
  const absl::Status status = pager_->Detach(*job.attachment);
  // The agent before may have done it, and had no time left to say so.
  return absl::IsNotFound(status) ? absl::OkStatus() : status;
}

absl::Status HandoverWorkers::CheckOwner(const HandoverJob& job) const {
  for (const AttachmentStats& attachment : pager_->Attachments()) {
    if (attachment.id != *job.attachment || attachment.pid == job.peer.pid) continue;
    return absl::PermissionDeniedError(
        absl::StrCat("attachment ", attachment.id, " is not one of ", job.peer.Name()));
  }
  return absl::OkStatus();
}

void HandoverWorkers::Command(HandoverJob job) {
  if (absl::Status owner = CheckOwner(job); !owner.ok()) {
    done_(Fail(job, owner));
    return;
  }
  FarCommand command = std::move(job.request.command);
  command.deadline = absl::Now() + job.request.command_timeout;
  pager_->Perform(*job.attachment, std::move(command),
                  [later = later_, connection = job.connection](const absl::Status& status) {
                    HandoverOutcome outcome;
                    outcome.connection = connection;
                    outcome.reply = status.ok() ? DoneReply() : ErrorReply(status.message());
                    MutexLock lock(later->mu);
                    if (later->workers != nullptr) later->workers->done_(std::move(outcome));
                  });
}

std::optional<HandoverOutcome> HandoverWorkers::Handover(HandoverJob& job) {
  if (IsHandover(job.request.kind) && job.peer.HasEnded()) {
    LogInfo(absl::StrCat(job.peer.Name(), " ended during its handover"));
    return HandoverOutcome{job.connection, "", std::nullopt, false};
  }
  const absl::Time deadline =
      absl::Now() + std::clamp(TimeLeft(job), absl::ZeroDuration(), options_.try_timeout);
  absl::StatusOr<VolumeIo> volume = Open(job, deadline);
  if (!volume.ok()) {
    if (!MayRetry(job, volume.status())) return Fail(job, volume.status());
    if (job.backoff == options_.first_backoff) {
      LogWarning(absl::StrCat("volume ", VolumeOf(job), " for ", job.peer.Name(),
                              " cannot be opened yet, trying again: ", volume.status().message()));
    }
    job.due = Clock::now() + absl::ToChronoNanoseconds(std::min(job.backoff, TimeLeft(job)));
    job.backoff = std::min(2 * job.backoff, options_.max_backoff);
    return std::nullopt;
  }
  HandoverOutcome outcome;
  outcome.connection = job.connection;
  if (job.request.kind == Kind::kQueryVolume) {
    outcome.reply = VolumeReply(volume->source->size().in_bytes());
    return outcome;
  }
  absl::StatusOr<AttachmentId> id =
      job.left ? Adopt(job, *std::move(volume)) : Attach(job, *std::move(volume));
  if (absl::IsNotFound(id.status()) && job.left && job.left->target_keeps_uffd) {
    // It had one: so it has given its memory up, or another program runs in it (exec).
    LogInfo(absl::StrCat("attachment ", job.left->id,
                         " of the last agent is over: ", id.status().message()));
    return outcome;
  }
  if (!id.ok()) {
    if (job.request.far && job.request.far->new_volume) options_.delete_volume(job.request.volume);
    return Fail(job, id.status());
  }
  outcome.attached = *id;
  if (!TakesNoAnswer(job)) outcome.reply = AttachedReply(*id);
  return outcome;
}

absl::StatusOr<AttachmentId> HandoverWorkers::Adopt(HandoverJob& job, VolumeIo volume) {
  absl::StatusOr<PeerProcess> peer = job.peer.Duplicate();
  if (!peer.ok()) return peer.status();
  AdoptRequest request;
  const AttachmentRecord& record = job.journal->record();
  const WorkingSetUse use = record.options.working_set;
  if (use == WorkingSetUse::kRecord || use == WorkingSetUse::kBoth) {
    request.recorder = NewRecorder(record.volume, *volume.source);
  }
  if (record.far) {
    absl::StatusOr<std::unique_ptr<FarMemory>> far = PrepareLeftFar(job, volume);
    // Another program runs in it (exec).
    if (absl::IsNotFound(far.status())) job.journal->Remove();
    if (!far.ok()) return far.status();
    request.far = *std::move(far);
  }
  request.journal = std::move(job.journal);
  request.pidfd = std::move(peer->pidfd);
  request.source = std::move(volume.source);
  return pager_->Adopt(std::move(request));
}

absl::StatusOr<VolumeIo> HandoverWorkers::Open(const HandoverJob& job, absl::Time deadline) const {
  const bool left_far = job.left && job.left->far;
  if (!job.request.far && !left_far) {
    absl::StatusOr<std::shared_ptr<PageSource>> source = open_source_(VolumeOf(job), deadline);
    if (!source.ok()) return source.status();
    return VolumeIo{*std::move(source), nullptr};
  }
  if (options_.open_volume_io == nullptr) {
    return absl::UnimplementedError("this agent serves no far memory");
  }
  if (left_far && job.left->far->owns_volume) {
    return options_.take_over_volume(VolumeOf(job), deadline);
  }
  if (const uint64_t size = left_far ? 0 : job.request.far->make_volume; size > 0) {
    return options_.make_volume(VolumeOf(job), size, deadline);
  }
  if (!left_far && job.request.far->new_volume) {
    const auto& wanted = job.request.far->new_volume;
    absl::StatusOr<VolumeIo> made = options_.new_volume(*wanted, deadline);
    if (made.ok()) made->name = wanted->name;
    return made;
  }
  absl::StatusOr<VolumeIo> volume = options_.open_volume_io(VolumeOf(job), deadline);
  if (volume.ok()) volume->name = std::string(VolumeOf(job));
  return volume;
}

absl::StatusOr<std::unique_ptr<FarMemory>> HandoverWorkers::PrepareFar(
    HandoverJob& job, const VolumeIo& volume) const {
  const FarRequest& wanted = *job.request.far;
  FarRecord record;
  record.limit =
      wanted.local_memory ? LocalMemoryLimit{*wanted.local_memory, 0} : options_.local_memory;
  const uint64_t budget = record.limit.bytes;
  uint64_t taken = 0;
  for (const AttachmentStats& stats : pager_->Attachments()) {
    taken += stats.local.budget_pages * kPageSize;
  }
  if (budget > options_.total_local_memory - std::min(taken, options_.total_local_memory)) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a budget of ", budget, " bytes does not fit: this agent has ", options_.total_local_memory,
        " for all far memory (--total-local-memory), of which ", taken, " are taken"));
  }
  record.policy = wanted.policy.value_or(options_.eviction_policy);
  // A shared object would run as this agent, whoever asks for it.
  if (record.policy != options_.eviction_policy && !IsBuiltInEvictionPolicy(record.policy)) {
    return absl::PermissionDeniedError(
        absl::StrCat("\"", record.policy, "\" is no policy that this agent has; there are ",
                     absl::StrJoin(kEvictionPolicyNames, ", "), ", and the agent's own --policy, ",
                     options_.eviction_policy));
  }
  record.fresh = wanted.fresh || wanted.make_volume > 0 ||
                 (wanted.new_volume && wanted.new_volume->size_bytes > 0);
  record.owns_volume = wanted.make_volume > 0;
  record.volume_pages = volume.source->size().raw();
  std::vector<UniqueFd> files;
  if (wanted.helper) {
    record.least_area = std::max(wanted.helper->least, kPageSize);
    record.excluded = wanted.helper->memory;
    record.staging = wanted.helper->staging;
    files.push_back(std::move(job.further[wanted.helper->command]));
    record.command = FileIdentityOf(files.front().get());
  }
  for (const FarRequest::File& file : wanted.files) {
    const Mapping& mapping = job.request.mappings[file.mapping];
    // Several mappings may be of one file.
    UniqueFd fd(fcntl(job.further[file.memfd].get(), F_DUPFD_CLOEXEC, 0));
    if (!fd) return absl::ErrnoToStatus(errno, "a descriptor for a file of far memory");
    record.files.push_back({FileIdentityOf(fd.get()), mapping.offset, file.offset, mapping.size});
    files.push_back(std::move(fd));
  }
  return MakeFar(record, std::move(files), job.peer, volume);
}

absl::StatusOr<std::unique_ptr<FarMemory>> HandoverWorkers::PrepareLeftFar(
    const HandoverJob& job, const VolumeIo& volume) const {
  const FarRecord& record = *job.left->far;
  if (volume.source->size().raw() != record.volume_pages) {
    return absl::FailedPreconditionError(absl::StrCat(
        "volume ", job.left->volume, " has not the size any more that it had for the last agent"));
  }
  std::vector<FileIdentity> wanted;
  if (record.is_whole_process()) wanted.push_back(record.command);
  for (const FarRecord::File& file : record.files) wanted.push_back(file.file);
  std::vector<UniqueFd> files;
  for (const FileIdentity& file : wanted) {
    absl::StatusOr<UniqueFd> fd = OpenFileOf(job.left->process.pid, file);
    if (!fd.ok()) return fd.status();
    files.push_back(*std::move(fd));
  }
  return MakeFar(record, std::move(files), job.peer, volume);
}

absl::StatusOr<std::unique_ptr<FarMemory>> HandoverWorkers::MakeFar(const FarRecord& record,
                                                                    std::vector<UniqueFd> files,
                                                                    const PeerProcess& peer,
                                                                    const VolumeIo& volume) const {
  auto far = std::make_unique<FarMemory>();
  absl::StatusOr<std::unique_ptr<EvictionPolicy>> policy = MakeEvictionPolicy(
      record.policy, PageCount(std::max(record.limit.bytes, kAssumedLocal) / kPageSize));
  if (!policy.ok()) return policy.status();
  far->limit = record.limit;
  far->policy = *std::move(policy);
  far->sink = volume.sink;
  far->fresh = record.fresh;
  far->record = record;
  if (record.is_whole_process()) {
    far->least_area = record.least_area;
    far->excluded = record.excluded;
    far->staging = record.staging;
    far->freeze = [freeze = options_.freeze_volume, name = volume.name] { return freeze(name); };
    absl::StatusOr<PeerProcess> process = peer.Duplicate();
    if (!process.ok()) return process.status();
    far->new_extractor =
        [command = std::make_shared<UniqueFd>(std::move(files.front())),
         pidfd = std::make_shared<UniqueFd>(std::move(process->pidfd))](
            Uffd* uffd, const AddressSpace*) -> absl::StatusOr<std::unique_ptr<PageExtractor>> {
      return HelperExtractor::Open({std::move(*command), std::move(*pidfd), uffd});
    };
    return far;
  }
  far->protection = Uffd::Protection::kWriteToo;
  if (options_.snapshot_volume != nullptr) {
    far->snapshot = [snapshot = options_.snapshot_volume, volume = volume.name](
                        const std::string& name) { return snapshot(volume, name); };
  }
  auto memory_files = std::make_shared<std::vector<MemoryFile>>();
  for (size_t i = 0; i < files.size(); ++i) {
    const FarRecord::File& file = record.files[i];
    memory_files->push_back({std::move(files[i]), file.volume_offset, file.file_offset, file.size});
  }
  far->new_extractor =
      [files = std::move(memory_files)](
          Uffd* uffd, const AddressSpace* space) -> absl::StatusOr<std::unique_ptr<PageExtractor>> {
    return std::make_unique<MemfdExtractor>(uffd, space, std::move(*files));
  };
  return far;
}

absl::StatusOr<AttachmentId> HandoverWorkers::Attach(HandoverJob& job, VolumeIo volume) {
  AttachRequest request;
  if (job.request.far) {
    absl::StatusOr<std::unique_ptr<FarMemory>> far = PrepareFar(job, volume);
    if (!far.ok()) return far.status();
    request.far = *std::move(far);
  }
  request.uffd = std::move(job.uffd);
  request.register_ranges = job.request.register_ranges;
  request.mappings = job.request.mappings;
  request.pid = job.peer.pid;
  request.volume = job.request.far ? volume.name : std::string(VolumeOf(job));
  request.source = std::move(volume.source);
  request.options = options_.attachment;
  request.options.drain = job.request.drain.value_or(options_.attachment.drain && !job.request.far);
  request.options.prefetch = job.request.prefetch.value_or(options_.attachment.prefetch);
  request.options.working_set = job.request.working_set.value_or(options_.attachment.working_set);
  request.options.unregister = job.request.unregister;
  request.options.shared_discard =
      job.request.shared_discard.value_or(options_.attachment.shared_discard);
  request.options.policy = job.request.fault_policy.value_or(options_.attachment.policy);
  request.options.fault_deadline =
      job.request.fault_deadline.value_or(options_.attachment.fault_deadline);
  PrepareWorkingSet(&request);
  if (absl::Status status = PrepareFirstPages(job.request.first_pages, &request); !status.ok()) {
    return status;
  }
  absl::StatusOr<PeerProcess> peer = job.peer.Duplicate();
  if (!peer.ok()) return peer.status();
  request.pidfd = std::move(peer->pidfd);

  const size_t attached = pager_->Attachments().size();
  {
    MutexLock lock(mu_);
    if (attached + attaching_ >= options_.max_attachments) {
      return absl::ResourceExhaustedError(
          absl::StrCat("this agent serves ", options_.max_attachments,
                       " attachments at most; raise --max-attachments"));
    }
    ++attaching_;
  }
  const auto replayed = std::make_shared<std::promise<void>>();
  const bool wait = request.replay != nullptr && options_.replay_wait > absl::ZeroDuration();
  if (wait) request.on_replayed = [replayed] { replayed->set_value(); };
  absl::StatusOr<AttachmentId> id = pager_->Attach(std::move(request));
  if (id.ok() && wait) AwaitReplay(replayed->get_future(), job.peer);
  MutexLock lock(mu_);
  --attaching_;
  return id;
}

void HandoverWorkers::AwaitReplay(std::future<void> replayed, const PeerProcess& peer) {
  constexpr auto kLook = std::chrono::milliseconds(50);
  const auto patience_ends = Clock::now() + absl::ToChronoNanoseconds(options_.replay_wait);
  while (replayed.wait_for(kLook) != std::future_status::ready) {
    if (Clock::now() >= patience_ends || peer.HasEnded()) return;
    MutexLock lock(mu_);
    if (stopped_) return;
  }
}

void HandoverWorkers::PrepareWorkingSet(AttachRequest* request) const {
  const WorkingSetUse use = request->options.working_set;
  WorkingSets* const sets = options_.working_sets;
  if (use == WorkingSetUse::kNone || sets == nullptr) return;
  if (use != WorkingSetUse::kRecord) {
    absl::StatusOr<WorkingSet> set = sets->Get(request->volume, absl::Now() + options_.try_timeout);
    if (!set.ok()) {
      WarnOfWorkingSet(request->volume, "replayed", set.status());
    } else if (!set->pages().empty()) {
      request->replay = std::make_shared<const WorkingSet>(*std::move(set));
    }
  }
  if (use != WorkingSetUse::kReplay) {
    request->recorder = NewRecorder(request->volume, *request->source);
  }
}

absl::Status HandoverWorkers::PrepareFirstPages(const std::vector<uint64_t>& first_pages,
                                                AttachRequest* request) {
  if (first_pages.empty()) return absl::OkStatus();
  absl::StatusOr<PageSet> pages = PageSet::DecodeRuns(request->source->size(), first_pages);
  if (!pages.ok()) {
    return absl::Status(pages.status().code(),
                        absl::StrCat("\"first_pages\": ", pages.status().message()));
  }
  if (request->replay == nullptr) {
    request->replay = std::make_shared<const WorkingSet>(*std::move(pages));
    return absl::OkStatus();
  }
  absl::StatusOr<WorkingSet> replay = WorkingSet::Create(pages->volume_size());
  if (!replay.ok()) return replay.status();
  for (PageRange run = pages->NextRun(PageIndex(0)); !run.empty();
       run = pages->NextRun(run.end())) {
    for (PageIndex page = run.first; page < run.end(); ++page) replay->Insert(page);
  }
  replay->Merge(*request->replay);
  request->replay = std::make_shared<const WorkingSet>(*std::move(replay));
  return absl::OkStatus();
}

std::shared_ptr<WorkingSetRecorder> HandoverWorkers::NewRecorder(const std::string& volume,
                                                                 const PageSource& source) const {
  WorkingSets* const sets = options_.working_sets;
  if (sets == nullptr) return nullptr;
  absl::StatusOr<WorkingSet> set = WorkingSet::Create(source.size());
  if (set.ok()) {
    return std::make_shared<WorkingSetRecorder>(*std::move(set), [sets, volume](WorkingSet pages) {
      sets->Keep(volume, std::move(pages));
    });
  }
  WarnOfWorkingSet(volume, "recorded", set.status());
  return nullptr;
}

HandoverOutcome HandoverWorkers::Fail(const HandoverJob& job, const absl::Status& status) const {
  HandoverOutcome outcome;
  outcome.connection = job.connection;
  if (TakesNoAnswer(job)) {
    GiveUp(job.peer, OptionsOf(job).policy, status);
    return outcome;
  }
  if (IsHandover(job.request.kind)) {
    LogWarning(absl::StrCat("handover of ", job.peer.Name(), " refused: ", status.message()));
  }
  outcome.reply = ErrorReply(status.message());
  return outcome;
}

HandoverOutcome HandoverWorkers::Abandon(const HandoverJob& job) const {
  if (!job.left) return Fail(job, absl::UnavailableError("the agent is stopping"));
  LogWarning(absl::StrCat("the agent stops before it could go on with ", job.peer.Name(),
                          ", which waits for the next one"));
  return {};
}

void HandoverWorkers::GiveUp(const PeerProcess& peer, FaultPolicy policy,
                             const absl::Status& reason) const {
  const std::string what = absl::StrCat("handover of ", peer.Name(), " failed: ", reason.message());
  if (policy == FaultPolicy::kWait) {
    LogError(absl::StrCat(what,
                          "; fault policy wait: its threads hang on the memory that it "
                          "registered until it is killed"));
    return;
  }
  const absl::Status killed = options_.end_peer(peer);
  LogError(absl::StrCat(what, killed.ok()
                                  ? "; killed it, since its threads would hang on the "
                                    "memory that it registered"
                                  : absl::StrCat("; its threads hang: ", killed.message())));
}

const AttachmentOptions& HandoverWorkers::OptionsOf(const HandoverJob& job) const {
  return job.left ? job.left->options : options_.attachment;
}

absl::Duration HandoverWorkers::TimeLeft(const HandoverJob& job) const {
  const absl::Duration spent = absl::FromChrono(Clock::now() - job.begin);
  if (!TakesNoAnswer(job)) return options_.open_timeout - spent;
  const AttachmentOptions& options = OptionsOf(job);
  if (options.policy == FaultPolicy::kWait) return absl::InfiniteDuration();
  return options.fault_deadline - spent;
}

absl::string_view HandoverWorkers::VolumeOf(const HandoverJob& job) const {
  return job.request.kind == Kind::kFirecracker ? options_.volume : job.request.volume;
}

bool HandoverWorkers::MayRetry(const HandoverJob& job, const absl::Status& status) const {
  if (TakesNoAnswer(job) && OptionsOf(job).policy == FaultPolicy::kWait) return true;
  return IsRetryable(status) && TimeLeft(job) > absl::ZeroDuration();
}

}  // namespace faultline
