// SPDX-License-Identifier: Apache-2.0
//
// AttachmentJournal: what a new agent needs to go on where an agent was killed, for one attachment,
// in files that are mapped shared.
//
// An agent can be killed between any two instructions, and the kernel tells each event once. So the
// kernel writes the events into the journal itself: the buffer of read() is a part of it. read() is
// not interrupted between taking an event off the queue and copying it out (fs/userfaultfd.c:
// userfaultfd_read looks for signals only where nothing is queued; the buffer is locked in memory,
// so that the copy cannot fault), so an event is either still in the queue or in the buffer.
//
//   1. read() into messages()
//   2. the events are applied to the address space and the page table, whose bits are in the
//      journal as they are set (TakenPages); doing that twice is doing it once
//   3. Commit() writes the new map beside the old one, and makes it the current with one store;
//      from then on the events count as applied, and are wiped
//
// A new agent finds the map of the last Commit() and, if it was killed between 1 and 3, the events
// to apply to it.
#ifndef FAULTLINE_CLIENT_JOURNAL_ATTACHMENT_JOURNAL_H_
#define FAULTLINE_CLIENT_JOURNAL_ATTACHMENT_JOURNAL_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "client/attachment.h"
#include "client/journal/far_journal.h"
#include "client/journal/far_record.h"
#include "client/journal/shared_file.h"
#include "client/journal/taken_pages.h"
#include "client/uffd/target_uffd.h"
#include "client/uffd/uffd.h"

namespace faultline {

// What does not change while an attachment lasts.
struct AttachmentRecord {
  AttachmentId id = 0;
  ProcessIdentity process;
  uint64_t uffd_inode = 0;        // by which the target's copy of the uffd is recognised
  bool target_keeps_uffd = true;  // had a copy when it was handed over
  std::string volume;
  AttachmentOptions options;
  std::vector<Mapping> mappings;  // as they were handed over
  std::optional<FarRecord> far;   // none: pages that are there stay
};

// The volume pages from the first to the last of `mappings`.
PageRange PagesOf(const std::vector<Mapping>& mappings);
// Those that the attachment has a state of.
PageRange PagesOf(const AttachmentRecord& record);

// Not thread-safe, but for what it says otherwise. Remove() it where the attachment ends.
class AttachmentJournal {
 public:
  // Makes the files in `directory`, which is created. `map` is the first one.
  static absl::StatusOr<std::unique_ptr<AttachmentJournal>> Create(const std::string& directory,
                                                                   AttachmentRecord record);
  // What an agent has left. NOT_FOUND where it had not got to completing it, DATA_LOSS where it is
  // damaged.
  static absl::StatusOr<std::unique_ptr<AttachmentJournal>> Open(const std::string& directory);

  const AttachmentRecord& record() const { return record_; }
  // One bit for each of PagesOf(record().mappings); null for far memory.
  const std::shared_ptr<TakenPages>& taken() const { return taken_; }
  // Null for all but far memory.
  const std::shared_ptr<FarJournal>& far() const { return far_; }

  // Where Uffd::Read() is to put what it reads.
  uffd_msg* messages() const;
  // Events that were read and not applied yet. FORK events are left out: the descriptor that such a
  // one names has died with its reader; *forks counts them.
  std::vector<UffdEvent> Unapplied(int* forks) const;

  // The map of the last Commit(); empty before the first.
  absl::string_view map() const;
  // Makes `map` the current one, and messages() applied. RESOURCE_EXHAUSTED where the file system
  // is full: all is as before then, and what comes after would be lost with this process.
  absl::Status Commit(absl::string_view map);

  // Deletes the files; what was handed out goes on to exist.
  void Remove();

 private:
  struct Head;

  AttachmentJournal(std::string directory, AttachmentRecord record)
      : directory_(std::move(directory)), record_(std::move(record)) {}
  Head& head() const;
  absl::Status CreatePages();
  absl::Status OpenPages();

  const std::string directory_;
  const AttachmentRecord record_;
  SharedFile head_;
  std::array<SharedFile, 2> maps_;  // the current one and the next
  std::shared_ptr<TakenPages> taken_;
  std::shared_ptr<FarJournal> far_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_JOURNAL_ATTACHMENT_JOURNAL_H_
