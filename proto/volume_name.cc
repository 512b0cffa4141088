// SPDX-License-Identifier: Apache-2.0
#include "proto/volume_name.h"

#include <absl/strings/ascii.h>
#include <absl/strings/escaping.h>
#include <absl/strings/str_cat.h>

#include <algorithm>

namespace faultline {

absl::Status CheckVolumeName(absl::string_view name) {
  const auto allowed = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  };
  if (!name.empty() && name.size() <= kMaxVolumeNameBytes && name[0] != '.' && name[0] != '-' &&
      std::all_of(name.begin(), name.end(), allowed)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", absl::CHexEscape(name.substr(0, kMaxVolumeNameBytes)),
                   "\" cannot be the name of a volume; allowed are 1 to ", kMaxVolumeNameBytes,
                   " letters, digits, '.', '_' and '-', the first one neither '.' nor '-'"));
}

}  // namespace faultline
