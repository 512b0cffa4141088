// SPDX-License-Identifier: Apache-2.0
//
// LocalMemory: which pages of an attachment with far memory take up memory here, and what becomes
// of those that were taken out of the target's memory until they can be had from the server again.
//
//   resident   in the target's memory; the policy chooses among these
//   staged     taken out, and kept here: a fault takes such a page back without a round trip, and
//              nobody else has its content until its write is acknowledged. Staged pages are the
//              list of what is to be written, and the victim stage, in one
//
// Pinned pages are resident, or become it when they are next filled, and are none of the policy's.
// Nor are those that could not be taken out (locked, pinned by I/O, not writable), until some time
// later: where they leave no room for others, the budget is exceeded.
//
// A page whose content the server is known to have, by its 128-bit hash, is not written again. A
// page of zeros takes no memory while it is staged.
#ifndef FAULTLINE_CLIENT_EVICT_LOCAL_MEMORY_H_
#define FAULTLINE_CLIENT_EVICT_LOCAL_MEMORY_H_

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>
#include <absl/functional/function_ref.h>
#include <absl/status/status.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "client/evict/eviction_policy.h"
#include "client/evict/fetch_grace.h"
#include "client/evict/local_memory_limit.h"
#include "client/evict/local_memory_stats.h"
#include "client/journal/far_journal.h"
#include "client/source/page_sink.h"
#include "proto/latency_histogram.h"
#include "proto/mutex.h"
#include "proto/page.h"

namespace faultline {

// Thread-safe. Its lock comes after the map-changing lock of the attachment, and after none else;
// nothing is called with it held but the policy.
class LocalMemory {
 public:
  // The least budget that works: a few batches.
  static constexpr PageCount kMinBudget{256};

  // Of what `limit` allows, an eighth is for staged pages. At least kMinBudget is allowed. Staged
  // pages are kept in `journal`, for SlotsFor(limit) of them, and those that it has are staged;
  // null: in memory that ends with this process.
  LocalMemory(const LocalMemoryLimit& limit, std::unique_ptr<EvictionPolicy> policy,
              std::shared_ptr<FarJournal> journal = nullptr);
  ~LocalMemory();

  // The most pages that are ever staged.
  static uint64_t SlotsFor(const LocalMemoryLimit& limit);

  // What a forked child has of it: copies of the pages that are staged. It has all the room it
  // wants.
  std::unique_ptr<LocalMemory> Fork() const;

  // What carries bytes of the source holds one of its tokens.
  FetchGrace& grace() { return grace_; }

  // Where another agent has left it.

  // Those that are staged now.
  std::vector<PageIndex> StagedPages() const;
  // `page` was taken out of the memory; null: zeros. Nothing, where it is staged. False where there
  // is no room for it.
  bool StageLeft(PageIndex page, const std::byte* bytes);
  // `pages` are in the target's memory, whatever was known of them.
  void OnFound(PageRange pages);
  // So many pages are at the source only.
  void OnFoundAbsent(PageCount count);

  // Told by the fault pipeline, with the map-changing lock held.

  // `pages` were filled with the source's content (`bytes`; null: zeros).
  void OnFetched(PageRange pages, const std::byte* bytes, FillCause cause);
  // `pages`, which the target had discarded or never touched, were filled with zeros; it waits for
  // the first, if for any.
  void OnZeroed(PageRange pages);
  // `page`, which was staged, was filled with its content.
  void OnReturned(PageIndex page);
  // The target has discarded `pages`, of which `absent` were at the source only.
  void OnDiscarded(PageRange pages, PageCount absent);
  // Copies the content of a staged page, kPageSize bytes. False where it is not staged.
  bool CopyStaged(PageIndex page, std::byte* to) const;

  // A thread waits to write to `page`, which is resident and write-protected.
  void HoldWriter(PageIndex page);

  // Whether a fault for `page`, which is not staged, may take up room. Where not, it is noted, and
  // handed out by TakeDeferred() later.
  bool Admit(PageIndex page);
  // Whether there is room for pages that nobody waits for.
  bool HasRoomAhead() const;

  // For the Evictor, one thread.

  // Waits until there is something to evict, or until `deadline`, or Wake().
  void WaitForExcess(std::chrono::steady_clock::time_point deadline);
  // Waits until a write has ended, or until `deadline`, or Wake().
  void WaitForWake(std::chrono::steady_clock::time_point deadline);
  void Wake();
  // How many pages should leave now.
  PageCount Excess() const;
  // Chooses victims, leaving out pages of which a write is under way, and those that `stays` says.
  // They count neither as resident nor as staged until one of the following is called for each.
  void Choose(PageCount count, absl::FunctionRef<bool(PageIndex)> stays,
              std::vector<PageIndex>* victims);
  // It was taken out; whether the server has it as it is. REQUIRES: StageRoom() > 0.
  bool Stage(PageIndex page, const std::byte* bytes);
  // It is still there.
  void PutBack(PageIndex page);
  // It is still there, and cannot be taken out now: it is not chosen for a second or longer.
  void SetAside(PageIndex page);
  // Whether the budget is exceeded for such pages.
  bool ExceedsBudget() const;
  // There was none.
  void Lose(PageIndex page);
  PageCount StageRoom();  // for so many more there is room among the staged
  std::vector<PageIndex> TakeDeferred();

  // From here on there is room for all.
  void Lift();

  bool HasUnwritten() const;
  // The pages that are to be written next, ascending, at most `count`; their writes are under way
  // from here on. The bytes stay until the next Stage().
  std::vector<PageToWrite> TakeUnwritten(PageCount count);
  // The end of a write of TakeUnwritten(). Any thread.
  void OnWritten(const std::vector<PageIndex>& pages, bool ok);

  // From the start of a write, of evicted pages or of others, to its acknowledgement.
  LatencyHistogram& write_latency() { return write_latency_; }

  // The oldest staged pages whose content the server has, and of which no older bytes can be under
  // way any more. The caller makes sure that nothing else remembers what they were at the source,
  // and Drop()s them.
  std::vector<PageIndex> Droppable(PageCount count);
  enum class DropResult { kDropped, kDroppedZero, kStays };
  // Forgets `page`, unless it has changed since; kDroppedZero: the server has zeros there.
  DropResult Drop(PageIndex page);

  // On the word of the program.

  // These leave before what the policy chooses, unless they are filled anew before.
  void LeaveFirst(PageRange pages);
  // They stay, from here on or from when they are next filled. RESOURCE_EXHAUSTED, and nothing is
  // changed, where too little room would be left for the others.
  absl::Status Pin(PageRange pages);
  void Unpin(PageRange pages);
  // So many pages can be resident beside those that are pinned.
  PageCount RoomBesidePinned() const;

  // Writing pages that stay (Flusher).

  // What `bytes`, read from a page that is resident, are to the server.
  enum class Standing {
    kClean,  // it has them
    kDirty,  // it has others: a write of these is under way from here on
    kBusy,   // another write of the page is under way
  };
  Standing BeginKeptWrite(PageIndex page, const std::byte* bytes);
  // The end of those writes; where they were not `written`, nobody knows what the server has.
  void EndKeptWrites(const std::vector<PageIndex>& pages, bool written);
  // Whether `page` is staged and not written yet.
  bool IsUnwritten(PageIndex page) const;
  // How many of `pages` that is true of.
  uint64_t CountUnwritten(std::span<const PageIndex> pages) const;
  // From here on, until Release..., no write of a staged page begins.
  void HoldWrites() { SetHold(true); }
  void ReleaseWrites() { SetHold(false); }
  // Whether no write is under way, nor due.
  bool IsQuiet() const;

  struct HeldWriter {
    PageIndex page;
    std::chrono::steady_clock::time_point since;
  };
  std::vector<HeldWriter> TakeHeldWriters();

  LocalMemoryStats Stats() const;

 private:
  using Hash = std::array<uint64_t, 2>;
  enum class Progress : uint8_t { kUnwritten, kWriting, kWritten };
  struct Staged {
    uint32_t slot;  // kNoSlot: zeros
    Progress progress;
    bool in_grace;  // `grace` has begun
    uint64_t sequence;
    FetchGrace::Epoch grace;
    Hash hash;
  };
  static constexpr uint32_t kNoSlot = UINT32_MAX;
  static constexpr uint64_t kStageShare = 8;
  // Of a limit that is a part of what is touched: address space only, until it is used.
  static constexpr uint64_t kMostSlots = (uint64_t{4} << 30) / kPageSize;
  enum class Kind { kLimited, kForked };
  struct Limits {
    uint64_t budget, stage;
    uint64_t room;    // for resident pages
    uint64_t margin;  // eviction begins so many pages before the room ends
  };

  explicit LocalMemory(uint64_t staged_pages);  // of a forked child

  void Restore() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Put(PageIndex page, const std::byte* bytes, bool clean, const Hash& hash)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint32_t TakeSlot() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // For how many pages there are slots; more are made where fewer than `wanted` are left.
  uint64_t FreeSlots(uint64_t wanted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::byte* BytesOf(uint32_t slot) const {
    return journal_ != nullptr ? journal_->SlotBytes(slot) : bytes_.get() + slot * kPageSize;
  }
  static Hash HashOf(const std::byte* bytes);
  void Know(PageIndex page, const Hash& hash) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    known_[page.raw()] = hash;
  }
  void Unstage(absl::flat_hash_map<uint64_t, Staged>::iterator entry)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // `page` is resident from here on: for whoever cares, the policy or the pins.
  void Arrive(PageIndex page, FillCause cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether it was resident for the policy, which forgets it.
  bool TakeFromPolicy(PageIndex page) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ChooseFirst(PageCount count, absl::FunctionRef<bool(PageIndex)> stays,
                   std::vector<PageIndex>* victims) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SetHold(bool hold);
  static Limits LimitsFor(uint64_t budget);
  // Of the budget as it is now.
  Limits BudgetLimits() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // With the room that there has to be all the same.
  Limits limits() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The least room that goes on with what is pinned or set aside.
  uint64_t LeastRoom(const Limits& limits) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ReturnAside() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t ExcessNow() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t Resident() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return policy_->resident().raw() + chosen_ + pinned_resident_ + aside_.size();
  }

  const Kind kind_;
  const LocalMemoryLimit limit_;
  const uint64_t slots_;
  const std::shared_ptr<FarJournal> journal_;  // where the slots are; may be null: then
  const std::unique_ptr<std::byte[]> bytes_;   // their bytes; memory comes as they are first used
  FetchGrace grace_;
  LatencyHistogram write_latency_;

  mutable Mutex mu_;
  CondVar excess_;
  bool woken_ ABSL_GUARDED_BY(mu_) = false;
  bool lifted_ ABSL_GUARDED_BY(mu_) = false;
  const std::unique_ptr<EvictionPolicy> policy_ ABSL_PT_GUARDED_BY(mu_);
  uint64_t chosen_ ABSL_GUARDED_BY(mu_) = 0;  // victims that are neither staged nor back
  absl::flat_hash_map<uint64_t, Hash> known_
      ABSL_GUARDED_BY(mu_);  // resident, as the server has it
  absl::flat_hash_map<uint64_t, Staged> staged_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<uint64_t> writing_ ABSL_GUARDED_BY(mu_);
  std::vector<uint32_t> free_slots_ ABSL_GUARDED_BY(mu_);  // of those below next_slot_
  uint32_t next_slot_ ABSL_GUARDED_BY(mu_) = 0;
  bool full_ ABSL_GUARDED_BY(mu_) = false;  // there is no space for more slots
  uint64_t gone_ ABSL_GUARDED_BY(mu_) = 0;  // pages that the server alone has
  // In the order in which they were staged; those whose sequence is another by now count no more.
  std::deque<std::pair<uint64_t, uint64_t>> order_ ABSL_GUARDED_BY(mu_);
  std::deque<std::pair<uint64_t, uint64_t>> unwritten_ ABSL_GUARDED_BY(mu_);
  uint64_t next_sequence_ ABSL_GUARDED_BY(mu_) = 1;
  std::vector<PageIndex> deferred_ ABSL_GUARDED_BY(mu_);
  std::vector<HeldWriter> held_writers_ ABSL_GUARDED_BY(mu_);
  bool hold_writes_ ABSL_GUARDED_BY(mu_) = false;
  absl::flat_hash_map<uint64_t, Hash> kept_ ABSL_GUARDED_BY(mu_);    // being written, resident
  absl::flat_hash_map<uint64_t, bool> pinned_ ABSL_GUARDED_BY(mu_);  // and whether it is resident
  uint64_t pinned_resident_ ABSL_GUARDED_BY(mu_) = 0;
  absl::flat_hash_set<uint64_t> aside_ ABSL_GUARDED_BY(mu_);  // resident
  // In order, and since when; those that are not in the set any more count no more.
  std::deque<std::pair<uint64_t, std::chrono::steady_clock::time_point>> aside_since_
      ABSL_GUARDED_BY(mu_);
  // Those to leave first, in order; what is not in the set any more counts no more.
  std::deque<uint64_t> leaving_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_set<uint64_t> leaving_first_ ABSL_GUARDED_BY(mu_);
  LocalMemoryStats stats_ ABSL_GUARDED_BY(mu_);
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_LOCAL_MEMORY_H_
