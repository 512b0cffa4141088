// SPDX-License-Identifier: Apache-2.0
#include "client/evict/flusher.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>
#include <errno.h>
#include <string.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "client/evict/writeback_limits.h"
#include "proto/log.h"

namespace faultline {
namespace {

constexpr int kMaxFlushWrites = 4;
// Copies that are not acknowledged, 16 MiB; more pages stay protected where they are.
constexpr uint64_t kMaxCopiedPages = 4096;

// Whether no later write can succeed either.
bool IsFinal(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) || absl::IsNotFound(status) ||
         absl::IsOutOfRange(status) || absl::IsInvalidArgument(status) ||
         absl::IsPermissionDenied(status);
}

double Micros(SteadyClock::duration time) {
  return std::chrono::duration<double, std::micro>(time).count();
}

}  // namespace

struct Flusher::Batch {
  std::vector<PageIndex> pages;
  std::unique_ptr<std::byte[]> bytes;  // of all that were looked at
  std::vector<PageToWrite> writes;     // of `pages`
};

struct Flusher::Answers {
  Mutex mu;
  struct Answer {
    std::shared_ptr<Batch> batch;  // null: of the snapshot
    absl::Status status;
  };
  std::vector<Answer> waiting ABSL_GUARDED_BY(mu);

  void Post(PagedMemory& memory, Answer answer) {
    {
      MutexLock lock(mu);
      waiting.push_back(std::move(answer));
    }
    memory.local->Wake();
  }
};

Flusher::Flusher(std::shared_ptr<PagedMemory> memory, PageExtractor* extractor,
                 std::shared_ptr<PageSink> sink, Snapshot snapshot, Timers* timers,
                 std::string name)
    : memory_(std::move(memory)),
      extractor_(extractor),
      sink_(std::move(sink)),
      snapshot_(std::move(snapshot)),
      timers_(timers),
      name_(std::move(name)),
      answers_(std::make_shared<Answers>()),
      backoff_(kFirstRetry) {}

Flusher::~Flusher() {
  const absl::Status ended = absl::UnavailableError(
      "the attachment ends, and what was asked for was not done: its pages may be on the server "
      "or not");
  for (Work& work : work_) std::move(work.done)(ended);
}

void Flusher::Add(FarCommand command, FarDone done) {
  if (command.kind == FarCommand::Kind::kCheckpoint && snapshot_ == nullptr) {
    std::move(done)(absl::FailedPreconditionError("this far memory cannot be checkpointed"));
    return;
  }
  work_.push_back({std::move(command), std::move(done)});
}

bool Flusher::Stays(PageIndex page) const {
  return pending_count_ > 0 && pending_[(page - memory_->table->range().first).raw()];
}

bool Flusher::Step() {
  bool progress = TakeAnswers();
  progress = RetryReleases() || progress;
  // Before the moment is taken nobody waits, but for who waits by mistake; after it, who waits is
  // first in line.
  progress = ReleaseHeldWriters() || progress;
  if (work_.empty() || CheckDeadline()) return progress;
  switch (step_) {
    case Stage::kIdle:
      progress = Begin() || progress;
      break;
    case Stage::kFlushing:
      progress = Flush() || progress;
      break;
    case Stage::kDraining:
      progress = Drain() || progress;
      break;
    case Stage::kCapturing:
      progress = Capture() || progress;
      break;
    case Stage::kSnapshot:
      break;
  }
  return Send() || progress;
}

bool Flusher::Begin() {
  {
    // A fill wakes its thread before it is noted. Those of threads that have written before they
    // asked are noted once this lock was had.
    ExclusiveLock noted(memory_->space.map_changing_lock());
  }
  step_ = Stage::kFlushing;
  cursor_ = memory_->table->range().first;
  written_pages_ = 0;
  longest_held_ = {};
  last_failure_ = absl::OkStatus();
  return true;
}

std::vector<PageIndex> Flusher::NextPages() {
  std::vector<PageIndex> pages;
  const PageTable& table = *memory_->table;
  SharedLock lock(memory_->space.map_changing_lock());
  while (cursor_ < table.range().end() && PageCount(pages.size()) < kBatch) {
    PageRange run = PageRange::Between(cursor_, table.range().end());
    run.count = table.RunOfSameState(run);
    const PageState state = table.Get(cursor_);
    if (state == PageState::kPresent || state == PageState::kStaged) {
      run.count = std::min(run.count, kBatch - PageCount(pages.size()));
      for (PageIndex page = run.first; page < run.end(); ++page) pages.push_back(page);
    }
    cursor_ = run.end();
  }
  return pages;
}

bool Flusher::Flush() {
  if (!HasCopyRoom()) return false;
  std::vector<PageIndex> pages = NextPages(), again;
  const bool first_time = !pages.empty();
  if (!first_time) pages.swap(again_);
  // What was put off is waited for without a spin.
  bool progress = first_time;
  if (PageCount(pages.size()) > kBatch) {
    again.assign(pages.begin() + static_cast<std::ptrdiff_t>(kBatch.raw()), pages.end());
    pages.resize(kBatch.raw());
  }
  const size_t put_off = again.size();
  if (absl::Status status = Copy(pages, &again); !status.ok()) {
    End(status);
    return true;
  }
  progress = progress || again.size() - put_off < pages.size();
  again_.insert(again_.end(), again.begin(), again.end());
  if (!first_time && again_.empty() && copied_pages_ == 0) {
    if (work_.front().command.kind == FarCommand::Kind::kFlush) {
      End(absl::OkStatus());
    } else {
      step_ = Stage::kDraining;
    }
    return true;
  }
  return progress;
}

absl::Status Flusher::Copy(const std::vector<PageIndex>& pages, std::vector<PageIndex>* again) {
  LocalMemory& local = *memory_->local;
  auto batch = std::make_shared<Batch>();
  std::vector<PageIndex> resident;
  for (PageIndex page : pages) {
    const PageState state = memory_->table->Get(page);
    if (state == PageState::kPresent) {
      resident.push_back(page);
    } else if (local.IsUnwritten(page)) {
      again->push_back(page);
    }
  }
  if (resident.empty()) return absl::OkStatus();
  batch->bytes.reset(new std::byte[resident.size() * kPageSize]);
  if (absl::Status status = extractor_->Read(resident, batch->bytes.get()); !status.ok()) {
    return status;
  }
  for (size_t i = 0; i < resident.size(); ++i) {
    const std::byte* const bytes = batch->bytes.get() + i * kPageSize;
    switch (local.BeginKeptWrite(resident[i], bytes)) {
      case LocalMemory::Standing::kClean:
        break;
      case LocalMemory::Standing::kBusy:
        again->push_back(resident[i]);
        break;
      case LocalMemory::Standing::kDirty:
        batch->pages.push_back(resident[i]);
        batch->writes.push_back({resident[i], bytes});
        break;
    }
  }
  if (batch->pages.empty()) return absl::OkStatus();
  copied_pages_ += batch->pages.size();
  to_send_.push_back(std::move(batch));
  return absl::OkStatus();
}

bool Flusher::HasCopyRoom() const { return copied_pages_ + kBatch.raw() <= kMaxCopiedPages; }

bool Flusher::Drain() {
  if (!memory_->local->IsQuiet()) return false;
  return TakeMoment();
}

bool Flusher::TakeMoment() {
  const PageTable& table = *memory_->table;
  // Not while others wait for the lock.
  pending_.assign(table.range().count.raw(), false);
  ExclusiveLock lock(memory_->space.map_changing_lock());
  const SteadyClock::time_point begun = SteadyClock::now();
  for (AddressRange range : memory_->space.Ranges()) {
    const int error = memory_->uffd->WriteProtect(range, true);
    if (error == 0 || error == ENOENT) continue;
    // What is protected by now may stay so; the moment is when all is.
    if (error == EAGAIN) return false;
    End(absl::ErrnoToStatus(error, "the memory cannot be write-protected"));
    return true;
  }
  protecting_ = SteadyClock::now() - begun;
  for (PageRange rest = table.range(); !rest.empty();) {
    const PageRange run{rest.first, table.RunOfSameState(rest)};
    if (table.Get(run.first) == PageState::kPresent) {
      const auto from =
          pending_.begin() + static_cast<std::ptrdiff_t>((run.first - table.range().first).raw());
      std::fill(from, from + static_cast<std::ptrdiff_t>(run.count.raw()), true);
      pending_count_ += run.count.raw();
    }
    rest = PageRange::Between(run.end(), rest.end());
  }
  memory_->local->HoldWrites();
  cursor_ = table.range().first;
  step_ = Stage::kCapturing;
  return true;
}

bool Flusher::Capture() {
  const PageIndex begin = memory_->table->range().first;
  const PageIndex end = memory_->table->range().end();
  if (pending_count_ > 0) {
    if (!HasCopyRoom()) return false;
    std::vector<PageIndex> pages;
    const PageIndex from = cursor_;
    for (; cursor_ < end && PageCount(pages.size()) < kBatch; ++cursor_) {
      if (pending_[(cursor_ - begin).raw()]) pages.push_back(cursor_);
    }
    std::vector<PageIndex> again;
    if (absl::Status status = Copy(pages, &again); !status.ok()) {
      End(status);
      return true;
    }
    for (PageIndex page : pages) pending_[(page - begin).raw()] = false;
    pending_count_ -= pages.size();
    Release(PageRange::Between(from, cursor_));
    return true;
  }
  if (copied_pages_ > 0) return false;
  step_ = Stage::kSnapshot;
  timers_->After(SteadyClock::duration(0),
                 [answers = answers_, memory = memory_, snapshot = snapshot_,
                  name = work_.front().command.snapshot] {
                   answers->Post(*memory, {nullptr, snapshot(name)});
                 });
  return true;
}

void Flusher::Release(PageRange pages) {
  SharedLock lock(memory_->space.map_changing_lock());
  while (!pages.empty()) {
    const std::optional<AddressSpace::Located> at = memory_->space.Locate(pages);
    const PageRange run{pages.first, at ? at->count : PageCount(1)};
    int error = 0;
    if (at) error = memory_->uffd->WriteProtect({at->address, run.size_bytes()}, false);
    for (const AddressSpace::Part& alias : memory_->space.aliases()) {
      const PageRange part = alias.pages().Intersect(run);
      if (part.empty() || error == EAGAIN) continue;
      error = memory_->uffd->WriteProtect(
          {alias.range.start + (part.first - alias.first).in_bytes(), part.size_bytes()}, false);
    }
    if (error == EAGAIN) to_release_.push_back(run);
    pages = PageRange::Between(run.end(), pages.end());
  }
}

bool Flusher::RetryReleases() {
  if (to_release_.empty()) return false;
  const std::vector<PageRange> again = std::exchange(to_release_, {});
  for (PageRange pages : again) Release(pages);
  if (!to_release_.empty()) std::this_thread::sleep_for(kChangingPause);
  return true;
}

bool Flusher::ReleaseHeldWriters() {
  // Until the moment is taken they wait: some of the memory may be protected.
  if (step_ == Stage::kDraining) return false;
  if (pending_count_ > 0 && !HasCopyRoom()) return false;
  std::vector<LocalMemory::HeldWriter> held = memory_->local->TakeHeldWriters();
  if (held.empty()) return false;
  std::sort(held.begin(), held.end(), [](const auto& a, const auto& b) { return a.page < b.page; });
  std::vector<PageIndex> pages, again;
  const PageIndex begin = memory_->table->range().first;
  for (const LocalMemory::HeldWriter& writer : held) {
    if (!Stays(writer.page)) continue;
    pending_[(writer.page - begin).raw()] = false;
    --pending_count_;
    pages.push_back(writer.page);
  }
  if (absl::Status status = Copy(pages, &again); !status.ok()) {
    End(status);
    return true;
  }
  for (const LocalMemory::HeldWriter& writer : held) {
    Release(PageRange::Single(writer.page));
    longest_held_ = std::max(longest_held_, SteadyClock::now() - writer.since);
  }
  return true;
}

bool Flusher::Send() {
  bool any = false;
  while (!to_send_.empty() && writes_under_way_ < kMaxFlushWrites &&
         SteadyClock::now() >= not_before_) {
    const std::shared_ptr<Batch> batch = std::move(to_send_.front());
    to_send_.pop_front();
    ++writes_under_way_;
    any = true;
    sink_->Write(batch->writes, absl::Now() + kWriteTimeout,
                 [answers = answers_, memory = memory_, batch,
                  begun = SteadyClock::now()](const absl::Status& status) {
                   if (status.ok()) {
                     memory->local->write_latency().Record(SteadyClock::now() - begun);
                   }
                   answers->Post(*memory, {batch, status});
                 });
  }
  return any;
}

bool Flusher::TakeAnswers() {
  std::vector<Answers::Answer> answered;
  {
    MutexLock lock(answers_->mu);
    answered.swap(answers_->waiting);
  }
  for (Answers::Answer& answer : answered) {
    if (answer.batch == nullptr) {
      if (step_ == Stage::kSnapshot) End(answer.status);
      continue;
    }
    --writes_under_way_;
    const bool given_up = work_.empty() || step_ == Stage::kIdle;
    if (answer.status.ok() || given_up || IsFinal(answer.status)) {
      memory_->local->EndKeptWrites(answer.batch->pages, answer.status.ok());
      copied_pages_ -= answer.batch->pages.size();
    }
    if (answer.status.ok()) {
      written_pages_ += answer.batch->pages.size();
      backoff_ = kFirstRetry;
    } else if (given_up) {
      continue;
    } else if (IsFinal(answer.status)) {
      End(answer.status);
    } else {
      last_failure_ = answer.status;
      not_before_ = SteadyClock::now() + backoff_;
      backoff_ = std::min<SteadyClock::duration>(2 * backoff_, kLastRetry);
      to_send_.push_back(std::move(answer.batch));
    }
  }
  return !answered.empty();
}

std::string Flusher::Behind() const {
  if (!last_failure_.ok()) {
    return absl::StrCat("the server does not take its pages: ", last_failure_.ToString());
  }
  switch (step_) {
    case Stage::kDraining:
      return "evicted pages are not written yet";
    case Stage::kSnapshot:
      return "the server has not answered whether it has taken the snapshot, which may still come, "
             "and may not be of one moment: delete it before its name is used again";
    case Stage::kIdle:
      return "what was asked for before is not done";
    case Stage::kFlushing:
    case Stage::kCapturing:
      break;
  }
  return "pages are not written yet";
}

bool Flusher::CheckDeadline() {
  const absl::Time now = absl::Now();
  for (size_t i = work_.size(); i-- > 1;) {
    if (work_[i].command.deadline > now) continue;
    std::move(work_[i].done)(absl::DeadlineExceededError(
        "not done in time: what was asked for before is not done; nothing is lost, ask again"));
    work_.erase(work_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  if (work_.front().command.deadline > now) return false;
  End(absl::DeadlineExceededError(
      absl::StrCat("not done in time: ", Behind(), "; nothing is lost, ask again")));
  return true;
}

void Flusher::End(const absl::Status& status) {
  const bool checkpoint = work_.front().command.kind == FarCommand::Kind::kCheckpoint;
  if (checkpoint) {
    memory_->local->ReleaseWrites();
    // Also where it was given up before all was captured.
    if (!status.ok()) {
      pending_count_ = 0;
      to_release_.push_back(memory_->table->range());
    }
    LogInfo(absl::StrCat(name_, ": checkpoint ", work_.front().command.snapshot, ": ",
                         status.ok() ? "taken" : status.message(), "; ", written_pages_,
                         " pages written for it, memory protected in ", Micros(protecting_),
                         " us, the longest that a thread waited to write: ", Micros(longest_held_),
                         " us"));
  }
  for (const std::shared_ptr<Batch>& batch : std::exchange(to_send_, {})) {
    memory_->local->EndKeptWrites(batch->pages, false);
    copied_pages_ -= batch->pages.size();
  }
  again_.clear();
  step_ = Stage::kIdle;
  Work work = std::move(work_.front());
  work_.pop_front();
  std::move(work.done)(status);
}

}  // namespace faultline
