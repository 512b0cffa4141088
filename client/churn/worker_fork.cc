// SPDX-License-Identifier: Apache-2.0
//
// Worker's children. A child is a copy of one thread of a process with many: it calls nothing that
// allocates, and takes no lock that another thread may have had when it was forked.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstring>

#include "client/churn/worker.h"

namespace faultline::churn {
namespace {

constexpr uint8_t kMaxDepth = 3;  // of processes below the parent
// Operations that a child does, at most.
constexpr uint64_t kMaxChildOperations = 24;
constexpr uint32_t kSampledSlots = 3;
constexpr uint32_t kSampledPages = 4;

constexpr useconds_t kPauseMicros = 200;

// Within it the mremap of the other thread gets to its lock, and lets go of it.
constexpr uint64_t kMaxForkDelayNanos = 30'000;

constexpr int kChildOk = 0;
constexpr int kChildFoundWrong = 1;

// Whether this process may read and write at `address`. Async-signal-safe.
bool IsWritable(uint64_t address) {
  const UniqueFd maps(open("/proc/self/maps", O_RDONLY | O_CLOEXEC));
  // Of each line, as "7f5c8000-7f5c9000 rw-p ...", the digits before "-", those after, and what
  // follows.
  enum { kStart, kEnd, kPermissions, kRest } part = kStart;
  uint64_t start = 0, end = 0;
  char bytes[4096];
  for (ssize_t n; (n = read(maps.get(), bytes, sizeof bytes)) > 0;) {
    for (ssize_t i = 0; i < n; ++i) {
      const char c = bytes[i];
      if (c == '\n') {
        part = kStart;
        start = end = 0;
      } else if (part == kStart && c == '-') {
        part = kEnd;
      } else if (part == kEnd && c == ' ') {
        part = kPermissions;
      } else if (part == kPermissions) {
        if (c == 'w' && start <= address && address < end) return true;
        if (c == ' ') part = kRest;
      } else if (part != kRest) {
        uint64_t& number = part == kStart ? start : end;
        number = number << 4 | static_cast<uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
      }
    }
  }
  return false;
}

}  // namespace

struct Worker::ForkPlan {
  enum class End { kExit, kExec, kKilled } end = End::kExit;
  // Its memory is what the parent has, too, so the parent waits.
  bool parent_waits = false;
  uint64_t operations = 0;
  // Another thread is moving memory.
  bool raced = false;
};

Worker::Child* Worker::FreeChild() {
  for (Child& child : children_) {
    if (child.pid == 0) return &child;
  }
  Reap(&children_[0]);
  return &children_[0];
}

void Worker::Fork(Operation operation, Slot& slot) {
  ForkPlan plan;
  const uint64_t kind = random_.Below(10);
  if (kind == 0) plan.end = ForkPlan::End::kExec;
  if (kind == 1) plan.end = ForkPlan::End::kKilled;
  plan.operations = random_.Below(kMaxChildOperations + 1);
  plan.parent_waits = company_->memory != MemoryKind::kAnon || depth_ > 0 || random_.OneIn(2);
  // In a child, the next generation goes by its parent's entry: that waits for it.
  Child grandchild;
  Child* const child = depth_ == 0 ? FreeChild() : &grandchild;
  if (depth_ == 0) {
    child->progress = &tally_->of_child(thread_, static_cast<unsigned>(child - children_.data()));
  } else {
    child->progress = progress_;
  }
  // What is shared the other thread would go on changing.
  plan.raced = operation == Operation::kFork && depth_ == 0 && random_.OneIn(2) &&
               company_->memory == MemoryKind::kAnon && company_->fork_race.BeginFork();
  if (plan.raced) {
    const uint64_t fork_at = NowNanos() + random_.Below(kMaxForkDelayNanos);
    while (NowNanos() < fork_at) {
    }
  }
  child->pid = ForkChild(operation, plan, child);
  if (plan.raced) company_->fork_race.EndFork();
  Note(operation, slot, {0, 0}, child->pid > 0);
  if (child->pid <= 0) {
    child->pid = 0;
    return;
  }
  tally_->children.fetch_add(1, std::memory_order_relaxed);
  child->to_be_killed = plan.end == ForkPlan::End::kKilled;
  if (depth_ == 0) child->progress->child.store(child->pid, std::memory_order_relaxed);
  if (plan.parent_waits) Reap(child);
}

pid_t Worker::ForkChild(Operation operation, const ForkPlan& plan, Child* child) {
  const pid_t parent = getpid();
  const uint64_t begin = NowNanos();
  progress_->Begin(operation, number_, 0);
  const pid_t pid = fork();
  if (pid != 0) {
    progress_->End();
    if (depth_ == 0) tally_->of(operation).latency.Record(NowNanos() - begin);
    return pid;
  }
  // A child of ours never outlives its parent.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kChildOk);
  RunChild(operation, plan, child->progress);
}

void Worker::BecomeChild(Progress* progress) {
  ++depth_;
  progress_ = progress;
  vacated_ = &vacated_in_child_;
  for (Child& child : children_) child = {};  // the parent's
  mix_.Drop(Operation::kForkAll);
  if (depth_ >= kMaxDepth) mix_.Drop(Operation::kFork);
  if (company_->memory != MemoryKind::kAnon) {
    // Nothing that changes what the parent has.
    for (const Operation operation : {Operation::kWrite, Operation::kRemove, Operation::kMapOver}) {
      mix_.Drop(operation);
    }
  }
  for (Worker* worker : company_->workers) {
    for (size_t i = worker->slots_.size(); i-- > 0;) {
      Slot& slot = worker->slots_[i];
      if (slot.advice == Slot::ForkAdvice::kDontFork) {
        // Nothing is there in the child: a good place to move to, and to grow over.
        vacated_in_child_.Publish(slot.address);
        worker->Forget(slot);
      } else if (slot.advice == Slot::ForkAdvice::kWipe) {
        for (PageShadow& shadow : slot.shadows) shadow.Discard();
      }
    }
  }
}

void Worker::CheckAllWorkers() {
  for (Worker* worker : company_->workers) {
    if (worker->slots_.empty()) continue;
    // As this thread: the others are not in this process.
    Slot& slot = worker->slots_[random_.Below(worker->slots_.size())];
    CheckSome(Operation::kForkAll, slot, kSampledPages);
  }
}

void Worker::CheckRaced(Slot slot, uint64_t to) {
  if (slot.advice == Slot::ForkAdvice::kDontFork) return;
  if (slot.advice == Slot::ForkAdvice::kWipe) {
    for (PageShadow& shadow : slot.shadows) shadow.Discard();
  }
  // Where it came from may be another's by now, but nobody else touches where it goes to.
  if (IsWritable(to)) slot.address = to;
  CheckSome(Operation::kMove, slot, 2 * kSampledPages);
}

void Worker::RunChild(Operation operation, const ForkPlan& plan, Progress* progress) {
  const uint64_t wrong_before = tally_->wrong_pages.load(std::memory_order_relaxed);
  Slot moving;  // as it is before BecomeChild() changes it
  if (plan.raced) moving = *company_->fork_race.move().slot;
  BecomeChild(progress);
  random_ = Random({company_->seed, thread_, number_, depth_, 1});
  if (plan.end == ForkPlan::End::kExec) {
    if (!slots_.empty()) CheckSome(operation, slots_[random_.Below(slots_.size())], 1);
    tally_->children_executed.fetch_add(1, std::memory_order_relaxed);
    execl("/bin/true", "true", static_cast<char*>(nullptr));
    _exit(kChildFoundWrong);
  }
  if (operation == Operation::kForkAll) CheckAllWorkers();
  if (plan.raced) {
    tally_->children_raced.fetch_add(1, std::memory_order_relaxed);
    CheckRaced(moving, company_->fork_race.move().to);
  }
  for (uint32_t i = 0; i < kSampledSlots && !slots_.empty(); ++i) {
    CheckSome(operation, slots_[random_.Below(slots_.size())], kSampledPages);
  }
  const uint64_t first = number_ * (kMaxChildOperations + 1);
  for (uint64_t i = 1; i <= plan.operations && slots_.size() > 1; ++i) {
    if (tally_->stop.load(std::memory_order_relaxed)) break;
    Step(first + i);
  }
  // One that is to be killed goes on until it is, without taking the processor from the others.
  while (plan.end == ForkPlan::End::kKilled && slots_.size() > 1) {
    CheckSome(operation, slots_[random_.Below(slots_.size())], 1);
    usleep(kPauseMicros);
  }
  _exit(tally_->wrong_pages.load(std::memory_order_relaxed) == wrong_before ? kChildOk
                                                                            : kChildFoundWrong);
}

void Worker::Reap(Child* child) {
  if (child->to_be_killed) {
    kill(child->pid, SIGKILL);
    tally_->children_killed.fetch_add(1, std::memory_order_relaxed);
  }
  int status = 0;
  while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR) {
  }
  child->progress->End();  // it may have been killed in the middle
  if (depth_ == 0) child->progress->child.store(0, std::memory_order_relaxed);
  const bool ended_well = WIFEXITED(status) && WEXITSTATUS(status) <= kChildFoundWrong;
  const bool was_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  // The watchdog kills, too, and counts the hang.
  if (!ended_well && !was_killed) {
    tally_->children_failed.fetch_add(1, std::memory_order_relaxed);
    Complain(
        "faultline-churn: a forked child (process %d of thread %u) ended with %s %d; seed "
        "%" PRIu64 ", forked by operation %" PRIu64 " or a later one",
        child->pid, thread_, WIFSIGNALED(status) ? "signal" : "status",
        WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), company_->seed, number_);
    if (company_->on_wrong == Company::OnWrong::kStop) {
      tally_->stop.store(true, std::memory_order_relaxed);
    }
  }
  child->pid = 0;
}

void Worker::ReapEnded() {
  for (Child& child : children_) {
    if (child.pid == 0) continue;
    siginfo_t info{};
    const bool ended =
        waitid(P_PID, static_cast<id_t>(child.pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid == child.pid;
    // One that is to be killed has had some of the parent's operations to get into the middle.
    if (ended || (child.to_be_killed && random_.OneIn(8))) Reap(&child);
  }
}

}  // namespace faultline::churn
