// SPDX-License-Identifier: Apache-2.0
#include "client/uffd/kernel_probe.h"

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "client/uffd/uapi.h"
#include "client/uffd/uffd.h"
#include "client/unique_fd.h"
#include "proto/mutex.h"
#include "proto/page.h"

namespace faultline {
namespace {

// Large enough that a fill takes several time slices of the scheduler (about 1 us a page), in which
// the other threads get to run on a busy machine too.
constexpr uint64_t kFillBytes = 32 << 20;
constexpr uint64_t kFillPages = kFillBytes / kPageSize;
constexpr uint64_t kDiscardBytes = 16 * kPageSize;
constexpr int kTries = 5;
constexpr int kBlockedSamples = 2;
constexpr auto kSamplePause = std::chrono::microseconds(200);
// How long madvise may take to return once its event was read, before the userfaultfd is closed,
// which makes it return in any case.
constexpr auto kDiscardTimeout = std::chrono::seconds(10);

absl::Status ErrnoStatus(absl::string_view what) { return absl::ErrnoToStatus(errno, what); }

// A private mapping. Unmapped at the end.
class ProbeMemory {
 public:
  ProbeMemory(uint64_t length, int protection)
      : length_(length),
        at_(mmap(nullptr, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    // So that what is filled shows page by page.
    if (ok()) madvise(at_, length_, MADV_NOHUGEPAGE);
  }
  ~ProbeMemory() {
    if (ok()) munmap(at_, length_);
  }
  ProbeMemory(const ProbeMemory&) = delete;
  ProbeMemory& operator=(const ProbeMemory&) = delete;

  bool ok() const { return at_ != MAP_FAILED; }
  void* at() const { return at_; }
  uint64_t length() const { return length_; }
  AddressRange range() const { return {reinterpret_cast<uint64_t>(at_), length_}; }

 private:
  const uint64_t length_;
  void* const at_;
};

// Opened once, by one thread, for others that wait for it.
class Gate {
 public:
  void Open() {
    MutexLock lock(mu_);
    open_ = true;
    opened_.SignalAll();
  }
  void Wait() {
    MutexLock lock(mu_);
    while (!open_) opened_.Wait(mu_);
  }

 private:
  Mutex mu_;
  CondVar opened_;
  bool open_ ABSL_GUARDED_BY(mu_) = false;
};

// One try: a thread that fills, one that discards, and the caller who observes both.
class Experiment {
 public:
  absl::StatusOr<ProbeTry> Run();

 private:
  absl::Status SetUp();
  void Observe();
  void ReadEvents();
  void SampleBlocked();

  bool EventIsReadable() const;
  bool DiscarderIsBlocked() const;
  // Pages of target_ that are filled. Takes mmap_lock as a reader.
  uint64_t FilledPages();

  // The fill's source: read-only, so that it is all the kernel's page of zeros, always resident.
  const ProbeMemory source_{kFillBytes, PROT_READ};
  const ProbeMemory target_{kFillBytes, PROT_READ | PROT_WRITE};
  const ProbeMemory discarded_{kDiscardBytes, PROT_READ | PROT_WRITE};
  std::unique_ptr<Uffd> uffd_;
  UniqueFd pagemap_;
  UniqueFd discarder_syscall_;  // what the discarding thread does, from /proc
  std::vector<uint64_t> entries_ = std::vector<uint64_t>(kFillPages);
  bool pagemap_failed_ = false;
  ProbeTry seen_;

  Gate discarder_ready_, filler_ready_, fill_, discard_;
  pid_t discarder_tid_ = 0;  // set before discarder_ready_
  FillResult result_;        // set before filled_
  std::atomic<bool> filled_ = false, discarded_all_ = false;
};

absl::Status Experiment::SetUp() {
  if (!source_.ok() || !target_.ok() || !discarded_.ok()) {
    return absl::ResourceExhaustedError("no address space for the probe's memory");
  }
  const auto* bytes = static_cast<const volatile char*>(source_.at());
  for (uint64_t offset = 0; offset < kFillBytes; offset += kPageSize) {
    static_cast<void>(bytes[offset]);
  }
  absl::StatusOr<UniqueFd> fd = OpenUffd();
  if (!fd.ok()) return fd.status();
  absl::StatusOr<std::unique_ptr<Uffd>> uffd =
      AdoptFreshUffd(std::move(*fd), uapi::kFeatureEventRemove);
  if (!uffd.ok()) return uffd.status();
  uffd_ = std::move(*uffd);
  for (const ProbeMemory* memory : {&target_, &discarded_}) {
    if (absl::Status status = uffd_->Register(memory->range()); !status.ok()) return status;
  }
  pagemap_ = UniqueFd(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  if (!pagemap_) return ErrnoStatus("open of /proc/self/pagemap");
  return absl::OkStatus();
}

absl::StatusOr<ProbeTry> Experiment::Run() {
  if (absl::Status status = SetUp(); !status.ok()) return status;
  // Between their gates neither thread allocates memory or maps any: that would take mmap_lock.
  std::thread filler([this] {
    pthread_setname_np(pthread_self(), "probe-fill");
    filler_ready_.Open();
    fill_.Wait();
    result_ = uffd_->Copy(target_.range().start,
                          {static_cast<const std::byte*>(source_.at()), kFillBytes});
    filled_.store(true, std::memory_order_release);
  });
  std::thread discarder([this] {
    pthread_setname_np(pthread_self(), "probe-discard");
    discarder_tid_ = gettid();
    discarder_ready_.Open();
    discard_.Wait();
    madvise(discarded_.at(), discarded_.length(), MADV_DONTNEED);
    discarded_all_.store(true, std::memory_order_release);
  });
  filler_ready_.Wait();
  discarder_ready_.Wait();
  discarder_syscall_ = UniqueFd(open(
      absl::StrCat("/proc/self/task/", discarder_tid_, "/syscall").c_str(), O_RDONLY | O_CLOEXEC));
  const bool can_see = static_cast<bool>(discarder_syscall_);
  fill_.Open();
  Observe();
  filler.join();
  ReadEvents();
  discarder.join();
  if (!can_see) return absl::UnavailableError("no /proc/self/task/*/syscall");
  if (pagemap_failed_) return absl::UnavailableError("/proc/self/pagemap cannot be read");
  seen_.pages = kFillPages;
  seen_.filled_all = result_.error == 0 && result_.bytes_done == kFillBytes;
  return seen_;
}

// Until the fill has ended. Reads no event: while one is unread, it must show whether fills go on.
void Experiment::Observe() {
  const auto filled = [this] { return filled_.load(std::memory_order_acquire); };
  while (!filled() && !pagemap_failed_ && FilledPages() == 0) {
    std::this_thread::sleep_for(kSamplePause);
  }
  discard_.Open();
  while (!filled()) {
    if (!EventIsReadable()) {
      SampleBlocked();
    } else if (!seen_.pages_at_event) {
      seen_.pages_at_event = FilledPages();
    }
    std::this_thread::sleep_for(kSamplePause);
  }
}

void Experiment::SampleBlocked() {
  if (!DiscarderIsBlocked()) return;
  const uint64_t before = FilledPages();
  std::this_thread::sleep_for(kSamplePause);
  const uint64_t after = FilledPages();
  const bool fill_went_on = before < after && after < kFillPages;
  if (fill_went_on && DiscarderIsBlocked() && !EventIsReadable()) ++seen_.blocked_samples;
}

// Until madvise has returned.
void Experiment::ReadEvents() {
  const auto deadline = std::chrono::steady_clock::now() + kDiscardTimeout;
  std::vector<UffdEvent> events;
  while (!discarded_all_.load(std::memory_order_acquire)) {
    if (std::chrono::steady_clock::now() > deadline) {
      uffd_.reset();
      return;
    }
    pollfd readable{uffd_->fd(), POLLIN, 0};
    static_cast<void>(poll(&readable, 1, /*milliseconds=*/1));
    static_cast<void>(uffd_->Read(&events).ok());
  }
  for (const UffdEvent& event : events) {
    const auto* remove = std::get_if<RemoveEvent>(&event);
    if (remove != nullptr && remove->range == discarded_.range()) seen_.event_read = true;
  }
}

bool Experiment::EventIsReadable() const {
  pollfd readable{uffd_->fd(), POLLIN, 0};
  return poll(&readable, 1, 0) == 1 && (readable.revents & POLLIN) != 0;
}

// The file says "running", or else the number and the arguments of the system call in which the
// thread sleeps (-1 in a page fault).
bool Experiment::DiscarderIsBlocked() const {
  std::array<char, 256> line{};
  if (pread(discarder_syscall_.get(), line.data(), line.size() - 1, 0) <= 0) return false;
  long number = -1;
  unsigned long long address = 0;
  return sscanf(line.data(), "%ld 0x%llx", &number, &address) == 2 && number == SYS_madvise &&
         address == discarded_.range().start;
}

uint64_t Experiment::FilledPages() {
  const size_t length = entries_.size() * sizeof(uint64_t);
  const ssize_t n = pread(pagemap_.get(), entries_.data(), length,
                          static_cast<off_t>(target_.range().start / kPageSize * sizeof(uint64_t)));
  if (n != static_cast<ssize_t>(length)) {
    pagemap_failed_ = true;
    return 0;
  }
  constexpr uint64_t kPresentOrSwapped = uint64_t{3} << 62;
  uint64_t filled = 0;
  for (uint64_t entry : entries_) filled += (entry & kPresentOrSwapped) != 0;
  return filled;
}

}  // namespace

std::optional<bool> Judge(const ProbeTry& seen) {
  if (!seen.filled_all || !seen.event_read) return std::nullopt;
  if (seen.pages_at_event && *seen.pages_at_event < seen.pages) return false;
  if (seen.blocked_samples >= kBlockedSamples) return true;
  return std::nullopt;
}

bool ReleaseExcludesEvents(absl::string_view release) {
  int major = 0, minor = 0;
  if (sscanf(std::string(release).c_str(), "%d.%d", &major, &minor) != 2) return false;
  return major > 6 || (major == 6 && minor >= 9);
}

KernelProbe ProbeKernel() {
  std::string why = absl::StrCat("none of ", kTries, " tries was conclusive");
  int blocked_samples = 0;  // of all tries so far
  for (int i = 0; i < kTries; ++i) {
    absl::StatusOr<ProbeTry> seen = Experiment().Run();
    if (!seen.ok()) {
      why = std::string(seen.status().message());
      break;
    }
    seen->blocked_samples += blocked_samples;
    if (const std::optional<bool> excluded = Judge(*seen)) {
      return {*excluded, *excluded ? "seen: an event waited for the fill that was under way"
                                   : "seen: an event was raised while a fill was under way"};
    }
    if (seen->filled_all && seen->event_read) blocked_samples = seen->blocked_samples;
  }
  utsname name{};
  uname(&name);
  return {ReleaseExcludesEvents(name.release),
          absl::StrCat("by the kernel's release ", name.release, ": ", why)};
}

}  // namespace faultline
