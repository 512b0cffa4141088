// SPDX-License-Identifier: Apache-2.0
#include "client/uffd/uffd.h"

#include <absl/strings/str_cat.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <string>
#include <utility>

#include "proto/page.h"

namespace faultline {
namespace {

std::string Hex(uint64_t value) { return absl::StrCat("0x", absl::Hex(value)); }

std::string ToString(AddressRange range) {
  return absl::StrCat("[", Hex(range.start), ", ", Hex(range.end()), ")");
}

uffdio_range ToKernel(AddressRange range) { return {range.start, range.length}; }

// Decodes the progress field of a fill ioctl: above 0 bytes, otherwise nothing was done (it holds
// -EAGAIN since 6.15, and whatever we preset before that).
FillResult Result(int returned, int64_t field, uint64_t length) {
  if (returned == 0) return {0, length};
  return {errno, field > 0 ? static_cast<uint64_t>(field) : 0};
}

}  // namespace

UffdEvent DecodeMessage(const uffd_msg& msg) {
  switch (msg.event) {
    case UFFD_EVENT_FORK:
      return ForkEvent{UniqueFd(static_cast<int>(msg.arg.fork.ufd))};
    case UFFD_EVENT_REMAP:
      return RemapEvent{msg.arg.remap.from, msg.arg.remap.to, msg.arg.remap.len};
    case UFFD_EVENT_REMOVE:
      return RemoveEvent{{msg.arg.remove.start, msg.arg.remove.end - msg.arg.remove.start}};
    case UFFD_EVENT_UNMAP:
      return UnmapEvent{{msg.arg.remove.start, msg.arg.remove.end - msg.arg.remove.start}};
    default:  // UFFD_EVENT_PAGEFAULT; the kernel reports nothing that was not asked for
      return FaultEvent{msg.arg.pagefault.address & ~(kPageSize - 1),
                        (msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0,
                        (msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) != 0,
                        static_cast<pid_t>(msg.arg.pagefault.feat.ptid)};
  }
}

namespace {

class KernelUffd final : public Uffd {
 public:
  KernelUffd(UniqueFd fd, uint64_t features, uffd_msg* buffer = nullptr)
      : fd_(std::move(fd)), features_(features), buffer_(buffer) {}

  int fd() const override { return fd_.get(); }
  uint64_t features() const override { return features_; }

  absl::StatusOr<size_t> Read(std::vector<UffdEvent>* events) override {
    std::array<uffd_msg, kReadBatch> own;
    uffd_msg* const messages = buffer_ != nullptr ? buffer_ : own.data();
    const ssize_t n = read(fd_.get(), messages, sizeof own);
    if (n < 0) {
      if (errno == EAGAIN || errno == EINTR) return 0;
      if (errno == EMFILE || errno == ENFILE) {
        return absl::ResourceExhaustedError(
            absl::StrCat("a fork event cannot be read: ", strerror(errno)));
      }
      return absl::ErrnoToStatus(errno, "read of a userfaultfd");
    }
    const size_t count = static_cast<size_t>(n) / sizeof(uffd_msg);
    for (size_t i = 0; i < count; ++i) events->push_back(DecodeMessage(messages[i]));
    return count;
  }

  FillResult NotedCopy(uint64_t address, std::span<const std::byte> bytes,
                       uffdio_copy* call) override {
    call->dst = address;
    call->src = reinterpret_cast<uint64_t>(bytes.data());
    call->len = bytes.size();
    const int returned = ioctl(fd_.get(), UFFDIO_COPY, call);
    return Result(returned, call->copy, bytes.size());
  }

  FillResult Zero(AddressRange range) override {
    uffdio_zeropage zero{};
    zero.range = ToKernel(range);
    const int returned = ioctl(fd_.get(), UFFDIO_ZEROPAGE, &zero);
    return Result(returned, zero.zeropage, range.length);
  }

  FillResult Poison(AddressRange range) override {
    uapi::Poison poison{};
    poison.range = ToKernel(range);
    const int returned = ioctl(fd_.get(), uapi::kIoctlPoison, &poison);
    return Result(returned, poison.updated, range.length);
  }

  SpaceState Probe() override {
    // userfaultfd_zeropage: EAGAIN while mmap_changing, before it looks at anything else; then
    // ESRCH where the memory is gone; then ENOENT, as nothing is registered there.
    switch (Zero({kUnmappedAddress, kPageSize}).error) {
      case EAGAIN:
        return SpaceState::kChanging;
      case ESRCH:
        return SpaceState::kGone;
      default:
        return SpaceState::kSettled;
    }
  }

  std::optional<bool> IsRegistered(AddressRange range) override {
    // mfill_atomic looks for a registered memory area first (ENOENT), and only then finds that
    // anonymous memory has no pages to continue with (EINVAL), or shared memory perhaps not this
    // one.
    uffdio_continue request{};
    request.range = ToKernel(range);
    request.mode = UFFDIO_CONTINUE_MODE_DONTWAKE;
    if (ioctl(fd_.get(), UFFDIO_CONTINUE, &request) == 0) return true;
    if (errno == EAGAIN && request.mapped > 0) return true;
    if (errno == EAGAIN) return std::nullopt;
    return errno != ENOENT;
  }

  int WriteProtect(AddressRange range, bool protect) override {
    uffdio_writeprotect request{};
    request.range = ToKernel(range);
    if (protect) request.mode = UFFDIO_WRITEPROTECT_MODE_WP;
    return ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &request) == 0 ? 0 : errno;
  }

  void Wake(AddressRange range) override {
    uffdio_range kernel_range = ToKernel(range);
    // Fails for a bad range only; a target that is gone has nobody left to wake.
    static_cast<void>(ioctl(fd_.get(), UFFDIO_WAKE, &kernel_range));
  }

  absl::Status Register(AddressRange range, Protection protection) override {
    uffdio_register request{};
    request.range = ToKernel(range);
    request.mode = UFFDIO_REGISTER_MODE_MISSING;
    if (protection == Protection::kWriteToo) request.mode |= UFFDIO_REGISTER_MODE_WP;
    if (ioctl(fd_.get(), UFFDIO_REGISTER, &request) == 0) return absl::OkStatus();
    const std::string what = absl::StrCat("UFFDIO_REGISTER of ", ToString(range), ": ");
    switch (errno) {
      case ENOMEM:
        return absl::NotFoundError(absl::StrCat(what, "the process is gone (ENOMEM)"));
      case EBUSY:
        return absl::FailedPreconditionError(
            absl::StrCat(what, "another userfaultfd holds part of it (EBUSY)"));
      case EPERM:
        return absl::FailedPreconditionError(
            absl::StrCat(what,
                         "part of it may never be written, for instance a mapping of a "
                         "read-only memfd (EPERM)"));
      case EINVAL:
        return absl::InvalidArgumentError(
            absl::StrCat(what,
                         "nothing is mapped there, or it is neither private anonymous nor "
                         "shared memory (EINVAL)"));
      default:
        return absl::ErrnoToStatus(errno, what);
    }
  }

  absl::Status Unregister(AddressRange range) override {
    uffdio_range kernel_range = ToKernel(range);
    if (ioctl(fd_.get(), UFFDIO_UNREGISTER, &kernel_range) == 0) return absl::OkStatus();
    return absl::ErrnoToStatus(errno, absl::StrCat("UFFDIO_UNREGISTER of ", ToString(range)));
  }

 private:
  const UniqueFd fd_;
  const uint64_t features_;
  uffd_msg* const buffer_;
};

absl::Status CheckIsUffd(int fd) {
  std::array<char, 64> target{};
  const ssize_t n =
      readlink(absl::StrCat("/proc/self/fd/", fd).c_str(), target.data(), target.size() - 1);
  if (n > 0 &&
      absl::string_view(target.data(), static_cast<size_t>(n)) == "anon_inode:[userfaultfd]") {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the descriptor is no userfaultfd but \"",
                   n > 0 ? absl::string_view(target.data(), static_cast<size_t>(n)) : "?", "\""));
}

// The features that UFFDIO_API was called with, or FAILED_PRECONDITION where it was not. The kernel
// tells in fdinfo (userfaultfd_show_fdinfo): "API:\taa:<features, hex>:<features of the kernel>".
// Bit 31 of the context's features is internal: set by the first UFFDIO_API.
absl::StatusOr<uint64_t> FeaturesOf(int fd) {
  FILE* file = fopen(absl::StrCat("/proc/self/fdinfo/", fd).c_str(), "re");
  if (file == nullptr) return absl::ErrnoToStatus(errno, "open of a userfaultfd's fdinfo");
  std::array<char, 256> line;
  unsigned long long api = 0, features = 0;
  bool found = false;
  while (!found && fgets(line.data(), line.size(), file) != nullptr) {
    found = sscanf(line.data(), "API: %llx:%llx:", &api, &features) == 2;
  }
  fclose(file);
  if (!found) return absl::InternalError("a userfaultfd's fdinfo has no API line");
  constexpr uint64_t kInitialized = 1u << 31;
  if ((features & kInitialized) == 0) {
    return absl::FailedPreconditionError(
        "the userfaultfd was handed over before UFFDIO_API was called on it; call it, or ask with "
        "\"register\":true");
  }
  return features & ~kInitialized;
}

absl::Status SetNonBlocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return absl::ErrnoToStatus(errno, "fcntl of a userfaultfd");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Uffd>> AdoptUffd(UniqueFd fd, uffd_msg* buffer) {
  if (absl::Status status = CheckIsUffd(fd.get()); !status.ok()) return status;
  absl::StatusOr<uint64_t> features = FeaturesOf(fd.get());
  if (!features.ok()) return features.status();
  if (absl::Status status = SetNonBlocking(fd.get()); !status.ok()) return status;
  return std::make_unique<KernelUffd>(std::move(fd), *features, buffer);
}

absl::StatusOr<std::unique_ptr<Uffd>> AdoptForkedUffd(UniqueFd fd, uint64_t features) {
  // It has the flags that its parent's uffd was made with; later changes are not inherited.
  if (absl::Status status = SetNonBlocking(fd.get()); !status.ok()) return status;
  return std::make_unique<KernelUffd>(std::move(fd), features);
}

absl::StatusOr<std::unique_ptr<Uffd>> AdoptFreshUffd(UniqueFd fd, uint64_t features,
                                                     uffd_msg* buffer) {
  if (absl::Status status = CheckIsUffd(fd.get()); !status.ok()) return status;
  if (FeaturesOf(fd.get()).ok()) {
    return absl::FailedPreconditionError(
        "\"register\":true, but UFFDIO_API was already called on the userfaultfd");
  }
  if (absl::Status status = SetNonBlocking(fd.get()); !status.ok()) return status;
  const auto call_api = [&fd](uint64_t asked) {
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = asked;
    return ioctl(fd.get(), UFFDIO_API, &api);
  };
  int returned = call_api(features);
  if (returned != 0 && errno == EPERM) {
    features &= ~uapi::kFeatureEventFork;
    returned = call_api(features);
  }
  if (returned == 0) return std::make_unique<KernelUffd>(std::move(fd), features, buffer);
  return absl::FailedPreconditionError(
      absl::StrCat("UFFDIO_API on the userfaultfd that was handed over: ", strerror(errno)));
}

absl::StatusOr<UniqueFd> OpenUffd() {
  constexpr int kFlags = O_CLOEXEC | O_NONBLOCK;
  const UniqueFd device(open(uapi::kDevice, O_RDWR | O_CLOEXEC));
  const int device_error = errno;
  if (device) {
    if (UniqueFd fd(ioctl(device.get(), uapi::kIoctlNew, kFlags)); fd) return fd;
  }
  if (UniqueFd fd(static_cast<int>(syscall(SYS_userfaultfd, kFlags))); fd) return fd;
  return absl::PermissionDeniedError(absl::StrCat(
      "no permission for userfaultfd (", uapi::kDevice, ": ",
      device ? "refused" : strerror(device_error), "; userfaultfd(2): ", strerror(errno),
      "). Any one of these gives it: run as root or with CAP_SYS_PTRACE; allow this user to open ",
      uapi::kDevice, "; or set the sysctl vm.unprivileged_userfaultfd to 1"));
}

}  // namespace faultline
