// SPDX-License-Identifier: Apache-2.0
#include "client/far/eviction_helper.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "client/far/eviction_thread.h"
#include "client/far/no_libc.h"
#include "client/uffd/uapi.h"

namespace faultline {
namespace {

// [guard][stack][thread-local storage and EvictionThread][staging][scratch]
constexpr uint64_t kPageBytes = CommandMemory::kPageBytes;
constexpr uint64_t kGuardBytes = kPageBytes;
constexpr uint64_t kStackBytes = 4 * kPageBytes;
constexpr uint64_t kStateBytes = kPageBytes;
constexpr uint64_t kAreaBytes = CommandMemory::kPages * kPageBytes;
constexpr uint64_t kStateOffset = kGuardBytes + kStackBytes;
constexpr uint64_t kStagingOffset = kStateOffset + kStateBytes;
constexpr uint64_t kScratchOffset = kStagingOffset + kAreaBytes;
constexpr uint64_t kMemoryBytes = kScratchOffset + kAreaBytes;

// What x86-64 code may look for at its thread pointer: the pointer itself, and behind it a stack
// protector's secret.
struct ThreadControlBlock {
  void* self;
  uint64_t rest[15];
};
static_assert(sizeof(ThreadControlBlock) + sizeof(EvictionThread) <= kStateBytes);

constexpr int kUserModeOnly = 1;  // UFFD_USER_MODE_ONLY; anybody may have one

// Maps private memory of the helper's own, or the memfd of its commands. No forked child has it.
// Returns a negative errno, or the address.
long MapOwn(uint64_t bytes, int protection, int flags, int fd) {
  const long address = RawSyscall(SYS_mmap, nullptr, bytes, protection, flags, fd, 0);
  if (address < 0 && address >= -4095) return address;
  RawSyscall(SYS_madvise, address, bytes, MADV_DONTFORK);
  RawSyscall(SYS_madvise, address, bytes, MADV_DONTDUMP);
  return address;
}

long MapCommand(EvictionHelper* helper) {
  const long fd =
      RawSyscall(SYS_memfd_create, "faultline-eviction", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return fd;
  helper->command_fd = static_cast<int>(fd);
  long result = RawSyscall(SYS_ftruncate, fd, sizeof(CommandMemory));
  if (result == 0) {
    result = RawSyscall(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  }
  if (result != 0) return result;
  const long address =
      MapOwn(sizeof(CommandMemory), PROT_READ | PROT_WRITE, MAP_SHARED, helper->command_fd);
  if (address < 0 && address >= -4095) return address;
  helper->command = static_cast<uint64_t>(address);
  reinterpret_cast<CommandMemory*>(address)->magic = CommandMemory::kMagic;
  return 0;
}

long MapMemory(EvictionHelper* helper) {
  const long address =
      MapOwn(kMemoryBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
  if (address < 0 && address >= -4095) return address;
  helper->memory_start = static_cast<uint64_t>(address);
  helper->memory_bytes = kMemoryBytes;
  helper->staging_start = helper->memory_start + kStagingOffset;
  helper->staging_bytes = kAreaBytes;
  return RawSyscall(SYS_mprotect, helper->memory_start + kGuardBytes, kMemoryBytes - kGuardBytes,
                    PROT_READ | PROT_WRITE);
}

// The userfaultfd of the scratch area needs no permission: nobody ever waits for a page there. Who
// meets a hole of it, such as mlockall(), gets an error.
long OpenScratch(EvictionHelper* helper) {
  constexpr int kFlags = O_CLOEXEC | O_NONBLOCK;
  long fd = RawSyscall(SYS_userfaultfd, kFlags | kUserModeOnly);
  if (fd < 0) {  // a container that forbids the call
    const long device = RawSyscall(SYS_openat, AT_FDCWD, uapi::kDevice, O_RDWR | O_CLOEXEC);
    if (device < 0) return fd;
    fd = RawSyscall(SYS_ioctl, device, uapi::kIoctlNew, kFlags);
    RawSyscall(SYS_close, device);
    if (fd < 0) return fd;
  }
  helper->scratch_uffd = static_cast<int>(fd);
  uffdio_api api = {};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_SIGBUS;
  if (const long result = RawSyscall(SYS_ioctl, fd, UFFDIO_API, &api); result != 0) return result;
  if ((api.features & uapi::kFeatureMove) == 0) return -ENOSYS;
  uffdio_register request = {};
  request.range = {helper->memory_start + kScratchOffset, kAreaBytes};
  request.mode = UFFDIO_REGISTER_MODE_MISSING;
  return RawSyscall(SYS_ioctl, fd, UFFDIO_REGISTER, &request);
}

int Run(void* thread) { RunEvictionThread(static_cast<EvictionThread*>(thread)); }

// A thread of the process, so that it ends when that does; but of its own are
// - the descriptors: see eviction_helper.h;
// - root and working directory, which a thread that shares them would keep from changing namespace.
// There is no CLONE_CHILD_CLEARTID and the like: it ends only with the process.
constexpr int kCloneFlags = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_SETTLS;

// Until the thread has given its number. It has nothing to do before, but may have to wait for a
// processor.
int AwaitLife(CommandMemory* command) {
  constexpr int kSeconds = 10;
  for (int i = 0; i < 10 * kSeconds && command->life.load() == 0; ++i) {
    const timespec tenth = {0, 100'000'000};
    RawSyscall(SYS_futex, &command->life, FUTEX_WAIT, 0, &tenth);
  }
  return command->life.load() == 0 ? ETIMEDOUT : 0;
}

void Close(int* fd) {
  if (*fd >= 0) RawSyscall(SYS_close, *fd);
  *fd = -1;
}

}  // namespace

int PrepareEvictionHelper(EvictionHelper* helper) {
#if !defined(__x86_64__)
  return ENOSYS;
#endif
  long result = MapCommand(helper);
  if (result == 0) result = MapMemory(helper);
  if (result == 0) result = OpenScratch(helper);
  if (result != 0) DiscardEvictionHelper(helper);
  return static_cast<int>(-result);
}

int StartEvictionHelper(EvictionHelper* helper, int uffd) {
  char* const state = reinterpret_cast<char*>(helper->memory_start + kStateOffset);
  auto* const control = reinterpret_cast<ThreadControlBlock*>(state);
  control->self = control;
  auto* const thread = reinterpret_cast<EvictionThread*>(state + sizeof(ThreadControlBlock));
  thread->command = reinterpret_cast<CommandMemory*>(helper->command);
  thread->uffd = uffd;
  thread->scratch_uffd = helper->scratch_uffd;
  thread->command_fd = helper->command_fd;
  thread->staging = helper->staging_start;
  thread->scratch = helper->memory_start + kScratchOffset;

  // The thread inherits the mask. The C library's functions leave its own signals out.
  const uint64_t all = ~uint64_t{0};
  uint64_t before = 0;
  RawSyscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof all);
  const int tid = clone(&Run, state, kCloneFlags, thread, nullptr, control, nullptr);
  const int error = errno;
  RawSyscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, nullptr, sizeof before);
  if (tid < 0) return error;
  const int result = AwaitLife(thread->command);
  Close(&helper->scratch_uffd);  // the thread has a copy
  return result;
}

void DiscardEvictionHelper(EvictionHelper* helper) {
  Close(&helper->command_fd);
  Close(&helper->scratch_uffd);
  if (helper->command != 0) RawSyscall(SYS_munmap, helper->command, sizeof(CommandMemory));
  if (helper->memory_start != 0) {
    RawSyscall(SYS_munmap, helper->memory_start, helper->memory_bytes);
  }
  *helper = EvictionHelper();
}

}  // namespace faultline
