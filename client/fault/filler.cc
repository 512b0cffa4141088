// SPDX-License-Identifier: Apache-2.0
#include "client/fault/filler.h"

#include <errno.h>

#include <algorithm>
#include <array>

namespace faultline {

// What one ioctl did.
struct Filler::Step {
  PageCount limit = kMaxFillChunk;               // in: the most pages to try
  FaultClass fault_class = FaultClass::kDemand;  // in: of faults for what was fetched; out: of all
  PageCount filled;                              // out: pages the ioctl filled
  PageCount passed;                              // out: pages behind those that need nothing more
  int error = 0;                                 // out
};

FillReport Filler::Fill(PageRange pages, const std::byte* bytes, FaultClass fetched_for) {
  return Run(pages, bytes, bytes != nullptr ? Op::kCopy : Op::kZero, fetched_for);
}

FillReport Filler::FillLocal(PageRange pages) { return Run(pages, nullptr, Op::kLocal); }

void Filler::NoteHole(PageRange pages) {
  PageTable& table = *memory_->table;
  SharedLock lock(memory_->space.map_changing_lock());
  PageRange rest = pages.Intersect(table.range());
  while (!rest.empty()) {
    const PageRange run{rest.first, table.RunOfSameState(rest)};
    if (table.Get(run.first) == PageState::kAbsent) table.SetAll(run, PageState::kZero);
    rest = PageRange::Between(run.end(), rest.end());
  }
}

FillReport Filler::Poison(PageRange pages) { return Run(pages, nullptr, Op::kPoison); }

FillReport Filler::Run(PageRange pages, const std::byte* bytes, Op op, FaultClass fetched_for) {
  FillReport report;
  PageCount limit = kMaxFillChunk;
  while (report.done < pages.count) {
    const PageRange rest = PageRange::Between(pages.first + report.done, pages.end());
    Step step;
    step.limit = limit;
    step.fault_class = fetched_for;
    report.end =
        DoStep(rest, bytes == nullptr ? nullptr : bytes + report.done.in_bytes(), op, &step);
    // Zeros may have been filled beyond what was asked for.
    report.done = std::min(report.done + step.filled + step.passed, pages.count);
    report.error = step.error;
    if (report.end != FillEnd::kDone) return report;
    // Without progress the run crosses the end of a VMA: page by page from there.
    limit = step.filled + step.passed == PageCount(0) ? PageCount(1) : kMaxFillChunk;
  }
  return report;
}

PageCount Filler::ZerosAhead(PageIndex page) const {
  if (memory_->local == nullptr || !memory_->local->HasRoomAhead()) return PageCount(0);
  const PageTable& table = *memory_->table;
  const uint64_t most = std::min((page - table.range().first).raw(), kMaxFillChunk.raw() - 1);
  uint64_t before = 0;
  while (before < most && table.Get(PageIndex(page.raw() - before - 1)) == PageState::kPresent) {
    ++before;
  }
  return std::min(PageCount(before), table.range().end() - page - PageCount(1));
}

FillEnd Filler::DoStep(PageRange pages, const std::byte* bytes, Op op, Step* step) {
  const SharedFillLocks::Block block(memory_->table->fill_locks(), pages.first);
  SharedLock lock(memory_->space.map_changing_lock());
  const PageState state = memory_->table->Get(pages.first);
  PageCount zeros(1);
  if (op == Op::kLocal && state == PageState::kZero) {
    zeros += ZerosAhead(pages.first);
    pages.count = std::max(pages.count, zeros);
  }
  const std::optional<AddressSpace::Located> located = memory_->space.Locate(pages);
  if (!located) {
    // Unmapped since it was asked for. Who waited at the old address was woken by the reader.
    memory_->queue.Take(PageRange::Single(pages.first));
    step->passed = PageCount(1);
    return FillEnd::kDone;
  }
  PageRange run{pages.first, std::min({located->count, step->limit, block.pages()})};
  const bool local = !IsFetched(state);
  if (!local && op == Op::kLocal) return FillEnd::kAtSource;
  if (local) run.count = std::min(run.count, zeros);
  run.count = memory_->table->RunOfSameState(run);
  if (state == PageState::kEvicting) {
    step->passed = run.count;
    return FillEnd::kDone;
  }

  // Before the ioctl ("take_before_fill"; see FaultQueue).
  const FaultQueue::Taken waiting = memory_->queue.Take(run);
  std::array<std::byte, kPageSize> staged;  // not initialised
  if (local) {
    if (waiting.empty()) {
      step->passed = run.count;
      return FillEnd::kDone;
    }
    op = Op::kZero;
    step->fault_class = FaultClass::kZero;
    if (state == PageState::kStaged) {
      if (!memory_->local->CopyStaged(run.first, staged.data())) {
        // It is just becoming the source's; the next look finds it so.
        memory_->queue.PutBack(waiting, run.first);
        return FillEnd::kDone;
      }
      op = Op::kCopy;
      bytes = staged.data();
      step->fault_class = FaultClass::kStaged;
    }
  }
  const AddressRange range{located->address, run.size_bytes()};
  TakenPages::FillNote note = memory_->table->NoteFill(run.first);
  const FillResult result = Call(op, range, bytes, note.call());
  step->filled = PageCount(std::min(result.bytes_done, range.length) / kPageSize);
  Commit({run.first, step->filled}, op, state, bytes, !waiting.empty());
  const FillEnd end = Judge(result, range, run.first + step->filled, step);
  const PageIndex reached = run.first + step->filled + step->passed;
  ServeAliases(PageRange::Between(run.first, reached), op);
  if (end != FillEnd::kTargetGone) memory_->queue.PutBack(waiting, reached);
  if (op == Op::kPoison) return end;
  const SteadyClock::time_point now = SteadyClock::now();
  for (const FaultQueue::Waiting& served : waiting) {
    if (served.page >= reached) break;
    memory_->counters.NoteFilled(served.deferred ? FaultClass::kDeferred : step->fault_class,
                                 served.since, now);
  }
  const auto outcome = op == Op::kZero   ? TraceOutcome::kZero
                       : waiting.empty() ? TraceOutcome::kAhead
                                         : TraceOutcome::kDemand;
  memory_->Trace(TraceKind::kFill, outcome, {run.first, step->filled}, 0,
                 waiting.empty() ? SteadyClock::duration() : now - waiting.front().since);
  return end;
}

FillResult Filler::Call(Op op, AddressRange range, const std::byte* bytes, uffdio_copy* copy) {
  switch (op) {
    case Op::kCopy:
      return memory_->uffd->NotedCopy(range.start, {bytes, range.length}, copy);
    case Op::kZero:
      return memory_->uffd->Zero(range);
    case Op::kLocal:
    case Op::kPoison:
      break;
  }
  return memory_->uffd->Poison(range);
}

void Filler::Commit(PageRange filled, Op op, PageState before, const std::byte* bytes,
                    bool waited_for) {
  if (filled.empty()) return;
  FaultCounters& counters = memory_->counters;
  memory_->table->SetAll(filled, op == Op::kPoison ? PageState::kPoisoned : PageState::kPresent);
  if (op == Op::kPoison) return;
  Count(op == Op::kCopy ? counters.copied_pages : counters.zeroed_pages, filled.count.raw());
  if (!waited_for) Count(counters.drained_pages, filled.count.raw());
  if (memory_->local == nullptr) return;
  if (IsFetched(before)) {
    memory_->local->OnFetched(filled, bytes, waited_for ? FillCause::kDemand : FillCause::kAhead);
  } else if (before == PageState::kStaged) {
    memory_->local->OnReturned(filled.first);
  } else {
    memory_->local->OnZeroed(filled);
  }
}

FillReport Filler::FillStray(uint64_t address, std::optional<PageIndex>* page) {
  FillReport report;
  SharedLock lock(memory_->space.map_changing_lock());
  *page = memory_->space.PageAt(address);
  if (*page) return report;
  const AddressRange range{address, kPageSize};
  const FillResult result = memory_->uffd->Zero(range);
  if (result.error == 0) Count(memory_->counters.zeroed_pages);
  Step step;
  report.end = Judge(result, range, std::nullopt, &step);
  report.error = step.error;
  return report;
}

FillEnd Filler::Judge(FillResult result, AddressRange range, std::optional<PageIndex> page,
                      Step* step) {
  FaultCounters& counters = memory_->counters;
  const uint64_t address = range.start + step->filled.in_bytes();
  const bool single = range.length == kPageSize;
  // Every fill looks at mmap_changing first of all.
  if (result.error != EAGAIN) memory_->space.NoteSettled();
  switch (result.error) {
    case 0:
      return FillEnd::kDone;
    case EAGAIN:
      Count(step->filled > PageCount(0) ? counters.partial : counters.eagain);
      return step->filled > PageCount(0) ? FillEnd::kDone : FillEnd::kTryAgain;
    case EEXIST:
      Count(counters.eexist);
      // Present, whoever put it there. A poisoned page counts as there, too, and stays poisoned.
      if (page && memory_->table->Get(*page) != PageState::kPoisoned) {
        memory_->table->Set(*page, PageState::kPresent);
      }
      WakePage(address);
      step->passed = PageCount(1);
      return FillEnd::kDone;
    case ENOENT:
    case EFAULT:
      if (!single) return FillEnd::kDone;  // no progress: the caller goes on page by page
      // Or it has left since the kernel looked at mmap_changing: no event of that can have been
      // read meanwhile, as the lock is held, so one is outstanding.
      if (memory_->uffd->Probe() == SpaceState::kChanging) {
        Count(counters.eagain);
        return FillEnd::kTryAgain;
      }
      Count(result.error == ENOENT ? counters.enoent : counters.efault);
      WakePage(address);
      step->passed = PageCount(1);
      return FillEnd::kDone;
    case ENOMEM:
    case ENOSPC:
      Count(counters.nomem);
      step->error = result.error;
      return FillEnd::kTryAgain;
    case ESRCH:
      Count(counters.esrch);
      return FillEnd::kTargetGone;
    default:
      Count(counters.other_errors);
      step->error = result.error;
      return FillEnd::kFailed;
  }
}

void Filler::ServeAliases(PageRange pages, Op op) {
  for (const AddressSpace::Part& alias : memory_->space.aliases()) {
    const PageRange part = alias.pages().Intersect(pages);
    if (part.empty()) continue;
    const AddressRange range{alias.range.start + (part.first - alias.first).in_bytes(),
                             part.size_bytes()};
    // Poison is of one address; a page that was filled is of the memory, and only to be looked at.
    if (op == Op::kPoison) memory_->uffd->Poison(range);
    Count(memory_->counters.wakes);
    memory_->uffd->Wake(range);
  }
}

void Filler::WakePage(uint64_t address) {
  Count(memory_->counters.wakes);
  memory_->uffd->Wake({address, kPageSize});
}

}  // namespace faultline
