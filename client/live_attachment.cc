// SPDX-License-Identifier: Apache-2.0
#include "client/live_attachment.h"

#include <absl/strings/str_cat.h>
#include <absl/time/time.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "client/evict/takeover.h"
#include "client/process_maps.h"
#include "proto/log.h"

namespace faultline {
namespace {

// How long the end of an attachment waits, without getting anywhere, for an address space that
// keeps changing before it kills the target rather than leaving it with pages that would read as
// zeros.
constexpr auto kPoisonPatience = std::chrono::seconds(5);
// And how long until it holds the target for that: as long as one that pauses at all, or has a CPU
// of its own, never needs.
constexpr auto kStopPatience = std::chrono::seconds(1);
// Between two looks at a map that is being changed. One that a target changes all the time stands
// still only from when an event was read until the target has woken up.
constexpr auto kChangingPause = std::chrono::microseconds(20);

constexpr auto kTick = std::chrono::seconds(1);
// While something waits for the address space to be settled.
constexpr auto kSettleTick = std::chrono::microseconds(250);
// Between two looks whether memory that was taken over can be evicted.
constexpr auto kResumeRetry = std::chrono::milliseconds(1);
// Fills that are held off for longer are reported.
constexpr auto kWatchPatience = std::chrono::seconds(5);
// So many pages tell whether memory was wiped by a fork.
constexpr size_t kWipeSamples = 16;
// How often a fork event that found no free descriptor is tried again.
constexpr auto kDescriptorRetry = std::chrono::milliseconds(50);

std::string LastEvent(const EventRing& ring) {
  constexpr const char* kNames[kMemoryEventKinds] = {"FORK", "REMAP", "REMOVE", "UNMAP"};
  const std::vector<MemoryEvent> last =
      ring.After(ring.last() - std::min<uint64_t>(ring.last(), 1));
  if (last.empty()) return "none";
  const MemoryEvent& event = last.back();
  return absl::StrCat(
      kNames[static_cast<size_t>(event.kind)], " [0x", absl::Hex(event.start), ", 0x",
      absl::Hex(event.start + event.length), "), read ",
      absl::FormatDuration(absl::FromChrono(std::chrono::system_clock::now() - event.when)),
      " ago");
}

}  // namespace

LiveAttachment::LiveAttachment(AttachedProcess process, const AttachmentOptions& options,
                               std::shared_ptr<PageSource> source,
                               std::shared_ptr<PagedMemory> memory,
                               std::shared_ptr<WorkingSetRecorder> recorder,
                               const Environment& environment)
    : id_(process.id),
      parent_(process.parent),
      same_pids_(process.same_pids),
      volume_(std::move(process.volume)),
      options_(options),
      environment_(environment),
      memory_(std::move(memory)),
      source_(std::move(source)),
      recorder_(std::move(recorder)),
      fetcher_(std::make_shared<Fetcher>(
          memory_, source_, environment.timers, this, options_, FetchLimits(),
          environment.serial ? Executor([loop = environment.loop](Timers::Task task) {
            loop->Post(std::move(task));
          })
                             : Executor(nullptr))),
      ahead_(NewReadAhead()),
      reader_(memory_.get(), fetcher_, {ahead_, recorder_}, this, this, options.shared_discard),
      pid_(process.pid),
      pidfd_(std::move(process.pidfd)) {}

std::shared_ptr<ReadAhead> LiveAttachment::NewReadAhead() const {
  std::unique_ptr<Prefetcher> prefetcher = NewPrefetcher(options_.prefetch);
  if (prefetcher == nullptr) return nullptr;
  return std::make_shared<ReadAhead>(memory_, fetcher_, source_->max_fetch(),
                                     std::move(prefetcher));
}

std::string LiveAttachment::Name() const {
  const pid_t pid = pid_;
  return absl::StrCat(
      "attachment ", id_, parent_ == 0 ? "" : absl::StrCat(", forked from ", parent_), " (",
      pid == 0 ? "pid not known" : absl::StrCat("pid ", pid), ", volume ", volume_, ")");
}

bool LiveAttachment::Kill(const std::string& reason) {
  MutexLock lock(mu_);
  if (!pidfd_) {
    LogError(absl::StrCat(reason, "; the process cannot be killed, as its pid is not known"));
    return false;
  }
  if (killed_) return true;
  LogError(absl::StrCat(reason, "; the process is killed"));
  if (!SendSignal(SIGKILL)) return false;
  killed_ = true;
  return true;
}

bool LiveAttachment::SendSignal(int signal) {
  if (syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0) == 0 || errno == ESRCH) {
    return true;
  }
  LogError(
      absl::StrCat(Name(), ": sending SIG", sigabbrev_np(signal), " failed: ", strerror(errno)));
  return false;
}

void LiveAttachment::StopTarget() {
  MutexLock lock(mu_);
  if (target_stopped_ || !pidfd_ || pid_ == getpid()) return;
  target_stopped_ = SendSignal(SIGSTOP);
  if (!target_stopped_) return;
  LogWarning(absl::StrCat(Name(),
                          ": changes its memory all the time, so that what was not fetched "
                          "cannot be poisoned: it is stopped (SIGSTOP) until that is done"));
}

void LiveAttachment::ContinueTarget() {
  MutexLock lock(mu_);
  if (std::exchange(target_stopped_, false)) SendSignal(SIGCONT);
}

void LiveAttachment::Gone() {
  if (!gone_.exchange(true)) environment_.on_gone(id_);
}

absl::Status LiveAttachment::Start() {
  const auto self = shared_from_this();
  {
    MutexLock lock(mu_);
    if (closed_) return absl::OkStatus();
    absl::Status status;
    if (pidfd_) status = environment_.loop->Add(pidfd_.get(), [self] { self->Gone(); });
    if (status.ok()) {
      status = environment_.loop->Add(memory_->uffd->fd(), [self] { self->OnReadable(); });
    }
    if (!status.ok()) return status;
  }
  TickLater(kTick);
  return absl::OkStatus();
}

void LiveAttachment::Recover() {
  const int forks = reader_.Recover();
  if (forks == 0) return;
  LogError(absl::StrCat(Name(), ": the last agent was killed while ", forks,
                        " children were forked: they read zeros where memory was not filled"));
}

void LiveAttachment::StartDrain(const DrainWindow* behind) {
  if (!options_.drain) return;
  const AttachmentStats stats = CountersOf();
  {
    MutexLock lock(mu_);
    drain_began_ = SteadyClock::now();
    left_at_drain_ = PagesLeft(stats);
  }
  auto drainer = std::make_shared<Drainer>(
      memory_, fetcher_, environment_.timers, source_->max_fetch(), nullptr,
      [self = shared_from_this()](uint64_t left, const DrainWindow&) { self->OnDrained(left); });
  if (behind != nullptr) drainer->Follow(*behind);
  environment_.timers->After(SteadyClock::duration(0), [drainer] { drainer->Run(); });
}

void LiveAttachment::StartReplay(const WorkingSet& working_set, std::function<void()> on_replayed) {
  auto order = std::make_unique<const Replay>(working_set, on_replayed != nullptr);
  auto replay = std::make_shared<Drainer>(
      memory_, fetcher_, environment_.timers, source_->max_fetch(), std::move(order),
      [self = shared_from_this(), done = std::move(on_replayed)](uint64_t,
                                                                 const DrainWindow& window) {
        LogInfo(absl::StrCat(self->Name(), ": what was to be fetched first is there"));
        if (done) done();
        self->StartDrain(&window);
      });
  environment_.timers->After(SteadyClock::duration(0), [replay] { replay->Run(); });
}

void LiveAttachment::PrepareEvicting(std::unique_ptr<PageExtractor> extractor, FarMemory far) {
  std::unique_ptr<AreaScanner> scanner;
  if (far.least_area > 0) {
    scanner = std::make_unique<AreaScanner>(memory_, pid_, far.least_area, far.excluded);
  }
  MutexLock lock(mu_);
  if (closed_) return;
  freeze_ = std::move(far.freeze);
  evictor_ = std::make_shared<Evictor>(memory_, std::move(extractor), std::move(far.sink), fetcher_,
                                       ahead_, std::move(scanner), this, std::move(far.snapshot),
                                       environment_.timers);
}

void LiveAttachment::StartEvicting() {
  MutexLock lock(mu_);
  if (evictor_ != nullptr) evictor_->Start();
}

void LiveAttachment::ResumeEvicting() {
  std::shared_ptr<Evictor> evictor;
  {
    MutexLock lock(mu_);
    evictor = evictor_;
  }
  if (evictor == nullptr || gone_) return;
  if (NoteResident(pid_, memory_.get(), evictor->extractor())) {
    StartEvicting();
    return;
  }
  if (!settling_.exchange(true)) TickLater(kSettleTick);
  environment_.timers->After(kResumeRetry, [weak = weak_from_this()] {
    if (const auto self = weak.lock(); self != nullptr) self->ResumeEvicting();
  });
}

void LiveAttachment::Perform(FarCommand command, FarDone done) {
  const bool writes =
      command.kind == FarCommand::Kind::kFlush || command.kind == FarCommand::Kind::kCheckpoint;
  if (writes && options_.shared_discard == SharedDiscard::kZero) {
    // Some pages are zero here alone, and nobody has noted which.
    std::move(done)(absl::FailedPreconditionError(
        "far memory that is zero once it is discarded cannot be flushed; hand it over with "
        "\"shared_discard\":\"keep\""));
    return;
  }
  absl::Status refused;
  {
    MutexLock lock(mu_);
    if (evictor_ != nullptr && command.pages.end() <= memory_->table->range().end() &&
        command.pages.first >= memory_->table->range().first) {
      evictor_->Submit(std::move(command), std::move(done));
      return;
    }
    refused = evictor_ == nullptr
                  ? absl::FailedPreconditionError(absl::StrCat(
                        "attachment ", id_, " has no far memory, or has come to its end"))
                  : absl::OutOfRangeError(absl::StrCat("offset ", command.pages.first.byte_offset(),
                                                       " and length ", command.pages.size_bytes(),
                                                       " are not within attachment ", id_));
  }
  std::move(done)(refused);
}

void LiveAttachment::StopEvicting() {
  std::shared_ptr<Evictor> evictor;
  {
    MutexLock lock(mu_);
    evictor = std::move(evictor_);
  }
  if (evictor == nullptr) return;
  evictor->Stop();
  // Nobody is left who writes them, so that they are as far away as those at the source.
  SharedLock lock(memory_->space.map_changing_lock());
  memory_->table->SetAll(memory_->table->range(), PageState::kAbsent);
}

void LiveAttachment::StartForked() {
  if (closed_) return;
  if (absl::Status status = Start(); !status.ok()) {
    Kill(absl::StrCat(Name(), ": cannot be served: ", status.ToString()));
    return;
  }
  // Before its memory was looked at, nothing must be filled that the fork may have wiped.
  if (!CanBeIdentified()) StartDrain();
}

bool LiveAttachment::CanBeIdentified() const {
  return same_pids_ && (memory_->uffd->features() & uapi::kFeatureThreadId) != 0;
}

void LiveAttachment::Close() {
  {
    MutexLock lock(mu_);
    closed_ = true;
    environment_.loop->Remove(memory_->uffd->fd());
    if (pidfd_) environment_.loop->Remove(pidfd_.get());
  }
  StopEvicting();
  fetcher_->Stop();
  if (memory_->journal != nullptr) memory_->journal->Remove();
  environment_.loop->Post([self = shared_from_this()] { self->reader_.ReleaseChildren(); });
}

void LiveAttachment::OnDrained(uint64_t left) {
  if (left == 0) {
    drained_ = true;
    LogInfo(absl::StrCat(Name(), ": drained, everything that was left was fetched"));
    // What is missing from here on was discarded, and the kernel knows that to be zero.
    if (options_.unregister && AbsentPages().empty() &&
        memory_->table->CountOf(PageState::kPoisoned) == PageCount(0)) {
      Unregister();
      LogInfo(absl::StrCat(Name(), ": all pages are there, its memory is ordinary from here on"));
    }
  } else {
    LogWarning(absl::StrCat(Name(), ": drained but for ", left, " pages that cannot be had"));
  }
}

void LiveAttachment::SecureAbsentPages() {
  StopEvicting();
  const auto stop_at = SteadyClock::now() + kStopPatience;
  PoisonAbsentPages(stop_at);
  // Pages that were on the move are found now.
  const auto patience_ends = SteadyClock::now() + kPoisonPatience;
  while (!killed_ && memory_->uffd->Probe() == SpaceState::kChanging &&
         SteadyClock::now() < patience_ends) {
    if (SteadyClock::now() > stop_at) StopTarget();
    std::this_thread::sleep_for(kChangingPause);
  }
  PoisonAbsentPages(stop_at);
  ContinueTarget();
}

void LiveAttachment::PoisonAbsentPages(SteadyClock::time_point stop_at) {
  Filler filler(memory_.get());
  for (PageRange pages : AbsentPages()) {
    if (options_.policy == FaultPolicy::kKill &&
        Kill(absl::StrCat(Name(), ": ended with pages that were not fetched"))) {
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
        if (SteadyClock::now() > stop_at) StopTarget();
        std::this_thread::sleep_for(kChangingPause);
      }
    }
  }
}

void LiveAttachment::Unregister() {
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

std::vector<PageRange> LiveAttachment::AbsentPages() const {
  std::vector<PageRange> absent;
  SharedLock lock(memory_->space.map_changing_lock());
  for (AddressRange range : memory_->space.Ranges()) {
    memory_->space.ForEachPart(range, [&](const AddressSpace::Part& part) {
      PageRange rest = part.pages();
      while (!rest.empty()) {
        const PageCount run = memory_->table->RunOfSameState(rest);
        // Shared memory has one state for all clones, but each has to be poisoned by itself.
        const PageState state = memory_->table->Get(rest.first);
        if (state == PageState::kAbsent || (part.shared && state == PageState::kPoisoned)) {
          absent.push_back({rest.first, run});
        }
        rest = PageRange::Between(rest.first + run, rest.end());
      }
    });
  }
  return absent;
}

void LiveAttachment::OnReadable() {
  if (gone_) return;
  const FaultCounters& counters = memory_->counters;
  const uint64_t faults = counters.faults, remaps = counters.remap_events;
  absl::Status status = reader_.Drain();
  if (SpinPolicy* const spin = environment_.loop->spin(); spin->enabled()) {
    const SteadyClock::time_point now = SteadyClock::now();
    if (counters.faults != faults) spin->OnFault(now);
    // Who moves memory unmaps what was there, too, or what it has left.
    if (counters.remap_events != remaps) spin->OnFirstOfTwo(now);
  }
  if (absl::IsResourceExhausted(status) && environment_.reserve->Spend()) {
    status = reader_.Drain();
    if (!environment_.reserve->Refill()) {
      LogWarning(absl::StrCat(Name(),
                              ": the last descriptor was used for a forked child; raise the limit "
                              "of open files (LimitNOFILE)"));
    }
  }
  if (absl::IsResourceExhausted(status)) {
    PauseForDescriptors(status);
  } else if (status.ok()) {
    out_of_descriptors_ = false;
  } else {
    // Nobody would see its faults any more.
    Kill(absl::StrCat(Name(), ": ", status.ToString()));
    Gone();
    return;
  }
  bool unsettled;
  {
    SharedLock lock(memory_->space.map_changing_lock());
    unsettled = memory_->space.unsettled();
  }
  if (unsettled && !settling_.exchange(true)) TickLater(kSettleTick);
}

void LiveAttachment::PauseForDescriptors(const absl::Status& status) {
  if (!out_of_descriptors_.exchange(true)) {
    LogError(absl::StrCat(Name(), ": ", status.message(),
                          "; its fork() waits, and so do its faults, until a descriptor is free; "
                          "raise the limit of open files (LimitNOFILE)"));
  }
  // The uffd stays readable, so the loop would call again at once.
  const int fd = memory_->uffd->fd();
  environment_.loop->Remove(fd);
  environment_.timers->After(kDescriptorRetry, [weak = weak_from_this(), fd] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->environment_.reserve->Refill();
    MutexLock lock(self->mu_);
    if (self->closed_) return;
    self->environment_.loop->Add(fd, [self] { self->OnReadable(); }).IgnoreError();
  });
}

void LiveAttachment::TickLater(SteadyClock::duration delay) {
  environment_.timers->After(delay, [weak = weak_from_this()] {
    if (const auto self = weak.lock(); self != nullptr && !self->closed_) self->Tick();
  });
}

void LiveAttachment::Tick() {
  SpaceState state;
  bool unsettled;
  {
    SharedLock lock(memory_->space.map_changing_lock());
    state = memory_->uffd->Probe();
    if (state == SpaceState::kSettled) memory_->space.NoteSettled();
    unsettled = memory_->space.unsettled();
  }
  if (state == SpaceState::kGone) {
    Gone();
    return;
  }
  Watch();
  if (unsettled && state == SpaceState::kSettled) {
    // The reader takes note of it.
    environment_.loop->Post([self = shared_from_this()] {
      if (!self->closed_) self->OnReadable();
    });
  }
  if (settling_ && unsettled && state == SpaceState::kChanging) {
    TickLater(kSettleTick);
  } else if (!settling_.exchange(false)) {
    TickLater(kTick);
  }
}

void LiveAttachment::Watch() {
  const std::optional<SteadyClock::time_point> since = fetcher_->parking().OldestSince();
  const SteadyClock::time_point now = SteadyClock::now();
  const SteadyClock::duration held = since ? now - *since : kTick;
  if (!since || held < kWatchPatience) {
    // One that is just being tried again is not parked: that alone is no end of it.
    if (watch_reported_ && now - last_held_.load() >= kTick) {
      watch_reported_ = false;
      LogInfo(absl::StrCat(Name(), ": fills go on"));
    }
    return;
  }
  last_held_ = now;
  if (watch_reported_.exchange(true)) return;
  pollfd readable{memory_->uffd->fd(), POLLIN, 0};
  std::string why;
  if (out_of_descriptors_) {
    why = "a FORK event is unread, as no descriptor is free for the child's userfaultfd";
  } else if (poll(&readable, 1, 0) > 0) {
    why = "an event is unread: the agent's reader does not get to it";
  } else {
    why =
        "every event was read, but the thread that raised the last one has not run since, or "
        "its cgroup is out of memory";
  }
  LogWarning(absl::StrCat(Name(), ": ", fetcher_->parking().size(),
                          " fills are held off, the first for ",
                          absl::FormatDuration(absl::FromChrono(held)), ": ", why,
                          "; last event: ", LastEvent(reader_.events())));
}

void LiveAttachment::OnFork(std::shared_ptr<PagedMemory> memory) {
  environment_.on_fork(*this, std::move(memory));
}

absl::StatusOr<std::shared_ptr<PageSource>> LiveAttachment::ForkSource() {
  if (memory_->local == nullptr) return nullptr;
  MutexLock lock(mu_);
  if (evictor_ == nullptr) return source_;  // a child's own child, or the end is near
  if (freeze_ == nullptr) {
    return absl::FailedPreconditionError(
        "its far memory is of files, which two processes cannot share; it has to be kept from "
        "children (MADV_DONTFORK)");
  }
  auto source = std::make_shared<ForkedSource>(source_, freeze_, environment_.timers);
  evictor_->HoldWritesFor(source);
  return source;
}

bool LiveAttachment::KnowsProcess(pid_t thread) {
  if (pid_ != 0 || identified_ || !CanBeIdentified()) return true;
  if (!identifying_.exchange(true)) {
    // Not here: it reads files.
    environment_.timers->After(SteadyClock::duration(0), [weak = weak_from_this(), thread] {
      if (const auto self = weak.lock(); self != nullptr) self->Identify(thread);
    });
  }
  return false;
}

bool LiveAttachment::IsRunning() {
  const pid_t pid = pid_;
  return pid == 0 || HasRunningThread(pid);
}

bool LiveAttachment::WasWiped(pid_t pid, AddressRange range) const {
  std::vector<uint64_t> present;  // of the parent, when it forked
  {
    SharedLock lock(memory_->space.map_changing_lock());
    memory_->space.ForEachPart(range, [&](const AddressSpace::Part& part) {
      for (PageIndex page = part.first; page < part.pages().end(); ++page) {
        if (present.size() == kWipeSamples) return;
        if (memory_->table->Get(page) != PageState::kPresent) continue;
        present.push_back(part.range.start + (page - part.first).in_bytes());
      }
    });
  }
  return std::none_of(present.begin(), present.end(), [pid](uint64_t address) {
    return !PresentPages(pid, {address, kPageSize}).empty();
  });
}

void LiveAttachment::Identify(pid_t thread) {
  const pid_t pid = ProcessOfThread(thread);
  const uint64_t events = reader_.events().last();
  // Its only thread waits for its page, and has done nothing to its memory that is not known.
  const bool stands_still = pid != 0 && HasOneThread(pid);
  const std::vector<VmArea> areas = pid != 0 ? ReadSmaps(pid) : std::vector<VmArea>();
  const auto self = shared_from_this();
  // The thread may be of another process that reads this one's memory (a debugger), or its number
  // one of another pid namespace.
  if (ServesOneOf(areas)) {
    for (const VmArea& area : areas) {
      if (!area.wipe_on_fork || !WasWiped(pid, area.range)) continue;
      ExclusiveLock lock(memory_->space.map_changing_lock());
      memory_->space.Forget(area.range);
    }
    if (stands_still && !memory_->files.empty()) {
      // Which of its parent's moves were before the fork, the order of events does not always tell.
      const std::vector<AddressSpace::Part> parts = RegisteredParts(memory_->files, areas);
      ExclusiveLock lock(memory_->space.map_changing_lock());
      // A process that only reads its memory has none that is registered here.
      const bool is_its = std::all_of(parts.begin(), parts.end(), [&](const auto& part) {
        return memory_->uffd->IsRegistered(part.range) == true;
      });
      if (is_its && reader_.events().last() == events &&
          memory_->uffd->Probe() == SpaceState::kSettled) {
        memory_->space.SetShared(parts);
      }
    }
    UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    MutexLock lock(mu_);
    if (closed_) return;
    pid_ = pid;
    if (pidfd) {
      pidfd_ = std::move(pidfd);
      environment_.loop->Add(pidfd_.get(), [self] { self->Gone(); }).IgnoreError();
    }
  }
  identified_ = true;
  StartDrain();
  environment_.loop->Post([self] {
    if (!self->closed_) self->OnReadable();
  });
}

bool LiveAttachment::ServesOneOf(const std::vector<VmArea>& areas) const {
  bool found = false;
  SharedLock lock(memory_->space.map_changing_lock());
  for (const VmArea& area : areas) {
    if (area.registered) {
      memory_->space.ForEachPart(area.range, [&](const AddressSpace::Part&) { found = true; });
    }
  }
  return found;
}

std::vector<AddressRange> LiveAttachment::MappedParts(AddressRange range) {
  const pid_t pid = pid_;
  if (pid == 0) return {range};
  const auto parts_of = [range](const std::vector<VmArea>& areas, bool registered_only) {
    std::vector<AddressRange> parts;
    for (const VmArea& area : areas) {
      const uint64_t start = std::max(range.start, area.range.start);
      const uint64_t end = std::min(range.end(), area.range.end());
      if (start < end && (area.registered || !registered_only)) {
        parts.push_back({start, end - start});
      }
    }
    return parts;
  };
  const std::vector<VmArea> areas = ReadMaps(pid);
  if (areas.empty()) return {range};
  if (parts_of(areas, false).empty()) return {};
  // What is there may be other memory, which was mapped over ours.
  const std::vector<VmArea> detailed = ReadSmaps(pid);
  if (detailed.empty()) return {range};
  return parts_of(detailed, true);
}

}  // namespace faultline
