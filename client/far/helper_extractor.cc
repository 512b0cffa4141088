// SPDX-License-Identifier: Apache-2.0
#include "client/far/helper_extractor.h"

#include <absl/strings/str_cat.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "client/far/no_libc.h"
#include "proto/page.h"

namespace faultline {
namespace {

static_assert(CommandMemory::kPages == PageExtractor::kMaxBatch);
static_assert(CommandMemory::kPageBytes == kPageSize);
static_assert(static_cast<int>(CommandOutcome::kTaken) == static_cast<int>(Extraction::kTaken) &&
              static_cast<int>(CommandOutcome::kMissing) ==
                  static_cast<int>(Extraction::kMissing) &&
              static_cast<int>(CommandOutcome::kBusy) == static_cast<int>(Extraction::kBusy));

// Most commands are done within that, and to be woken would take longer.
constexpr int kSpins = 1000;

// The end of a process is also looked for in this interval, in case that nobody tells of it.
constexpr auto kLookInterval = std::chrono::milliseconds(100);

// How long after its helper a process may take to end, or to be executing another program.
constexpr auto kEndPatience = std::chrono::seconds(2);

// Of CLOCK_MONOTONIC, which SteadyClock is.
timespec ToTimespec(SteadyClock::time_point time) {
  const auto since = time.time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since);
  return {seconds.count(), std::chrono::nanoseconds(since - seconds).count()};
}

bool HasEnded(int pidfd) {
  pollfd ended{pidfd, POLLIN, 0};
  return poll(&ended, 1, 0) == 1;
}

absl::Status CheckIsCommandMemory(int fd) {
  struct stat info;
  if (fstat(fd, &info) != 0) return absl::ErrnoToStatus(errno, "fstat of a command memory");
  if (info.st_size != static_cast<off_t>(sizeof(CommandMemory))) {
    return absl::InvalidArgumentError(
        absl::StrCat("the command memory that was handed over has ", info.st_size, " bytes, not ",
                     sizeof(CommandMemory), "; agent and program need the same version"));
  }
  constexpr int kNeeded = F_SEAL_SHRINK | F_SEAL_GROW;
  if ((fcntl(fd, F_GET_SEALS) & kNeeded) != kNeeded) {
    return absl::InvalidArgumentError("the command memory that was handed over is not sealed");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<HelperExtractor>> HelperExtractor::Open(Target target,
                                                                       absl::Duration deadline) {
  if (absl::Status status = CheckIsCommandMemory(target.command.get()); !status.ok()) return status;
  void* at = mmap(nullptr, sizeof(CommandMemory), PROT_READ | PROT_WRITE, MAP_SHARED,
                  target.command.get(), 0);
  if (at == MAP_FAILED) return absl::ErrnoToStatus(errno, "mmap of a command memory");
  std::unique_ptr<HelperExtractor> extractor(
      new HelperExtractor(std::move(target), deadline, static_cast<CommandMemory*>(at)));
  CommandMemory* const command = extractor->command_;
  if (command->magic != CommandMemory::kMagic) {
    return absl::InvalidArgumentError("the command memory that was handed over is none");
  }
  CommandState posted = CommandState::kPosted;
  command->state.compare_exchange_strong(posted, CommandState::kCancelled);
  if (command->state.load() == CommandState::kRunning) {
    // What becomes of the process is for the caller to find out.
    static_cast<void>(extractor->Await());
  }
  return extractor;
}

HelperExtractor::~HelperExtractor() { munmap(command_, sizeof(CommandMemory)); }

PageExtractor::Leftover HelperExtractor::TakeLeftover() const {
  Leftover leftover;
  if (command_->state.load() != CommandState::kDone) return leftover;
  const size_t count = std::min<size_t>(command_->count, kMaxBatch);
  for (size_t i = 0; i < count; ++i) {
    if (command_->outcomes[i] != CommandOutcome::kTaken) continue;
    leftover.addresses.push_back(command_->addresses[i]);
    const std::byte* const from = command_->bytes + i * kPageSize;
    leftover.bytes.insert(leftover.bytes.end(), from, from + kPageSize);
  }
  return leftover;
}

void HelperExtractor::Release() {
  CommandState done = CommandState::kDone;
  command_->state.compare_exchange_strong(done, CommandState::kIdle);
}

absl::Status HelperExtractor::Extract(std::span<const uint64_t> addresses,
                                      std::span<Extraction> outcomes, std::byte* bytes) {
  std::fill(outcomes.begin(), outcomes.end(), Extraction::kBusy);
  if (addresses.empty()) return absl::OkStatus();
  if (HelperHasEnded()) return WhyItEnded();
  Post(addresses);
  if (absl::Status status = Await(); !status.ok()) return status;
  return Collect(addresses, outcomes, bytes);
}

void HelperExtractor::Post(std::span<const uint64_t> addresses) {
  command_->count = static_cast<uint32_t>(addresses.size());
  std::copy(addresses.begin(), addresses.end(), command_->addresses);
  command_->state.store(CommandState::kPosted);
  if (command_->helper_sleeps.load() != 0) {
    syscall(SYS_futex, &command_->state, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  }
}

absl::Status HelperExtractor::Await() {
  for (int i = 0; i < kSpins && command_->state.load() != CommandState::kDone; ++i) Pause();
  SteadyClock::time_point deadline = SteadyClock::now() + absl::ToChronoNanoseconds(deadline_);
  while (true) {
    const CommandState state = command_->state.load();
    if (state == CommandState::kDone) return absl::OkStatus();
    if (HelperHasEnded()) return WhyItEnded();
    const SteadyClock::time_point now = SteadyClock::now();
    if (now >= deadline) {
      CommandState posted = CommandState::kPosted;
      if (command_->state.compare_exchange_strong(posted, CommandState::kCancelled)) {
        return absl::DeadlineExceededError(
            absl::StrCat("the process has not begun to evict within ",
                         absl::FormatDuration(deadline_), "; is it stopped?"));
      }
      deadline = SteadyClock::time_point::max();
    }
    Sleep(state, std::min<SteadyClock::time_point>(deadline, now + kLookInterval));
  }
}

bool HelperExtractor::HelperHasEnded() const {
  const uint32_t life = command_->life.load();
  return life == 0 || (life & FUTEX_OWNER_DIED) != 0 || HasEnded(target_.pidfd.get());
}

// Until the state is no longer `state`, or the helper has ended.
void HelperExtractor::Sleep(CommandState state, SteadyClock::time_point until) {
  command_->agent_sleeps.store(1);
  futex_waitv waiters[2] = {};
  waiters[0].val = static_cast<uint32_t>(state);
  waiters[0].uaddr = reinterpret_cast<uint64_t>(&command_->state);
  waiters[0].flags = FUTEX_32;
  waiters[1].val = command_->life.load();
  waiters[1].uaddr = reinterpret_cast<uint64_t>(&command_->life);
  waiters[1].flags = FUTEX_32;
  const timespec time = ToTimespec(until);
  if ((waiters[1].val & FUTEX_OWNER_DIED) == 0) {
    syscall(SYS_futex_waitv, waiters, 2, 0, &time, CLOCK_MONOTONIC);
  }
  command_->agent_sleeps.store(0);
}

absl::Status HelperExtractor::WhyItEnded() {
  // The helper ends a little before its process does, or before the process has the memory of the
  // program that it executes.
  const SteadyClock::time_point patience = SteadyClock::now() + kEndPatience;
  while (SteadyClock::now() < patience) {
    if (HasEnded(target_.pidfd.get()) || target_.uffd->Probe() == SpaceState::kGone) {
      return absl::NotFoundError("the process has ended, or executes another program");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  CommandState running = CommandState::kRunning;
  if (command_->state.compare_exchange_strong(running, CommandState::kCancelled)) {
    return absl::DataLossError(
        "the eviction helper of the process has ended while it was taking pages, which are lost");
  }
  return absl::FailedPreconditionError(
      "the eviction helper of the process has ended, or was never started: it evicts nothing");
}

absl::Status HelperExtractor::Collect(std::span<const uint64_t> addresses,
                                      std::span<Extraction> outcomes, std::byte* bytes) {
  const int error = command_->error;
  for (size_t i = 0; i < addresses.size(); ++i) {
    const CommandOutcome told = command_->outcomes[i].load();
    if (told == CommandOutcome::kMissing) outcomes[i] = Extraction::kMissing;
    if (told != CommandOutcome::kTaken) continue;
    outcomes[i] = Extraction::kTaken;
    memcpy(bytes + i * kPageSize, command_->bytes + i * kPageSize, kPageSize);
  }
  WakeTaken(addresses, outcomes);
  if (error == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(
      "pages of the process cannot be taken now (UFFDIO_MOVE: ", strerror(error), ")"));
}

void HelperExtractor::WakeTaken(std::span<const uint64_t> addresses,
                                std::span<const Extraction> outcomes) {
  for (size_t i = 0; i < addresses.size();) {
    if (outcomes[i] != Extraction::kTaken) {
      ++i;
      continue;
    }
    AddressRange range{addresses[i], 0};
    for (; i < addresses.size() && outcomes[i] == Extraction::kTaken; ++i) {
      if (addresses[i] != range.end()) break;
      range.length += kPageSize;
    }
    target_.uffd->Wake(range);
  }
}

}  // namespace faultline
