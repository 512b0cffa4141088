// SPDX-License-Identifier: Apache-2.0
#include "client/lab/discard_channel.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <utility>

#include "client/lab/event_drain.h"
#include "proto/mutex.h"

namespace faultline {
namespace {

absl::Status Madvise(AddressRange range) {
  if (madvise(reinterpret_cast<void*>(range.start), range.length, MADV_DONTNEED) == 0) {
    return absl::OkStatus();
  }
  return absl::ErrnoToStatus(errno, "madvise of the target");
}

// read() and write() of an eventfd that does not fail; their counter is 0 or 1 here.
void Raise(const UniqueFd& eventfd) {
  constexpr uint64_t kOne = 1;
  while (write(eventfd.get(), &kOne, sizeof kOne) < 0 && errno == EINTR) {
  }
}
void TakeWhenRaised(const UniqueFd& eventfd) {
  uint64_t raised;
  while (read(eventfd.get(), &raised, sizeof raised) < 0 && errno == EINTR) {
  }
}

class RunningKernel final : public DiscardChannel {
 public:
  RunningKernel(LabUffd uffd, UniqueFd stop) : uffd_(std::move(uffd)), stop_(std::move(stop)) {}

  absl::Status Discard(AddressRange range) override { return Madvise(range); }
  bool WaitForEvent() override { return WaitReadable(uffd_.fd(), stop_.get()); }
  std::optional<AddressRange> ReadEvent() override {
    uffd_msg message;
    if (read(uffd_.fd(), &message, sizeof message) != sizeof message ||
        message.event != UFFD_EVENT_REMOVE) {
      return std::nullopt;
    }
    return AddressRange{message.arg.remove.start,
                        message.arg.remove.end - message.arg.remove.start};
  }
  FillResult Copy(uint64_t to, const void* from, uint64_t length) override {
    return uffd_.Copy(to, from, length);
  }
  void Stop() override { Raise(stop_); }

 private:
  LabUffd uffd_;
  const UniqueFd stop_;  // an eventfd
};

// The names of the fields are those of struct userfaultfd_ctx.
class ModelledKernel final : public DiscardChannel {
 public:
  enum class Wait { kExclusive, kNone };
  // Three eventfds.
  struct Signals {
    UniqueFd readable, read, stop;
  };
  ModelledKernel(LabUffd uffd, Wait wait, Signals signals, std::function<void()> in_copy)
      : uffd_(std::move(uffd)),
        wait_(wait),
        signals_(std::move(signals)),
        in_copy_(std::move(in_copy)) {}

  // userfaultfd_remove(), and the zap behind it.
  absl::Status Discard(AddressRange range) override {
    if (wait_ == Wait::kExclusive) {
      const ExclusiveLock lock(map_changing_lock_);
      ++mmap_changing_;
    } else {
      ++mmap_changing_;
    }
    {
      const MutexLock lock(mu_);
      event_ = range;
    }
    // As in the kernel, one wake-up there and one back.
    Raise(signals_.readable);
    TakeWhenRaised(signals_.read);
    --mmap_changing_;
    return Madvise(range);
  }

  bool WaitForEvent() override {
    return WaitReadable(signals_.readable.get(), signals_.stop.get());
  }
  std::optional<AddressRange> ReadEvent() override {
    std::optional<AddressRange> event;
    {
      const MutexLock lock(mu_);
      event = std::exchange(event_, std::nullopt);
    }
    if (event.has_value()) {
      TakeWhenRaised(signals_.readable);
      Raise(signals_.read);
    }
    return event;
  }

  // mfill_atomic(): looks at the counter once, under the lock, and then does all of its pages.
  FillResult Copy(uint64_t to, const void* from, uint64_t length) override {
    const SharedLock lock(map_changing_lock_);
    if (mmap_changing_ != 0) return {EAGAIN, 0};
    if (in_copy_) in_copy_();
    return uffd_.Copy(to, from, length);
  }

  void Stop() override { Raise(signals_.stop); }

 private:
  LabUffd uffd_;
  const Wait wait_;
  const Signals signals_;
  const std::function<void()> in_copy_;
  SharedMutex map_changing_lock_;
  std::atomic<int> mmap_changing_ = 0;

  Mutex mu_;
  std::optional<AddressRange> event_ ABSL_GUARDED_BY(mu_);  // unread
};

}  // namespace

const char* DiscardKernelName(DiscardKernel kernel) {
  switch (kernel) {
    case DiscardKernel::kRunning:
      return "this kernel";
    case DiscardKernel::kModelExclusive:
      return "model: exclusive wait";
    case DiscardKernel::kModelFireForget:
      return "model: fire and forget";
  }
  return "?";
}

absl::StatusOr<std::unique_ptr<DiscardChannel>> CreateModelledChannel(
    DiscardKernel kernel, AddressRange range, std::function<void()> in_copy) {
  absl::StatusOr<LabUffd> uffd = LabUffd::Open(0);
  if (!uffd.ok()) return uffd.status();
  if (absl::Status status = uffd->Register(range, UFFDIO_REGISTER_MODE_MISSING); !status.ok()) {
    return status;
  }
  ModelledKernel::Signals signals;
  for (UniqueFd* fd : {&signals.readable, &signals.read, &signals.stop}) {
    *fd = UniqueFd(eventfd(0, EFD_CLOEXEC));
    if (!*fd) return absl::ErrnoToStatus(errno, "eventfd");
  }
  return std::make_unique<ModelledKernel>(*std::move(uffd),
                                          kernel == DiscardKernel::kModelExclusive
                                              ? ModelledKernel::Wait::kExclusive
                                              : ModelledKernel::Wait::kNone,
                                          std::move(signals), std::move(in_copy));
}

absl::StatusOr<std::unique_ptr<DiscardChannel>> DiscardChannel::Create(DiscardKernel kernel,
                                                                       AddressRange range) {
  if (kernel != DiscardKernel::kRunning) return CreateModelledChannel(kernel, range, nullptr);
  absl::StatusOr<LabUffd> uffd = LabUffd::Open(uapi::kFeatureEventRemove);
  if (!uffd.ok()) return uffd.status();
  if (absl::Status status = uffd->Register(range, UFFDIO_REGISTER_MODE_MISSING); !status.ok()) {
    return status;
  }
  UniqueFd stop(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop) return absl::ErrnoToStatus(errno, "eventfd");
  return std::make_unique<RunningKernel>(*std::move(uffd), std::move(stop));
}

}  // namespace faultline
