// SPDX-License-Identifier: Apache-2.0
//
// The text form of an AttachmentRecord: JSON, in the file "record" of an attachment's directory.
#ifndef FAULTLINE_CLIENT_JOURNAL_ATTACHMENT_RECORD_H_
#define FAULTLINE_CLIENT_JOURNAL_ATTACHMENT_RECORD_H_

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>

#include "client/journal/attachment_journal.h"

namespace faultline {

std::string EncodeRecord(const AttachmentRecord& record);
// DATA_LOSS, saying what is wrong, for anything but what EncodeRecord() makes.
absl::StatusOr<AttachmentRecord> DecodeRecord(absl::string_view text);

absl::Status WriteRecord(const AttachmentRecord& record, const std::string& directory);

// DATA_LOSS, saying what is wrong, for anything but what WriteRecord() has written.
absl::StatusOr<AttachmentRecord> ReadRecord(const std::string& directory);

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_JOURNAL_ATTACHMENT_RECORD_H_
