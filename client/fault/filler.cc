// SPDX-License-Identifier: Apache-2.0
#include "client/fault/filler.h"

#include <errno.h>

#include <algorithm>

namespace faultline {

// What one ioctl did.
struct Filler::Step {
  PageCount limit = kMaxFillChunk;  // in: the most pages to try
  PageCount filled;                 // out: pages the ioctl filled
  PageCount passed;                 // out: pages behind those that need nothing more
  int error = 0;                    // out
};

FillReport Filler::Fill(PageRange pages, const std::byte* bytes) {
  return Run(pages, bytes, bytes != nullptr ? Op::kCopy : Op::kZero);
}

FillReport Filler::Poison(PageRange pages) { return Run(pages, nullptr, Op::kPoison); }

FillReport Filler::Run(PageRange pages, const std::byte* bytes, Op op) {
  FillReport report;
  PageCount limit = kMaxFillChunk;
  while (report.done < pages.count) {
    const PageRange rest = PageRange::Between(pages.first + report.done, pages.end());
    Step step;
    step.limit = limit;
    report.end =
        DoStep(rest, bytes == nullptr ? nullptr : bytes + report.done.in_bytes(), op, &step);
    report.done += step.filled + step.passed;
    report.error = step.error;
    if (report.end != FillEnd::kDone) return report;
    // Without progress the run crosses the end of a VMA: page by page from there.
    limit = step.filled + step.passed == PageCount(0) ? PageCount(1) : kMaxFillChunk;
  }
  return report;
}

FillEnd Filler::DoStep(PageRange pages, const std::byte* bytes, Op op, Step* step) {
  FaultCounters& counters = memory_->counters;
  SharedLock lock(memory_->space.map_changing_lock());
  const std::optional<AddressSpace::Located> located = memory_->space.Locate(pages);
  if (!located) {
    // Unmapped since it was asked for. Who waited at the old address was woken by the reader.
    memory_->queue.Take(PageRange::Single(pages.first));
    step->passed = PageCount(1);
    return FillEnd::kDone;
  }
  PageRange run{pages.first, std::min(located->count, step->limit)};
  run.count = memory_->table->RunOfSameState(run);
  if (op == Op::kCopy && memory_->table->Get(run.first) == PageState::kZero) op = Op::kZero;
  const AddressRange range{located->address, run.size_bytes()};

  const std::optional<SteadyClock::time_point> since = memory_->queue.Take(run);
  FillResult result;
  switch (op) {
    case Op::kCopy:
      result = memory_->uffd->Copy(range.start, {bytes, range.length});
      break;
    case Op::kZero:
      result = memory_->uffd->Zero(range);
      break;
    case Op::kPoison:
      result = memory_->uffd->Poison(range);
      break;
  }

  step->filled = PageCount(std::min(result.bytes_done, range.length) / kPageSize);
  for (PageIndex page = run.first; page < run.first + step->filled; ++page) {
    memory_->table->Set(page, op == Op::kPoison ? PageState::kPoisoned : PageState::kPresent);
  }
  if (op != Op::kPoison) {
    (op == Op::kCopy ? counters.copied_pages : counters.zeroed_pages)
        .fetch_add(step->filled.raw(), std::memory_order_relaxed);
  }
  const FillEnd end = Judge(result, range, run.first, step);
  if (!since) return end;
  if (step->filled + step->passed < run.count && end != FillEnd::kTargetGone) {
    // Whose page it was is not known any more; the rest of the run is still to be filled.
    memory_->queue.PutBack(run.first + step->filled + step->passed, *since);
  } else if (end == FillEnd::kDone && op != Op::kPoison) {
    counters.fault_latency.Record(
        static_cast<uint64_t>(std::chrono::nanoseconds(SteadyClock::now() - *since).count()));
  }
  return end;
}

FillEnd Filler::Judge(FillResult result, AddressRange range, PageIndex first, Step* step) {
  FaultCounters& counters = memory_->counters;
  const PageIndex page = first + step->filled;
  const uint64_t address = range.start + step->filled.in_bytes();
  const bool single = range.length == kPageSize;
  switch (result.error) {
    case 0:
      return FillEnd::kDone;
    case EAGAIN:
      counters.eagain.fetch_add(1, std::memory_order_relaxed);
      return step->filled > PageCount(0) ? FillEnd::kDone : FillEnd::kTryAgain;
    case EEXIST:
      counters.eexist.fetch_add(1, std::memory_order_relaxed);
      // Present, whoever put it there. A poisoned page counts as there, too, and stays poisoned.
      if (memory_->table->Get(page) != PageState::kPoisoned) {
        memory_->table->Set(page, PageState::kPresent);
      }
      WakePage(address);
      step->passed = PageCount(1);
      return FillEnd::kDone;
    case ENOENT:
      if (!single) return FillEnd::kDone;  // no progress: the caller goes on page by page
      counters.enoent.fetch_add(1, std::memory_order_relaxed);
      WakePage(address);
      step->passed = PageCount(1);
      return FillEnd::kDone;
    case EFAULT:
      if (!single) return FillEnd::kDone;
      WakePage(address);
      step->passed = PageCount(1);
      return FillEnd::kDone;
    case ENOMEM:
    case ENOSPC:
      step->error = result.error;
      return FillEnd::kTryAgain;
    case ESRCH:
      return FillEnd::kTargetGone;
    default:
      step->error = result.error;
      return FillEnd::kFailed;
  }
}

void Filler::WakePage(uint64_t address) {
  memory_->counters.wakes.fetch_add(1, std::memory_order_relaxed);
  memory_->uffd->Wake({address, kPageSize});
}

}  // namespace faultline
