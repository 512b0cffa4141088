// SPDX-License-Identifier: Apache-2.0
//
// Worker: one thread of a churn. It has slots of its own, does one operation after the other on
// them, and checks what it reads. worker.cc has the operations on content, worker_remap.cc those on
// addresses, worker_fork.cc the children.
#ifndef FAULTLINE_CLIENT_CHURN_WORKER_H_
#define FAULTLINE_CLIENT_CHURN_WORKER_H_

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "client/churn/fork_race.h"
#include "client/churn/operation.h"
#include "client/churn/pattern.h"
#include "client/churn/slot.h"
#include "client/churn/tally.h"
#include "client/churn/vacated_addresses.h"
#include "client/unique_fd.h"
#include "proto/mutex.h"

namespace faultline::churn {

class Worker;

// What the workers of a process have together.
struct Company {
  uint64_t seed = 1;
  MemoryKind memory = MemoryKind::kAnon;
  OperationMix mix{MemoryKind::kAnon};
  Pattern pattern{1};
  // After a wrong byte: end all, or repair the page and go on.
  enum class OnWrong { kStop, kKeepGoing } on_wrong = OnWrong::kStop;
  Tally* tally = nullptr;  // borrowed
  int memfd = -1;          // of the memory, where it has one; borrowed
  std::atomic<bool> time_is_up = false;
  VacatedAddresses vacated;
  ForkRace fork_race;
  // Held shared during each operation, and exclusively to find all threads between two of them.
  SharedMutex quiet;
  std::vector<Worker*> workers;
};

// The operations of a thread, in kind and in the numbers that choose their details, follow from the
// seed, the thread's number and the operation's number. How those of several threads interleave
// does not, nor what that decides: which addresses are free, which children are still there.
//
// For one thread at a time. Nothing that it does after TakeSlots() allocates memory: it also runs
// in forked children of a process with many threads.
class Worker {
 public:
  // `company` is borrowed.
  Worker(Company* company, unsigned thread);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void TakeSlots(std::vector<Slot> slots);

  // Does operations first to first + count - 1; fewer where the slots are used up before, the time
  // is up or the tally says stop.
  void Run(uint64_t first, uint64_t count);
  // Checks every byte of a share of the slots, one in `one_in`, and waits for all children.
  void Finish(uint64_t one_in);
  // Gives the memory back. REQUIRES: Finish() was called.
  void UnmapSlots();

 private:
  // For a run of pages of a slot.
  struct Pages {
    uint32_t first, count;
  };
  struct Child {
    pid_t pid = 0;  // 0: none
    bool to_be_killed = false;
    Progress* progress = nullptr;
  };
  struct ForkPlan;

  // --- worker.cc
  void Step(uint64_t number);
  void Perform(Operation operation, Slot& slot);
  void Read(Slot& slot);
  void Write(Slot& slot);
  void WritePage(Slot& slot, uint32_t page);
  void Discard(Operation operation, Slot& slot);
  void Remove(Slot& slot);
  void Protect(Slot& slot);
  void Unprotect(Slot& slot);
  void AdviseFork(Slot& slot);

  // Reads a page, by the processor or sometimes by the kernel, and compares every byte.
  void CheckPage(Operation operation, Slot& slot, uint32_t page);
  void CheckAll(Operation operation, Slot& slot, Pages pages);
  void CheckSome(Operation operation, Slot& slot, uint32_t pages);
  void ReportWrong(Operation operation, Slot& slot, uint32_t page, PageView found,
                   const PageShadow::Verdict& verdict);
  void ReadByKernel(uint64_t address, std::byte* bytes);
  Pages SomePages(const Slot& slot, uint32_t max);

  // Calls and times it. A call returns less than 0 where the kernel refuses.
  template <typename Call>
  auto Timed(Operation operation, uint64_t address, Call call);
  void Note(Operation operation, Slot& slot, Pages pages, bool done);

  // --- worker_remap.cc
  // mremap to `to`, where a reservation is or memory that is given up.
  bool MoveTo(Operation operation, Slot& slot, uint64_t to);
  void Move(Slot& slot);
  void MoveVacated(Slot& slot);
  void MoveOver(Slot& slot);
  void Grow(Slot& slot);
  void Shrink(Slot& slot);
  void DontUnmap(Slot& slot);
  void CheckLeftBehind(Slot& slot, uint64_t old_address);
  void Unmap(Slot& slot);
  void UnmapPart(Slot& slot, Pages part);
  void MapOver(Slot& slot);
  // Makes `slot` begin `pages` later.
  void CutFront(Slot& slot, uint32_t pages);
  void CutBack(Slot& slot, uint32_t pages);
  void Forget(Slot& slot);
  bool CanSpareSlots() const;

  // --- worker_fork.cc
  void Fork(Operation operation, Slot& slot);
  pid_t ForkChild(Operation operation, const ForkPlan& plan, Child* child);
  [[noreturn]] void RunChild(Operation operation, const ForkPlan& plan, Progress* progress);
  void BecomeChild(Progress* progress);
  void CheckAllWorkers();
  // Checks what another thread was moving to `to` at the moment of the fork.
  void CheckRaced(Slot slot, uint64_t to);
  Child* FreeChild();
  // Waits for its end. A child must end well, unless it was killed.
  void Reap(Child* child);
  void ReapEnded();

  Company* const company_;
  const unsigned thread_;
  Tally* const tally_;
  OperationMix mix_;
  VacatedAddresses* vacated_;
  Progress* progress_;

  std::vector<Slot> slots_;
  uint64_t number_ = 0;     // of the operation
  uint8_t depth_ = 0;       // 0 in the parent, 1 in its children, ...
  uint32_t writes_ = 0;     // made so far
  uint64_t next_slot_ = 0;  // id of one that comes from a split
  Random random_{0};
  std::array<Child, kMaxChildren> children_;
  VacatedAddresses vacated_in_child_;  // nobody holds its lock when this process forks
  UniqueFd pipe_in_, pipe_out_;        // for ReadByKernel
};

}  // namespace faultline::churn

#endif  // FAULTLINE_CLIENT_CHURN_WORKER_H_
