// SPDX-License-Identifier: Apache-2.0
//
// Uffd: one userfaultfd, the boundary to the kernel. Nothing else in the client makes these ioctls,
// except libfaultline, which only opens one and hands it over.
//
// Facts about the kernel are stated here with their source; they were read in mm/userfaultfd.c and
// fs/userfaultfd.c (6.11 and 7.x) and tried on 6.18.
#ifndef FAULTLINE_CLIENT_UFFD_UFFD_H_
#define FAULTLINE_CLIENT_UFFD_UFFD_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "client/uffd/uapi.h"
#include "client/unique_fd.h"

namespace faultline {

// Addresses [start, start + length) of a target, in bytes.
struct AddressRange {
  uint64_t start = 0;
  uint64_t length = 0;

  constexpr uint64_t end() const { return start + length; }
  constexpr bool Contains(uint64_t address) const { return address - start < length; }
  constexpr bool Overlaps(AddressRange other) const {
    return start < other.end() && other.start < end();
  }
  friend constexpr bool operator==(const AddressRange&, const AddressRange&) = default;
};

// What a uffd reports. A thread of the target waits until each of them was read; a faulting thread
// until its page is filled or woken.
struct FaultEvent {
  uint64_t address = 0;  // of the page
  bool write = false;
  bool write_protected = false;  // the page is there, but may not be written to
  pid_t thread = 0;  // as its own pid namespace has it; 0 without uapi::kFeatureThreadId
};
struct ForkEvent {
  UniqueFd uffd;  // of the child, whose memory is registered with it
};
struct RemapEvent {  // mremap has moved [from, from + length) to `to`
  uint64_t from = 0, to = 0, length = 0;
};
struct RemoveEvent {  // madvise is about to discard the range
  AddressRange range;
};
struct UnmapEvent {  // the range is unmapped; it may cover memory that never was ours
  AddressRange range;
};
using UffdEvent = std::variant<FaultEvent, ForkEvent, RemapEvent, RemoveEvent, UnmapEvent>;

// How a fill ended. With error EAGAIN, `bytes_done` above 0 means progress: go on behind it, where
// another error may show itself. EAGAIN without progress means that the address space is changing:
// an event is unread, or its writer has not run since.
struct FillResult {
  int error = 0;  // errno, 0 on success
  uint64_t bytes_done = 0;
};

// What a look at the address space of a uffd has found.
enum class SpaceState {
  kChanging,  // an event is unread, or its writer has not run since
  kSettled,   // every event was read, and nothing is under way
  kGone,      // the process has exited or exec'ed
};

// An address at which programs have nothing registered, but that the kernel does not refuse out of
// hand (vm.mmap_min_addr is 64 KiB).
inline constexpr uint64_t kUnmappedAddress = uint64_t{1} << 16;

// The end of what a 64-bit program can have mapped unless it asks for more.
inline constexpr uint64_t kAddressesEnd = (uint64_t{1} << 47) - (uint64_t{1} << 12);

// Thread-safe: the kernel serialises what it must. Read() belongs to one reader at a time.
class Uffd {
 public:
  // The most events that one Read() returns.
  static constexpr size_t kReadBatch = 64;

  virtual ~Uffd() = default;

  virtual int fd() const = 0;  // to poll
  // The features that UFFDIO_API was called with (uapi::kFeature...).
  virtual uint64_t features() const = 0;

  // Appends what is waiting, up to kReadBatch events, and returns how many; 0 when there is
  // nothing. Never blocks. The kernel returns faults before events, whatever their order in time.
  // RESOURCE_EXHAUSTED where a fork event is next and no descriptor is left for the child's uffd:
  // the event stays, and its thread waits inside fork().
  virtual absl::StatusOr<size_t> Read(std::vector<UffdEvent>* events) = 0;

  // Fills. Since 6.9 they take only the lock of the VMA they touch. All ranges are page aligned,
  // and must lie within one VMA, or the error is ENOENT even where both are registered. They wake
  // who waits for what they filled.
  FillResult Copy(uint64_t address, std::span<const std::byte> bytes) {
    uffdio_copy call = {};
    return NotedCopy(address, bytes, &call);
  }
  // `*call` is all zero. Before anybody is woken, the kernel writes to call->copy how many bytes it
  // has copied, even where this process is killed meanwhile.
  virtual FillResult NotedCopy(uint64_t address, std::span<const std::byte> bytes,
                               uffdio_copy* call) = 0;
  virtual FillResult Zero(AddressRange range) = 0;
  // Access to the range gets SIGBUS from now on. EINVAL before 6.6.
  virtual FillResult Poison(AddressRange range) = 0;

  // Looks at the address space, by trying to fill kUnmappedAddress.
  virtual SpaceState Probe() = 0;

  // Whether all of `range` is in one registered memory area; none where the address space is
  // changing. Fills nothing (of shared memory it may map pages that the file has).
  virtual std::optional<bool> IsRegistered(AddressRange range) = 0;

  // Holds off writes to `range`, which is registered with Protection::kWriteToo, from here on: who
  // writes waits in a fault that says write_protected. Or lets them through again, and wakes who
  // waits. Returns errno: EAGAIN while the address space is changing, ENOENT where the range is not
  // registered so, ESRCH. Takes the lock of the whole address space, for reading.
  virtual int WriteProtect(AddressRange range, bool protect) = 0;

  // Makes every thread that waits in `range` look again, mapped or not.
  virtual void Wake(AddressRange range) = 0;

  enum class Protection { kNone, kWriteToo };
  // For missing pages, and with kWriteToo to be used by WriteProtect() (shared memory: 5.19).
  // INVALID_ARGUMENT, FAILED_PRECONDITION or NOT_FOUND (the target is gone),
  // with what the kernel's errno means here.
  virtual absl::Status Register(AddressRange range, Protection protection) = 0;
  absl::Status Register(AddressRange range) { return Register(range, Protection::kNone); }
  virtual absl::Status Unregister(AddressRange range) = 0;
};

// REQUIRES: of a FORK, that the descriptor it names is one of this process.
UffdEvent DecodeMessage(const uffd_msg& message);

// Takes a descriptor that a target handed over and whose UFFDIO_API was already called.
// INVALID_ARGUMENT where it is no userfaultfd, FAILED_PRECONDITION where UFFDIO_API is missing.
//
// Here and below: the kernel writes what is read to `buffer`, which outlives the uffd and has
// kReadBatch messages; null: to a buffer that dies with this process.
absl::StatusOr<std::unique_ptr<Uffd>> AdoptUffd(UniqueFd fd, uffd_msg* buffer = nullptr);

// Takes the uffd of a forked child, which has the features of its parent's.
absl::StatusOr<std::unique_ptr<Uffd>> AdoptForkedUffd(UniqueFd fd, uint64_t features);

// As AdoptUffd, for one whose UFFDIO_API is still to be called: does so, with `features`, and
// without uapi::kFeatureEventFork where this process may not ask for that (CAP_SYS_PTRACE).
// FAILED_PRECONDITION where it was called before, or where the kernel lacks one of the features.
absl::StatusOr<std::unique_ptr<Uffd>> AdoptFreshUffd(UniqueFd fd, uint64_t features,
                                                     uffd_msg* buffer = nullptr);

// A new userfaultfd of this process, before UFFDIO_API: from /dev/userfaultfd, else by the system
// call. PERMISSION_DENIED, naming every way to get the permission, where neither works.
absl::StatusOr<UniqueFd> OpenUffd();

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_UFFD_UFFD_H_
