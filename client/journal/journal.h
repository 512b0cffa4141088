// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_JOURNAL_JOURNAL_H_
#define FAULTLINE_CLIENT_JOURNAL_JOURNAL_H_

#include <absl/status/statusor.h>
#include <absl/time/time.h>

#include <memory>
#include <string>
#include <vector>

#include "client/journal/attachment_journal.h"
#include "client/unique_fd.h"

namespace faultline {

// What an agent that was killed has left of an attachment.
struct LeftAttachment {
  std::unique_ptr<AttachmentJournal> journal;
  UniqueFd pidfd;  // of its process, which had not ended
};

// The journals of an agent's attachments, each a directory named by its number in one directory
// that belongs to this agent alone: an agent that starts there goes on where the last was killed.
// Best on a tmpfs, as /run is: it is of no use once the machine has restarted. Thread-safe, but for
// TakeLeft().
class Journal {
 public:
  // Makes the directory, but not its parents, and locks it: waits for `patience` while another
  // agent has it, which may be about to end. FAILED_PRECONDITION where that goes on, or where the
  // directory cannot be written to.
  static absl::StatusOr<std::unique_ptr<Journal>> Open(const std::string& directory,
                                                       absl::Duration patience);

  // What an agent that was killed has left here, once. What was not completed, cannot be read, or
  // whose process has ended meanwhile is removed, with a word in the log. Volumes that were made
  // for such a process are of use to nobody, and are added to `*volumes`.
  std::vector<LeftAttachment> TakeLeft(std::vector<std::string>* volumes);

  // That of a new attachment, and its end.
  absl::StatusOr<std::unique_ptr<AttachmentJournal>> Create(AttachmentRecord record) const;
  void Remove(AttachmentId id) const;

  // The first number that no attachment has which was left here.
  AttachmentId next_id() const { return next_id_; }

 private:
  Journal(std::string directory, UniqueFd lock);
  std::vector<AttachmentId> Ids() const;
  std::string PathOf(AttachmentId id) const;

  const std::string directory_;
  const UniqueFd lock_;
  const AttachmentId next_id_;
};

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_JOURNAL_JOURNAL_H_
