// SPDX-License-Identifier: Apache-2.0
#include "client/lab/protocol_cell.h"

#include <absl/strings/str_cat.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "proto/mutex.h"
#include "proto/page.h"

namespace faultline {
namespace {

// Small enough that it is filled again while the target looks for its next range, and so discards
// meet fills; a chunk as a drain has them.
constexpr size_t kPages = 256;
constexpr size_t kChunkPages = 16;
static_assert(kPages % kChunkPages == 0);
// How long the target waits at most for fills to get on before it discards again; only where
// something else has the processor does it need that long.
constexpr uint64_t kPauseNanosMax = 5'000'000;
// It spins for the front of this, so that it is there when they do, and a refused fill is tried
// again at once so often: both would keep a busy machine from the threads that they wait for.
constexpr uint64_t kSpinNanos = 20'000;
constexpr uint64_t kRefusalsBeforeYield = 256;

constexpr uint64_t kPattern = 0x5a5a5a5a5a5a5a5a;

// The processors that this process may use.
std::vector<size_t> AllowedCpus() {
  cpu_set_t set;
  std::vector<size_t> allowed;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return allowed;
  for (size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) allowed.push_back(cpu);
  }
  return allowed;
}

// Gives the calling thread one processor; where that fails, the kernel chooses, as always.
void RunOn(size_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  static_cast<void>(sched_setaffinity(0, sizeof set, &set));
}

// The monitor (a reader, threads that fill) and its target, all in this process.
class ProtocolRun {
 public:
  ProtocolRun(const ProtocolCell& cell, DiscardChannel* channel, AddressRange memory, uint64_t seed)
      : cell_(cell),
        channel_(channel),
        memory_(memory),
        random_(seed),
        source_(kChunkPages * kPageSize / sizeof(uint64_t), kPattern) {}

  absl::StatusOr<ProtocolFigures> Measure(uint64_t nanos);

 private:
  enum State : uint8_t { kAbsent, kFilled, kDiscarded };
  using Pages = std::array<unsigned char, kPages>;

  AddressRange PagesAt(size_t first, size_t count) const {
    return {memory_.start + first * kPageSize, count * kPageSize};
  }

  void ReadEvents();
  void Apply(AddressRange discarded);
  void Fill(size_t thread);
  FillResult FillChunk(size_t* next);

  void Discard(uint64_t deadline);
  // So that discards meet fills under way, however fast the machine is at the moment.
  void AwaitFills(uint64_t pages);
  absl::Status DiscardAndCheck(size_t first, size_t count);
  // Marks in stale_ what of the pages is there. Returns how many are there, marked before or not.
  absl::StatusOr<size_t> FindStale(size_t first, size_t count);
  // Waits until the monitor knows of every discard, and no older fill is under way.
  void WaitForMonitor();

  const ProtocolCell cell_;
  DiscardChannel* const channel_;
  const AddressRange memory_;
  const std::vector<size_t> cpus_ = AllowedCpus();
  std::mt19937_64 random_;
  const std::vector<uint64_t> source_;

  // The monitor.
  SharedMutex lock_;
  std::array<std::atomic<State>, kPages> states_ = {};
  std::atomic<bool> changing_ = false;  // the flag of kFlagBeforeRead
  std::atomic<uint64_t> applied_ = 0;   // events
  std::atomic<bool> stop_ = false;
  std::atomic<uint64_t> fills_ = 0, racing_fills_ = 0, refused_ = 0;
  std::atomic<int> error_ = 0;

  // The target.
  std::atomic<bool> discarding_ = false;
  uint64_t issued_ = 0;  // discards, also those that only clean up
  absl::Status target_status_;
  Pages stale_ = {};
  LatencySamples wait_;
  ProtocolFigures figures_;
};

void ProtocolRun::ReadEvents() {
  while (channel_->WaitForEvent()) {
    switch (cell_.protocol) {
      case MonitorProtocol::kLockAcrossRead: {
        const ExclusiveLock lock(lock_);
        if (const auto discarded = channel_->ReadEvent()) Apply(*discarded);
        break;
      }
      case MonitorProtocol::kLockAfterRead: {
        if (const auto discarded = channel_->ReadEvent()) {
          const ExclusiveLock lock(lock_);
          Apply(*discarded);
        }
        break;
      }
      case MonitorProtocol::kFlagBeforeRead: {
        changing_ = true;
        if (const auto discarded = channel_->ReadEvent()) Apply(*discarded);
        changing_ = false;
        break;
      }
    }
  }
}

void ProtocolRun::Apply(AddressRange discarded) {
  const size_t first = (discarded.start - memory_.start) / kPageSize;
  for (size_t i = 0; i < discarded.length / kPageSize; ++i) states_[first + i] = kDiscarded;
  ++applied_;
}

void ProtocolRun::Fill(size_t thread) {
  // Not on that of the target: threads that take turns do not race.
  if (cpus_.size() > 1) RunOn(cpus_[cpus_.size() - 1 - thread % (cpus_.size() - 1)]);
  size_t next = thread * kPages / cell_.threads;
  while (!stop_) {
    FillResult result;
    {
      const SharedLock lock(lock_);
      result = FillChunk(&next);
    }
    if (result.bytes_done > 0) continue;
    if (result.error == EAGAIN) {
      if (++refused_ % kRefusalsBeforeYield == 0) sched_yield();
    } else if (result.error == 0) {
      sched_yield();
    } else if (result.error != EEXIST) {
      error_ = result.error;
      stop_ = true;
    }
  }
}

// One ioctl for the next pages that are absent. Nothing done and no error: there are none, or the
// flag is up.
FillResult ProtocolRun::FillChunk(size_t* next) {
  if (changing_) return {};
  size_t first = *next;
  for (size_t looked = 0; states_[first] != kAbsent; first = (first + 1) % kPages) {
    if (++looked == kPages) return {};
  }
  size_t count = 1;
  const size_t end = std::min(kPages, first + kChunkPages);
  while (first + count < end && states_[first + count] == kAbsent) ++count;

  const AddressRange range = PagesAt(first, count);
  const bool racing = discarding_;
  const FillResult result = channel_->Copy(range.start, source_.data(), range.length);
  const size_t done = result.bytes_done / kPageSize;
  // EEXIST speaks of the first page: another thread was here.
  const size_t present = result.error == EEXIST ? 1 : done;
  for (size_t i = 0; i < present; ++i) {
    State absent = kAbsent;
    states_[first + i].compare_exchange_strong(absent, kFilled);
  }
  fills_ += done;
  if (racing || discarding_) racing_fills_ += done;
  *next = (first + present) % kPages;
  return result;
}

void ProtocolRun::AwaitFills(uint64_t pages) {
  const uint64_t go = fills_ + pages;
  const uint64_t deadline = NowNanos() + kPauseNanosMax;
  while (fills_ < go) {
    const uint64_t now = NowNanos();
    if (now >= deadline) break;
    if (now >= deadline - kPauseNanosMax + kSpinNanos) sched_yield();
  }
}

absl::StatusOr<size_t> ProtocolRun::FindStale(size_t first, size_t count) {
  const AddressRange range = PagesAt(first, count);
  // What is not there must not be touched: nobody would serve that fault.
  Pages present;
  if (mincore(reinterpret_cast<void*>(range.start), range.length, present.data()) != 0) {
    return absl::ErrnoToStatus(errno, "mincore of the target");
  }
  size_t found = 0;
  for (size_t i = 0; i < count; ++i) {
    if ((present[i] & 1) == 0) continue;
    const auto word = *reinterpret_cast<volatile uint64_t*>(range.start + i * kPageSize);
    if (word != kPattern) {
      return absl::InternalError(absl::StrCat("page ", first + i, " of the target holds ", word,
                                              ", which nobody has filled in"));
    }
    stale_[first + i] = 1;
    ++found;
  }
  return found;
}

void ProtocolRun::WaitForMonitor() {
  while (applied_ != issued_) sched_yield();
  const ExclusiveLock lock(lock_);
}

absl::Status ProtocolRun::DiscardAndCheck(size_t first, size_t count) {
  std::fill(stale_.begin(), stale_.end(), 0);
  discarding_ = true;
  ++issued_;
  const uint64_t start = NowNanos();
  absl::Status status = channel_->Discard(PagesAt(first, count));
  wait_.Record(NowNanos() - start);
  if (!status.ok()) return status;
  absl::StatusOr<size_t> found = FindStale(first, count);
  WaitForMonitor();
  discarding_ = false;
  // A fill that was under way when madvise returned may have ended since. Now there are no more:
  // the monitor knows that the pages are discarded.
  while (found.ok()) {
    found = FindStale(first, count);
    if (!found.ok() || *found == 0) break;
    ++issued_;
    status = channel_->Discard(PagesAt(first, count));
    if (!status.ok()) return status;
    WaitForMonitor();
  }
  if (!found.ok()) return found.status();
  const auto stale = static_cast<uint64_t>(std::count(stale_.begin(), stale_.end(), 1));
  ++figures_.discards;
  figures_.stale_discards += stale != 0;
  figures_.stale_pages += stale;
  // The program asks for the same pages of its volume again.
  for (size_t i = first; i < first + count; ++i) states_[i] = kAbsent;
  return absl::OkStatus();
}

void ProtocolRun::Discard(uint64_t deadline) {
  if (!cpus_.empty()) RunOn(cpus_.front());
  while (target_status_.ok() && !stop_ && NowNanos() < deadline) {
    const size_t first = random_() % kPages;
    const size_t count = 1 + random_() % (kPages - first);
    AwaitFills(random_() % count);
    target_status_ = DiscardAndCheck(first, count);
  }
}

absl::StatusOr<ProtocolFigures> ProtocolRun::Measure(uint64_t nanos) {
  std::thread reader([this] { ReadEvents(); });
  std::thread target([this, nanos] { Discard(NowNanos() + nanos); });
  std::vector<std::thread> fillers;
  for (size_t i = 0; i < cell_.threads; ++i) fillers.emplace_back([this, i] { Fill(i); });

  target.join();
  stop_ = true;
  for (std::thread& filler : fillers) filler.join();
  channel_->Stop();
  reader.join();

  if (error_ != 0) return absl::InternalError(absl::StrCat("UFFDIO_COPY: ", strerror(error_)));
  if (!target_status_.ok()) return target_status_;
  figures_.fills = fills_;
  figures_.racing_fills = racing_fills_;
  figures_.refused = refused_;
  figures_.wait = LatencySamples::Of({&wait_});
  return figures_;
}

}  // namespace

const char* MonitorProtocolName(MonitorProtocol protocol) {
  switch (protocol) {
    case MonitorProtocol::kLockAcrossRead:
      return "lock across read";
    case MonitorProtocol::kLockAfterRead:
      return "lock after read";
    case MonitorProtocol::kFlagBeforeRead:
      return "flag before read";
  }
  return "?";
}

absl::StatusOr<ProtocolFigures> MeasureProtocol(const ProtocolCell& cell,
                                                std::chrono::milliseconds duration, uint64_t seed) {
  const absl::StatusOr<Mapping> memory = Mapping::Create(kPages * kPageSize, kPageSize);
  if (!memory.ok()) return memory.status();
  const absl::StatusOr<std::unique_ptr<DiscardChannel>> channel =
      DiscardChannel::Create(cell.kernel, memory->range());
  if (!channel.ok()) return channel.status();
  return ProtocolRun(cell, channel->get(), memory->range(), seed)
      .Measure(static_cast<uint64_t>(std::chrono::nanoseconds(duration).count()));
}

}  // namespace faultline
