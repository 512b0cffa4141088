// SPDX-License-Identifier: Apache-2.0
#include "client/attach/handover_workers.h"

#include <absl/strings/str_cat.h>
#include <pthread.h>

#include <algorithm>
#include <future>
#include <memory>
#include <utility>

#include "proto/log.h"

namespace faultline {
namespace {

using Kind = HandoverRequest::Kind;

bool IsHandover(Kind kind) { return kind == Kind::kFirecracker || kind == Kind::kAttach; }

}  // namespace

HandoverWorkers::HandoverWorkers(HandoverWorkersOptions options, Pager* pager,
                                 OpenSource open_source, Done done)
    : options_(std::move(options)),
      pager_(pager),
      open_source_(std::move(open_source)),
      done_(std::move(done)) {
  for (int i = 0; i < options_.threads; ++i) {
    threads_.emplace_back([this] { Run(); });
    pthread_setname_np(threads_.back().native_handle(), absl::StrCat("handover-", i).c_str());
  }
}

HandoverWorkers::~HandoverWorkers() { Stop(); }

void HandoverWorkers::Submit(HandoverJob job) {
  job.begin = job.due = Clock::now();
  job.backoff = options_.first_backoff;
  Requeue(std::move(job));
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
  done_(Fail(job, absl::UnavailableError("the agent is stopping")));
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
    done_(Fail(job, absl::UnavailableError("the agent is stopping")));
  }
}

void HandoverWorkers::Run() {
  while (std::optional<HandoverJob> job = Take()) {
    if (std::optional<HandoverOutcome> outcome = Work(*job)) {
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
      outcome.reply = AttachmentsReply(pager_->Attachments());
      return outcome;
    case Kind::kDetach: {
      const absl::Status status = pager_->Detach(*job.attachment);
      if (!status.ok()) return Fail(job, status);
      outcome.detached = true;
      outcome.reply = DetachedReply();
      return outcome;
    }
    case Kind::kQueryVolume:
    case Kind::kFirecracker:
    case Kind::kAttach:
      return Handover(job);
  }
  return Fail(job, absl::InternalError("unknown kind of request"));
}

std::optional<HandoverOutcome> HandoverWorkers::Handover(HandoverJob& job) {
  if (IsHandover(job.request.kind) && job.peer.HasEnded()) {
    LogInfo(absl::StrCat(job.peer.Name(), " ended during its handover"));
    return HandoverOutcome{job.connection, "", std::nullopt, false};
  }
  const absl::Time deadline =
      absl::Now() + std::clamp(TimeLeft(job), absl::ZeroDuration(), options_.try_timeout);
  absl::StatusOr<std::shared_ptr<PageSource>> source = open_source_(VolumeOf(job), deadline);
  if (!source.ok()) {
    if (!MayRetry(job, source.status())) return Fail(job, source.status());
    if (job.backoff == options_.first_backoff) {
      LogWarning(absl::StrCat("volume ", VolumeOf(job), " for ", job.peer.Name(),
                              " cannot be opened yet, trying again: ", source.status().message()));
    }
    job.due = Clock::now() + absl::ToChronoNanoseconds(std::min(job.backoff, TimeLeft(job)));
    job.backoff = std::min(2 * job.backoff, options_.max_backoff);
    return std::nullopt;
  }
  HandoverOutcome outcome;
  outcome.connection = job.connection;
  if (job.request.kind == Kind::kQueryVolume) {
    outcome.reply = VolumeReply((*source)->size().in_bytes());
    return outcome;
  }
  absl::StatusOr<AttachmentId> id = Attach(job, *std::move(source));
  if (!id.ok()) return Fail(job, id.status());
  outcome.attached = *id;
  if (job.request.kind == Kind::kAttach) outcome.reply = AttachedReply(*id);
  return outcome;
}

absl::StatusOr<AttachmentId> HandoverWorkers::Attach(HandoverJob& job,
                                                     std::shared_ptr<PageSource> source) {
  AttachRequest request;
  request.uffd = std::move(job.uffd);
  request.register_ranges = job.request.register_ranges;
  request.mappings = job.request.mappings;
  request.pid = job.peer.pid;
  request.volume = std::string(VolumeOf(job));
  request.source = std::move(source);
  request.options = options_.attachment;
  request.options.drain = job.request.drain.value_or(options_.attachment.drain);
  request.options.prefetch = job.request.prefetch.value_or(options_.attachment.prefetch);
  request.options.working_set = job.request.working_set.value_or(options_.attachment.working_set);
  request.options.shared_discard =
      job.request.shared_discard.value_or(options_.attachment.shared_discard);
  PrepareWorkingSet(&request);
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
  // Not worth failing for.
  const auto warn = [&](const char* what, const absl::Status& status) {
    LogWarning(absl::StrCat("working set of volume ", request->volume, " is not ", what, ": ",
                            status.message()));
  };
  if (use != WorkingSetUse::kRecord) {
    absl::StatusOr<PageSet> set = sets->Get(request->volume, absl::Now() + options_.try_timeout);
    if (!set.ok()) {
      warn("replayed", set.status());
    } else if (!set->empty()) {
      request->replay = std::make_shared<const PageSet>(*std::move(set));
    }
  }
  if (use != WorkingSetUse::kReplay) {
    absl::StatusOr<PageSet> set = PageSet::Create(request->source->size());
    if (set.ok()) {
      request->recorder = std::make_shared<WorkingSetRecorder>(
          *std::move(set), [sets, volume = request->volume](PageSet pages) {
            sets->Keep(volume, std::move(pages));
          });
    } else {
      warn("recorded", set.status());
    }
  }
}

HandoverOutcome HandoverWorkers::Fail(const HandoverJob& job, const absl::Status& status) const {
  HandoverOutcome outcome;
  outcome.connection = job.connection;
  if (job.request.kind == Kind::kFirecracker) {
    GiveUp(job.peer, status);
    return outcome;
  }
  if (IsHandover(job.request.kind)) {
    LogWarning(absl::StrCat("handover of ", job.peer.Name(), " refused: ", status.message()));
  }
  outcome.reply = ErrorReply(status.message());
  return outcome;
}

void HandoverWorkers::GiveUp(const PeerProcess& peer, const absl::Status& reason) const {
  const std::string what = absl::StrCat("handover of ", peer.Name(), " failed: ", reason.message());
  if (options_.attachment.policy == FaultPolicy::kWait) {
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

absl::Duration HandoverWorkers::TimeLeft(const HandoverJob& job) const {
  const absl::Duration spent = absl::FromChrono(Clock::now() - job.begin);
  if (job.request.kind != Kind::kFirecracker) return options_.open_timeout - spent;
  if (options_.attachment.policy == FaultPolicy::kWait) return absl::InfiniteDuration();
  return options_.attachment.fault_deadline - spent;
}

absl::string_view HandoverWorkers::VolumeOf(const HandoverJob& job) const {
  return job.request.kind == Kind::kFirecracker ? options_.volume : job.request.volume;
}

bool HandoverWorkers::MayRetry(const HandoverJob& job, const absl::Status& status) const {
  if (job.request.kind == Kind::kFirecracker && options_.attachment.policy == FaultPolicy::kWait) {
    return true;
  }
  return IsRetryable(status) && TimeLeft(job) > absl::ZeroDuration();
}

}  // namespace faultline
