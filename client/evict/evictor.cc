// SPDX-License-Identifier: Apache-2.0
#include "client/evict/evictor.h"

#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "client/evict/writeback_limits.h"
#include "proto/log.h"

namespace faultline {
namespace {

constexpr int kMaxWritesUnderWay = 8;
constexpr auto kIdle = std::chrono::milliseconds(100);
// Between two looks for new memory: a program that has mapped some is about to touch it, and may
// map more.
constexpr auto kShortScanPause = std::chrono::milliseconds(1);
constexpr auto kScanPause = std::chrono::milliseconds(20);
constexpr auto kGrowing = std::chrono::milliseconds(500);
constexpr auto kStuck = std::chrono::milliseconds(1);

static_assert(FarJournal::kMaxBatch == PageExtractor::kMaxBatch);

FarJournal::Batch* BatchOf(const PagedMemory& memory) {
  if (memory.journal == nullptr || memory.journal->far() == nullptr) return nullptr;
  return memory.journal->record().far->is_whole_process() ? nullptr
                                                          : memory.journal->far()->batch();
}

}  // namespace

// What the answers to writes need: lives until the last of them.
struct Evictor::Writes {
  Writes(std::shared_ptr<PagedMemory> memory_in, std::string name_in)
      : memory(std::move(memory_in)), name(std::move(name_in)) {}

  void OnDone(const std::vector<PageIndex>& pages, SteadyClock::time_point begun,
              const absl::Status& status) {
    {
      MutexLock lock(mu);
      --under_way;
      if (status.ok()) {
        if (std::exchange(failing, false)) LogInfo(absl::StrCat(name, ": writes succeed again"));
        backoff = kFirstRetry;
      } else {
        if (!std::exchange(failing, true)) {
          LogError(absl::StrCat(name, ": ", pages.size(),
                                " evicted pages cannot be written: ", status.ToString(),
                                "; they stay in this agent, and it is tried "
                                "again; the program waits once there is no more room"));
        }
        not_before = SteadyClock::now() + backoff;
        backoff = std::min<SteadyClock::duration>(2 * backoff, kLastRetry);
      }
    }
    if (status.ok()) memory->local->write_latency().Record(SteadyClock::now() - begun);
    memory->local->OnWritten(pages, status.ok());
    for (PageIndex page : pages) {
      memory->Trace(TraceKind::kWriteback,
                    status.ok() ? TraceOutcome::kDone : TraceOutcome::kRetried,
                    PageRange::Single(page), 0, SteadyClock::now() - begun);
    }
  }
  bool MayWrite() {
    MutexLock lock(mu);
    return under_way < kMaxWritesUnderWay && SteadyClock::now() >= not_before;
  }
  void NoteBegun() {
    MutexLock lock(mu);
    ++under_way;
  }

  const std::shared_ptr<PagedMemory> memory;
  const std::string name;
  Mutex mu;
  int under_way ABSL_GUARDED_BY(mu) = 0;
  bool failing ABSL_GUARDED_BY(mu) = false;
  SteadyClock::duration backoff ABSL_GUARDED_BY(mu) = kFirstRetry;
  SteadyClock::time_point not_before ABSL_GUARDED_BY(mu);
};

Evictor::Evictor(std::shared_ptr<PagedMemory> memory, std::unique_ptr<PageExtractor> extractor,
                 std::shared_ptr<PageSink> sink, std::shared_ptr<Fetcher> fetcher,
                 std::shared_ptr<ReadAhead> ahead, std::unique_ptr<AreaScanner> scanner,
                 Target* target, Flusher::Snapshot snapshot, Timers* timers)
    : memory_(std::move(memory)),
      extractor_(std::move(extractor)),
      sink_(std::move(sink)),
      fetcher_(std::move(fetcher)),
      ahead_(std::move(ahead)),
      scanner_(std::move(scanner)),
      target_(target),
      writes_(std::make_shared<Writes>(memory_, target->Name())),
      flusher_(std::make_unique<Flusher>(memory_, extractor_.get(), sink_, std::move(snapshot),
                                         timers, target->Name())),
      ranges_(std::make_unique<RangeFetcher>(memory_, fetcher_)),
      bytes_(new std::byte[kBatch.in_bytes()]),
      batch_(BatchOf(*memory_)) {}

Evictor::~Evictor() { Stop(); }

void Evictor::Start() {
  growing_until_ = SteadyClock::now() + kGrowing;
  thread_ = std::thread([this] { Run(); });
}

void Evictor::Stop() {
  stopping_ = true;
  memory_->local->Wake();
  if (thread_.joinable()) thread_.join();
  flusher_.reset();
  ranges_.reset();
  std::vector<std::pair<FarCommand, FarDone>> left;
  {
    MutexLock lock(mu_);
    left.swap(commands_);
  }
  for (auto& [command, done] : left) std::move(done)(absl::UnavailableError("the attachment ends"));
}

void Evictor::Submit(FarCommand command, FarDone done) {
  {
    MutexLock lock(mu_);
    if (!stopping_) {
      commands_.emplace_back(std::move(command), std::move(done));
      done = nullptr;
    }
  }
  if (done) {
    std::move(done)(absl::UnavailableError("the attachment ends"));
  } else {
    memory_->local->Wake();
  }
}

void Evictor::TakeCommands() {
  std::vector<std::pair<FarCommand, FarDone>> commands;
  {
    MutexLock lock(mu_);
    commands.swap(commands_);
  }
  LocalMemory& local = *memory_->local;
  for (auto& [command, done] : commands) {
    switch (command.kind) {
      case FarCommand::Kind::kWillNotNeed:
        local.LeaveFirst(command.pages);
        std::move(done)(absl::OkStatus());
        break;
      case FarCommand::Kind::kUnpin:
        local.Unpin(command.pages);
        std::move(done)(absl::OkStatus());
        break;
      case FarCommand::Kind::kWillNeed:
      case FarCommand::Kind::kPin:
        ranges_->Add(std::move(command), std::move(done));
        break;
      case FarCommand::Kind::kFlush:
      case FarCommand::Kind::kCheckpoint:
        flusher_->Add(std::move(command), std::move(done));
        break;
    }
  }
}

void Evictor::Run() {
  LocalMemory& local = *memory_->local;
  while (!stopping_) {
    if (scanner_ != nullptr) Scan();
    TakeCommands();
    bool progress = flusher_->Step();
    progress = ranges_->Step() || progress;
    progress = DropBatch() || progress;
    progress = EvictBatch() || progress;
    progress = WriteBatch() || progress;
    for (PageIndex page : local.TakeDeferred()) {
      // Its fault is still in the queue, unless something else has served it.
      fetcher_->FillLocal(PageRange::Single(page));
    }
    if (held_off_) {
      std::this_thread::sleep_for(kChangingPause);
    } else if (!progress &&
               (local.Excess() > PageCount(0) || !flusher_->idle() || !ranges_->idle())) {
      local.WaitForWake(SteadyClock::now() + kStuck);  // for writes, or for fetches to end
    } else if (!progress) {
      local.WaitForExcess(scanner_ != nullptr ? next_scan_ : SteadyClock::now() + kIdle);
    }
  }
}

void Evictor::Scan() {
  if (SteadyClock::now() < next_scan_) return;
  const absl::StatusOr<bool> found = scanner_->Scan();
  const SteadyClock::time_point now = SteadyClock::now();
  if (found.ok() && *found) growing_until_ = now + kGrowing;
  next_scan_ = now + (now < growing_until_ ? kShortScanPause : kScanPause);
  if (!found.ok() && !std::exchange(full_, true)) {
    LogError(absl::StrCat(target_->Name(), ": ", found.status().message()));
  }
}

void Evictor::HoldWritesFor(const std::shared_ptr<ForkedSource>& source) {
  MutexLock lock(mu_);
  forked_.push_back(source);
}

bool Evictor::MayWrite() {
  std::vector<std::shared_ptr<ForkedSource>> waiting;
  {
    MutexLock lock(mu_);
    std::erase_if(forked_, [&](const std::weak_ptr<ForkedSource>& forked) {
      const std::shared_ptr<ForkedSource> source = forked.lock();
      if (source == nullptr || source->IsFrozen()) return true;
      waiting.push_back(source);
      return false;
    });
  }
  for (const auto& source : waiting) source->StartFreezing();
  return waiting.empty() && writes_->MayWrite();
}

bool Evictor::EvictBatch() {
  held_off_ = false;
  LocalMemory& local = *memory_->local;
  if (disarmed_ || !flusher_->MayEvict()) return false;
  const PageCount count = std::min({local.Excess(), local.StageRoom(), kBatch});
  if (count == PageCount(0)) return false;
  victims_.clear();
  {
    ExclusiveLock lock(memory_->space.map_changing_lock());
    local.Choose(
        count, [this](PageIndex page) { return flusher_->Stays(page); }, &victims_);
    std::erase_if(victims_, [&](PageIndex page) {
      if (memory_->table->Exchange(page, PageState::kPresent, PageState::kEvicting)) return false;
      local.Lose(page);
      return true;
    });
  }
  if (victims_.empty()) return false;
  if (!TakeOut()) return false;
  ServeWaiting();
  return !held_off_;
}

bool Evictor::TakeOut() {
  LocalMemory& local = *memory_->local;
  located_.clear();
  SharedLock lock(memory_->space.map_changing_lock());
  for (PageIndex page : victims_) {
    if (memory_->table->Get(page) != PageState::kEvicting) {  // discarded since
      local.Lose(page);
      continue;
    }
    const auto at = memory_->space.Locate(PageRange::Single(page));
    if (at) {
      located_.push_back({at->address, page});
    } else {  // unmapped: nobody sees it again
      memory_->table->Set(page, PageState::kPresent);
      local.Lose(page);
    }
  }
  std::sort(located_.begin(), located_.end(),
            [](const Located& a, const Located& b) { return a.address < b.address; });
  addresses_.clear();
  for (const Located& located : located_) addresses_.push_back(located.address);
  outcomes_.assign(addresses_.size(), Extraction::kBusy);
  std::span<Extraction> outcomes = outcomes_;
  std::byte* bytes = bytes_.get();
  if (batch_ != nullptr) {
    outcomes = {reinterpret_cast<Extraction*>(batch_->outcomes.data()), addresses_.size()};
    bytes = batch_->bytes.data();
    std::fill(outcomes.begin(), outcomes.end(), Extraction::kBusy);
    for (size_t i = 0; i < located_.size(); ++i) batch_->pages[i] = located_[i].page.raw();
    batch_->count.store(located_.size());
  }
  const absl::Status status = extractor_->Extract(addresses_, outcomes, bytes);
  held_off_ = absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
  for (size_t i = 0; i < located_.size(); ++i) {
    const PageIndex page = located_[i].page;
    if (outcomes[i] == Extraction::kTaken) {
      const bool clean = local.Stage(page, bytes + i * kPageSize);
      memory_->table->Set(page, PageState::kStaged);
      memory_->Trace(TraceKind::kEvict, clean ? TraceOutcome::kClean : TraceOutcome::kDirty,
                     PageRange::Single(page));
      continue;
    }
    memory_->table->Set(page, PageState::kPresent);
    if (outcomes[i] == Extraction::kMissing) {
      local.Lose(page);
    } else if (status.ok()) {
      local.SetAside(page);
    } else {
      local.PutBack(page);
    }
  }
  NoteExceeded();
  extractor_->Release();
  if (batch_ != nullptr) batch_->count.store(0);
  if (status.ok() || held_off_) return true;
  if (absl::IsNotFound(status)) {
    target_->Gone();
  } else if (absl::IsFailedPrecondition(status)) {
    disarmed_ = true;
    LogError(
        absl::StrCat(target_->Name(),
                     ": its memory cannot be kept within its budget any more: ", status.message()));
    local.Lift();
  } else {
    target_->Kill(absl::StrCat(target_->Name(), ": ", status.ToString()));
  }
  return false;
}

void Evictor::NoteExceeded() {
  if (exceeded_ || !memory_->local->ExceedsBudget()) return;
  exceeded_ = true;
  LogWarning(absl::StrCat(target_->Name(),
                          ": more of its memory is locked, pinned by I/O or not writable than its "
                          "budget has room for, which is exceeded (this is said once)"));
}

void Evictor::ServeWaiting() {
  for (PageIndex page : victims_) {
    if (memory_->queue.First(PageRange::Single(page))) {
      fetcher_->FillLocal(PageRange::Single(page));
    }
  }
}

bool Evictor::WriteBatch() {
  bool any = false;
  if (!memory_->local->HasUnwritten()) return false;
  while (MayWrite()) {
    const std::vector<PageToWrite> pages =
        memory_->local->TakeUnwritten(std::min(kBatch, sink_->max_write()));
    if (pages.empty()) break;
    std::vector<PageIndex> written;
    written.reserve(pages.size());
    for (const PageToWrite& page : pages) written.push_back(page.page);
    writes_->NoteBegun();
    sink_->Write(pages, absl::Now() + kWriteTimeout,
                 [writes = writes_, written = std::move(written), begun = SteadyClock::now()](
                     const absl::Status& status) { writes->OnDone(written, begun, status); });
    any = true;
  }
  return any;
}

bool Evictor::DropBatch() {
  LocalMemory& local = *memory_->local;
  if (local.StageRoom() >= kBatch) return false;
  const std::vector<PageIndex> pages = local.Droppable(kBatch);
  if (ahead_ != nullptr) {
    for (PageIndex page : pages) ahead_->Forget(page);
  }
  bool any = false;
  SharedLock lock(memory_->space.map_changing_lock());
  for (PageIndex page : pages) {
    // Taken back or discarded since, perhaps.
    if (memory_->table->Get(page) != PageState::kStaged) continue;
    switch (local.Drop(page)) {
      case LocalMemory::DropResult::kStays:
        break;
      case LocalMemory::DropResult::kDropped:
        // Not where a fault has taken it back just now.
        any = memory_->table->Exchange(page, PageState::kStaged, PageState::kAbsent) || any;
        break;
      case LocalMemory::DropResult::kDroppedZero:
        any = memory_->table->Exchange(page, PageState::kStaged, PageState::kZero) || any;
        break;
    }
  }
  return any;
}

}  // namespace faultline
