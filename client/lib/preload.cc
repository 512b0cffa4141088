// SPDX-License-Identifier: Apache-2.0
#include "client/lib/preload.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <exception>
#include <memory>
#include <new>
#include <optional>

#include "client/lib/page_bytes.h"
#include "client/lib/preload_shared_memory.h"
#include "client/lib/preload_takeover.h"

// The functions that the program calls in place of the C library's. They make the system calls
// themselves: they are called before anything is set up, and by allocators. mmap takes the offset
// in bytes on 64-bit machines only.
static_assert(sizeof(void*) == 8 && sizeof(off_t) == 8);

#define FAULTLINE_REPLACES extern "C" __attribute__((visibility("default")))

namespace {

using faultline::Failure;
using faultline::MapCall;
using faultline::PreloadKind;
using faultline::PreloadOptions;
using faultline::PreloadTakeover;
using faultline::SharedMemory;

// Never destroyed: other threads call mmap until the process has ended.
PreloadOptions* options = nullptr;
constinit SharedMemory shared_memory;

enum class State { kOff, kWaiting, kTaken };
std::atomic<State> state = State::kOff;
// The process that has begun with this library, and not a child.
pid_t owner = 0;
// What the takeover itself maps is not looked at.
thread_local bool is_taking_over = false;

void Say(const std::string& message) {
  const std::string line = "libfaultline-preload: " + message + "\n";
  [[maybe_unused]] const ssize_t n = write(STDERR_FILENO, line.data(), line.size());
}

void* SystemMmap(void* address, const MapCall& call) {
  return reinterpret_cast<void*>(
      syscall(SYS_mmap, address, call.length, call.protection, call.flags, call.fd, call.offset));
}

// Takes the memory away again. Where it has replaced something, its addresses stay in use: they are
// of a range that the program believes to be its own.
void UndoMmap(void* address, const MapCall& call) {
  if ((call.flags & MAP_FIXED) == 0) {
    syscall(SYS_munmap, address, call.length);
    return;
  }
  SystemMmap(address, {call.length, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0});
}

Failure MapAndTake(void* wish, const MapCall& call, void** address) {
  auto takeover = std::make_unique<PreloadTakeover>();
  Failure failure = takeover->Prepare(*options, call);
  if (!failure.ok()) return failure;
  *address = SystemMmap(wish, call);
  if (*address == MAP_FAILED) return faultline::SystemFailure("cannot map the memory");
  failure = takeover->Take(*options, call, *address);
  if (!failure.ok()) {
    UndoMmap(*address, call);
    return failure;
  }
  if ((call.flags & MAP_SHARED) != 0) {
    shared_memory.Set(*address, faultline::RoundUp(call.length), call.fd, call.offset);
  }
  // The userfaultfd and the connection stay open until the process ends.
  [[maybe_unused]] PreloadTakeover* kept = takeover.release();
  return faultline::Success();
}

// No exception may reach the program, which may be in C.
Failure MapAndTakeNoThrow(void* wish, const MapCall& call, void** address) {
  try {
    return MapAndTake(wish, call, address);
  } catch (const std::exception& exception) {
    return {ENOMEM, exception.what()};
  }
}

void* MapMeant(void* wish, const MapCall& call) {
  State expected = State::kWaiting;
  if (!state.compare_exchange_strong(expected, State::kTaken)) {
    Say("a second mapping fits what FAULTLINE_PRELOAD_... says; refused. Choose memory that only "
        "one mapping has: its file, or a size that nothing else has");
    errno = EBUSY;
    return MAP_FAILED;
  }
  is_taking_over = true;
  void* address = MAP_FAILED;
  const Failure failure = MapAndTakeNoThrow(wish, call, &address);
  if (!failure.ok()) {
    Say("the mapping of " + std::to_string(call.length) + " bytes for volume " + options->volume +
        " is refused: " + failure.message);
    state = State::kWaiting;
  }
  is_taking_over = false;
  if (failure.ok()) return address;
  errno = failure.code;
  return MAP_FAILED;
}

__attribute__((constructor)) void Start() {
  auto read = std::make_unique<PreloadOptions>();
  const Failure failure = faultline::ReadPreloadOptions(read.get());
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&Start), &self) != 0) {
    faultline::CleanEnvironment(self.dli_fname);
  }
  if (!failure.ok()) {
    // There is no mapping to refuse: which one is meant is not known.
    Say(failure.message);
    _exit(64);  // EX_USAGE
  }
  options = read.release();
  owner = getpid();
  if (options->kind != PreloadKind::kNone) state.store(State::kWaiting);
}

__attribute__((destructor)) void End() {
  if (state.load() != State::kWaiting || owner != getpid()) return;
  Say("the program has ended without the mapping that FAULTLINE_PRELOAD_... means");
}

}  // namespace

FAULTLINE_REPLACES void* mmap64(void* address, size_t length, int protection, int flags, int fd,
                                off_t offset) noexcept {
  const MapCall call{length, protection, flags, fd, offset};
  if (state.load() != State::kOff && !is_taking_over && IsMeant(*options, call)) {
    return MapMeant(address, call);
  }
  if ((flags & MAP_FIXED) != 0) {
    const std::optional<void*> result =
        shared_memory.MapOver(address, length, protection, flags, fd, offset);
    if (result.has_value()) return *result;
  }
  return SystemMmap(address, call);
}

FAULTLINE_REPLACES void* mmap(void* address, size_t length, int protection, int flags, int fd,
                              off_t offset) noexcept {
  return mmap64(address, length, protection, flags, fd, offset);
}

FAULTLINE_REPLACES int munmap(void* address, size_t length) noexcept {
  const std::optional<int> result = shared_memory.Munmap(address, length);
  return result.has_value() ? *result : static_cast<int>(syscall(SYS_munmap, address, length));
}

FAULTLINE_REPLACES void* mremap(void* address, size_t old_length, size_t new_length, int flags,
                                ...) noexcept {
  va_list more;
  va_start(more, flags);
  void* wish = (flags & MREMAP_FIXED) != 0 ? va_arg(more, void*) : nullptr;
  va_end(more);
  // An old length of 0 makes a second mapping of the page at `address`.
  const size_t least = old_length == 0 ? 1 : old_length;
  if (shared_memory.Overlaps(address, least) ||
      (wish != nullptr && shared_memory.Overlaps(wish, new_length))) {
    errno = EOPNOTSUPP;
    return MAP_FAILED;
  }
  return reinterpret_cast<void*>(syscall(SYS_mremap, address, old_length, new_length, flags, wish));
}

FAULTLINE_REPLACES int madvise(void* address, size_t length, int advice) noexcept {
  const std::optional<int> result = shared_memory.Madvise(address, length, advice);
  return result.has_value() ? *result
                            : static_cast<int>(syscall(SYS_madvise, address, length, advice));
}

FAULTLINE_REPLACES int fallocate64(int fd, int mode, off_t offset, off_t length) {
  const std::optional<int> result = shared_memory.Fallocate(fd, mode, offset, length);
  return result.has_value() ? *result
                            : static_cast<int>(syscall(SYS_fallocate, fd, mode, offset, length));
}

FAULTLINE_REPLACES int fallocate(int fd, int mode, off_t offset, off_t length) {
  return fallocate64(fd, mode, offset, length);
}
