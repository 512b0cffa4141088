// SPDX-License-Identifier: Apache-2.0
//
// The memory that an agent shares with the eviction helper of a target: one command at a time,
// which says what pages to take, and the answer to it, with their bytes.
//
//   idle ──▶ posted ──▶ running ──▶ done ──▶ idle       posted and idle by the agent, the rest by
//              │  ▲                   │                 the helper
//              ▼  └───────────────────┤
//          cancelled ─────────────────┘
//
// A posted command is either begun by the helper or cancelled by the agent, by compare-exchange: so
// one that was cancelled never runs, however late the helper wakes up. What a done command has
// taken stands here until the agent has it in a place of its own, also where it has died meanwhile.
//
// Both sides sleep on `state`, by shared futexes. Neither trusts the other with more than it has
// anyway: an agent checks all it reads here, since the target may write what it likes.
#ifndef FAULTLINE_CLIENT_FAR_COMMAND_MEMORY_H_
#define FAULTLINE_CLIENT_FAR_COMMAND_MEMORY_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace faultline {

enum class CommandState : uint32_t { kIdle, kPosted, kRunning, kDone, kCancelled };

// What has become of a page; the values of Extraction.
enum class CommandOutcome : uint8_t { kTaken, kMissing, kBusy };

// All zero but `magic` at first. It lives in a memfd that is sealed against changes of its size.
struct CommandMemory {
  static constexpr uint64_t kMagic = 0x3164'6e61'6d6d'6f43;  // "Command1"
  static constexpr size_t kPages = 256;                      // of one command
  static constexpr size_t kPageBytes = 4096;

  uint64_t magic;

  std::atomic<CommandState> state;
  // The thread id of the helper, and FUTEX_WAITERS. The kernel adds FUTEX_OWNER_DIED when the
  // helper ends, whatever ends it, and wakes who waits here: it is a robust futex that the helper
  // holds all its life. 0: it has not begun yet.
  std::atomic<uint32_t> life;
  // Whether that side sleeps, or is about to, and has to be woken.
  std::atomic<uint32_t> helper_sleeps;
  std::atomic<uint32_t> agent_sleeps;

  // The command. REQUIRES: `count` is at most kPages, the addresses ascend and are page aligned.
  uint32_t count;
  // The answer: 0, or the errno that ended the command before all pages were tried.
  int32_t error;
  uint64_t addresses[kPages];
  std::atomic<CommandOutcome> outcomes[kPages];

  // What has happened since the helper began; only counted.
  std::atomic<uint32_t> touched;              // pages that had to be made exclusive
  std::atomic<uint32_t> moved_despite_error;  // pages that the kernel moved, and said it had not
  std::atomic<uint32_t> dropped_by_event;     // batches that had to be dropped by an event

  // Those of the n-th page are at n * kPageBytes, where that was taken.
  alignas(kPageBytes) std::byte bytes[kPages * kPageBytes];
};
static_assert(offsetof(CommandMemory, bytes) == CommandMemory::kPageBytes);
static_assert(sizeof(CommandMemory) == (CommandMemory::kPages + 1) * CommandMemory::kPageBytes);
static_assert(std::atomic<CommandState>::is_always_lock_free &&
              sizeof(std::atomic<CommandState>) == sizeof(uint32_t));  // a futex

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_FAR_COMMAND_MEMORY_H_
