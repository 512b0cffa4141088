// SPDX-License-Identifier: Apache-2.0
#include "client/page_table.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <errno.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <optional>
#include <utility>

#include "proto/mutex.h"

namespace faultline {
namespace {

constexpr uint64_t kChunkPages = 4096;
// States are kept eight to a word, so that SetAll changes eight in one step.
constexpr uint64_t kWordPages = 8;
constexpr uint64_t kChunkWords = kChunkPages / kWordPages;
static_assert(kMaxVolumePages / kChunkPages <= UINT32_MAX, "chunks are numbered in 32 bits");

// Each byte of a word in this state.
constexpr uint64_t Fill(PageState state) {
  return 0x0101010101010101u * static_cast<uint64_t>(state);
}

constexpr PageState StateAt(uint64_t word, uint64_t page) {
  return static_cast<PageState>(word >> (page * 8) & 0xff);
}

// All bits of `count` pages of a word from `first` on.
constexpr uint64_t Mask(uint64_t first, uint64_t count) {
  return ~uint64_t{0} >> ((kWordPages - count) * 8) << (first * 8);
}

// `word` with the pages in `mask` set to `state`, but for those whose change is not legal.
uint64_t Changed(uint64_t word, uint64_t mask, PageState state) {
  if (state != PageState::kPresent && state != PageState::kZero) {
    for (uint64_t i = 0; i < kWordPages; ++i) {
      if (!IsLegalChange(StateAt(word, i), state)) mask &= ~Mask(i, 1);
    }
  }
  return (word & ~mask) | (Fill(state) & mask);
}

// By how much the number of pages in each state changes.
using Delta = std::array<int64_t, kPageStates>;

void AddPages(Delta& delta, uint64_t word, int64_t each) {
  if (word == Fill(StateAt(word, 0))) {
    delta[word & 0xff] += each * static_cast<int64_t>(kWordPages);
    return;
  }
  for (uint64_t i = 0; i < kWordPages; ++i) {
    delta[static_cast<size_t>(StateAt(word, i))] += each;
  }
}

// The states of kChunkPages pages. Shared by the clones that have not changed any of them since,
// each of which holds a reference.
struct Chunk {
  // All pages are in `state`. Such a chunk lives for ever and has no references.
  explicit Chunk(PageState state) : uniform(state) {
    for (auto& word : words) word.store(Fill(state), std::memory_order_relaxed);
  }
  // A copy, or where `from` is null all pages absent.
  explicit Chunk(const Chunk* from) {
    for (size_t i = 0; from != nullptr && i < kChunkWords; ++i) {
      words[i].store(from->words[i].load(std::memory_order_relaxed), std::memory_order_relaxed);
    }
  }

  std::array<std::atomic<uint64_t>, kChunkWords> words = {};
  std::atomic<uint32_t> references = 1;
  const std::optional<PageState> uniform;
};

// What stands for chunks that are in one state throughout, until one of their pages differs. Null
// for kAbsent.
Chunk* Uniform(PageState state) {
  static const std::array<Chunk*, kPageStates> chunks = {nullptr,
                                                         new Chunk(PageState::kPresent),
                                                         new Chunk(PageState::kZero),
                                                         new Chunk(PageState::kPoisoned),
                                                         new Chunk(PageState::kEvicting),
                                                         new Chunk(PageState::kStaged)};
  return chunks[static_cast<size_t>(state)];
}

void AddReference(Chunk* chunk) {
  if (!chunk->uniform) chunk->references.fetch_add(1, std::memory_order_relaxed);
}

void DropReference(Chunk* chunk) {
  if (chunk == nullptr || chunk->uniform) return;
  if (chunk->references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete chunk;
}

// How a chunk stands in a directory: its address, and in bit 0 whether this directory alone may
// write to it.
using Entry = uintptr_t;
constexpr Entry kOwned = 1;

Chunk* ToChunk(Entry entry) { return reinterpret_cast<Chunk*>(entry & ~kOwned); }
Entry ToEntry(Chunk* chunk) { return reinterpret_cast<Entry>(chunk); }

// Of an entry without an owner too: null is absent.
std::optional<PageState> UniformState(Entry entry) {
  const Chunk* chunk = ToChunk(entry);
  return chunk == nullptr ? PageState::kAbsent : chunk->uniform;
}

PageState StateIn(Entry entry, uint64_t page) {
  const Chunk* chunk = ToChunk(entry);
  if (chunk == nullptr) return PageState::kAbsent;
  return StateAt(chunk->words[page / kWordPages].load(std::memory_order_relaxed),
                 page % kWordPages);
}

// PageTable::AddStates() of `count` pages of a chunk.
void AddChunkStates(const Chunk& chunk, uint64_t first, uint64_t count, uint64_t stride,
                    PageStateCounts* counts) {
  Delta seen = {};
  int64_t looked_at = 0;
  for (uint64_t page = first; page < first + count;) {
    const uint64_t here = std::min(first + count - page, kWordPages - page % kWordPages);
    const uint64_t word = chunk.words[page / kWordPages].load(std::memory_order_relaxed);
    if (here == kWordPages) {
      AddPages(seen, word, 1);
    } else {
      for (uint64_t i = 0; i < here; ++i) {
        ++seen[static_cast<size_t>(StateAt(word, page % kWordPages + i))];
      }
    }
    looked_at += static_cast<int64_t>(here);
    page += here + (stride - 1) * kWordPages;
  }
  // What rounding leaves is of the state that most are in.
  uint64_t left = count;
  size_t most = 0;
  for (size_t i = 0; i < seen.size(); ++i) {
    const uint64_t share =
        static_cast<uint64_t>(seen[i]) * count / static_cast<uint64_t>(looked_at);
    (*counts)[i] += share;
    left -= share;
    if (seen[i] > seen[most]) most = i;
  }
  (*counts)[most] += left;
}

}  // namespace

// An array of locks, or a lock that may be none, is more than the analysis can follow.
SharedFillLocks::Block::Block(SharedFillLocks* locks, PageIndex page) ABSL_NO_THREAD_SAFETY_ANALYSIS
    : lock_(locks == nullptr ? nullptr
                             : &locks->locks_[page.raw() / kBlock % locks->locks_.size()]),
      pages_(locks == nullptr ? kMaxVolumePages : kBlock - page.raw() % kBlock) {
  if (lock_ != nullptr) lock_->Lock();
}

SharedFillLocks::Block::~Block() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (lock_ != nullptr) lock_->Unlock();
}

SharedFillLocks::All::All(SharedFillLocks* locks) ABSL_NO_THREAD_SAFETY_ANALYSIS : locks_(locks) {
  if (locks == nullptr) return;
  for (Mutex& mu : locks->locks_) mu.Lock();
}

SharedFillLocks::All::~All() ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (locks_ == nullptr) return;
  for (Mutex& mu : locks_->locks_) mu.Unlock();
}

// States of pages that are numbered from 0, as a table of chunks. What an owned chunk is stays so
// until the next Clone(); any other is replaced, under the lock, by one that is owned before a page
// of it changes. The replaced one is kept until the next Clone(), for those who still read it.
class PageTable::Directory {
 public:
  SharedFillLocks fill_locks;  // used where this is what all clones have

  static absl::StatusOr<std::unique_ptr<Directory>> Create(PageCount pages,
                                                           std::shared_ptr<TakenPages> taken);
  ~Directory();
  absl::StatusOr<std::unique_ptr<Directory>> Clone();

  PageState Get(uint64_t page) const {
    return StateIn(entry(page / kChunkPages).load(std::memory_order_acquire), page % kChunkPages);
  }
  bool Set(uint64_t page, PageState state, std::optional<PageState> from = std::nullopt);
  void SetAll(uint64_t first, uint64_t count, PageState state);
  // Of the `count` pages from `first` on, those from the front that are in `state`.
  uint64_t RunOf(PageState state, uint64_t first, uint64_t count) const;
  void AddStates(uint64_t first, uint64_t count, uint64_t stride, PageStateCounts* counts) const;

  TakenPages* taken() const { return taken_.get(); }
  // Whose first page is the first here.
  void KeepIn(std::shared_ptr<FarJournal> far, PageIndex first) {
    far_ = std::move(far);
    far_first_ = first;
  }

  uint64_t CountOf(PageState state) const {
    // Below 0 for a moment where a page changes twice and the second change is counted first.
    const int64_t count = counts_[static_cast<size_t>(state)].load(std::memory_order_relaxed);
    return count > 0 ? static_cast<uint64_t>(count) : 0;
  }

 private:
  Directory(PageCount pages, std::atomic<Entry>* entries, std::shared_ptr<TakenPages> taken)
      : pages_(pages), entries_(entries), taken_(std::move(taken)) {}

  static uint64_t Chunks(PageCount pages) {
    return std::max<uint64_t>(1, pages.raw() / kChunkPages + (pages.raw() % kChunkPages != 0));
  }
  std::atomic<Entry>& entry(uint64_t index) const { return entries_[index]; }

  // The chunk at `index`, to be written to.
  Chunk* Own(uint64_t index);
  // SetAll of all of the chunk at `index` without writing to it; false where that cannot be.
  bool ReplaceAll(uint64_t index, PageState state);
  // SetAll of `count` pages of an owned chunk.
  void SetIn(Chunk* chunk, uint64_t first, uint64_t count, PageState state);
  void Replace(uint64_t index, Entry with) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Count(const Delta& delta);
  void Note(uint64_t first, uint64_t count, PageState state) {
    if (taken_ != nullptr && !IsFetched(state)) taken_->Set(first, count);
  }

  // After the change: see far_journal.h.
  void NoteFar(uint64_t first, uint64_t count, PageState state) {
    if (far_ == nullptr) return;
    const PageRange pages{far_first_ + PageCount(first), PageCount(count)};
    if (state == PageState::kPresent) far_->Note(pages, PageHome::kPresent);
    if (state == PageState::kZero) far_->Note(pages, PageHome::kZero);
    if (state == PageState::kAbsent) far_->Note(pages, PageHome::kAtServer);
  }

  const PageCount pages_;
  std::atomic<Entry>* const entries_;        // mapped; fresh memory is null, and so all absent
  const std::shared_ptr<TakenPages> taken_;  // may be null
  std::shared_ptr<FarJournal> far_;          // may be null
  PageIndex far_first_;
  std::array<std::atomic<int64_t>, kPageStates> counts_ = {};

  Mutex mu_;
  std::vector<uint32_t> used_ ABSL_GUARDED_BY(mu_);    // the indices that are not null
  std::vector<Chunk*> replaced_ ABSL_GUARDED_BY(mu_);  // a reference to each
};

absl::StatusOr<std::unique_ptr<PageTable::Directory>> PageTable::Directory::Create(
    PageCount pages, std::shared_ptr<TakenPages> taken) {
  const uint64_t length = Chunks(pages) * sizeof(std::atomic<Entry>);
  void* entries = mmap(nullptr, length, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (entries == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no address space for the page table of ", pages.raw(), " pages: ", length,
                     " bytes cannot be mapped, errno ", errno,
                     "; map less in one handover, or raise the agent's address space limit"));
  }
  // Huge pages would make the first touched entry cost 2 MiB.
  madvise(entries, length, MADV_NOHUGEPAGE);
  return std::unique_ptr<Directory>(
      new Directory(pages, static_cast<std::atomic<Entry>*>(entries), std::move(taken)));
}

PageTable::Directory::~Directory() {
  {
    MutexLock lock(mu_);
    for (Chunk* chunk : replaced_) DropReference(chunk);
    for (uint32_t index : used_) {
      DropReference(ToChunk(entry(index).load(std::memory_order_acquire)));
    }
  }
  munmap(entries_, Chunks(pages_) * sizeof(std::atomic<Entry>));
}

absl::StatusOr<std::unique_ptr<PageTable::Directory>> PageTable::Directory::Clone() {
  absl::StatusOr<std::unique_ptr<Directory>> created = Create(pages_, nullptr);
  if (!created.ok()) return created;
  Directory& clone = **created;
  MutexLock lock(mu_);
  MutexLock clone_lock(clone.mu_);
  // Nobody reads while the map-changing lock is held exclusively.
  for (Chunk* chunk : replaced_) DropReference(chunk);
  replaced_.clear();
  for (uint32_t index : used_) {
    Chunk* chunk = ToChunk(entry(index).load(std::memory_order_relaxed));
    AddReference(chunk);
    entry(index).store(ToEntry(chunk), std::memory_order_release);
    clone.entry(index).store(ToEntry(chunk), std::memory_order_release);
  }
  clone.used_ = used_;
  for (size_t i = 0; i < kPageStates; ++i) {
    clone.counts_[i].store(counts_[i].load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
  return created;
}

bool PageTable::Directory::Set(uint64_t page, PageState state, std::optional<PageState> from) {
  Note(page, 1, state);
  const Entry seen = entry(page / kChunkPages).load(std::memory_order_acquire);
  if ((seen & kOwned) == 0) {
    // Not worth a copy where nothing changes.
    const PageState old = StateIn(seen, page % kChunkPages);
    if ((from && old != *from) || !IsLegalChange(old, state)) return false;
    if (old == state) return true;
  }
  Chunk* chunk = (seen & kOwned) != 0 ? ToChunk(seen) : Own(page / kChunkPages);
  std::atomic<uint64_t>& word = chunk->words[page % kChunkPages / kWordPages];
  const uint64_t mask = Mask(page % kWordPages, 1);
  uint64_t old_word = word.load(std::memory_order_relaxed);
  PageState old;
  do {
    old = StateAt(old_word, page % kWordPages);
    if ((from && old != *from) || !IsLegalChange(old, state)) return false;
    if (old == state) return true;
  } while (!word.compare_exchange_weak(old_word, (old_word & ~mask) | (Fill(state) & mask),
                                       std::memory_order_relaxed));
  counts_[static_cast<size_t>(old)].fetch_sub(1, std::memory_order_relaxed);
  counts_[static_cast<size_t>(state)].fetch_add(1, std::memory_order_relaxed);
  NoteFar(page, 1, state);
  return true;
}

void PageTable::Directory::SetAll(uint64_t first, uint64_t count, PageState state) {
  if (state == PageState::kAbsent) {
    // Only what is staged changes, of which there is little.
    while (count > 0) {
      const uint64_t here = std::min(count, kChunkPages - first % kChunkPages);
      const auto uniform = UniformState(entry(first / kChunkPages).load(std::memory_order_acquire));
      const bool any = !uniform || *uniform == PageState::kStaged;
      for (uint64_t page = first; any && page < first + here; ++page) Set(page, state);
      first += here;
      count -= here;
    }
    return;
  }
  Note(first, count, state);
  const uint64_t all_first = first, all_count = count;
  while (count > 0) {
    const uint64_t index = first / kChunkPages;
    const uint64_t from = first % kChunkPages;
    const uint64_t here = std::min(count, kChunkPages - from);
    const Entry seen = entry(index).load(std::memory_order_acquire);
    if ((seen & kOwned) != 0) {
      SetIn(ToChunk(seen), from, here, state);
    } else if (here < kChunkPages || !ReplaceAll(index, state)) {
      SetIn(Own(index), from, here, state);
    }
    first += here;
    count -= here;
  }
  NoteFar(all_first, all_count, state);
}

bool PageTable::Directory::ReplaceAll(uint64_t index, PageState state) {
  Delta delta = {};
  {
    MutexLock lock(mu_);
    const Entry old = entry(index).load(std::memory_order_relaxed);
    if ((old & kOwned) != 0) return false;  // another thread was faster
    const std::optional<PageState> uniform = UniformState(old);
    if (uniform) {
      if (*uniform == state || !IsLegalChange(*uniform, state)) return true;
      delta[static_cast<size_t>(*uniform)] -= kChunkPages;
    } else {
      if (state != PageState::kPresent && state != PageState::kZero)
        return false;  // not legal for all of them, perhaps
      for (const auto& word : ToChunk(old)->words) {
        AddPages(delta, word.load(std::memory_order_relaxed), -1);
      }
    }
    delta[static_cast<size_t>(state)] += kChunkPages;
    Replace(index, ToEntry(Uniform(state)));
  }
  Count(delta);
  return true;
}

void PageTable::Directory::SetIn(Chunk* chunk, uint64_t first, uint64_t count, PageState state) {
  Delta delta = {};
  while (count > 0) {
    const uint64_t here = std::min(count, kWordPages - first % kWordPages);
    const uint64_t mask = Mask(first % kWordPages, here);
    std::atomic<uint64_t>& word = chunk->words[first / kWordPages];
    uint64_t old = word.load(std::memory_order_relaxed);
    uint64_t changed;
    do {
      changed = Changed(old, mask, state);
    } while (changed != old &&
             !word.compare_exchange_weak(old, changed, std::memory_order_relaxed));
    if (changed != old) {
      AddPages(delta, old, -1);
      AddPages(delta, changed, 1);
    }
    first += here;
    count -= here;
  }
  Count(delta);
}

Chunk* PageTable::Directory::Own(uint64_t index) {
  MutexLock lock(mu_);
  const Entry old = entry(index).load(std::memory_order_relaxed);
  if ((old & kOwned) != 0) return ToChunk(old);
  Chunk* chunk = ToChunk(old);
  if (!UniformState(old) && chunk->references.load(std::memory_order_acquire) == 1) {
    // The other clones have let go of it, and no new one comes without Clone().
    entry(index).store(old | kOwned, std::memory_order_release);
    return chunk;
  }
  Chunk* copy = new Chunk(chunk);
  Replace(index, ToEntry(copy) | kOwned);
  return copy;
}

void PageTable::Directory::Replace(uint64_t index, Entry with) {
  const Entry old = entry(index).load(std::memory_order_relaxed);
  if (old == 0) used_.push_back(static_cast<uint32_t>(index));
  if (!UniformState(old)) replaced_.push_back(ToChunk(old));
  entry(index).store(with, std::memory_order_release);
}

void PageTable::Directory::Count(const Delta& delta) {
  for (size_t i = 0; i < kPageStates; ++i) {
    if (delta[i] != 0) counts_[i].fetch_add(delta[i], std::memory_order_relaxed);
  }
}

uint64_t PageTable::Directory::RunOf(PageState state, uint64_t first, uint64_t count) const {
  const uint64_t end = first + count;
  uint64_t page = first;
  while (page < end) {
    const Entry seen = entry(page / kChunkPages).load(std::memory_order_acquire);
    const uint64_t chunk_end = std::min(end, (page / kChunkPages + 1) * kChunkPages);
    if (const std::optional<PageState> uniform = UniformState(seen)) {
      if (*uniform != state) return page - first;
      page = chunk_end;
      continue;
    }
    while (page < chunk_end) {
      const uint64_t word =
          ToChunk(seen)->words[page % kChunkPages / kWordPages].load(std::memory_order_relaxed);
      const uint64_t differs = (word ^ Fill(state)) >> (page % kWordPages * 8);
      if (differs != 0) {
        return std::min(end, page + static_cast<uint64_t>(std::countr_zero(differs)) / 8) - first;
      }
      page += kWordPages - page % kWordPages;
    }
  }
  return count;
}

void PageTable::Directory::AddStates(uint64_t first, uint64_t count, uint64_t stride,
                                     PageStateCounts* counts) const {
  for (const uint64_t end = first + count; first < end;) {
    const Entry seen = entry(first / kChunkPages).load(std::memory_order_acquire);
    const uint64_t here = std::min(end, (first / kChunkPages + 1) * kChunkPages) - first;
    if (const std::optional<PageState> uniform = UniformState(seen)) {
      (*counts)[static_cast<size_t>(*uniform)] += here;
    } else {
      AddChunkStates(*ToChunk(seen), first % kChunkPages, here, stride, counts);
    }
    first += here;
  }
}

bool IsLegalChange(PageState from, PageState to) {
  switch (to) {
    case PageState::kAbsent:
      return from == PageState::kAbsent || from == PageState::kStaged;
    case PageState::kEvicting:
      return from == PageState::kPresent || from == PageState::kEvicting;
    case PageState::kStaged:
      return from == PageState::kEvicting || from == PageState::kStaged;
    case PageState::kPresent:
    case PageState::kZero:
      return true;
    case PageState::kPoisoned:
      return from == PageState::kAbsent || from == PageState::kZero || from == PageState::kPoisoned;
  }
  return false;
}

PageTable::PageTable(PageRange range, std::vector<PageRange> shared_ranges,
                     std::unique_ptr<Directory> own, std::shared_ptr<Directory> shared)
    : range_(range),
      shared_ranges_(std::move(shared_ranges)),
      own_(std::move(own)),
      shared_(std::move(shared)) {}

PageTable::~PageTable() = default;

SharedFillLocks* PageTable::fill_locks() const {
  return shared_ == nullptr ? nullptr : &shared_->fill_locks;
}

void PageTable::KeepIn(std::shared_ptr<FarJournal> far) {
  own_->KeepIn(far, range_.first);
  if (shared_ != nullptr) shared_->KeepIn(std::move(far), range_.first);
}

absl::StatusOr<std::unique_ptr<PageTable>> PageTable::Create(PageRange range,
                                                             std::vector<PageRange> shared,
                                                             std::shared_ptr<TakenPages> taken) {
  absl::StatusOr<std::unique_ptr<Directory>> own = Directory::Create(range.count, taken);
  if (!own.ok()) return own.status();
  std::shared_ptr<Directory> for_shared;
  if (!shared.empty()) {
    absl::StatusOr<std::unique_ptr<Directory>> created = Directory::Create(range.count, taken);
    if (!created.ok()) return created.status();
    for_shared = std::move(*created);
  }
  std::unique_ptr<PageTable> table(
      new PageTable(range, std::move(shared), std::move(*own), std::move(for_shared)));
  if (taken != nullptr) {
    taken->ForEachRun(range.count.raw(), [&](uint64_t first, uint64_t count) {
      table->SetAll({range.first + PageCount(first), PageCount(count)}, PageState::kPresent);
    });
  }
  return table;
}

absl::StatusOr<std::unique_ptr<PageTable>> PageTable::Clone() {
  absl::StatusOr<std::unique_ptr<Directory>> own = own_->Clone();
  if (!own.ok()) return own.status();
  return std::unique_ptr<PageTable>(
      new PageTable(range_, shared_ranges_, std::move(*own), shared_));
}

PageTable::Part PageTable::FirstPart(PageRange pages) const {
  if (shared_ == nullptr) return {own_.get(), pages};
  // The first shared range that ends behind the page.
  const auto next =
      std::partition_point(shared_ranges_.begin(), shared_ranges_.end(),
                           [&](const PageRange& shared) { return shared.end() <= pages.first; });
  if (next == shared_ranges_.end()) return {own_.get(), pages};
  if (next->Contains(pages.first)) return {shared_.get(), pages.Intersect(*next)};
  return {own_.get(), PageRange::Between(pages.first, std::min(pages.end(), next->first))};
}

PageState PageTable::Get(PageIndex page) const {
  return FirstPart(PageRange::Single(page)).directory->Get(Slot(page));
}

bool PageTable::Set(PageIndex page, PageState state) {
  return FirstPart(PageRange::Single(page)).directory->Set(Slot(page), state);
}

bool PageTable::Exchange(PageIndex page, PageState from, PageState to) {
  return FirstPart(PageRange::Single(page)).directory->Set(Slot(page), to, from);
}

TakenPages::FillNote PageTable::NoteFill(PageIndex first) {
  return {FirstPart(PageRange::Single(first)).directory->taken(), Slot(first)};
}

void PageTable::SetAll(PageRange pages, PageState state) {
  while (!pages.empty()) {
    const Part part = FirstPart(pages);
    part.directory->SetAll(Slot(part.pages.first), part.pages.count.raw(), state);
    pages = PageRange::Between(part.pages.end(), pages.end());
  }
}

PageCount PageTable::RunOfSameState(PageRange pages) const {
  const PageState state = Get(pages.first);
  PageRange rest = pages;
  while (!rest.empty()) {
    const Part part = FirstPart(rest);
    const PageCount run(
        part.directory->RunOf(state, Slot(part.pages.first), part.pages.count.raw()));
    rest = PageRange::Between(rest.first + run, rest.end());
    if (run < part.pages.count) break;
  }
  // The first page, which may have changed since, at least.
  return std::max(rest.first - pages.first, PageCount(1));
}

void PageTable::AddStates(PageRange pages, uint64_t stride, PageStateCounts* counts) const {
  while (!pages.empty()) {
    const Part part = FirstPart(pages);
    part.directory->AddStates(Slot(part.pages.first), part.pages.count.raw(), stride, counts);
    pages = PageRange::Between(part.pages.end(), pages.end());
  }
}

PageCount PageTable::CountOf(PageState state) const {
  return PageCount(own_->CountOf(state) + (shared_ == nullptr ? 0 : shared_->CountOf(state)));
}

}  // namespace faultline
