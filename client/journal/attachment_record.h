// SPDX-License-Identifier: Apache-2.0
//
// The text form of an AttachmentRecord: JSON, in the file "record" of an attachment's directory.
#ifndef FAULTLINE_CLIENT_JOURNAL_ATTACHMENT_RECORD_H_
#define FAULTLINE_CLIENT_JOURNAL_ATTACHMENT_RECORD_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <string>

#include "client/journal/attachment_journal.h"

namespace faultline {

absl::Status WriteRecord(const AttachmentRecord& record, const std::string& directory);

// DATA_LOSS, saying what is wrong, for anything but what WriteRecord() has written.
absl::StatusOr<AttachmentRecord> ReadRecord(const std::string& directory);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_JOURNAL_ATTACHMENT_RECORD_H_
