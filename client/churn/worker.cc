// SPDX-License-Identifier: Apache-2.0
#include "client/churn/worker.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstring>
#include <utility>

#include "client/churn/worker_timed.h"

namespace faultline::churn {
namespace {

constexpr uint32_t kMaxDiscardedPages = 12;
// A generation ends when a thread has no more than this.
constexpr size_t kFewestSlots = 4;

}  // namespace

Worker::Worker(Company* company, unsigned thread)
    : company_(company),
      thread_(thread),
      tally_(company->tally),
      mix_(company->mix),
      vacated_(&company->vacated),
      progress_(&company->tally->of_thread(thread)) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) == 0) {
    pipe_out_.reset(ends[0]);
    pipe_in_.reset(ends[1]);
  }
}

void Worker::TakeSlots(std::vector<Slot> slots) {
  slots_ = std::move(slots);
  next_slot_ = slots_.empty() ? 0 : slots_.back().id + 1'000'000;
  slots_.reserve(2 * slots_.size());  // for those that come from splits
}

void Worker::Run(uint64_t first, uint64_t count) {
  for (uint64_t i = 0; i < count && slots_.size() > kFewestSlots; ++i) {
    if (tally_->stop.load(std::memory_order_relaxed) || company_->time_is_up) return;
    ReapEnded();
    Step(first + i);
  }
}

void Worker::Step(uint64_t number) {
  number_ = number;
  random_ = Random({company_->seed, thread_, number, depth_});
  const Operation operation = mix_.Choose(&random_);
  Slot& slot = slots_[random_.Below(slots_.size())];
  if (operation == Operation::kForkAll) {
    const ExclusiveLock lock(company_->quiet);
    Perform(operation, slot);
  } else if (depth_ == 0) {
    const SharedLock lock(company_->quiet);
    Perform(operation, slot);
  } else {
    Perform(operation, slot);
    tally_->child_operations.fetch_add(1, std::memory_order_relaxed);
  }
}

void Worker::Perform(Operation operation, Slot& slot) {
  // These take memory that mprotect has split; all others take one piece.
  const bool takes_split = operation == Operation::kRead || operation == Operation::kDontNeed ||
                           operation == Operation::kFree || operation == Operation::kFork ||
                           operation == Operation::kForkAll;
  if (slot.protection.count > 0 && !takes_split) Unprotect(slot);
  switch (operation) {
    case Operation::kRead:
      return Read(slot);
    case Operation::kWrite:
      return Write(slot);
    case Operation::kDontNeed:
    case Operation::kFree:
      return Discard(operation, slot);
    case Operation::kRemove:
      return Remove(slot);
    case Operation::kMove:
      return Move(slot);
    case Operation::kMoveVacated:
      return MoveVacated(slot);
    case Operation::kMoveOver:
      return MoveOver(slot);
    case Operation::kGrow:
      return Grow(slot);
    case Operation::kShrink:
      return Shrink(slot);
    case Operation::kDontUnmap:
      return DontUnmap(slot);
    case Operation::kUnmap:
      return Unmap(slot);
    case Operation::kMapOver:
      return MapOver(slot);
    case Operation::kProtect:
      return Protect(slot);
    case Operation::kForkAdvice:
      return AdviseFork(slot);
    case Operation::kFork:
    case Operation::kForkAll:
      return Fork(operation, slot);
  }
}

void Worker::Note(Operation operation, Slot& slot, Pages pages, bool done) {
  slot.Note({.number = number_,
             .operation = operation,
             .depth = depth_,
             .refused = !done,
             .first = pages.first,
             .count = pages.count,
             .address = slot.address});
  if (depth_ > 0) return;
  auto& counts = tally_->of(operation);
  (done ? counts.done : counts.refused).fetch_add(1, std::memory_order_relaxed);
}

Worker::Pages Worker::SomePages(const Slot& slot, uint32_t max) {
  const auto first = static_cast<uint32_t>(random_.Below(slot.pages));
  const auto count =
      static_cast<uint32_t>(random_.Between(1, std::min<uint64_t>(max, slot.pages - first)));
  return {first, count};
}

void Worker::Read(Slot& slot) {
  const auto pages = static_cast<uint32_t>(random_.Between(1, 6));
  Note(Operation::kRead, slot, {0, pages}, true);
  CheckSome(Operation::kRead, slot, pages);
}

void Worker::CheckSome(Operation operation, Slot& slot, uint32_t pages) {
  for (uint32_t i = 0; i < pages; ++i) {
    CheckPage(operation, slot, static_cast<uint32_t>(random_.Below(slot.pages)));
  }
}

void Worker::CheckAll(Operation operation, Slot& slot, Pages pages) {
  for (uint32_t i = 0; i < pages.count; ++i) CheckPage(operation, slot, pages.first + i);
}

void Worker::ReadByKernel(uint64_t address, std::byte* bytes) {
  // A page fits into a pipe that is empty.
  if (write(pipe_in_.get(), At(address), kPageSize) != static_cast<ssize_t>(kPageSize) ||
      read(pipe_out_.get(), bytes, kPageSize) != static_cast<ssize_t>(kPageSize)) {
    Complain("faultline-churn: cannot read %" PRIx64 " by write(): %s", address, strerror(errno));
    memset(bytes, 0xee, kPageSize);
  }
}

void Worker::CheckPage(Operation operation, Slot& slot, uint32_t page) {
  if (slot.protection.Covers(page) && slot.protection.prot == PROT_NONE) return;
  const uint64_t address = slot.AddressOf(page);
  std::byte bytes[kPageSize];
  // Not in a child: it shares the pipe with its parent.
  const bool by_kernel = depth_ == 0 && operation == Operation::kRead && random_.OneIn(8);
  const uint64_t touched = address + random_.Below(kPageSize);
  Timed(Operation::kRead, touched, [&] {
    if (by_kernel) {
      ReadByKernel(address, bytes);
    } else {
      static_cast<void>(*static_cast<volatile const std::byte*>(At(touched)));
    }
    return 0;
  });
  if (!by_kernel) memcpy(bytes, At(address), kPageSize);
  tally_->checked_pages.fetch_add(1, std::memory_order_relaxed);
  if (depth_ > 0) tally_->child_checked_pages.fetch_add(1, std::memory_order_relaxed);
  const PageShadow::Verdict verdict = slot.shadows[page].Check(company_->pattern, PageView(bytes));
  if (verdict.wrong_bytes > 0) ReportWrong(operation, slot, page, PageView(bytes), verdict);
}

void Worker::ReportWrong(Operation operation, Slot& slot, uint32_t page, PageView found,
                         const PageShadow::Verdict& verdict) {
  tally_->wrong_pages.fetch_add(1, std::memory_order_relaxed);
  tally_->wrong_bytes.fetch_add(verdict.wrong_bytes, std::memory_order_relaxed);
  char expected[256], recognised[512], history[1200];
  slot.shadows[page].Describe(expected, sizeof expected);
  company_->pattern.Describe(found, recognised, sizeof recognised);
  slot.DescribeHistory(history, sizeof history);
  Complain("faultline-churn: WRONG BYTES: %zu of page %u of slot %" PRIu64 " at %" PRIx64
           ", the first is byte %zu; seed %" PRIu64 ", thread %u, operation %" PRIu64
           " (%s), process %d%s\n  expected: %s\n  found:    %s\n  the slot's history, newest "
           "first: %s",
           verdict.wrong_bytes, page, slot.id, slot.AddressOf(page), verdict.first_wrong,
           company_->seed, thread_, number_, OperationName(operation).data(), getpid(),
           depth_ > 0 ? ", a forked child" : "", expected, recognised, history);
  if (company_->on_wrong == Company::OnWrong::kStop) {
    tally_->stop.store(true, std::memory_order_relaxed);
  } else if (!slot.protection.Covers(page)) {
    WritePage(slot, page);  // so that it is not found wrong again
  }
}

void Worker::Write(Slot& slot) {
  const Pages pages = SomePages(slot, 3);
  Note(Operation::kWrite, slot, pages, true);
  for (uint32_t page = pages.first; page < pages.first + pages.count; ++page) {
    PageShadow& shadow = slot.shadows[page];
    if (random_.OneIn(3) || !shadow.CanWritePart()) {
      WritePage(slot, page);
      continue;
    }
    const uint64_t first = random_.Below(kPageSize);
    const uint64_t length = random_.Between(1, kPageSize - first);
    const uint64_t number = uint64_t{thread_} << 34 | uint64_t{depth_} << 32 | ++writes_;
    std::byte bytes[kPageSize];
    company_->pattern.Fill({.kind = Stamp::kWritten, .number = number}, bytes);
    const uint64_t to = slot.AddressOf(page) + first;
    Timed(Operation::kWrite, to, [&] {
      *static_cast<volatile std::byte*>(At(to)) = bytes[first];
      return 0;
    });
    memcpy(At(to), bytes + first, length);
    shadow.Write(first, length, number);
    CheckPage(Operation::kWrite, slot, page);
  }
}

void Worker::WritePage(Slot& slot, uint32_t page) {
  const uint64_t number = uint64_t{thread_} << 34 | uint64_t{depth_} << 32 | ++writes_;
  std::byte bytes[kPageSize];
  company_->pattern.Fill({.kind = Stamp::kWritten, .number = number}, bytes);
  const uint64_t to = slot.AddressOf(page);
  Timed(Operation::kWrite, to, [&] {
    *static_cast<volatile std::byte*>(At(to)) = bytes[0];
    return 0;
  });
  memcpy(At(to), bytes, kPageSize);
  slot.shadows[page].Write(0, kPageSize, number);
}

void Worker::Discard(Operation operation, Slot& slot) {
  const Pages pages = random_.OneIn(8) ? Pages{0, slot.pages} : SomePages(slot, kMaxDiscardedPages);
  const uint64_t address = slot.AddressOf(pages.first);
  const int advice = operation == Operation::kFree ? MADV_FREE : MADV_DONTNEED;
  const bool done = Timed(operation, address, [&] {
                      return madvise(At(address), pages.count * kPageSize, advice);
                    }) == 0;
  Note(operation, slot, pages, done);
  if (!done) return;
  for (uint32_t i = 0; i < pages.count; ++i) {
    PageShadow& shadow = slot.shadows[pages.first + i];
    if (operation == Operation::kFree) {
      shadow.DiscardLazily();
    } else if (company_->memory == MemoryKind::kAnon) {
      shadow.Discard();  // shared memory keeps its content
    }
  }
  if (random_.OneIn(2)) {
    CheckPage(operation, slot, pages.first + static_cast<uint32_t>(random_.Below(pages.count)));
  }
}

void Worker::Remove(Slot& slot) {
  const Pages pages = SomePages(slot, kMaxDiscardedPages);
  // The agent cannot tell from the event that it is not MADV_DONTNEED, and keeps what the source
  // has of pages that it has not filled yet. So they are touched first.
  CheckAll(Operation::kRemove, slot, pages);
  const uint64_t address = slot.AddressOf(pages.first);
  const uint64_t bytes = pages.count * kPageSize;
  const bool punch = company_->memory == MemoryKind::kMemfd && random_.OneIn(4);
  const bool done =
      Timed(Operation::kRemove, address, [&] {
        return punch ? fallocate(company_->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                 static_cast<off_t>((slot.file_page + pages.first) * kPageSize),
                                 static_cast<off_t>(bytes))
                     : madvise(At(address), bytes, MADV_REMOVE);
      }) == 0;
  Note(Operation::kRemove, slot, pages, done);
  if (!done) return;
  for (uint32_t i = 0; i < pages.count; ++i) slot.shadows[pages.first + i].Discard();
  if (random_.OneIn(2)) {
    CheckPage(Operation::kRemove, slot,
              pages.first + static_cast<uint32_t>(random_.Below(pages.count)));
  }
}

void Worker::Protect(Slot& slot) {
  const Pages pages = SomePages(slot, slot.pages);
  const int prot = random_.OneIn(2) ? PROT_READ : PROT_NONE;
  const uint64_t address = slot.AddressOf(pages.first);
  const bool done = Timed(Operation::kProtect, address, [&] {
                      return mprotect(At(address), pages.count * kPageSize, prot);
                    }) == 0;
  Note(Operation::kProtect, slot, pages, done);
  if (!done) return;
  slot.protection = {.first = pages.first, .count = pages.count, .prot = prot};
  CheckSome(Operation::kProtect, slot, 2);
  if (random_.OneIn(2)) Unprotect(slot);
}

void Worker::Unprotect(Slot& slot) {
  const Pages pages{slot.protection.first, slot.protection.count};
  const uint64_t address = slot.AddressOf(pages.first);
  const bool done = Timed(Operation::kProtect, address, [&] {
                      return mprotect(At(address), pages.count * kPageSize, PROT_READ | PROT_WRITE);
                    }) == 0;
  Note(Operation::kProtect, slot, pages, done);
  if (done) slot.protection = {};
}

void Worker::AdviseFork(Slot& slot) {
  using Advice = Slot::ForkAdvice;
  int advice = 0;
  Advice after = Advice::kNone;
  switch (slot.advice) {
    case Advice::kNone:
      // Not in a child: of memory that it marks before its first fault, the kernel does not tell
      // that it was not wiped by the child's own fork (README, "What it does not do yet").
      after = company_->memory == MemoryKind::kAnon && depth_ == 0 && random_.OneIn(2)
                  ? Advice::kWipe
                  : Advice::kDontFork;
      advice = after == Advice::kWipe ? MADV_WIPEONFORK : MADV_DONTFORK;
      break;
    case Advice::kWipe:
      advice = MADV_KEEPONFORK;
      break;
    case Advice::kDontFork:
      advice = MADV_DOFORK;
      break;
  }
  const bool done = Timed(Operation::kForkAdvice, slot.address,
                          [&] { return madvise(At(slot.address), slot.bytes(), advice); }) == 0;
  Note(Operation::kForkAdvice, slot, {0, slot.pages}, done);
  if (done) slot.advice = after;
}

void Worker::Finish(uint64_t one_in) {
  for (Child& child : children_) {
    if (child.pid != 0) Reap(&child);
  }
  random_ = Random({company_->seed, thread_, number_, 0, one_in});
  const SharedLock lock(company_->quiet);
  for (Slot& slot : slots_) {
    if (tally_->stop.load(std::memory_order_relaxed)) break;
    if (!random_.OneIn(one_in)) continue;
    if (slot.protection.count > 0) Unprotect(slot);
    CheckAll(Operation::kRead, slot, {0, slot.pages});
  }
}

void Worker::UnmapSlots() {
  for (const Slot& slot : slots_) munmap(At(slot.address), slot.bytes());
  slots_.clear();
}

}  // namespace faultline::churn
