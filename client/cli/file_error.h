// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_CLI_FILE_ERROR_H_
#define FAULTLINE_CLIENT_CLI_FILE_ERROR_H_

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>

#include <cstring>

namespace faultline {

// "cannot open /images/disk: Permission denied".
inline absl::Status FileError(int error, absl::string_view what, absl::string_view path) {
  return absl::ErrnoToStatus(error, absl::StrCat("cannot ", what, " ", path));
}

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_CLI_FILE_ERROR_H_
