// SPDX-License-Identifier: Apache-2.0
//
// Compiled without a stack protector and sanitizers, for which the thread has not what they need.
// No loop here may be one that the compiler knows as memset() or memcpy().
#include "client/far/eviction_thread.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "client/far/no_libc.h"
#include "client/uffd/uapi.h"

namespace faultline {
namespace {

constexpr uint64_t kPageBytes = CommandMemory::kPageBytes;
constexpr uint64_t kAreaBytes = CommandMemory::kPages * kPageBytes;

// About 20 us: an agent that evicts batch by batch posts the next command within that, and a
// wake-up costs more. After it the processor is the program's.
constexpr int kSpins = 400;

// UFFDIO_MOVE of `pages` pages, waking nobody: nobody waits where they go. 0 or a negative errno;
// `*moved` are the pages that the kernel says it has moved.
long Move(int uffd, uint64_t to, uint64_t from, uint64_t pages, uint64_t* moved) {
  constexpr uint64_t kDontWake = 1;
  uapi::Move call;
  call.dst = to;
  call.src = from;
  call.len = pages * kPageBytes;
  call.mode = kDontWake;
  call.move = 0;
  const long result = RawSyscall(SYS_ioctl, uffd, uapi::kIoctlMove, &call);
  *moved = call.move > 0 ? static_cast<uint64_t>(call.move) / kPageBytes : 0;
  return result;
}

// Writes to the page without changing it, by an atomic addition of 0 within the kernel. Afterwards
// the page is the process's alone (a copy, where it was shared with a forked child). False where
// there is no page, or where it must not be written to.
//
// A store of our own would wait for the agent, or end in SIGSEGV, where the page or its protection
// goes meanwhile. futex(2) does not: fault_in_user_writeable() faults without
// FAULT_FLAG_ALLOW_RETRY, for which a userfaultfd does not wait (handle_userfault,
// mm/userfaultfd.c). No futex is woken, unless its word happens to have the value that is compared
// with.
bool Touch(uint64_t page) {
  constexpr int kAddNothing = FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_EQ, 0x5a5);
  constexpr int kAttempts = 1000;
  uint32_t nobody = 0;
  long result = 0;
  for (int i = 0; i < kAttempts; ++i) {
    result =
        RawSyscall(SYS_futex, &nobody, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0, page, kAddNothing);
    if (result >= 0 || result == -EFAULT) break;
    RawSyscall(SYS_sched_yield);  // ENOMEM: until memory is found, or the process is killed for it
  }
  return result != -EFAULT;
}

// Whether the page went from `from` to `to`, in a UFFDIO_MOVE that says it failed there.
//
// Since 6.18 (seen on 6.18.44) move_pages() does not forget an EAGAIN of its own when the next
// attempt succeeds: it tries the page again, and ends with EEXIST for its own work. It needs no
// more than that the processor sets the page's accessed bit in a moment of some 100 ns.
bool MovedAllTheSame(uint64_t to, uint64_t from) { return Touch(to) && !Touch(from); }

// Moves pages, and finds out where it was told of fewer than it has moved. Returns the pages that
// were moved from the front; fewer than `pages` where `*error`, a negative errno, is about the
// next.
uint64_t MoveExactly(EvictionThread* thread, int uffd, uint64_t to, uint64_t from, uint64_t pages,
                     long* error) {
  uint64_t moved = 0;
  *error = Move(uffd, to, from, pages, &moved);
  if (*error == 0) return pages;
  while (moved < pages && MovedAllTheSame(to + moved * kPageBytes, from + moved * kPageBytes)) {
    ++moved;
    thread->command->moved_despite_error.fetch_add(1, std::memory_order_relaxed);
  }
  return moved;
}

// One command: takes its pages to the front of the staging area, in their order.
class Taking {
 public:
  explicit Taking(EvictionThread* thread)
      : thread_(thread), command_(thread->command), count_(command_->count) {}

  // Returns how many pages are staged.
  uint64_t Run() {
    for (uint64_t i = 0; i < count_; ++i) Set(i, CommandOutcome::kBusy);
    command_->error = 0;
    while (next_ < count_ && command_->error == 0) TakeRun();
    return staged_;
  }

 private:
  // The pages that follow each other in memory, from the next one on.
  uint64_t RunLength() const {
    const uint64_t* const addresses = command_->addresses;
    uint64_t length = 1;
    while (length < limit_ && next_ + length < count_ &&
           addresses[next_ + length] == addresses[next_] + length * kPageBytes) {
      ++length;
    }
    return length;
  }

  void TakeRun() {
    const uint64_t pages = RunLength();
    long error = 0;
    const uint64_t moved =
        MoveExactly(thread_, thread_->uffd, thread_->staging + staged_ * kPageBytes,
                    command_->addresses[next_], pages, &error);
    for (uint64_t i = 0; i < moved; ++i) Set(next_ + i, CommandOutcome::kTaken);
    next_ += moved;
    staged_ += moved;
    // What ended a part of a run shows itself to a call that begins with it.
    if (moved > 0) {
      limit_ = CommandMemory::kPages;
    } else {
      Refused(error, pages);
    }
  }

  void Set(uint64_t page, CommandOutcome outcome) {
    command_->outcomes[page].store(outcome, std::memory_order_relaxed);
  }
  void Skip(CommandOutcome outcome) {
    Set(next_, outcome);
    ++next_;
    limit_ = CommandMemory::kPages;
  }

  // Nothing of a run of `pages` pages was moved, for `error`.
  void Refused(long error, uint64_t pages) {
    switch (error) {
      case -EAGAIN:  // the address space is changing
      case -EEXIST:  // somebody has put a page into the staging area (mlockall)
        command_->error = static_cast<int32_t>(-error);
        return;
      case -ENOENT:  // no page, or no memory at all
        return Skip(CommandOutcome::kMissing);
      case -EINVAL:  // the run is not all of one area; or what is there cannot be moved
        if (pages == 1) return Skip(CommandOutcome::kBusy);
        limit_ = pages / 2;
        return;
      case -EBUSY:  // shared with a forked child, or pinned
        if (touched_ == next_ + 1) return Skip(CommandOutcome::kBusy);
        touched_ = next_ + 1;
        command_->touched.fetch_add(1, std::memory_order_relaxed);
        Touch(command_->addresses[next_]);
        return;
      default:
        return Skip(CommandOutcome::kBusy);
    }
  }

  EvictionThread* const thread_;
  CommandMemory* const command_;
  const uint64_t count_;
  uint64_t next_ = 0;
  uint64_t staged_ = 0;
  uint64_t limit_ = CommandMemory::kPages;  // of a run
  uint64_t touched_ = 0;                    // one more than the page that was touched last
};

// Copies what was taken to where the agent reads it.
void CopyOut(const EvictionThread* thread) {
  CommandMemory* const command = thread->command;
  const std::byte* from = reinterpret_cast<const std::byte*>(thread->staging);
  for (uint64_t i = 0; i < command->count; ++i) {
    if (command->outcomes[i] != CommandOutcome::kTaken) continue;
    CopyBytes(command->bytes + i * kPageBytes, from, kPageBytes);
    from += kPageBytes;
  }
}

void Discard(const EvictionThread* thread, uint64_t start, uint64_t bytes) {
  if (RawSyscall(SYS_madvise, start, bytes, MADV_DONTNEED) != -EINVAL) return;
  // mlockall() has locked it. The far memory, which is locked as well, is left alone from now on:
  // pages move only between areas that are both locked or both not.
  RawSyscall(SYS_munlock, thread->staging, kAreaBytes);
  RawSyscall(SYS_munlock, thread->scratch, kAreaBytes);
  RawSyscall(SYS_madvise, start, bytes, MADV_DONTNEED);
}

// Empties the staging area, which has `pages` pages at its front. To discard them there would raise
// an event, and wait until the agent has read it; the userfaultfd of the scratch area has none.
void DropStaged(EvictionThread* thread, uint64_t pages) {
  uint64_t moved = 0;
  while (moved < pages) {
    long error = 0;
    const uint64_t more =
        MoveExactly(thread, thread->scratch_uffd, thread->scratch + moved * kPageBytes,
                    thread->staging + moved * kPageBytes, pages - moved, &error);
    if (more == 0) break;
    moved += more;
  }
  if (moved > 0) Discard(thread, thread->scratch, moved * kPageBytes);
  if (moved == pages && thread->command->error != EEXIST) return;
  thread->command->dropped_by_event.fetch_add(1, std::memory_order_relaxed);
  Discard(thread, thread->staging, kAreaBytes);
}

void Sleep(CommandMemory* command) {
  command->helper_sleeps.store(1);
  while (true) {
    const CommandState state = command->state.load();
    if (state == CommandState::kPosted) break;
    RawSyscall(SYS_futex, &command->state, FUTEX_WAIT, state, nullptr);
  }
  command->helper_sleeps.store(0);
}

void AwaitCommand(CommandMemory* command) {
  while (true) {
    for (int i = 0; i < kSpins && command->state.load() != CommandState::kPosted; ++i) Pause();
    if (command->state.load() != CommandState::kPosted) Sleep(command);
    CommandState posted = CommandState::kPosted;
    if (command->state.compare_exchange_strong(posted, CommandState::kRunning)) return;
  }
}

// Leaves only those of `thread` open. The thread does not share its descriptors.
void CloseOthers(const EvictionThread* thread) {
  unsigned next = 0;
  while (true) {
    unsigned kept = ~0u;
    for (const int fd : {thread->uffd, thread->scratch_uffd, thread->command_fd}) {
      const unsigned number = static_cast<unsigned>(fd);
      if (fd >= 0 && number >= next && number < kept) kept = number;
    }
    if (kept == ~0u) break;
    if (kept > next) RawSyscall(SYS_close_range, next, kept - 1, 0);
    next = kept + 1;
  }
  RawSyscall(SYS_close_range, next, ~0u, 0);
}

// Gives up what the thread does not need, and would keep where the program gives it up later.
void LetGo(const EvictionThread* thread) {
  CloseOthers(thread);
  RawSyscall(SYS_chdir, "/");
  static constexpr __user_cap_data_struct kNone[_LINUX_CAPABILITY_U32S_3] = {};
  __user_cap_header_struct header;
  header.version = _LINUX_CAPABILITY_VERSION_3;
  header.pid = 0;
  RawSyscall(SYS_capset, &header, kNone);
  RawSyscall(SYS_prctl, PR_SET_NAME, "faultline", 0, 0, 0);
}

// From here on the kernel tells who waits for `life` that the thread has ended.
void BeginLife(EvictionThread* thread) {
  std::atomic<uint32_t>* const life = &thread->command->life;
  thread->robust_head.list.next = &thread->robust_entry;
  thread->robust_entry.next = &thread->robust_head.list;
  thread->robust_head.futex_offset =
      reinterpret_cast<char*>(life) - reinterpret_cast<char*>(&thread->robust_entry);
  thread->robust_head.list_op_pending = nullptr;
  RawSyscall(SYS_set_robust_list, &thread->robust_head, sizeof thread->robust_head);
  life->store(static_cast<uint32_t>(RawSyscall(SYS_gettid)) | FUTEX_WAITERS);
  RawSyscall(SYS_futex, life, FUTEX_WAKE, 1);
}

}  // namespace

void RunEvictionThread(EvictionThread* thread) {
  CommandMemory* const command = thread->command;
  LetGo(thread);
  BeginLife(thread);
  while (true) {
    AwaitCommand(command);
    const uint64_t staged = Taking(thread).Run();
    CopyOut(thread);
    command->state.store(CommandState::kDone);
    if (command->agent_sleeps.load() != 0) RawSyscall(SYS_futex, &command->state, FUTEX_WAKE, 1);
    DropStaged(thread, staged);
  }
}

}  // namespace faultline
