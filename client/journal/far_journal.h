// SPDX-License-Identifier: Apache-2.0
//
// FarJournal: what of an attachment with far memory outlives its agent, in files that are mapped
// shared: the staged pages, and where the content of each other page is.
//
// An agent can be killed between any two instructions. What its successor finds of a page, at each
// point of the order of evictor.h, and what it makes of it:
//
//   in the target | slot    | byte of the page     | so its content is
//   --------------+---------+----------------------+---------------------------------------------
//   there         | any     | any                  | in the target: resident, and dirty as far as
//                 |         |                      | is known. (A fill was not noted, or a batch
//                 not |         |                      | taken yet.) Its slot is given up. Only
//                 where |         |                      | the byte is kZero it stays so: see below
//   missing       | has it  | any                  | in the slot: staged, and written again
//   missing       | none    | kPresent, in a batch | in the batch: staged. The batch is the command
//                 |         | that was not ended   | memory of the eviction helper, or Batch
//   missing       | none    | kPresent, else       | zero: it was discarded
//   missing       | none    | kStagedZero          | zero, and perhaps not at the server
//   missing       | none    | kZero                | zero: it was discarded
//   missing       | none    | kAtServer            | at the server, acknowledged
//   missing       | none    | kUntouched           | what it was in the beginning: zero in fresh
//                 |         |                      | memory, at the server elsewhere
//
//   step of the eviction                          kPresent
//     taken by the helper, or the batch filled    kPresent, in a batch; then missing
//     Fill of a slot, SetSlot, Note(kAtServer)    the slot has it
//     EndBatch()                                  the batch has nothing
//     written, acknowledged                       no change: it is written again in doubt
//     ClearSlot (dropped)                         kAtServer
//   return to the target                          there; Note(kPresent); then ClearSlot
//   discard (its event is in the journal)         Note(kZero); ClearSlot; then the event counts as
//                                                 applied
//
// A page that was discarded, and is there all the same, may be one that its thread is about to
// drop: the kernel tells first and drops later. So it never leaves from there: it stays in the
// target.
//
// Writes of the agent that was killed are fenced by the next one's epoch; those that were done were
// of content that is in a slot still.
//
// Thread-safe as far as pages and slots are different ones. What is to be stored to is allocated
// before, so that no store can fail.
#ifndef FAULTLINE_CLIENT_JOURNAL_FAR_JOURNAL_H_
#define FAULTLINE_CLIENT_JOURNAL_FAR_JOURNAL_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "client/journal/shared_file.h"
#include "proto/page.h"

namespace faultline {

// Where the content of a page is that is neither in the target nor staged with bytes.
enum class PageHome : uint8_t {
  kUntouched = 0,
  kPresent,
  kZero,
  kAtServer,
  kStagedZero,
};

class FarJournal {
 public:
  static constexpr size_t kMaxBatch = 256;
  static constexpr uint32_t kSlotsAtATime = 256;

  // Pages that are being taken out of a memory that does not keep them by itself. The successor
  // takes those whose outcome says so (PageExtractor's Extraction::kTaken, 0) for taken.
  struct Batch {
    std::atomic<uint64_t> count;
    std::array<uint64_t, kMaxBatch> pages;
    std::array<uint8_t, kMaxBatch> outcomes;
    alignas(kPageSize) std::array<std::byte, kMaxBatch * kPageSize> bytes;
  };

  // Of the pages of `range`, and for so many slots at most. RESOURCE_EXHAUSTED where there is no
  // space for the first slots.
  static absl::StatusOr<std::shared_ptr<FarJournal>> Create(const std::string& directory,
                                                            PageRange range, uint64_t slots);
  static absl::StatusOr<std::shared_ptr<FarJournal>> Open(const std::string& directory,
                                                          PageRange range, uint64_t slots);

  // REQUIRES of Note(): the pages are in `range`, and allocated.
  absl::Status AllocatePages(PageRange pages);
  void Note(PageRange pages, PageHome home);
  PageHome Get(PageIndex page) const { return home(page).load(std::memory_order_relaxed); }
  // The pages from the front of `pages` that have the same home, in number.
  PageCount RunOfSameHome(PageRange pages) const;

  // The first page that no area has had yet (AreaScanner). Any one from there on is kUntouched.
  PageIndex next_page() const { return PageIndex(head().next_page.load()); }
  void set_next_page(PageIndex page) { head().next_page.store(page.raw()); }

  // Slots [0, slots()) can be stored to; there are max_slots() at most. One caller of AddSlots() at
  // a time. False where there is no space for more.
  uint64_t slots() const { return head().slots.load(); }
  uint64_t max_slots() const { return max_slots_; }
  bool AddSlots();
  std::byte* SlotBytes(uint32_t slot) const { return slot_bytes_ + slot * kPageSize; }
  // Its bytes are in place from here on.
  void SetSlot(uint32_t slot, PageIndex page) { Store(slot, page.raw() + 1); }
  void ClearSlot(uint32_t slot) { Store(slot, 0); }
  // Whether it has a page.
  bool SlotPage(uint32_t slot, PageIndex* page) const;

  // Of the one thread that evicts; null before the first call where there is no space.
  Batch* batch();
  // What the last agent has left; null where that had none.
  const Batch* left_batch() const { return head().has_batch.load() ? batch_ : nullptr; }

 private:
  struct Head {
    std::atomic<uint64_t> magic;
    std::atomic<uint64_t> next_page;
    std::atomic<uint64_t> slots;
    std::atomic<bool> has_batch;
  };
  using Home = std::atomic<PageHome>;
  using SlotRecord = std::atomic<uint64_t>;  // the page, plus 1
  static_assert(Home::is_always_lock_free && sizeof(Home) == 1);
  static_assert(SlotRecord::is_always_lock_free);

  FarJournal(PageRange range, uint64_t slots, SharedFile homes, SharedFile staged);

  Head& head() const { return *reinterpret_cast<Head*>(staged_.bytes().data()); }
  Home& home(PageIndex page) const {
    return reinterpret_cast<Home*>(homes_.bytes().data())[(page - range_.first).raw()];
  }
  void Store(uint32_t slot, uint64_t record);

  const PageRange range_;
  const uint64_t max_slots_;
  const SharedFile homes_;   // one byte for each page
  const SharedFile staged_;  // the head, the batch, a record for each slot, and their bytes
  Batch* batch_;
  SlotRecord* records_;
  std::byte* slot_bytes_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_JOURNAL_FAR_JOURNAL_H_
