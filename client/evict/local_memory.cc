// SPDX-License-Identifier: Apache-2.0
#include "client/evict/local_memory.h"

#include <absl/strings/str_cat.h>
#include <xxh_x86dispatch.h>
// After the one above, which chooses the instructions at run time.
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace faultline {
namespace {

constexpr std::byte kZeros[kPageSize] = {};

// At least so many margins of the room are for pages that are not pinned: eviction keeps two free.
constexpr uint64_t kMarginsUnpinned = 4;
// What could not be taken out is tried again after so long, and longer where there is more of it
// than so many pages: a try costs some microseconds a page.
constexpr std::chrono::seconds kAsidePause(1);
constexpr uint64_t kMostAsideReturns = 4096;

// Slots are made so many before they are needed: a batch.
constexpr uint64_t kSlotsAhead = FarJournal::kMaxBatch;

bool IsZero(const std::byte* bytes) { return memcmp(bytes, kZeros, kPageSize) == 0; }

}  // namespace

LocalMemory::LocalMemory(const LocalMemoryLimit& limit, std::unique_ptr<EvictionPolicy> policy,
                         std::shared_ptr<FarJournal> journal)
    : kind_(Kind::kLimited),
      limit_(limit),
      slots_(SlotsFor(limit)),
      journal_(std::move(journal)),
      bytes_(journal_ == nullptr ? new std::byte[slots_ * kPageSize] : nullptr),
      policy_(std::move(policy)) {
  MutexLock lock(mu_);
  if (journal_ != nullptr) Restore();
}

LocalMemory::LocalMemory(uint64_t staged_pages)
    : kind_(Kind::kForked), slots_(staged_pages), bytes_(new std::byte[staged_pages * kPageSize]) {}

uint64_t LocalMemory::SlotsFor(const LocalMemoryLimit& limit) {
  return limit.percent == 0 ? LimitsFor(limit.bytes / kPageSize).stage : kMostSlots;
}

void LocalMemory::Restore() {
  next_slot_ = static_cast<uint32_t>(journal_->slots());
  for (uint32_t slot = next_slot_; slot-- > 0;) {
    PageIndex page;
    if (!journal_->SlotPage(slot, &page) || staged_.contains(page.raw())) {
      free_slots_.push_back(slot);
      continue;
    }
    // Whether it was written is not known: it is written again, and no harm is done.
    const Staged entry = {
        slot, Progress::kUnwritten, false, next_sequence_++, 0, HashOf(journal_->SlotBytes(slot))};
    staged_[page.raw()] = entry;
    ++stats_.unwritten_pages;
    order_.emplace_back(page.raw(), entry.sequence);
    unwritten_.emplace_back(page.raw(), entry.sequence);
  }
}

std::vector<PageIndex> LocalMemory::StagedPages() const {
  std::vector<PageIndex> pages;
  MutexLock lock(mu_);
  for (const auto& [page, entry] : staged_) pages.emplace_back(page);
  return pages;
}

bool LocalMemory::StageLeft(PageIndex page, const std::byte* bytes) {
  if (bytes == nullptr) bytes = kZeros;
  const Hash hash = HashOf(bytes);
  MutexLock lock(mu_);
  if (staged_.contains(page.raw())) return true;
  if (!IsZero(bytes) && FreeSlots(1) == 0) return false;
  Put(page, bytes, /*clean=*/false, hash);
  return true;
}

void LocalMemory::OnFound(PageRange pages) {
  MutexLock lock(mu_);
  for (PageIndex page = pages.first; page < pages.end(); ++page) {
    if (const auto entry = staged_.find(page.raw()); entry != staged_.end()) Unstage(entry);
    policy_->OnFill(page, FillCause::kDemand);
  }
  excess_.SignalAll();
}

void LocalMemory::OnFoundAbsent(PageCount count) {
  MutexLock lock(mu_);
  gone_ += count.raw();
}

LocalMemory::Limits LocalMemory::LimitsFor(uint64_t budget) {
  Limits limits;
  limits.budget = std::max(budget, kMinBudget.raw());
  limits.stage = std::max<uint64_t>(limits.budget / kStageShare, kMinBudget.raw() / 4);
  limits.room = limits.budget - limits.stage;
  limits.margin = std::clamp<uint64_t>(limits.room / 16, 8, 256);
  return limits;
}

LocalMemory::Limits LocalMemory::BudgetLimits() const {
  uint64_t budget = limit_.bytes / kPageSize;
  if (limit_.percent == 100) {
    // All of it may be here, and no part of that is taken for staged pages.
    if (budget == 0) budget = kMaxVolumePages;
  } else if (limit_.percent != 0) {
    const uint64_t touched = Resident() + staged_.size() + gone_;
    const uint64_t share = touched * limit_.percent / 100;
    budget = budget == 0 ? share : std::min(budget, share);
  }
  Limits limits = LimitsFor(budget);
  limits.stage = std::min(limits.stage, slots_);
  return limits;
}

uint64_t LocalMemory::LeastRoom(const Limits& limits) const {
  return pinned_.size() + aside_.size() + kMarginsUnpinned * limits.margin;
}

LocalMemory::Limits LocalMemory::limits() const {
  Limits limits = BudgetLimits();
  // A share may have become smaller since.
  limits.room = std::max(limits.room, LeastRoom(limits));
  return limits;
}

LocalMemory::~LocalMemory() = default;

std::unique_ptr<LocalMemory> LocalMemory::Fork() const {
  MutexLock lock(mu_);
  std::unique_ptr<LocalMemory> child(new LocalMemory(staged_.size()));
  MutexLock child_lock(child->mu_);
  uint32_t next = 0;
  for (const auto& [page, entry] : staged_) {
    Staged& copy = child->staged_[page] = {kNoSlot, Progress::kUnwritten, false, 0, 0, {}};
    ++child->stats_.unwritten_pages;
    if (entry.slot == kNoSlot) continue;
    copy.slot = next++;
    memcpy(child->BytesOf(copy.slot), BytesOf(entry.slot), kPageSize);
  }
  return child;
}

LocalMemory::Hash LocalMemory::HashOf(const std::byte* bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes, kPageSize);
  return {hash.low64, hash.high64};
}

void LocalMemory::OnFetched(PageRange pages, const std::byte* bytes, FillCause cause) {
  if (kind_ == Kind::kForked) return;
  std::vector<Hash> hashes(bytes != nullptr ? pages.count.raw() : 1);
  for (size_t i = 0; i < hashes.size(); ++i) {
    hashes[i] = HashOf(bytes != nullptr ? bytes + i * kPageSize : kZeros);
  }
  MutexLock lock(mu_);
  for (PageIndex page = pages.first; page < pages.end(); ++page) {
    Arrive(page, cause);
    Know(page, hashes[bytes != nullptr ? (page - pages.first).raw() : 0]);
  }
  gone_ -= std::min(gone_, pages.count.raw());
  excess_.SignalAll();
}

void LocalMemory::OnZeroed(PageRange pages) {
  if (kind_ == Kind::kForked) return;
  MutexLock lock(mu_);
  for (PageIndex page = pages.first; page < pages.end(); ++page) {
    Arrive(page, page == pages.first ? FillCause::kDemand : FillCause::kAhead);
    known_.erase(page.raw());
  }
  excess_.SignalAll();
}

void LocalMemory::Arrive(PageIndex page, FillCause cause) {
  leaving_first_.erase(page.raw());
  aside_.erase(page.raw());
  if (const auto pin = pinned_.find(page.raw()); pin != pinned_.end()) {
    pinned_resident_ += !std::exchange(pin->second, true);
  } else {
    policy_->OnFill(page, cause);
  }
}

void LocalMemory::OnReturned(PageIndex page) {
  MutexLock lock(mu_);
  if (const auto entry = staged_.find(page.raw()); entry != staged_.end()) {
    if (entry->second.progress == Progress::kWritten) Know(page, entry->second.hash);
    Unstage(entry);
  }
  ++stats_.returned_pages_total;
  if (policy_ == nullptr) return;
  if (pinned_.contains(page.raw())) {
    Arrive(page, FillCause::kDemand);
  } else {
    leaving_first_.erase(page.raw());
    policy_->OnReturn(page, true);
  }
  excess_.SignalAll();
}

void LocalMemory::OnDiscarded(PageRange pages, PageCount absent) {
  MutexLock lock(mu_);
  gone_ -= std::min(gone_, absent.raw());
  for (PageIndex page = pages.first; page < pages.end(); ++page) {
    if (policy_ != nullptr) policy_->OnDiscard(page);
    if (const auto pin = pinned_.find(page.raw()); pin != pinned_.end()) {
      pinned_resident_ -= std::exchange(pin->second, false);
    }
    aside_.erase(page.raw());
    known_.erase(page.raw());
    if (const auto entry = staged_.find(page.raw()); entry != staged_.end()) Unstage(entry);
  }
}

void LocalMemory::Unstage(absl::flat_hash_map<uint64_t, Staged>::iterator entry) {
  if (const uint32_t slot = entry->second.slot; slot != kNoSlot) {
    if (journal_ != nullptr) journal_->ClearSlot(slot);
    free_slots_.push_back(slot);
  }
  stats_.unwritten_pages -= entry->second.progress != Progress::kWritten;
  staged_.erase(entry);
}

bool LocalMemory::CopyStaged(PageIndex page, std::byte* to) const {
  MutexLock lock(mu_);
  const auto entry = staged_.find(page.raw());
  if (entry == staged_.end()) return false;
  const uint32_t slot = entry->second.slot;
  memcpy(to, slot == kNoSlot ? kZeros : BytesOf(slot), kPageSize);
  return true;
}

bool LocalMemory::Admit(PageIndex page) {
  if (kind_ == Kind::kForked) return true;
  MutexLock lock(mu_);
  if (lifted_ || Resident() < limits().room) return true;
  deferred_.push_back(page);
  ++stats_.deferred_faults_total;
  excess_.SignalAll();
  return false;
}

bool LocalMemory::HasRoomAhead() const {
  if (kind_ == Kind::kForked) return true;
  MutexLock lock(mu_);
  const Limits now = limits();
  return lifted_ || Resident() + now.margin / 2 < now.room;
}

void LocalMemory::WaitForExcess(std::chrono::steady_clock::time_point deadline) {
  MutexLock lock(mu_);
  while (!woken_ && ExcessNow() == 0 && deferred_.empty() &&
         std::chrono::steady_clock::now() < deadline) {
    excess_.WaitUntil(mu_, deadline);
  }
  woken_ = false;
}

void LocalMemory::WaitForWake(std::chrono::steady_clock::time_point deadline) {
  MutexLock lock(mu_);
  while (!woken_ && std::chrono::steady_clock::now() < deadline) excess_.WaitUntil(mu_, deadline);
  woken_ = false;
}

void LocalMemory::Wake() {
  MutexLock lock(mu_);
  woken_ = true;
  excess_.SignalAll();
}

PageCount LocalMemory::Excess() const {
  MutexLock lock(mu_);
  return PageCount(ExcessNow());
}

uint64_t LocalMemory::ExcessNow() const {
  const uint64_t resident = Resident();
  const Limits now = limits();
  if (lifted_ || resident + now.margin <= now.room) return 0;
  return resident - (now.room - 2 * now.margin);
}

bool LocalMemory::TakeFromPolicy(PageIndex page) {
  const PageCount before = policy_->resident();
  policy_->OnDiscard(page);
  return policy_->resident() < before;
}

void LocalMemory::ChooseFirst(PageCount count, absl::FunctionRef<bool(PageIndex)> stays,
                              std::vector<PageIndex>* victims) {
  for (size_t left = leaving_.size(); left > 0 && victims->size() < count.raw(); --left) {
    const PageIndex page(leaving_.front());
    leaving_.pop_front();
    if (!leaving_first_.contains(page.raw())) continue;
    if (writing_.contains(page.raw()) || stays(page)) {
      leaving_.push_back(page.raw());
      continue;
    }
    leaving_first_.erase(page.raw());
    if (TakeFromPolicy(page)) victims->push_back(page);
  }
}

void LocalMemory::Choose(PageCount count, absl::FunctionRef<bool(PageIndex)> stays,
                         std::vector<PageIndex>* victims) {
  MutexLock lock(mu_);
  ReturnAside();
  ChooseFirst(count, stays, victims);
  std::vector<PageIndex> chosen, back;
  while (victims->size() < count.raw()) {
    chosen.clear();
    policy_->Choose(count - PageCount(victims->size()), &chosen);
    if (chosen.empty()) break;
    for (PageIndex page : chosen) {
      (writing_.contains(page.raw()) || stays(page) ? back : *victims).push_back(page);
    }
    if (back.size() > count.raw()) break;  // the writes are behind
  }
  for (PageIndex page : back) policy_->OnReturn(page, false);
  chosen_ += victims->size();
}

bool LocalMemory::Stage(PageIndex page, const std::byte* bytes) {
  const Hash hash = HashOf(bytes);
  MutexLock lock(mu_);
  --chosen_;
  const auto known = known_.find(page.raw());
  const bool clean = known != known_.end() && known->second == hash;
  if (known != known_.end()) known_.erase(known);
  Put(page, bytes, clean, hash);
  ++stats_.evicted_pages_total;
  stats_.clean_pages_total += clean;
  return clean;
}

void LocalMemory::Put(PageIndex page, const std::byte* bytes, bool clean, const Hash& hash) {
  Staged entry = {
      kNoSlot, clean ? Progress::kWritten : Progress::kUnwritten, false, next_sequence_++, 0, hash};
  const bool zero = IsZero(bytes);
  if (!zero) {
    entry.slot = TakeSlot();
    memcpy(BytesOf(entry.slot), bytes, kPageSize);
  }
  if (journal_ != nullptr) {
    // From here on it is neither in the target nor in the batch that matters.
    if (!zero) journal_->SetSlot(entry.slot, page);
    journal_->Note(PageRange::Single(page), zero ? PageHome::kStagedZero : PageHome::kAtServer);
  }
  staged_[page.raw()] = entry;
  stats_.unwritten_pages += !clean;
  order_.emplace_back(page.raw(), entry.sequence);
  if (!clean) unwritten_.emplace_back(page.raw(), entry.sequence);
  stats_.zero_pages_total += zero;
}

uint32_t LocalMemory::TakeSlot() {
  if (free_slots_.empty()) return next_slot_++;
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  return slot;
}

uint64_t LocalMemory::FreeSlots(uint64_t wanted) {
  while (true) {
    const uint64_t slots = journal_ == nullptr ? slots_ : journal_->slots();
    const uint64_t left = free_slots_.size() + slots - next_slot_;
    if (journal_ == nullptr || left >= wanted || full_) return left;
    full_ = !journal_->AddSlots();
  }
}

void LocalMemory::PutBack(PageIndex page) {
  MutexLock lock(mu_);
  --chosen_;
  policy_->OnReturn(page, false);
}

void LocalMemory::SetAside(PageIndex page) {
  MutexLock lock(mu_);
  --chosen_;
  aside_.insert(page.raw());
  aside_since_.emplace_back(page.raw(), std::chrono::steady_clock::now());
}

void LocalMemory::ReturnAside() {
  const auto pause = kAsidePause * (1 + aside_.size() / kMostAsideReturns);
  const auto until = std::chrono::steady_clock::now() - pause;
  for (; !aside_since_.empty() && aside_since_.front().second < until; aside_since_.pop_front()) {
    const uint64_t page = aside_since_.front().first;
    if (aside_.erase(page) > 0) policy_->OnReturn(PageIndex(page), false);
  }
}

bool LocalMemory::ExceedsBudget() const {
  MutexLock lock(mu_);
  const Limits limits = BudgetLimits();
  return !aside_.empty() && LeastRoom(limits) > limits.room;
}

void LocalMemory::Lose(PageIndex page) {
  MutexLock lock(mu_);
  --chosen_;
  known_.erase(page.raw());
}

PageCount LocalMemory::StageRoom() {
  MutexLock lock(mu_);
  const uint64_t stage = limits().stage;
  const uint64_t room = stage - std::min<uint64_t>(stage, staged_.size());
  if (journal_ == nullptr) return PageCount(room);
  return PageCount(std::min(room, FreeSlots(std::min(room, kSlotsAhead))));
}

std::vector<PageIndex> LocalMemory::TakeDeferred() {
  MutexLock lock(mu_);
  if (!lifted_ && Resident() >= limits().room) return {};
  return std::exchange(deferred_, {});
}

void LocalMemory::Lift() {
  MutexLock lock(mu_);
  lifted_ = true;
}

bool LocalMemory::HasUnwritten() const {
  MutexLock lock(mu_);
  return !unwritten_.empty() && !hold_writes_;
}

std::vector<PageToWrite> LocalMemory::TakeUnwritten(PageCount count) {
  std::vector<PageToWrite> pages;
  MutexLock lock(mu_);
  if (hold_writes_) return pages;
  while (!unwritten_.empty() && pages.size() < count.raw()) {
    const auto [page, sequence] = unwritten_.front();
    unwritten_.pop_front();
    const auto entry = staged_.find(page);
    if (entry == staged_.end() || entry->second.sequence != sequence) continue;
    entry->second.progress = Progress::kWriting;
    writing_.insert(page);
    const uint32_t slot = entry->second.slot;
    pages.push_back({PageIndex(page), slot == kNoSlot ? nullptr : BytesOf(slot)});
  }
  std::sort(pages.begin(), pages.end(),
            [](const PageToWrite& a, const PageToWrite& b) { return a.page < b.page; });
  return pages;
}

void LocalMemory::OnWritten(const std::vector<PageIndex>& pages, bool ok) {
  MutexLock lock(mu_);
  for (PageIndex page : pages) {
    writing_.erase(page.raw());
    // No other write of it was begun meanwhile.
    const auto entry = staged_.find(page.raw());
    if (entry == staged_.end() || entry->second.progress != Progress::kWriting) continue;
    entry->second.progress = ok ? Progress::kWritten : Progress::kUnwritten;
    stats_.unwritten_pages -= ok;
    if (!ok) unwritten_.emplace_back(page.raw(), entry->second.sequence);
  }
  (ok ? stats_.written_pages_total : stats_.rewritten_pages_total) += pages.size();
  woken_ = true;
  excess_.SignalAll();
}

std::vector<PageIndex> LocalMemory::Droppable(PageCount count) {
  std::vector<PageIndex> pages;
  MutexLock lock(mu_);
  // What has changed since is forgotten; what is being written keeps its place.
  std::deque<std::pair<uint64_t, uint64_t>> waiting;
  std::optional<FetchGrace::Epoch> begun;
  while (!order_.empty() && pages.size() < count.raw() && waiting.size() < 4 * count.raw()) {
    const auto [page, sequence] = order_.front();
    order_.pop_front();
    const auto entry = staged_.find(page);
    if (entry == staged_.end() || entry->second.sequence != sequence) continue;
    waiting.emplace_back(page, sequence);
    Staged& staged = entry->second;
    if (staged.progress != Progress::kWritten) continue;
    if (!staged.in_grace) {
      if (!begun) begun = grace_.Begin();
      staged.in_grace = true;
      staged.grace = *begun;
    }
    if (grace_.HasPassed(staged.grace)) pages.emplace_back(page);
  }
  order_.insert(order_.begin(), waiting.begin(), waiting.end());
  return pages;
}

LocalMemory::DropResult LocalMemory::Drop(PageIndex page) {
  MutexLock lock(mu_);
  const auto entry = staged_.find(page.raw());
  if (entry == staged_.end() || !entry->second.in_grace || !grace_.HasPassed(entry->second.grace)) {
    return DropResult::kStays;
  }
  const bool zero = entry->second.slot == kNoSlot;
  Unstage(entry);
  gone_ += !zero;
  return zero ? DropResult::kDroppedZero : DropResult::kDropped;
}

void LocalMemory::LeaveFirst(PageRange pages) {
  MutexLock lock(mu_);
  for (PageIndex page = pages.first; page < pages.end(); ++page) {
    if (pinned_.contains(page.raw()) || !leaving_first_.insert(page.raw()).second) continue;
    leaving_.push_back(page.raw());
  }
}

absl::Status LocalMemory::Pin(PageRange pages) {
  MutexLock lock(mu_);
  uint64_t added = 0;
  for (PageIndex page = pages.first; page < pages.end(); ++page) {
    added += !pinned_.contains(page.raw());
  }
  const Limits now = limits();
  const uint64_t others = aside_.size() + kMarginsUnpinned * now.margin;
  const uint64_t most = now.room - std::min(now.room, others);
  if (pinned_.size() + added > most) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "pinning ", added * kPageSize, " bytes does not fit: of the budget of ",
        now.budget * kPageSize, " bytes ", most * kPageSize, " may be pinned, and ",
        pinned_.size() * kPageSize, " are; unpin others, or open it with more local memory"));
  }
  for (PageIndex page = pages.first; page < pages.end(); ++page) {
    leaving_first_.erase(page.raw());
    if (pinned_.contains(page.raw())) continue;
    const bool resident = aside_.erase(page.raw()) > 0 || TakeFromPolicy(page);
    pinned_[page.raw()] = resident;
    pinned_resident_ += resident;
  }
  return absl::OkStatus();
}

void LocalMemory::Unpin(PageRange pages) {
  MutexLock lock(mu_);
  for (PageIndex page = pages.first; page < pages.end(); ++page) {
    const auto pin = pinned_.find(page.raw());
    if (pin == pinned_.end()) continue;
    const bool resident = pin->second;
    pinned_.erase(pin);
    pinned_resident_ -= resident;
    if (resident) policy_->OnFill(page, FillCause::kDemand);
  }
}

PageCount LocalMemory::RoomBesidePinned() const {
  MutexLock lock(mu_);
  return PageCount(limits().room - pinned_.size() - aside_.size());
}

LocalMemory::Standing LocalMemory::BeginKeptWrite(PageIndex page, const std::byte* bytes) {
  const Hash hash = HashOf(bytes);
  MutexLock lock(mu_);
  if (writing_.contains(page.raw())) return Standing::kBusy;
  const auto known = known_.find(page.raw());
  if (known != known_.end() && known->second == hash) return Standing::kClean;
  // Until it is acknowledged, the server has the one or the other.
  if (known != known_.end()) known_.erase(known);
  writing_.insert(page.raw());
  kept_[page.raw()] = hash;
  return Standing::kDirty;
}

void LocalMemory::EndKeptWrites(const std::vector<PageIndex>& pages, bool written) {
  MutexLock lock(mu_);
  for (PageIndex page : pages) {
    writing_.erase(page.raw());
    const auto kept = kept_.find(page.raw());
    if (kept == kept_.end()) continue;
    if (written) Know(page, kept->second);
    kept_.erase(kept);
  }
  if (written) stats_.written_pages_total += pages.size();
}

bool LocalMemory::IsUnwritten(PageIndex page) const { return CountUnwritten({&page, 1}) > 0; }

uint64_t LocalMemory::CountUnwritten(std::span<const PageIndex> pages) const {
  MutexLock lock(mu_);
  return static_cast<uint64_t>(std::count_if(
      pages.begin(), pages.end(), [this](PageIndex page) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        const auto entry = staged_.find(page.raw());
        return entry != staged_.end() && entry->second.progress != Progress::kWritten;
      }));
}

void LocalMemory::SetHold(bool hold) {
  MutexLock lock(mu_);
  hold_writes_ = hold;
}

bool LocalMemory::IsQuiet() const {
  MutexLock lock(mu_);
  if (!writing_.empty()) return false;
  for (const auto& [page, sequence] : unwritten_) {
    const auto entry = staged_.find(page);
    if (entry != staged_.end() && entry->second.sequence == sequence) return false;
  }
  return true;
}

void LocalMemory::HoldWriter(PageIndex page) {
  MutexLock lock(mu_);
  held_writers_.push_back({page, std::chrono::steady_clock::now()});
  woken_ = true;
  excess_.SignalAll();
}

std::vector<LocalMemory::HeldWriter> LocalMemory::TakeHeldWriters() {
  MutexLock lock(mu_);
  return std::exchange(held_writers_, {});
}

LocalMemoryStats LocalMemory::Stats() const {
  MutexLock lock(mu_);
  LocalMemoryStats stats = stats_;
  stats.pinned_pages = pinned_.size();
  if (policy_ != nullptr) {
    stats.resident_pages = Resident();
    stats.budget_pages = limits().budget;
  }
  stats.staged_pages = staged_.size();
  return stats;
}

}  // namespace faultline
