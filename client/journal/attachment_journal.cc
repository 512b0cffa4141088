// SPDX-License-Identifier: Apache-2.0
#include "client/journal/attachment_journal.h"

#include <absl/strings/str_cat.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>

#include "client/evict/local_memory.h"
#include "client/journal/attachment_record.h"

namespace faultline {
namespace {

constexpr uint64_t kMagic = 0x324a4c46'544c5546;  // any other number is another version's
constexpr size_t kFirstMapBytes = size_t{16} << 10;

std::string HeadPath(const std::string& directory) { return absl::StrCat(directory, "/head"); }
std::string MapPath(const std::string& directory, size_t slot) {
  return absl::StrCat(directory, "/map.", slot);
}
std::string TakenPath(const std::string& directory) { return absl::StrCat(directory, "/taken"); }

// In front of a map in its file.
using MapLength = uint64_t;

}  // namespace

struct AttachmentJournal::Head {
  uint64_t magic;
  // How many maps were committed; the current one is in the slot of that number, modulo 2.
  std::atomic<uint64_t> committed;
  // The commit that `messages` are to become a part of: they are applied once it has happened.
  std::atomic<uint64_t> messages_of;
  std::array<uffd_msg, Uffd::kReadBatch> messages;
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

PageRange PagesOf(const std::vector<Mapping>& mappings) {
  PageIndex first(kMaxVolumePages), end(0);
  for (const Mapping& mapping : mappings) {
    const PageIndex begin = PageIndex::Containing(mapping.offset);
    first = std::min(first, begin);
    end = std::max(end, begin + PageCount(mapping.size / kPageSize));
  }
  return PageRange::Between(std::min(first, end), end);
}

PageRange PagesOf(const AttachmentRecord& record) {
  if (record.far && record.far->is_whole_process()) {
    return {PageIndex(0), PageCount(record.far->volume_pages)};
  }
  return PagesOf(record.mappings);
}

AttachmentJournal::Head& AttachmentJournal::head() const {
  return *reinterpret_cast<Head*>(head_.bytes().data());
}

absl::StatusOr<std::unique_ptr<AttachmentJournal>> AttachmentJournal::Create(
    const std::string& directory, AttachmentRecord record) {
  if (mkdir(directory.c_str(), 0700) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot make the directory ", directory, ": ", strerror(errno)));
  }
  std::unique_ptr<AttachmentJournal> journal(new AttachmentJournal(directory, std::move(record)));
  const auto fail = [&](absl::Status status) {
    journal->Remove();
    return status;
  };
  absl::StatusOr<SharedFile> head = SharedFile::Create(HeadPath(directory), sizeof(Head));
  if (!head.ok()) return fail(head.status());
  journal->head_ = *std::move(head);
  // Where the limit does not allow it, a page in use stays most probably.
  static_cast<void>(mlock(journal->head_.bytes().data(), sizeof(Head)));
  for (size_t slot = 0; slot < journal->maps_.size(); ++slot) {
    absl::StatusOr<SharedFile> map = SharedFile::Create(MapPath(directory, slot), kFirstMapBytes);
    if (!map.ok()) return fail(map.status());
    journal->maps_[slot] = *std::move(map);
  }
  if (absl::Status status = journal->CreatePages(); !status.ok()) return fail(status);
  if (absl::Status status = WriteRecord(journal->record_, directory); !status.ok()) {
    return fail(status);
  }
  journal->head().magic = kMagic;
  journal->head().messages_of = 1;
  return journal;
}

absl::StatusOr<std::unique_ptr<AttachmentJournal>> AttachmentJournal::Open(
    const std::string& directory) {
  absl::StatusOr<SharedFile> head = SharedFile::Open(HeadPath(directory));
  if (!head.ok() || head->bytes().size() < sizeof(Head) ||
      reinterpret_cast<const Head*>(head->bytes().data())->committed == 0) {
    return absl::NotFoundError(absl::StrCat(directory, " was never completed"));
  }
  const auto damaged = [&](absl::string_view what) {
    return absl::DataLossError(absl::StrCat(directory, ": ", what));
  };
  absl::StatusOr<AttachmentRecord> record = ReadRecord(directory);
  if (!record.ok()) return record.status();
  std::unique_ptr<AttachmentJournal> journal(new AttachmentJournal(directory, *std::move(record)));
  journal->head_ = *std::move(head);
  if (journal->head().magic != kMagic) return damaged("it is of another version");
  static_cast<void>(mlock(journal->head_.bytes().data(), sizeof(Head)));
  for (size_t slot = 0; slot < journal->maps_.size(); ++slot) {
    absl::StatusOr<SharedFile> map = SharedFile::Open(MapPath(directory, slot));
    if (!map.ok()) return damaged(map.status().message());
    if (map->bytes().size() < sizeof(MapLength)) return damaged("a map is cut off");
    journal->maps_[slot] = *std::move(map);
  }
  if (absl::Status status = journal->OpenPages(); !status.ok()) return damaged(status.message());
  return journal;
}

absl::Status AttachmentJournal::CreatePages() {
  const PageRange pages = PagesOf(record_);
  if (record_.far) {
    absl::StatusOr<std::shared_ptr<FarJournal>> far =
        FarJournal::Create(directory_, pages, LocalMemory::SlotsFor(record_.far->limit));
    if (!far.ok()) return far.status();
    far_ = *std::move(far);
    return record_.far->is_whole_process() ? absl::OkStatus() : far_->AllocatePages(pages);
  }
  absl::StatusOr<SharedFile> taken =
      SharedFile::Create(TakenPath(directory_), TakenPages::FileSize(pages.count.raw()));
  if (!taken.ok()) return taken.status();
  taken_ = std::make_shared<TakenPages>(*std::move(taken));
  return absl::OkStatus();
}

absl::Status AttachmentJournal::OpenPages() {
  const PageRange pages = PagesOf(record_);
  if (record_.far) {
    absl::StatusOr<std::shared_ptr<FarJournal>> far =
        FarJournal::Open(directory_, pages, LocalMemory::SlotsFor(record_.far->limit));
    if (!far.ok()) return far.status();
    far_ = *std::move(far);
    return absl::OkStatus();
  }
  absl::StatusOr<SharedFile> taken = SharedFile::Open(TakenPath(directory_));
  if (!taken.ok()) return taken.status();
  if (taken->bytes().size() < TakenPages::FileSize(pages.count.raw())) {
    return absl::DataLossError("its bitmap is cut off");
  }
  taken_ = std::make_shared<TakenPages>(*std::move(taken));
  return absl::OkStatus();
}

uffd_msg* AttachmentJournal::messages() const { return head().messages.data(); }

std::vector<UffdEvent> AttachmentJournal::Unapplied(int* forks) const {
  std::vector<UffdEvent> events;
  *forks = 0;
  if (head().messages_of != head().committed + 1) return events;
  for (const uffd_msg& message : head().messages) {
    if (message.event == UFFD_EVENT_FORK) ++*forks;
    if (message.event == UFFD_EVENT_REMAP || message.event == UFFD_EVENT_REMOVE ||
        message.event == UFFD_EVENT_UNMAP) {
      events.push_back(DecodeMessage(message));
    }
  }
  return events;
}

absl::string_view AttachmentJournal::map() const {
  const uint64_t committed = head().committed;
  if (committed == 0) return "";
  const std::span<const std::byte> bytes = maps_[committed % maps_.size()].bytes();
  MapLength length;
  memcpy(&length, bytes.data(), sizeof length);
  if (length > bytes.size() - sizeof length) return "";
  return {reinterpret_cast<const char*>(bytes.data()) + sizeof length, length};
}

absl::Status AttachmentJournal::Commit(absl::string_view map) {
  Head& head = this->head();
  const uint64_t next = head.committed + 1;
  SharedFile& file = maps_[next % maps_.size()];
  const MapLength length = map.size();
  if (const size_t size = sizeof length + map.size(); size > file.bytes().size()) {
    if (absl::Status status = file.Grow(2 * size); !status.ok()) return status;
  }
  memcpy(file.bytes().data(), &length, sizeof length);
  memcpy(file.bytes().data() + sizeof length, map.data(), map.size());
  // Stores of one thread reach the file in the order in which they are made, whatever ends the
  // thread; it is the compiler that has to keep them in order.
  head.committed.store(next, std::memory_order_release);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  for (uffd_msg& message : head.messages) message.event = 0;
  head.messages_of.store(next + 1, std::memory_order_release);
  return absl::OkStatus();
}

void AttachmentJournal::Remove() {
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

}  // namespace faultline
