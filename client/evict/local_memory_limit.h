// SPDX-License-Identifier: Apache-2.0
#ifndef FAULTLINE_CLIENT_EVICT_LOCAL_MEMORY_LIMIT_H_
#define FAULTLINE_CLIENT_EVICT_LOCAL_MEMORY_LIMIT_H_

#include <absl/status/statusor.h>
#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>

#include "proto/units.h"

namespace faultline {

// How much of its far memory an attachment may have here.
struct LocalMemoryLimit {
  uint64_t bytes = uint64_t{256} << 20;
  // Not 0: such a part, in percent, of what it has touched and not given up, at whatever time;
  // `bytes` is the most then, 0 for no bound. 100: nothing leaves but for that.
  uint32_t percent = 0;

  std::string ToString() const {
    return percent != 0 ? absl::StrCat(percent, "%") : FormatExactBytes(bytes);
  }
};

// "256MiB", or "25%".
inline absl::StatusOr<LocalMemoryLimit> ParseLocalMemory(absl::string_view text) {
  if (!absl::EndsWith(text, "%")) {
    absl::StatusOr<uint64_t> bytes = ParseBytes(text);
    if (!bytes.ok()) return bytes.status();
    return LocalMemoryLimit{*bytes, 0};
  }
  uint32_t percent = 0;
  if (absl::SimpleAtoi(text.substr(0, text.size() - 1), &percent) && percent >= 1 &&
      percent <= 100) {
    return LocalMemoryLimit{0, percent};
  }
  return absl::InvalidArgumentError(
      absl::StrCat("\"", text, "\" is no part of memory: give 1% to 100%, or a size"));
}

}  // namespace faultline

#endif  // FAULTLINE_CLIENT_EVICT_LOCAL_MEMORY_LIMIT_H_
