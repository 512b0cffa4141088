// SPDX-License-Identifier: Apache-2.0
#include "client/evict/takeover.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "client/evict/local_memory.h"
#include "client/page_table.h"
#include "client/process_maps.h"

namespace faultline {
namespace {

void MarkStaged(PageTable* table, PageIndex page) {
  for (PageState state : {PageState::kPresent, PageState::kEvicting, PageState::kStaged}) {
    table->Set(page, state);
  }
}

// What the journal has, but for slots.
void RestoreHomes(const FarRecord& record, const FarJournal& far, PagedMemory* memory) {
  PageTable& table = *memory->table;
  const PageIndex end = record.is_whole_process() ? far.next_page() : table.range().end();
  PageCount absent(0);
  for (PageRange rest = PageRange::Between(table.range().first, end); !rest.empty();) {
    const PageRange run{rest.first, far.RunOfSameHome(rest)};
    switch (far.Get(run.first)) {
      case PageHome::kPresent:
        table.SetAll(run, PageState::kPresent);
        break;
      case PageHome::kZero:
        table.SetAll(run, PageState::kZero);
        break;
      case PageHome::kUntouched:
        if (record.fresh) table.SetAll(run, PageState::kZero);
        break;
      case PageHome::kAtServer:
        absent += run.count;
        break;
      case PageHome::kStagedZero:
        for (PageIndex page = run.first; page < run.end(); ++page) {
          memory->local->StageLeft(page, nullptr);
        }
        break;
    }
    rest = PageRange::Between(run.end(), rest.end());
  }
  if (record.fresh) {
    table.SetAll(PageRange::Between(end, table.range().end()), PageState::kZero);
  }
  const std::vector<PageIndex> staged = memory->local->StagedPages();
  for (PageIndex page : staged) {
    if (far.Get(page) == PageHome::kAtServer) absent -= PageCount(1);
    MarkStaged(&table, page);
  }
  memory->local->OnFoundAbsent(absent);
}

absl::Status StageLeft(PagedMemory* memory, PageIndex page, const std::byte* bytes) {
  if (!memory->local->StageLeft(page, bytes)) {
    return absl::DataLossError("there is no space for pages that the last agent has taken out");
  }
  MarkStaged(memory->table.get(), page);
  return absl::OkStatus();
}

}  // namespace

absl::Status RestorePages(PagedMemory* memory, PageExtractor* extractor) {
  const std::shared_ptr<FarJournal>& far = memory->journal->far();
  RestoreHomes(*memory->journal->record().far, *far, memory);
  const PageExtractor::Leftover leftover = extractor->TakeLeftover();
  for (size_t i = 0; i < leftover.addresses.size(); ++i) {
    const std::optional<PageIndex> page = memory->space.PageAt(leftover.addresses[i]);
    if (!page) continue;
    absl::Status status = StageLeft(memory, *page, leftover.bytes.data() + i * kPageSize);
    if (!status.ok()) return status;
  }
  if (const FarJournal::Batch* const batch = far->left_batch(); batch != nullptr) {
    const size_t count = std::min<size_t>(batch->count.load(), FarJournal::kMaxBatch);
    for (size_t i = 0; i < count; ++i) {
      const PageIndex page(batch->pages[i]);
      if (batch->outcomes[i] != static_cast<uint8_t>(Extraction::kTaken)) continue;
      if (page < memory->table->range().first || page >= memory->table->range().end()) continue;
      absl::Status status = StageLeft(memory, page, batch->bytes.data() + i * kPageSize);
      if (!status.ok()) return status;
    }
    far->batch()->count.store(0);
  }
  extractor->Release();
  memory->table->KeepIn(far);
  return absl::OkStatus();
}

bool NoteResident(pid_t pid, PagedMemory* memory, PageExtractor* extractor) {
  // No event is read from here on. Where none is outstanding at the end either, what was seen at an
  // address is what belongs there.
  ExclusiveLock lock(memory->space.map_changing_lock());
  if (memory->space.unsettled() || memory->uffd->Probe() != SpaceState::kSettled) return false;
  const std::vector<AddressRange> ranges = memory->space.Ranges();
  std::vector<AddressRange> present;
  for (AddressRange range : ranges) {
    const std::optional<std::vector<AddressRange>> known = extractor->PresentIn(range);
    const std::vector<AddressRange> there = known ? *known : PresentPages(pid, range);
    present.insert(present.end(), there.begin(), there.end());
  }
  if (memory->uffd->Probe() != SpaceState::kSettled) return false;
  extractor->Recover(ranges);
  PageTable& table = *memory->table;
  const FarJournal& far = *memory->journal->far();
  for (AddressRange range : present) {
    memory->space.ForEachPart(range, [&](const AddressSpace::Part& part) {
      for (PageIndex page = part.first; page < part.pages().end(); ++page) {
        // Its thread may be about to drop it, and has told so: it does not leave.
        if (table.Get(page) == PageState::kZero && far.Get(page) == PageHome::kZero) continue;
        table.Set(page, PageState::kPresent);
        memory->local->OnFound(PageRange::Single(page));
      }
    });
  }
  return true;
}

}  // namespace faultline
