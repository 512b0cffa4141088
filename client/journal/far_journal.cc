// SPDX-License-Identifier: Apache-2.0
#include "client/journal/far_journal.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "proto/log.h"

namespace faultline {
namespace {

constexpr uint64_t kFarMagic = 0x31'4a52'4146'4c46;  // any other number is another version's

std::string HomesPath(const std::string& directory) { return absl::StrCat(directory, "/homes"); }
std::string StagedPath(const std::string& directory) { return absl::StrCat(directory, "/staged"); }

constexpr uint64_t WholePages(uint64_t bytes) {
  return (bytes + kPageSize - 1) / kPageSize * kPageSize;
}
constexpr uint64_t kBatchOffset = kPageSize;
constexpr uint64_t kRecordsOffset = kBatchOffset + WholePages(sizeof(FarJournal::Batch));
constexpr uint64_t BytesOffset(uint64_t slots) {
  return kRecordsOffset + WholePages(slots * sizeof(uint64_t));
}
constexpr uint64_t StagedSize(uint64_t slots) { return BytesOffset(slots) + slots * kPageSize; }

}  // namespace

FarJournal::FarJournal(PageRange range, uint64_t slots, SharedFile homes, SharedFile staged)
    : range_(range),
      max_slots_(slots),
      homes_(std::move(homes)),
      staged_(std::move(staged)),
      batch_(reinterpret_cast<Batch*>(staged_.bytes().data() + kBatchOffset)),
      records_(reinterpret_cast<SlotRecord*>(staged_.bytes().data() + kRecordsOffset)),
      slot_bytes_(staged_.bytes().data() + BytesOffset(slots)) {}

absl::StatusOr<std::shared_ptr<FarJournal>> FarJournal::Create(const std::string& directory,
                                                               PageRange range, uint64_t slots) {
  absl::StatusOr<SharedFile> homes =
      SharedFile::CreateSparse(HomesPath(directory), std::max<uint64_t>(range.count.raw(), 1));
  if (!homes.ok()) return homes.status();
  absl::StatusOr<SharedFile> staged =
      SharedFile::CreateSparse(StagedPath(directory), StagedSize(slots));
  if (!staged.ok()) return staged.status();
  if (absl::Status status = staged->Allocate(0, sizeof(Head)); !status.ok()) return status;
  std::shared_ptr<FarJournal> journal(
      new FarJournal(range, slots, *std::move(homes), *std::move(staged)));
  journal->head().magic = kFarMagic;
  if (!journal->AddSlots()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no space in ", directory, " for staged pages"));
  }
  return journal;
}

absl::StatusOr<std::shared_ptr<FarJournal>> FarJournal::Open(const std::string& directory,
                                                             PageRange range, uint64_t slots) {
  const auto damaged = [&](absl::string_view what) {
    return absl::DataLossError(absl::StrCat(directory, ": ", what));
  };
  absl::StatusOr<SharedFile> homes = SharedFile::Open(HomesPath(directory));
  if (!homes.ok()) return damaged(homes.status().message());
  absl::StatusOr<SharedFile> staged = SharedFile::Open(StagedPath(directory));
  if (!staged.ok()) return damaged(staged.status().message());
  if (homes->bytes().size() < range.count.raw() || staged->bytes().size() != StagedSize(slots)) {
    return damaged("what it has of far memory is cut off");
  }
  std::shared_ptr<FarJournal> journal(
      new FarJournal(range, slots, *std::move(homes), *std::move(staged)));
  if (journal->head().magic != kFarMagic) return damaged("it is of another version");
  if (journal->slots() > slots || journal->next_page() > range.end()) {
    return damaged("what it has of far memory is damaged");
  }
  return journal;
}

absl::Status FarJournal::AllocatePages(PageRange pages) {
  return homes_.Allocate((pages.first - range_.first).raw(), pages.count.raw());
}

void FarJournal::Note(PageRange pages, PageHome home) {
  if (pages.count == PageCount(1)) {
    this->home(pages.first).store(home, std::memory_order_relaxed);
  } else if (!pages.empty()) {
    memset(static_cast<void*>(&this->home(pages.first)), static_cast<int>(home), pages.count.raw());
  }
}

PageCount FarJournal::RunOfSameHome(PageRange pages) const {
  const PageHome first = Get(pages.first);
  PageIndex page = pages.first;
  while (page < pages.end() && Get(page) == first) ++page;
  return page - pages.first;
}

bool FarJournal::AddSlots() {
  const uint64_t have = slots();
  const uint64_t want = std::min<uint64_t>(have + kSlotsAtATime, max_slots_);
  if (want == have) return false;
  absl::Status status = staged_.Allocate(kRecordsOffset + have * sizeof(SlotRecord),
                                         (want - have) * sizeof(uint64_t));
  if (status.ok()) {
    status =
        staged_.Allocate(BytesOffset(max_slots_) + have * kPageSize, (want - have) * kPageSize);
  }
  if (!status.ok()) {
    LogWarning(absl::StrCat("far memory can stage no more than ", have,
                            " pages, and so evicts more slowly: ", status.message()));
    return false;
  }
  head().slots.store(want);
  return true;
}

// Stores of one thread reach the file in the order in which they are made, whatever ends the
// thread; it is the compiler that has to keep them in order.
void FarJournal::Store(uint32_t slot, uint64_t record) {
  std::atomic_signal_fence(std::memory_order_seq_cst);
  records_[slot].store(record, std::memory_order_release);
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

bool FarJournal::SlotPage(uint32_t slot, PageIndex* page) const {
  const uint64_t record = records_[slot].load(std::memory_order_relaxed);
  if (record == 0 || record - 1 >= range_.end().raw() || record - 1 < range_.first.raw()) {
    return false;
  }
  *page = PageIndex(record - 1);
  return true;
}

FarJournal::Batch* FarJournal::batch() {
  if (!head().has_batch.load()) {
    if (!staged_.Allocate(kBatchOffset, sizeof(Batch)).ok()) return nullptr;
    head().has_batch.store(true);
  }
  return batch_;
}

}  // namespace faultline
